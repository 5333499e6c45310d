//! The members of an audience.
//!
//! A member is the packed match keys of a row: a hash takes 33 bytes. With one hash per row a member takes about
//! 100 bytes, so that audiences of millions fit into memory.
//!
//! Identity: two rows with the same `EXTERN_ID` are the same member, and the newer row replaces the older one. Rows
//! without `EXTERN_ID` are the same member if all their keys are equal. A row removes the members that share a key
//! with it and differ in no key; in the mode that matches people it removes all members that share a key of one
//! person with it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use throng_model::to_hex;
use xxhash_rust::xxh3::xxh3_128;

use super::keys::{MatchKey, is_hash};

/// First byte of a cell that is a packed hash; below are lengths of short texts.
const HASH: u8 = 0xff;
/// First byte of a cell whose length takes four bytes.
const LONG: u8 = 0xfe;

/// Packed match keys of a row: the mask of its keys (4 bytes), then its cells by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row(Box<[u8]>);

impl Row {
    /// Packs cells without the empty ones. `cells` need not be sorted, but no key may occur twice.
    pub(super) fn pack(cells: &mut [(MatchKey, &str)]) -> Self {
        cells.sort_unstable_by_key(|(key, _)| *key);
        let mut packed = vec![0; 4];
        let mut mask = 0u32;
        for (key, text) in cells.iter().filter(|(_, text)| !text.is_empty()) {
            mask |= key.bit();
            if is_hash(text) {
                packed.push(HASH);
                let digits = text.as_bytes();
                packed.extend(digits.chunks(2).map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])));
            } else {
                match u8::try_from(text.len()) {
                    Ok(length) if length < LONG => packed.push(length),
                    _ => {
                        packed.push(LONG);
                        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                        packed.extend(length.to_le_bytes());
                    }
                }
                packed.extend(text.as_bytes());
            }
        }
        packed[..4].copy_from_slice(&mask.to_le_bytes());
        Self(packed.into_boxed_slice())
    }

    pub(super) fn mask(&self) -> u32 {
        u32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }

    /// Whether no key has a value.
    pub(super) fn is_empty(&self) -> bool {
        self.mask() == 0
    }

    /// The cells with their packed bytes, in the order of the keys.
    fn cells(&self) -> impl Iterator<Item = (MatchKey, &[u8])> {
        let mut rest = &self.0[4..];
        MatchKey::of_mask(self.mask()).map(move |key| {
            let length = match rest[0] {
                HASH => 33,
                LONG => 5 + u32::from_le_bytes([rest[1], rest[2], rest[3], rest[4]]) as usize,
                short => 1 + usize::from(short),
            };
            let (cell, after) = rest.split_at(length);
            rest = after;
            (key, cell)
        })
    }

    /// The keys' names with their values as they were sent.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.cells().map(|(key, cell)| (key.name(), text_of(cell)))
    }

    /// The identity of the part of the row within `mask`.
    fn projection(&self, mask: u32) -> u128 {
        let mut part = Vec::with_capacity(self.0.len());
        part.extend((self.mask() & mask).to_le_bytes());
        for (key, cell) in self.cells() {
            if mask & key.bit() != 0 {
                part.extend(cell);
            }
        }
        xxh3_128(&part)
    }

    fn has_extern_id(&self) -> bool {
        self.mask() & MatchKey::EXTERN_ID.bit() != 0
    }

    fn identity(&self) -> u128 {
        if self.has_extern_id() {
            self.projection(MatchKey::EXTERN_ID.bit())
        } else {
            xxh3_128(&self.0)
        }
    }
}

fn nibble(digit: u8) -> u8 {
    if digit.is_ascii_digit() { digit - b'0' } else { digit.wrapping_sub(b'a' - 10) & 15 }
}

fn text_of(cell: &[u8]) -> String {
    match cell[0] {
        HASH => to_hex(&cell[1..]),
        LONG => String::from_utf8_lossy(&cell[5..]).into_owned(),
        _ => String::from_utf8_lossy(&cell[1..]).into_owned(),
    }
}

/// A hasher for identities, which are hashes already.
#[derive(Debug, Clone, Default)]
pub(super) struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u128(&mut self, identity: u128) {
        self.0 = identity as u64;
    }
}

type ById<T> = HashMap<u128, T, BuildHasherDefault<IdentityHasher>>;

/// A set of members.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    rows: ById<Row>,
    /// The number of members with exactly these keys.
    shapes: BTreeMap<u32, u64>,
}

impl Members {
    pub(super) fn len(&self) -> u64 {
        self.rows.len() as u64
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// Adds a row, or replaces the row with the same identity. O(1).
    pub(super) fn add(&mut self, row: Row) {
        *self.shapes.entry(row.mask()).or_default() += 1;
        if let Some(old) = self.rows.insert(row.identity(), row) {
            self.forget_shape(old.mask());
        }
    }

    /// Removes the members that match the rows; returns their number. O(rows), plus one pass over the members
    /// if a row has fewer keys than some members.
    pub(super) fn remove(&mut self, rows: &[Row], people: bool) -> u64 {
        let found = self.find(rows, people);
        for identity in &found {
            if let Some(row) = self.rows.remove(identity) {
                self.forget_shape(row.mask());
            }
        }
        found.len() as u64
    }

    /// The identities of the members that match the rows.
    pub(super) fn find(&self, rows: &[Row], people: bool) -> HashSet<u128> {
        let mut found = if people { self.find_people(rows) } else { HashSet::new() };
        // (keys of the member, keys shared with the row) -> the shared parts to search for
        let mut to_scan: BTreeMap<u32, BTreeMap<u32, HashSet<u128>>> = BTreeMap::new();
        for row in rows {
            let mask = row.mask();
            if row.has_extern_id() {
                let identity = row.identity();
                found.extend(self.rows.contains_key(&identity).then_some(identity));
            }
            for shape in self.shapes.keys().copied() {
                let shared = mask & shape;
                let by_extern_id = shared & MatchKey::EXTERN_ID.bit() != 0;
                let identifies = shared & MatchKey::STRONG != 0 || shared == mask;
                if by_extern_id || shared == 0 || !identifies {
                    continue;
                }
                if shared == shape {
                    let identity = row.projection(shape);
                    found.extend(self.rows.contains_key(&identity).then_some(identity));
                } else {
                    let parts = to_scan.entry(shape).or_default().entry(shared).or_default();
                    parts.insert(row.projection(shared));
                }
            }
        }
        if !to_scan.is_empty() {
            for (identity, row) in &self.rows {
                let parts = to_scan.get(&row.mask()).into_iter().flatten();
                for (shared, wanted) in parts {
                    if wanted.contains(&row.projection(*shared)) {
                        found.insert(*identity);
                    }
                }
            }
        }
        found
    }

    /// The identities of the members that share a key of one person with any of the rows.
    fn find_people(&self, rows: &[Row]) -> HashSet<u128> {
        let strong = |row: &Row| {
            let keys: Vec<u32> =
                MatchKey::of_mask(row.mask() & MatchKey::STRONG).map(MatchKey::bit).collect();
            keys.into_iter().map(|key| row.projection(key)).collect::<Vec<u128>>()
        };
        let wanted: HashSet<u128> = rows.iter().flat_map(strong).collect();
        let matches_any = |row: &Row| strong(row).iter().any(|part| wanted.contains(part));
        self.rows
            .iter()
            .filter(|(_, row)| matches_any(row))
            .map(|(identity, _)| *identity)
            .collect()
    }

    fn forget_shape(&mut self, mask: u32) {
        if let Some(count) = self.shapes.get_mut(&mask) {
            *count -= 1;
            if *count == 0 {
                self.shapes.remove(&mask);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use throng_model::HashedIdentifier;

    use super::*;
    use crate::meta::keys::Column;

    fn hash(text: &str) -> String {
        HashedIdentifier::of_normalised(text).to_hex()
    }

    /// `EMAIL=a PHONE=p`, hashed where a hash belongs.
    fn row(text: &str) -> Row {
        let cells: Vec<(MatchKey, String)> = text
            .split_whitespace()
            .map(|cell| {
                let (name, value) = cell.split_once('=').unwrap();
                let key = Column::parse(name).unwrap().key.unwrap();
                (key, if name == "EXTERN_ID" { value.to_owned() } else { hash(value) })
            })
            .collect();
        let mut borrowed: Vec<(MatchKey, &str)> =
            cells.iter().map(|(key, text)| (*key, text.as_str())).collect();
        Row::pack(&mut borrowed)
    }

    fn left_after(added: &[&str], removed: &[&str]) -> u64 {
        left(added, removed, false)
    }

    fn left(added: &[&str], removed: &[&str], people: bool) -> u64 {
        let mut members = Members::default();
        added.iter().for_each(|text| members.add(row(text)));
        let before = members.len();
        let rows: Vec<Row> = removed.iter().map(|text| row(text)).collect();
        let gone = members.remove(&rows, people);
        assert_eq!(members.len() + gone, before);
        assert_eq!(members.shapes.values().sum::<u64>(), members.len());
        members.len()
    }

    #[test]
    fn packed_rows_are_unpacked_to_the_same_cells() {
        let long = "x".repeat(300);
        let email = hash("a");
        let keys = ["EMAIL", "EXTERN_ID", "MADID"].map(|k| Column::parse(k).unwrap().key.unwrap());
        let packed = Row::pack(&mut [(keys[0], &email), (keys[1], &long), (keys[2], "d-1")]);
        let texts: Vec<_> = packed.texts().collect();
        let expected = [("EXTERN_ID", long.clone()), ("EMAIL", email), ("MADID", "d-1".to_owned())];
        assert_eq!(texts, expected);
    }

    #[test]
    fn adding_a_row_twice_adds_one_member() {
        assert_eq!(left_after(&["EMAIL=a", "EMAIL=a", "EMAIL=b"], &[]), 2);
        assert_eq!(left_after(&["EXTERN_ID=1 EMAIL=a", "EXTERN_ID=1 EMAIL=b"], &[]), 1);
    }

    #[test]
    fn a_row_removes_members_that_share_a_key_and_differ_in_none() {
        for (added, removed, left) in [
            ("EMAIL=a PHONE=p", "EMAIL=a", 0),
            ("EMAIL=a PHONE=p", "PHONE=p", 0),
            ("EMAIL=a", "EMAIL=a PHONE=p", 0),
            ("EMAIL=a PHONE=p", "EMAIL=a PHONE=q", 1),
            ("EMAIL=a PHONE=p", "EMAIL=b", 1),
            ("EXTERN_ID=1 EMAIL=a", "EXTERN_ID=1", 0),
            ("EXTERN_ID=1 EMAIL=a", "EXTERN_ID=1 EMAIL=b", 0),
            ("EXTERN_ID=1 EMAIL=a", "EXTERN_ID=2 EMAIL=a", 1),
            ("EXTERN_ID=1 EMAIL=a", "EMAIL=a", 0),
            ("EMAIL=a", "EXTERN_ID=1 EMAIL=a", 0),
            ("PHONE=p COUNTRY=us", "EMAIL=a COUNTRY=us", 1),
            ("FN=f LN=l ZIP=z", "FN=f LN=l", 0),
        ] {
            assert_eq!(left_after(&[added], &[removed]), left, "{added} without {removed}");
        }
    }

    #[test]
    fn matching_people_removes_all_members_that_share_a_key_of_one_person() {
        let added =
            ["EMAIL=a PHONE=p", "EMAIL=a PHONE=q", "EMAIL=b PHONE=r FN=f", "EXTERN_ID=1 EMAIL=a"];
        assert_eq!(left(&added, &["EMAIL=a PHONE=p"], true), 1);
        assert_eq!(left(&added, &["EMAIL=a PHONE=p"], false), 2);
        assert_eq!(left(&added, &["EMAIL=c FN=f"], true), 4);
    }

    #[test]
    fn a_removal_reaches_members_of_every_shape() {
        let added = ["EMAIL=a", "EMAIL=a PHONE=p", "EXTERN_ID=1 EMAIL=a", "EMAIL=b PHONE=p"];
        assert_eq!(left_after(&added, &["EMAIL=a"]), 1);
    }
}
