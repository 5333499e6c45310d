//! Delivered state: the rows that were sent to a platform for a sync, per user.
//!
//! One sealed file per sync, with a section for each shard that is not empty:
//!
//! ```text
//! without identifiers: length u32, Roaring bitmap of members that are counted as skipped: without a usable
//!   identifier, or with further rows of the same EXTERN_ID
//! users: ordinal u32, count u32, rows …; a row: flags u8, cells as in `prepared`, their end u8 = 255
//! ```

use std::collections::BTreeMap;

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

use crate::columns::DeliveredColumns;
use crate::prepared::{read_cells, write_cells};
use crate::row::PreparedRow;
use crate::sealed::{Binding, IdentifierKeys, SealedError, SealedFile, SealedWriter};

const USERS: u8 = 0;
const CERTAIN: u8 = 1;
const SHARED: u8 = 2;

/// A row that was sent to the platform for a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeliveredRow {
    pub(crate) row: PreparedRow,
    /// The platform has confirmed the row. Otherwise it may or may not be there.
    pub(crate) certain: bool,
    /// The user has left, but members share every identifier of the row. The row is removed as soon as
    /// one of its identifiers belongs to no member. Its skipped removal was counted once already.
    pub(crate) shared: bool,
}

/// The users of one shard.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ShardState {
    /// By ordinal: the rows of the identifier query, usually one, and earlier ones whose removal is due.
    pub(crate) users: BTreeMap<u32, Vec<DeliveredRow>>,
    /// Members without a usable identifier, or with further rows of the same `EXTERN_ID`, already counted as skipped.
    pub(crate) without_identifiers: RoaringBitmap,
}

impl ShardState {
    pub(crate) fn is_empty(&self) -> bool {
        self.users.is_empty() && self.without_identifiers.is_empty()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bitmap = Vec::new();
        if !self.without_identifiers.is_empty() {
            // Writing to memory does not fail.
            let _ = self.without_identifiers.serialize_into(&mut bitmap);
        }
        let mut bytes = (bitmap.len() as u32).to_le_bytes().to_vec();
        bytes.append(&mut bitmap);
        for (ordinal, delivered_rows) in &self.users {
            bytes.extend_from_slice(&ordinal.to_le_bytes());
            // A user has at most 1,000 identifier rows, and one for each earlier one whose removal is due: far
            // fewer than 2^32.
            bytes.extend_from_slice(&(delivered_rows.len() as u32).to_le_bytes());
            for delivered in delivered_rows {
                bytes.push(u8::from(delivered.certain) | (u8::from(delivered.shared) << 1));
                write_cells(&delivered.row, &mut bytes);
            }
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (bitmap, mut rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let mut state = Self::default();
        if !bitmap.is_empty() {
            state.without_identifiers = RoaringBitmap::deserialize_from(bitmap).ok()?;
        }
        while !rest.is_empty() {
            let (ordinal, after) = rest.split_first_chunk::<4>()?;
            let (count, mut after) = after.split_first_chunk::<4>()?;
            // The allocation is bounded by the bytes that are left, whatever the count says.
            let count = u32::from_le_bytes(*count) as usize;
            let mut delivered_rows = Vec::with_capacity(count.min(after.len()));
            for _ in 0..count {
                let (flags, cells) = after.split_first()?;
                let (row, rest) = read_cells(cells)?;
                let (certain, shared) = (flags & CERTAIN != 0, flags & SHARED != 0);
                delivered_rows.push(DeliveredRow { row, certain, shared });
                after = rest;
            }
            state.users.insert(u32::from_le_bytes(*ordinal), delivered_rows);
            rest = after;
        }
        Some(state)
    }

    /// Records that the platform accepted a row; `certain`: it has confirmed it.
    pub(crate) fn record_added(&mut self, ordinal: u32, row: PreparedRow, certain: bool) {
        self.without_identifiers.remove(ordinal);
        let delivered_rows = self.users.entry(ordinal).or_default();
        match delivered_rows.iter_mut().find(|known| known.row == row) {
            Some(known) => {
                // A row that is added again without a response, after a removal that named its person, may be gone.
                known.certain = certain;
                known.shared = false;
            }
            None => delivered_rows.push(DeliveredRow { row, certain, shared: false }),
        }
    }

    /// Records that a row was removed from the platform.
    pub(crate) fn record_removed(&mut self, ordinal: u32, row: &PreparedRow) {
        if let Some(delivered_rows) = self.users.get_mut(&ordinal) {
            delivered_rows.retain(|known| known.row != *row);
            if delivered_rows.is_empty() {
                self.users.remove(&ordinal);
            }
        }
    }

    /// Whether a row of `before`, an earlier state of the shard, is still there.
    pub(crate) fn has_row_of(&self, before: &Self) -> bool {
        before.users.iter().any(|(ordinal, earlier)| {
            let is_earlier = |row: &DeliveredRow| earlier.iter().any(|known| known.row == row.row);
            self.users.get(ordinal).is_some_and(|rows| rows.iter().any(is_earlier))
        })
    }

    /// Changes the flags of a row.
    pub(crate) fn update_flags(
        &mut self,
        ordinal: u32,
        row: &PreparedRow,
        update: impl Fn(&mut DeliveredRow),
    ) {
        let delivered_rows = self.users.get_mut(&ordinal).into_iter().flatten();
        delivered_rows.filter(|known| known.row == *row).for_each(update);
    }
}

/// The metadata of a file of delivered state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateMeta {
    /// The platform's keys, in the order of a row's cells.
    pub keys: Vec<String>,
    /// Users with a row.
    pub users: u64,
    /// Some rows were delivered with other keys: see [`DeliveredColumns::has_several`]. Files of earlier versions do
    /// not say it.
    #[serde(default)]
    pub has_several_columns: bool,
}

/// The delivered state of a sync: an open file, or empty if nothing was delivered.
pub struct DeliveredState {
    file: Option<SealedFile>,
    /// The file's metadata.
    pub meta: StateMeta,
}

impl std::fmt::Debug for DeliveredState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeliveredState").field("users", &self.meta.users).finish_non_exhaustive()
    }
}

impl DeliveredState {
    /// The state of a sync for which nothing was delivered. Only where that is certain: for an unknown
    /// state it would plan to add everybody and to remove nobody.
    pub fn empty(keys: Vec<String>) -> Self {
        Self { file: None, meta: StateMeta { keys, ..StateMeta::default() } }
    }

    /// Opens a file.
    ///
    /// # Errors
    /// [`SealedError`]: a missing key or a damaged file is never read as "nothing delivered".
    pub fn open(
        path: &std::path::Path,
        keys: &IdentifierKeys,
        binding: Binding,
    ) -> Result<Self, SealedError> {
        let file = SealedFile::open(path, keys, binding)?;
        let meta = serde_json::from_slice(&file.meta);
        let meta = meta.map_err(|_| file.damaged("its metadata cannot be read"))?;
        Ok(Self { file: Some(file), meta })
    }

    /// Reads the users of a shard. Memory: about 100 bytes for each row and cell.
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
    pub(crate) fn new(writer: SealedWriter) -> Self {
        Self { writer, meta: StateMeta::default() }
    }

    pub(crate) fn shard(&mut self, shard: u8, state: &ShardState) -> Result<(), SealedError> {
        if state.is_empty() {
            return Ok(());
        }
        let users = state.users.len() as u64;
        self.meta.users += users;
        self.writer.section(USERS, shard, users, state.encode())
    }

    pub(crate) fn finish(mut self, columns: DeliveredColumns) -> Result<StateMeta, SealedError> {
        self.meta.keys = columns.keys;
        self.meta.has_several_columns = columns.has_several;
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
        state.record_added(3, row("a"), true);
        state.record_added(3, row("b"), false);
        state.record_added(9, row("c"), true);
        state.update_flags(9, &row("c"), |row| row.shared = true);
        // More rows than a byte counts.
        for row_of_many in 0..300 {
            state.record_added(11, row(&row_of_many.to_string()), true);
        }
        state.without_identifiers.insert(70_000);
        let bytes = state.encode();
        assert_eq!(ShardState::decode(&bytes), Some(state));
        for cut in 1..bytes.len() {
            let _ = ShardState::decode(&bytes[..cut]);
        }
    }

    #[test]
    fn metadata_of_earlier_versions_have_one_column_set() {
        let meta: StateMeta = serde_json::from_str(r#"{"keys": ["EMAIL"], "users": 2}"#).unwrap();
        let keys = vec!["EMAIL".to_owned()];
        assert_eq!(meta, StateMeta { keys, users: 2, has_several_columns: false });
    }
}
