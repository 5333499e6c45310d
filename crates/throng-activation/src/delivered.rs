//! Delivered state: what a platform was given for a sync, per user.
//!
//! One sealed file per sync, a section for each shard that has anything:
//!
//! ```text
//! without: length u32, Roaring bitmap of members that had no usable identifier
//! users:   ordinal u32, count u32, rows …; a row: flags u8, cells as in `prepared`, their end u8 = 255
//! ```

use std::collections::BTreeMap;

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

use crate::prepared::{read_cells, write_cells};
use crate::sealed::{Binding, IdentifierKeys, SealedFile, SealedWriter};
use crate::{PreparedRow, SealedError};

const USERS: u8 = 0;
const CERTAIN: u8 = 1;
const SHARED: u8 = 2;

/// A row that the platform was given for a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) row: PreparedRow,
    /// It is on the platform for certain; else it may be.
    pub(crate) certain: bool,
    /// The user has left, and every identifier in it is one of a member too: it goes when one of them
    /// is nobody's. Counted already.
    pub(crate) shared: bool,
}

/// The users of one shard.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ShardState {
    /// By ordinal. Mostly one row for a user.
    pub(crate) users: BTreeMap<u32, Vec<Given>>,
    /// Members without a usable identifier, which were counted as skipped.
    pub(crate) without: RoaringBitmap,
}

impl ShardState {
    pub(crate) fn is_empty(&self) -> bool {
        self.users.is_empty() && self.without.is_empty()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bitmap = Vec::new();
        if !self.without.is_empty() {
            // Writing to memory does not fail.
            let _ = self.without.serialize_into(&mut bitmap);
        }
        let mut bytes = (bitmap.len() as u32).to_le_bytes().to_vec();
        bytes.append(&mut bitmap);
        for (ordinal, given) in &self.users {
            bytes.extend_from_slice(&ordinal.to_le_bytes());
            // A user has a row for each change of identifiers that is not through yet: never 2^32.
            bytes.extend_from_slice(&(given.len() as u32).to_le_bytes());
            for given in given {
                bytes.push(u8::from(given.certain) | (u8::from(given.shared) << 1));
                write_cells(&given.row, &mut bytes);
            }
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (bitmap, mut rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let mut state = Self::default();
        if !bitmap.is_empty() {
            state.without = RoaringBitmap::deserialize_from(bitmap).ok()?;
        }
        while !rest.is_empty() {
            let (ordinal, after) = rest.split_first_chunk::<4>()?;
            let (count, mut after) = after.split_first_chunk::<4>()?;
            // What is reserved is bounded by the bytes that are there, whatever the count says.
            let count = u32::from_le_bytes(*count) as usize;
            let mut given = Vec::with_capacity(count.min(after.len()));
            for _ in 0..count {
                let (flags, cells) = after.split_first()?;
                let (row, left) = read_cells(cells)?;
                let (certain, shared) = (flags & CERTAIN != 0, flags & SHARED != 0);
                given.push(Given { row, certain, shared });
                after = left;
            }
            state.users.insert(u32::from_le_bytes(*ordinal), given);
            rest = after;
        }
        Some(state)
    }

    /// What a row did: the platform took it.
    pub(crate) fn added(&mut self, ordinal: u32, row: PreparedRow, certain: bool) {
        self.without.remove(ordinal);
        let given = self.users.entry(ordinal).or_default();
        match given.iter_mut().find(|known| known.row == row) {
            Some(known) => {
                known.certain |= certain;
                known.shared = false;
            }
            None => given.push(Given { row, certain, shared: false }),
        }
    }

    /// The row is off the platform.
    pub(crate) fn removed(&mut self, ordinal: u32, row: &PreparedRow) {
        if let Some(given) = self.users.get_mut(&ordinal) {
            given.retain(|known| known.row != *row);
            if given.is_empty() {
                self.users.remove(&ordinal);
            }
        }
    }

    /// Something about the row.
    pub(crate) fn mark(&mut self, ordinal: u32, row: &PreparedRow, mark: impl Fn(&mut Given)) {
        let given = self.users.get_mut(&ordinal).into_iter().flatten();
        given.filter(|known| known.row == *row).for_each(mark);
    }
}

/// What the file says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateMeta {
    /// The platform's keys, in the order of a row's cells.
    pub keys: Vec<String>,
    /// Users with a row.
    pub users: u64,
}

/// The delivered state of a sync: an opened file, or nothing delivered.
pub struct DeliveredState {
    file: Option<SealedFile>,
    /// What it says about itself.
    pub meta: StateMeta,
}

impl std::fmt::Debug for DeliveredState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeliveredState").field("users", &self.meta.users).finish_non_exhaustive()
    }
}

impl DeliveredState {
    /// Nothing was delivered: only for a sync of which that is known.
    pub fn nothing(keys: Vec<String>) -> Self {
        Self { file: None, meta: StateMeta { keys, users: 0 } }
    }

    /// Opens a file.
    ///
    /// # Errors
    /// [`SealedError`]: a missing key or damage is never read as "nothing delivered".
    pub fn open(
        path: &std::path::Path,
        keys: &IdentifierKeys,
        binding: Binding,
    ) -> Result<Self, SealedError> {
        let file = SealedFile::open(path, keys, binding)?;
        let meta = serde_json::from_slice(&file.meta);
        let meta = meta.map_err(|_| file.damaged("what it says about itself cannot be read"))?;
        Ok(Self { file: Some(file), meta })
    }

    /// The users of a shard. Memory: about 100 bytes for each row and cell.
    pub(crate) fn shard(&self, shard: u8) -> Result<ShardState, SealedError> {
        let Some(file) = &self.file else { return Ok(ShardState::default()) };
        let Some(at) = file.sections.iter().position(|s| s.shard == shard) else {
            return Ok(ShardState::default());
        };
        ShardState::decode(&file.read(at)?).ok_or_else(|| file.damaged("a section cannot be read"))
    }
}

/// Writes the delivered state of a sync, shard by shard.
pub(crate) struct StateWriter {
    writer: SealedWriter,
    meta: StateMeta,
}

impl StateWriter {
    pub(crate) fn new(writer: SealedWriter, keys: Vec<String>) -> Self {
        Self { writer, meta: StateMeta { keys, users: 0 } }
    }

    pub(crate) fn shard(&mut self, shard: u8, state: &ShardState) -> Result<(), SealedError> {
        if state.is_empty() {
            return Ok(());
        }
        let users = state.users.len() as u64;
        self.meta.users += users;
        self.writer.section(USERS, shard, users, state.encode())
    }

    pub(crate) fn finish(self) -> Result<StateMeta, SealedError> {
        let meta = serde_json::to_vec(&self.meta).unwrap_or_default();
        self.writer.finish(&meta)?;
        Ok(self.meta)
    }
}

#[cfg(test)]
mod tests {
    use throng_model::HashedIdentifier;

    use super::*;
    use crate::Cell;

    #[test]
    fn a_shard_is_read_as_it_was_written() {
        let row = |text: &str| -> PreparedRow {
            vec![
                Cell::Hashed(HashedIdentifier::of_normalised(text)),
                Cell::Empty,
                Cell::Plain(text.into()),
            ]
            .into()
        };
        let mut state = ShardState::default();
        state.added(3, row("a"), true);
        state.added(3, row("b"), false);
        state.added(9, row("c"), true);
        state.mark(9, &row("c"), |given| given.shared = true);
        // More rows than a byte counts.
        for row_of_many in 0..300 {
            state.added(11, row(&row_of_many.to_string()), true);
        }
        state.without.insert(70_000);
        let bytes = state.encode();
        assert_eq!(ShardState::decode(&bytes), Some(state));
        for cut in 1..bytes.len() {
            let _ = ShardState::decode(&bytes[..cut]);
        }
    }
}
