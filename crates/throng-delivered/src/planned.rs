//! The plan of a run, row by row: written once when the run is planned, read by the worker that sends it
//! and by the process that computes the delivered state afterwards.
//!
//! A sealed file with sections by phase and shard. An entry is the ordinal (u32), what to send (0 and
//! cells, or 1 and a reason), and in a removal the cells of the removed row.

use std::path::Path;

use serde::{Deserialize, Serialize};
use throng_store::Operation;

use crate::prepared::{read_cells, write_cells};
use crate::row::PreparedRow;
use crate::sealed::{Binding, IdentifierKeys, SealedError, SealedFile, SealedWriter};

/// Rows added before anything is removed.
pub(crate) const PHASE_ADD: u8 = 0;
/// Removals.
pub(crate) const PHASE_REMOVE: u8 = 1;
/// Rows added again after the removals, because a removal names one of their identifiers.
pub(crate) const PHASE_RE_ADD: u8 = 2;

/// Rows of a section: a batch reads whole sections.
const SECTION_ROWS: usize = 8_192;

/// One user's part in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanEntry {
    /// The user's ordinal in its shard.
    pub ordinal: u32,
    /// The row to send, or the reason why none is sent.
    pub send: Result<PreparedRow, String>,
    /// In a removal, the complete row that is removed.
    pub removed_row: Option<PreparedRow>,
}

impl PlanEntry {
    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.ordinal.to_le_bytes());
        match &self.send {
            Ok(row) => {
                bytes.push(0);
                write_cells(row, bytes);
            }
            Err(reason) => {
                let reason = &reason.as_bytes()[..reason.len().min(255)];
                bytes.extend_from_slice(&[1, reason.len() as u8]);
                bytes.extend_from_slice(reason);
            }
        }
        if let Some(row) = &self.removed_row {
            write_cells(row, bytes);
        }
    }

    pub(crate) fn read(bytes: &[u8], removes: bool) -> Option<(Self, &[u8])> {
        let (ordinal, rest) = bytes.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first()?;
        let (send, rest) = match kind {
            0 => {
                let (row, rest) = read_cells(rest)?;
                (Ok(row), rest)
            }
            1 => {
                let (length, rest) = rest.split_first()?;
                let (reason, rest) = rest.split_at_checked(usize::from(*length))?;
                (Err(std::str::from_utf8(reason).ok()?.to_owned()), rest)
            }
            _ => return None,
        };
        let (removed_row, rest) = if removes {
            let (row, rest) = read_cells(rest)?;
            (Some(row), rest)
        } else {
            (None, rest)
        };
        Some((Self { ordinal: u32::from_le_bytes(*ordinal), send, removed_row }, rest))
    }
}

/// The metadata of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanMeta {
    /// How rows are added: `Add`, or `Replace` in a replace session.
    pub put: Operation,
    /// The platform's keys, in the order of the cells of added rows.
    pub keys: Vec<String>,
    /// The same for removed rows: the keys with which they were added.
    pub remove_keys: Vec<String>,
    /// Rows of each phase.
    pub rows: [u64; 3],
    /// A fingerprint of the identifiers' SQL, key and columns at the time of planning, and the audience's name.
    pub identifiers: String,
    /// The tables that the identifiers were read from: see [`Scan::tables`](crate::Scan::tables).
    #[serde(default)]
    pub tables: Option<String>,
    /// The id of an audience on the platform that the sync did not create, and whose list the run replaces. Such a run
    /// is sent after an approval only. `None` also in plans of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopts: Option<String>,
}

/// An open plan.
pub struct PlanFile {
    file: SealedFile,
    /// Its metadata.
    pub meta: PlanMeta,
    /// The sections by phase and shard: number, and rank of its first row among the rows of its
    /// operation.
    order: Vec<(usize, u64)>,
}

impl std::fmt::Debug for PlanFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlanFile").field("meta", &self.meta).finish_non_exhaustive()
    }
}

impl PlanFile {
    /// Opens a plan.
    ///
    /// # Errors
    /// [`SealedError`].
    pub fn open(path: &Path, keys: &IdentifierKeys, binding: Binding) -> Result<Self, SealedError> {
        let file = SealedFile::open(path, keys, binding)?;
        let meta: PlanMeta = serde_json::from_slice(&file.meta)
            .map_err(|_| file.damaged("its metadata cannot be read"))?;
        let mut next = [0, 0, meta.rows[usize::from(PHASE_ADD)]];
        let mut sorted: Vec<usize> = (0..file.sections.len()).collect();
        sorted.sort_by_key(|at| (file.sections[*at].kind, file.sections[*at].shard));
        let mut order = Vec::with_capacity(sorted.len());
        for at in sorted {
            let section = &file.sections[at];
            let next_rank = next.get_mut(usize::from(section.kind));
            let next_rank =
                next_rank.ok_or_else(|| file.damaged("a section has no valid phase"))?;
            order.push((at, *next_rank));
            *next_rank += section.rows;
        }
        Ok(Self { file, meta, order })
    }

    fn operation(&self, phase: u8) -> Operation {
        if phase == PHASE_REMOVE { Operation::Remove } else { self.meta.put }
    }

    fn section(&self, at: usize) -> Result<Vec<PlanEntry>, SealedError> {
        let bytes = self.file.read(at)?;
        let removes = self.file.sections[at].kind == PHASE_REMOVE;
        let (mut entries, mut rest) = (Vec::new(), bytes.as_slice());
        while !rest.is_empty() {
            let read = PlanEntry::read(rest, removes);
            let (entry, after) =
                read.ok_or_else(|| self.file.damaged("a section cannot be read"))?;
            entries.push(entry);
            rest = after;
        }
        Ok(entries)
    }

    /// The entries of an operation with these ranks.
    ///
    /// # Errors
    /// [`SealedError`], also if the plan does not have all of them.
    pub fn rows(
        &self,
        operation: Operation,
        first: u64,
        count: u64,
    ) -> Result<Vec<PlanEntry>, SealedError> {
        let mut found = Vec::new();
        for (at, rank) in self.order.iter().copied() {
            let section = &self.file.sections[at];
            let is_same = self.operation(section.kind) == operation;
            if !is_same || rank + section.rows <= first || rank >= first + count {
                continue;
            }
            let from = first.saturating_sub(rank);
            let to = (first + count - rank).min(section.rows);
            let entries = self.section(at)?.into_iter().skip(from as usize);
            found.extend(entries.take((to - from) as usize));
        }
        if found.len() as u64 != count {
            return Err(self.file.damaged("rows are missing"));
        }
        Ok(found)
    }

    /// The entries of a shard.
    pub(crate) fn shard(&self, shard: u8) -> Result<Vec<RankedEntry>, SealedError> {
        let mut found = Vec::new();
        for (at, rank) in self.order.iter().copied() {
            let section = &self.file.sections[at];
            if section.shard == shard {
                let operation = self.operation(section.kind);
                let entries = self.section(at)?.into_iter().zip(rank..);
                found.extend(entries.map(|(entry, rank)| RankedEntry { operation, rank, entry }));
            }
        }
        Ok(found)
    }
}

/// An entry of a plan, with its place among the entries of its operation.
pub(crate) struct RankedEntry {
    pub(crate) operation: Operation,
    pub(crate) rank: u64,
    pub(crate) entry: PlanEntry,
}

/// Writes a plan, section by section.
pub(crate) struct PlanWriter {
    writer: SealedWriter,
    rows: [u64; 3],
}

impl PlanWriter {
    pub(crate) fn new(writer: SealedWriter) -> Self {
        Self { writer, rows: [0; 3] }
    }

    pub(crate) fn shard(
        &mut self,
        phase: u8,
        shard: u8,
        entries: &[PlanEntry],
    ) -> Result<(), SealedError> {
        for entries in entries.chunks(SECTION_ROWS) {
            let mut bytes = Vec::new();
            entries.iter().for_each(|entry| entry.write(&mut bytes));
            let rows = entries.len() as u64;
            self.rows[usize::from(phase)] += rows;
            self.writer.section(phase, shard, rows, bytes)?;
        }
        Ok(())
    }

    /// The written rows of each phase.
    pub(crate) fn rows(&self) -> [u64; 3] {
        self.rows
    }

    pub(crate) fn finish(self, meta: &PlanMeta) -> Result<(), SealedError> {
        self.writer.finish(&serde_json::to_vec(meta).unwrap_or_default())
    }
}
