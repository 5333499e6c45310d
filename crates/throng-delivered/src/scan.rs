//! The identifier rows of one pass over a source, by user shard. Kept in memory up to a limit, beyond it in
//! a sealed file that is removed with the scan.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use roaring::RoaringBitmap;
use throng_membership::MemberSet;
use throng_model::SHARD_COUNT;

use crate::prepared::{InvalidPreparedRow, decode_with_notes, encode_with_notes};
use crate::row::{IdentifierRow, Note, Prepared, Reasons, Skip};
use crate::sealed::{Binding, IdentifierKeys, SealedError, SealedFile, SealedWriter};

/// A row with the notes of its preparation.
pub(crate) type RowWithNotes = (Prepared, Vec<Note>);

/// Usable rows of one user, at most. A key with more of them is a placeholder for many users, such as that of
/// all guests of a shop.
const MAX_ROWS_OF_USER: usize = 1_000;
/// The names of the files of scans begin with it.
pub const SCAN_PREFIX: &str = "scan-";
/// Users with more than [`MAX_ROWS_OF_USER`] rows.
const SKIP_TOO_MANY_ROWS: &str = "more_than_1000_identifier_rows";

/// The rows of one user.
#[derive(Default)]
struct RowsOfUser(Vec<RowWithNotes>);

impl RowsOfUser {
    fn has_too_many(&self) -> bool {
        self.0.first().is_some_and(|(row, _)| *row == Err(Skip(SKIP_TOO_MANY_ROWS)))
    }

    fn push(&mut self, row: RowWithNotes) {
        if self.has_too_many() {
            return;
        }
        self.0.push(row);
        if self.0.len() > 2 * MAX_ROWS_OF_USER {
            self.reduce();
        }
    }

    /// Keeps each usable row once, in an order that does not depend on that of the query: another order would look
    /// like changed identifiers and would be sent again. Without a usable row, one that says why.
    fn reduce(&mut self) {
        // `Ok` is less than `Err`.
        self.0.sort_unstable();
        self.0.dedup_by(|later, earlier| later.0 == earlier.0);
        let usable = self.0.iter().take_while(|(row, _)| row.is_ok()).count();
        self.0.truncate(usable.max(1));
        if self.0.len() > MAX_ROWS_OF_USER {
            self.0 = vec![(Err(Skip(SKIP_TOO_MANY_ROWS)), Vec::new())];
        }
    }
}

/// Collects the rows of a scan.
pub struct ScanWriter {
    reasons: Reasons,
    buffers: Vec<Vec<u8>>,
    buffered_bytes: usize,
    max_buffered_bytes: usize,
    path: PathBuf,
    keys: IdentifierKeys,
    salt: [u8; 32],
    spill: Option<(SealedWriter, File)>,
    cells: usize,
}

fn binding() -> Binding {
    Binding { purpose: "scan", account: String::new(), sync: String::new(), version: String::new() }
}

impl ScanWriter {
    /// A scan of rows of `cells` cells. Keeps `max_buffered_bytes` in memory and spills the rest to `path`, whose name
    /// has to begin with [`SCAN_PREFIX`], so that the file is removed after a crash.
    pub fn new(
        reasons: Reasons,
        cells: usize,
        max_buffered_bytes: usize,
        path: &Path,
        keys: &IdentifierKeys,
        salt: [u8; 32],
    ) -> Self {
        Self {
            reasons,
            buffers: vec![Vec::new(); SHARD_COUNT],
            buffered_bytes: 0,
            max_buffered_bytes,
            path: path.to_owned(),
            keys: keys.clone(),
            salt,
            spill: None,
            cells,
        }
    }

    /// Adds a row of a user.
    ///
    /// # Errors
    /// [`SealedError`] if the file system fails, or if the platform does not have a reason.
    pub fn push(
        &mut self,
        shard: u8,
        ordinal: u32,
        row: &IdentifierRow,
    ) -> Result<(), SealedError> {
        let buffer = &mut self.buffers[usize::from(shard)];
        let before = buffer.len();
        buffer.extend_from_slice(&ordinal.to_le_bytes());
        buffer.extend_from_slice(&[0; 4]);
        let damaged =
            || SealedError::Damaged { path: self.path.clone(), why: "a row has an unknown reason" };
        encode_with_notes(&row.row, &row.notes, self.reasons, buffer)
            .map_err(|InvalidPreparedRow| damaged())?;
        let length = (buffer.len() - before - 8) as u32;
        buffer[before + 4..before + 8].copy_from_slice(&length.to_le_bytes());
        self.buffered_bytes += buffer.len() - before;
        if self.buffered_bytes > self.max_buffered_bytes { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), SealedError> {
        let (mut spill, lock) = match self.spill.take() {
            Some(spill) => spill,
            None => self.create()?,
        };
        for (shard, buffer) in self.buffers.iter_mut().enumerate() {
            if !buffer.is_empty() {
                spill.section(0, shard as u8, 0, std::mem::take(buffer))?;
            }
        }
        self.buffered_bytes = 0;
        self.spill = Some((spill, lock));
        Ok(())
    }

    /// Creates the file, and locks it: [`remove_stale_scans`] of another process leaves it.
    fn create(&self) -> Result<(SealedWriter, File), SealedError> {
        loop {
            let spill = SealedWriter::create(&self.path, &self.keys, binding(), self.salt)?;
            if let Some(lock) = spill.lock()? {
                return Ok((spill, lock));
            }
        }
    }

    /// Ends writing. The rows can then be read by shard.
    ///
    /// # Errors
    /// [`SealedError`].
    pub fn finish(mut self) -> Result<Scan, SealedError> {
        let spill = match self.spill.take() {
            Some((spill, lock)) => {
                spill.finish(&[])?;
                Some((SealedFile::open(&self.path, &self.keys, binding())?, lock))
            }
            None => None,
        };
        let (reasons, cells) = (self.reasons, self.cells);
        Ok(Scan { reasons, cells, buffers: self.buffers, path: self.path, spill, tables: None })
    }
}

/// The rows of a finished scan.
pub struct Scan {
    reasons: Reasons,
    cells: usize,
    buffers: Vec<Vec<u8>>,
    path: PathBuf,
    /// The file, and its lock.
    spill: Option<(SealedFile, File)>,
    tables: Option<String>,
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("spilled", &self.spill.is_some()).finish_non_exhaustive()
    }
}

impl Scan {
    /// A scan without rows, for runs that need none.
    pub fn empty() -> Self {
        let reasons = Reasons { skips: &[], notes: &[] };
        let (buffers, path) = (Vec::new(), PathBuf::new());
        Self { reasons, cells: 0, buffers, path, spill: None, tables: None }
    }

    /// The scan with the tables that it has read.
    #[must_use]
    pub fn with_tables(mut self, tables: Option<String>) -> Self {
        self.tables = tables;
        self
    }

    /// The tables that were read, with the types of their columns, as the source of identifiers writes them. The next
    /// scan is compared with them. `None` if they are not known.
    pub fn tables(&self) -> Option<&str> {
        self.tables.as_deref()
    }

    /// Whether one of these users has a usable row. Reads shard by shard until it finds one.
    ///
    /// # Errors
    /// [`SealedError`].
    pub fn has_usable_row(&self, users: &MemberSet) -> Result<bool, SealedError> {
        for shard in 0..SHARD_COUNT {
            let shard = shard as u8;
            let is_usable = |rows: &Vec<RowWithNotes>| rows.iter().all(|(row, _)| row.is_ok());
            if self.shard(shard, users.shard(shard))?.values().any(is_usable) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The rows of some users of a shard: all usable ones in ascending order, or else one with the reason why there is
    /// none. Those of others are passed over: the scan is of all syncs of an account, which have other users.
    pub(crate) fn shard(
        &self,
        shard: u8,
        users: &RoaringBitmap,
    ) -> Result<BTreeMap<u32, Vec<RowWithNotes>>, SealedError> {
        let mut rows = BTreeMap::new();
        if users.is_empty() {
            return Ok(BTreeMap::new());
        }
        if let Some((spill, _)) = &self.spill {
            for at in (0..spill.sections.len()).filter(|at| spill.sections[*at].shard == shard) {
                self.read_rows(&spill.read(at)?, users, &mut rows)?;
            }
        }
        if let Some(buffer) = self.buffers.get(usize::from(shard)) {
            self.read_rows(buffer, users, &mut rows)?;
        }
        let reduced = rows.into_iter().map(|(ordinal, mut of_user)| {
            of_user.reduce();
            (ordinal, of_user.0)
        });
        Ok(reduced.collect())
    }

    fn read_rows(
        &self,
        mut bytes: &[u8],
        users: &RoaringBitmap,
        rows: &mut BTreeMap<u32, RowsOfUser>,
    ) -> Result<(), SealedError> {
        let damaged =
            || SealedError::Damaged { path: self.path.clone(), why: "a row cannot be read" };
        while !bytes.is_empty() {
            let (ordinal, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
            let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
            let length = u32::from_le_bytes(*length) as usize;
            let (row, rest) = rest.split_at_checked(length).ok_or_else(damaged)?;
            bytes = rest;
            let ordinal = u32::from_le_bytes(*ordinal);
            if users.contains(ordinal) {
                let row = decode_with_notes(row, self.cells, self.reasons)
                    .map_err(|InvalidPreparedRow| damaged())?;
                rows.entry(ordinal).or_default().push(row);
            }
        }
        Ok(())
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        if self.spill.take().is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the files of scans in a folder whose process was killed: those that are not locked. Does nothing if there is
/// no folder.
///
/// # Errors
/// The operating system's.
pub fn remove_stale_scans(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let is_scan = entry.file_name().to_str().is_some_and(|name| name.starts_with(SCAN_PREFIX));
        if !is_scan || !entry.file_type()?.is_file() {
            continue;
        }
        let path = entry.path();
        // Removed or renamed by its process in the meantime.
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock().is_ok() {
            match fs::remove_file(&path) {
                // Another process removes it at the same time.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use throng_model::UserHash;

    use super::*;
    use crate::row::Cell;

    fn usable(text: &str) -> RowWithNotes {
        (Ok(vec![Cell::Plain(text.into())].into()), Vec::new())
    }

    fn skipped(why: &'static str) -> RowWithNotes {
        (Err(Skip(why)), Vec::new())
    }

    fn reduced(rows: impl IntoIterator<Item = RowWithNotes>) -> Vec<RowWithNotes> {
        let mut of_user = RowsOfUser::default();
        rows.into_iter().for_each(|row| of_user.push(row));
        of_user.reduce();
        of_user.0
    }

    #[test]
    fn all_usable_rows_of_a_user_count_in_any_order() {
        let rows = [usable("b"), skipped("blank"), usable("a"), usable("b")];
        let wanted = [usable("a"), usable("b")];
        assert!(reduced(rows.clone()) == wanted);
        assert!(reduced(rows.into_iter().rev()) == wanted);
        assert!(reduced([skipped("z"), skipped("blank")]) == [skipped("blank")]);
    }

    #[test]
    fn a_usable_row_of_one_of_the_users_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let keys = IdentifierKeys::parse(&"ab".repeat(32)).unwrap();
        let reasons = Reasons { skips: &["blank"], notes: &[] };
        let path = dir.path().join("scan");
        let mut writer = ScanWriter::new(reasons, 1, 1 << 20, &path, &keys, [0; 32]);
        for (ordinal, (row, notes)) in [(3, usable("a")), (4, skipped("blank"))] {
            let row = IdentifierRow { user: UserHash(0), row, notes };
            writer.push(7, ordinal, &row).unwrap();
        }
        let scan = writer.finish().unwrap();
        let users = |ordinals: &[u32]| {
            let mut shards = vec![RoaringBitmap::new(); SHARD_COUNT];
            shards[7].extend(ordinals.iter().copied());
            MemberSet::new(shards)
        };
        assert!(scan.has_usable_row(&users(&[3, 4, 5])).unwrap());
        assert!(!scan.has_usable_row(&users(&[4, 5])).unwrap());
        assert!(!Scan::empty().has_usable_row(&users(&[3])).unwrap());
    }

    #[test]
    fn files_of_killed_processes_are_removed_and_used_ones_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let keys = IdentifierKeys::parse(&"ab".repeat(32)).unwrap();
        let reasons = Reasons { skips: &["blank"], notes: &[] };
        let path = dir.path().join(format!("{SCAN_PREFIX}1"));
        let names = || {
            let entries = fs::read_dir(dir.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        // Everything is spilled.
        let mut writer = ScanWriter::new(reasons, 1, 0, &path, &keys, [0; 32]);
        let (row, notes) = usable("a");
        writer.push(7, 3, &IdentifierRow { user: UserHash(0), row, notes }).unwrap();
        for stale in ["scan-0", "scan-00.tmp", "another"] {
            fs::write(dir.path().join(stale), "x").unwrap();
        }
        remove_stale_scans(dir.path()).unwrap();
        assert_eq!(names(), ["another", "scan-1.tmp"], "while it is written");
        let scan = writer.finish().unwrap();
        remove_stale_scans(dir.path()).unwrap();
        assert_eq!(names(), ["another", "scan-1"], "while it is read");
        let rows = |users: &[u32]| scan.shard(7, &users.iter().copied().collect()).unwrap();
        assert!(rows(&[2, 3])[&3] == [usable("a")]);
        assert!(rows(&[2, 4]).is_empty() && rows(&[]).is_empty());
        drop(scan);
        assert_eq!(names(), ["another"]);
        remove_stale_scans(&dir.path().join("none")).unwrap();
    }

    #[test]
    fn a_key_of_too_many_rows_is_skipped() {
        let rows = |count: usize| (0..count).map(|n| usable(&n.to_string()));
        assert_eq!(reduced(rows(MAX_ROWS_OF_USER)).len(), MAX_ROWS_OF_USER);
        let same = (0..5 * MAX_ROWS_OF_USER).map(|_| usable("a"));
        assert_eq!(reduced(same).len(), 1, "equal rows count once");
        for count in [1, 1_000, 5_000] {
            assert!(reduced(rows(MAX_ROWS_OF_USER + count)) == [skipped(SKIP_TOO_MANY_ROWS)]);
        }
    }
}
