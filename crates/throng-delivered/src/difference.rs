//! What has to be added and removed so that the platform's list equals the audience. A difference of
//! identifier rows, not of users.
//!
//! A platform matches people, not rows: a removal that names an identifier removes everybody who has it.
//! So a removal names only identifiers that no member has, and the `EXTERN_ID` where there is one; members
//! with an `EXTERN_ID` that a removal names, or of whom another row is removed, are added again after the removals.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use throng_membership::MemberSet;
use throng_model::{SHARD_COUNT, SyncMode};
use throng_store::{Operation, ReasonCounts};

use crate::delivered::Delivered;
use crate::ended::SKIP_SHARED;
use crate::extern_ids::{OF_SEVERAL_USERS, SharedExternIds};
use crate::planned::{PHASE_ADD, PHASE_RE_ADD, PHASE_REMOVE, PlanEntry, PlanMeta, PlanWriter};
use crate::row::{Cell, Note, Prepared, PreparedRow, REFUSAL, Skip};
use crate::scan::{RowWithNotes, Scan};
use crate::sealed::{Binding, IdentifierKeys, SealedError, SealedWriter};
use crate::state::{DeliveredRow, ShardState};
use crate::users::UserCounts;

/// Users for whom the identifier query has no row.
pub const SKIP_NO_IDENTIFIERS: &str = "no_identifiers";
/// Users with several rows of one `EXTERN_ID`: for the platform they are one, and the newest would replace the others.
/// Only the first is sent.
pub const SKIP_SAME_EXTERN_ID: &str = "further_rows_of_the_same_extern_id";
/// Where a key has refused cells, its other cells with a value are counted as `KEY.usable`.
pub const USABLE: &str = "usable";
/// Removals of a row that a member has as well.
const SKIP_ROW_OF_MEMBER: &str = "row_of_another_member";

/// The inputs of a difference.
#[derive(Debug)]
pub struct DifferenceFacts<'a> {
    /// What was delivered to the platform.
    pub delivered: &'a Delivered,
    /// The members to deliver.
    pub target: &'a MemberSet,
    /// Their current identifiers.
    pub scan: &'a Scan,
    /// The mode of the sync.
    pub mode: SyncMode,
    /// The whole list is sent in a replace session: because of the mode, or because the platform's
    /// list is not known.
    pub replace: bool,
    /// The platform's keys, in the order of the cells.
    pub keys: &'a [String],
    /// Keys of which each identifies one person.
    pub strong: &'a [&'a str],
    /// A fingerprint of the identifiers' SQL, key and columns, and the audience's name.
    pub identifiers: &'a str,
    /// See [`PlanMeta::adopts`].
    pub adopts: Option<&'a str>,
}

/// A difference that was written as a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The plan's metadata.
    pub meta: PlanMeta,
    /// Users on the platform before the run.
    pub users_before: u64,
    /// Those of them who are not on it after the run.
    pub users_removed: u64,
    /// Identifiers of added rows that were changed or refused, or that several users have, by key and reason.
    pub normalised: ReasonCounts,
}

impl Difference {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.meta.rows == [0; 3]
    }

    /// The users on the platform before the run, and those of them who are not on it after the run. Those of failed runs
    /// count, because their rows may have arrived. No row is sent before the audience on the platform is recorded: if
    /// there is none, nobody is on the platform.
    pub fn users(&self, has_audience: bool) -> UserCounts {
        match has_audience {
            true => UserCounts { before: self.users_before, removed: self.users_removed },
            false => UserCounts { before: 0, removed: 0 },
        }
    }
}

type Digest = u128;

fn digest(key: usize, cell: &Cell) -> Digest {
    match cell {
        Cell::Hashed(hash) => {
            let mut bytes = [0u8; 16];
            bytes.copy_from_slice(&hash.0[..16]);
            u128::from_le_bytes(bytes).wrapping_add(key as u128)
        }
        Cell::Plain(text) => {
            let sha256 = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
            let mut bytes = [0u8; 16];
            bytes.copy_from_slice(&sha256.as_ref()[..16]);
            u128::from_le_bytes(bytes).wrapping_add(key as u128)
        }
        Cell::Empty => key as u128,
    }
}

/// The cells of a row that identify one person. If there are none, only the row as a whole does.
fn strong_cells<'r>(strong: &'r [bool], row: &'r PreparedRow) -> impl Iterator<Item = usize> + 'r {
    let is_strong = |at: &usize| strong.get(*at) == Some(&true) && row[*at] != Cell::Empty;
    (0..row.len()).filter(is_strong)
}

fn row_digest(row: &PreparedRow) -> Digest {
    let cells = row.iter().enumerate().map(|(at, cell)| digest(at, cell));
    cells.fold(1u128, |sum, cell| {
        (sum ^ cell).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

/// Identifiers of the rows to remove, and which of them a member has.
#[derive(Default)]
struct RemovedIdentifiers {
    digests: Vec<Digest>,
    kept: Vec<bool>,
}

impl RemovedIdentifiers {
    fn freeze(&mut self) {
        self.digests.sort_unstable();
        self.digests.dedup();
        self.kept = vec![false; self.digests.len()];
    }

    fn mark_kept(&mut self, digest: Digest) {
        if let Ok(at) = self.digests.binary_search(&digest) {
            self.kept[at] = true;
        }
    }

    fn is_kept(&self, digest: Digest) -> bool {
        self.digests.binary_search(&digest).is_ok_and(|at| self.kept[at])
    }

    fn contains(&self, digest: Digest) -> bool {
        self.digests.binary_search(&digest).is_ok()
    }
}

struct Shard {
    state: ShardState,
    /// Of the members to deliver.
    rows: BTreeMap<u32, Vec<RowWithNotes>>,
    /// Users with rows that are left out, because another one has the same `EXTERN_ID`.
    reduced: BTreeSet<u32>,
}

/// Keeps the first row of each `EXTERN_ID`, which is the cell at `extern_id`, and returns the users of whom others are
/// left out.
fn one_row_per_extern_id(
    rows: &mut BTreeMap<u32, Vec<RowWithNotes>>,
    extern_id: usize,
) -> BTreeSet<u32> {
    let mut reduced = BTreeSet::new();
    for (ordinal, of_user) in rows.iter_mut().filter(|(_, of_user)| of_user.len() > 1) {
        let count = of_user.len();
        let mut seen = BTreeSet::new();
        of_user.retain(|(row, _)| match row {
            Ok(row) => row[extern_id] == Cell::Empty || seen.insert(row[extern_id].clone()),
            Err(_) => true,
        });
        if of_user.len() < count {
            reduced.insert(*ordinal);
        }
    }
    reduced
}

impl DifferenceFacts<'_> {
    fn shard(&self, shard: u8) -> Result<Shard, SealedError> {
        let mut rows = self.scan.shard(shard, self.target.shard(shard))?;
        let extern_id = self.extern_id();
        let reduced = extern_id.map(|at| one_row_per_extern_id(&mut rows, at)).unwrap_or_default();
        Ok(Shard { state: self.delivered.shard(shard)?, rows, reduced })
    }

    /// The cell of the `EXTERN_ID`, if there is one.
    fn extern_id(&self) -> Option<usize> {
        self.keys.iter().position(|key| key == "EXTERN_ID")
    }

    fn strong(&self, keys: &[String]) -> Vec<bool> {
        keys.iter().map(|key| self.strong.contains(&key.as_str())).collect()
    }

    fn has_removals(&self) -> bool {
        self.mode != SyncMode::Add && !self.replace
    }

    /// The rows that a user should have on the platform, in ascending order; none if the user is not a member.
    fn wanted<'s>(&self, loaded: &'s Shard, shard: u8, ordinal: u32) -> &'s [RowWithNotes] {
        match loaded.rows.get(&ordinal) {
            // A user without a usable row has one with the reason.
            Some(rows)
                if self.target.contains(shard, ordinal)
                    && rows.iter().all(|(row, _)| row.is_ok()) =>
            {
                rows.as_slice()
            }
            _ => &[],
        }
    }

    /// The rows of a shard that have to be removed.
    fn rows_to_remove<'s>(&self, loaded: &'s Shard, shard: u8) -> Vec<(u32, &'s DeliveredRow)> {
        let mut rows = Vec::new();
        for (ordinal, delivered_rows) in &loaded.state.users {
            let wanted = self.wanted(loaded, shard, *ordinal);
            let to_remove = delivered_rows.iter().filter(|delivered| {
                let compared =
                    |(row, _): &RowWithNotes| row.as_ref().ok().cmp(&Some(&delivered.row));
                wanted.binary_search_by(compared).is_err()
            });
            rows.extend(to_remove.map(|row| (*ordinal, row)));
        }
        rows
    }

    /// Counts the users of a shard who are on the platform, and those of them who are not after the run.
    fn count_listed(&self, loaded: &Shard, shard: u8, counts: &mut Counts) {
        let still_listed =
            loaded.state.users.iter().filter(|(_, rows)| rows.iter().any(|row| !row.shared));
        for (ordinal, _) in still_listed {
            counts.before += 1;
            counts.removed += u64::from(self.wanted(loaded, shard, *ordinal).is_empty());
        }
    }

    /// The entries that remove rows of a shard. `keys`: those with which the rows were added.
    fn removals(
        &self,
        loaded: &Shard,
        shard: u8,
        keys: &[String],
        removed: &RemovedIdentifiers,
    ) -> Vec<PlanEntry> {
        if !self.has_removals() {
            return Vec::new();
        }
        let strong = self.strong(keys);
        let rows = self.rows_to_remove(loaded, shard).into_iter();
        rows.filter_map(|(ordinal, row)| removal(ordinal, row, keys, &strong, removed)).collect()
    }
}

/// Computes a difference and writes it as a plan. Reads the delivered state and the scan three times,
/// shard by shard: it needs the memory of one shard, and 17 bytes for each identifier of a row to remove. With an
/// `EXTERN_ID` it reads the scan once again, and needs 32 MiB.
///
/// Removals have the keys of [`Delivered::columns`]. If rows have several column sets, only a replace session removes
/// all of them: without one, the caller has to refuse a mode that removes.
///
/// # Errors
/// [`SealedError`].
pub fn difference(
    facts: &DifferenceFacts<'_>,
    path: &Path,
    keys: &IdentifierKeys,
    binding: Binding,
    salt: [u8; 32],
) -> Result<Difference, SealedError> {
    let columns = facts.delivered.columns()?;
    let remove_keys = &columns.keys;
    let (new_strong, old_strong) = (facts.strong(facts.keys), facts.strong(remove_keys));
    let removed = if facts.has_removals() {
        removed_identifiers(facts, &new_strong, &old_strong)?
    } else {
        RemovedIdentifiers::default()
    };
    let extern_id = facts.extern_id();
    let mut writer = PlanWriter::new(SealedWriter::create(path, keys, binding, salt)?);
    let mut counts = Counts::default();
    if let Some(at) = extern_id {
        counts.extern_ids = SharedExternIds::find(facts.scan, facts.target, at)?;
    }
    for shard in 0..SHARD_COUNT {
        let shard = shard as u8;
        let loaded = facts.shard(shard)?;
        let removals = facts.removals(&loaded, shard, remove_keys, &removed);
        let sent = removals.iter().filter(|entry| entry.send.is_ok());
        let leaving =
            Leaving { extern_id, removed: &removed, users: sent.map(|e| e.ordinal).collect() };
        let (add, re_add) = additions(facts, &loaded, shard, &leaving, &mut counts);
        writer.shard(PHASE_ADD, shard, &add)?;
        writer.shard(PHASE_RE_ADD, shard, &re_add)?;
        facts.count_listed(&loaded, shard, &mut counts);
        writer.shard(PHASE_REMOVE, shard, &removals)?;
    }
    let put = if facts.replace { Operation::Replace } else { Operation::Add };
    let meta = PlanMeta {
        put,
        keys: facts.keys.to_vec(),
        remove_keys: remove_keys.clone(),
        rows: writer.rows(),
        identifiers: facts.identifiers.to_owned(),
        tables: facts.scan.tables().map(str::to_owned),
        adopts: facts.adopts.map(str::to_owned),
    };
    writer.finish(&meta)?;
    let (users_before, users_removed) = (counts.before, counts.removed);
    let normalised = counts.into_normalised(facts.keys);
    Ok(Difference { meta, users_before, users_removed, normalised })
}

/// The users on the platform before a run, and those of them who are not on it after the run, as in [`Difference`].
/// Writes no plan. Reads the delivered state and the scan once.
///
/// # Errors
/// [`SealedError`].
pub fn count_users(facts: &DifferenceFacts<'_>) -> Result<(u64, u64), SealedError> {
    let mut counts = Counts::default();
    for shard in 0..SHARD_COUNT {
        let shard = shard as u8;
        facts.count_listed(&facts.shard(shard)?, shard, &mut counts);
    }
    Ok((counts.before, counts.removed))
}

#[derive(Default)]
struct Counts {
    before: u64,
    removed: u64,
    normalised: ReasonCounts,
    /// Cells of added rows with a value that was not refused, by key.
    usable: Vec<u64>,
    extern_ids: SharedExternIds,
}

impl Counts {
    /// Counts the notes of a row, and its usable cells.
    fn count_cells(&mut self, keys: &[String], row: &Prepared, notes: &[Note]) {
        for note in notes {
            let key = keys.get(usize::from(note.cell)).map_or("", String::as_str);
            *self.normalised.entry(format!("{key}.{}", note.reason)).or_default() += 1;
        }
        let Ok(row) = row else { return };
        self.usable.resize(keys.len(), 0);
        for (at, (count, cell)) in self.usable.iter_mut().zip(row.iter()).enumerate() {
            // A refused country may be replaced by the default one.
            let is_refused =
                notes.iter().any(|note| usize::from(note.cell) == at && note.is_refusal());
            *count += u64::from(*cell != Cell::Empty && !is_refused);
        }
    }

    /// The notes by key and reason; of keys with refused cells also the number of the others, as [`USABLE`].
    fn into_normalised(self, keys: &[String]) -> ReasonCounts {
        let Self { mut normalised, usable, .. } = self;
        for (at, key) in keys.iter().enumerate() {
            let refused = format!("{key}.{REFUSAL}");
            if normalised.keys().any(|reason| reason.starts_with(&refused)) {
                let usable = usable.get(at).copied().unwrap_or_default();
                normalised.insert(format!("{key}.{USABLE}"), usable);
            }
        }
        normalised
    }
}

/// The identifiers of the rows to remove, and which of them members have.
fn removed_identifiers(
    facts: &DifferenceFacts<'_>,
    new_strong: &[bool],
    old_strong: &[bool],
) -> Result<RemovedIdentifiers, SealedError> {
    let mut removed = RemovedIdentifiers::default();
    for shard in 0..SHARD_COUNT {
        let loaded = facts.shard(shard as u8)?;
        for (_, DeliveredRow { row, .. }) in facts.rows_to_remove(&loaded, shard as u8) {
            removed.digests.push(row_digest(row));
            removed.digests.extend(strong_cells(old_strong, row).map(|at| digest(at, &row[at])));
        }
    }
    removed.freeze();
    if removed.digests.is_empty() {
        return Ok(removed);
    }
    for shard in 0..SHARD_COUNT {
        let loaded = facts.shard(shard as u8)?;
        for ordinal in facts.target.shard(shard as u8) {
            let wanted = facts.wanted(&loaded, shard as u8, ordinal);
            for row in wanted.iter().filter_map(|(row, _)| row.as_ref().ok()) {
                removed.mark_kept(row_digest(row));
                strong_cells(new_strong, row)
                    .for_each(|at| removed.mark_kept(digest(at, &row[at])));
            }
        }
    }
    Ok(removed)
}

/// Whom the removals of a run name.
struct Leaving<'r> {
    /// The cell of the `EXTERN_ID`, if there is one.
    extern_id: Option<usize>,
    removed: &'r RemovedIdentifiers,
    /// Users of the shard of whom a row is removed.
    users: BTreeSet<u32>,
}

impl Leaving<'_> {
    /// Whether a removal may remove the person of this row of a member: it names the `EXTERN_ID`, or another row of the
    /// user, such as one with an earlier e-mail address.
    fn names(&self, ordinal: u32, row: &PreparedRow) -> bool {
        let by_id = self.extern_id.is_some_and(|at| self.removed.contains(digest(at, &row[at])));
        by_id || self.users.contains(&ordinal)
    }
}

/// The entries that add members: those to send before the removals, and those to send after them. A row of a person
/// whom a removal names must come after it: the removal would remove the person again.
fn additions(
    facts: &DifferenceFacts<'_>,
    loaded: &Shard,
    shard: u8,
    leaving: &Leaving<'_>,
    counts: &mut Counts,
) -> (Vec<PlanEntry>, Vec<PlanEntry>) {
    let (mut add, mut re_add) = (Vec::new(), Vec::new());
    let none: RowWithNotes = (Err(Skip(SKIP_NO_IDENTIFIERS)), Vec::new());
    for ordinal in facts.target.shard(shard) {
        let rows = loaded.rows.get(&ordinal);
        let rows = rows.map_or(std::slice::from_ref(&none), Vec::as_slice);
        let before = (add.len(), re_add.len());
        for (row, notes) in rows {
            let is_named_in_removal = row.as_ref().is_ok_and(|row| leaving.names(ordinal, row));
            let is_delivered = match row {
                Ok(row) => {
                    let mut delivered = loaded.state.users.get(&ordinal).into_iter().flatten();
                    delivered.any(|known| known.row == *row && known.certain)
                }
                Err(_) => loaded.state.without_identifiers.contains(ordinal),
            };
            if is_delivered && !is_named_in_removal && !facts.replace {
                continue;
            }
            counts.count_cells(facts.keys, row, notes);
            let extern_id = leaving.extern_id.zip(row.as_ref().ok()).map(|(at, row)| &row[at]);
            let of_several = extern_id.map_or(0, |id| counts.extern_ids.rows(id));
            if of_several > 0 {
                *counts.normalised.entry(OF_SEVERAL_USERS.to_owned()).or_default() += of_several;
            }
            let send = row.clone().map_err(|skip| skip.0.to_owned());
            let entry = PlanEntry { ordinal, send, removed_row: None };
            if is_named_in_removal { re_add.push(entry) } else { add.push(entry) }
        }
        // With a row that is sent, the state forgets that the user was counted: the count comes after the row.
        let is_sent = before != (add.len(), re_add.len());
        let is_counted = loaded.state.without_identifiers.contains(ordinal) && !is_sent;
        if loaded.reduced.contains(&ordinal) && !is_counted {
            let send = Err(SKIP_SAME_EXTERN_ID.to_owned());
            let entry = PlanEntry { ordinal, send, removed_row: None };
            if re_add.len() > before.1 { re_add.push(entry) } else { add.push(entry) }
        }
    }
    (add, re_add)
}

/// The entry that removes a row from the platform; `None` if no identifier of the row may be named and the
/// skipped removal was counted before.
fn removal(
    ordinal: u32,
    delivered: &DeliveredRow,
    keys: &[String],
    strong: &[bool],
    removed: &RemovedIdentifiers,
) -> Option<PlanEntry> {
    let row = &delivered.row;
    let mut send: Vec<Cell> = vec![Cell::Empty; row.len()];
    let mut has_strong_cell = false;
    for at in strong_cells(strong, row) {
        has_strong_cell = true;
        let is_extern_id = keys.get(at).is_some_and(|key| key == "EXTERN_ID");
        if is_extern_id || !removed.is_kept(digest(at, &row[at])) {
            send[at] = row[at].clone();
        }
    }
    let is_empty_row = send.iter().all(|cell| *cell == Cell::Empty);
    let send = if !is_empty_row {
        Ok(send.into())
    } else if removed.is_kept(row_digest(row)) {
        Err(SKIP_ROW_OF_MEMBER.to_owned())
    } else if has_strong_cell {
        if delivered.shared {
            return None;
        }
        Err(SKIP_SHARED.to_owned())
    } else {
        // Only names and places: they identify somebody as a whole or not at all.
        Ok(row.clone())
    };
    Some(PlanEntry { ordinal, send, removed_row: Some(row.clone()) })
}

#[cfg(test)]
mod tests {
    use roaring::RoaringBitmap;

    use super::*;
    use crate::state::DeliveredState;

    fn row(email: &str, phone: &str) -> PreparedRow {
        vec![Cell::Plain(email.into()), Cell::Plain(phone.into())].into()
    }

    #[test]
    fn usable_cells_are_counted_where_others_were_refused() {
        let keys = ["EMAIL".to_owned(), "PHONE".to_owned(), "COUNTRY".to_owned()];
        let note = |cell, reason| Note { cell, reason };
        let all = |country: Cell| -> Prepared {
            Ok(vec![Cell::Plain("a".into()), Cell::Empty, country].into())
        };
        let mut counts = Counts::default();
        let default = Cell::Plain("us".into());
        let notes = [note(1, "refused_invalid"), note(2, "refused_invalid")];
        counts.count_cells(&keys, &all(default.clone()), &notes);
        counts.count_cells(&keys, &all(default), &[note(0, "mailto_removed")]);
        counts.count_cells(&keys, &Err(Skip("unusable")), &[note(1, "refused_invalid")]);
        let expected = [
            ("COUNTRY.refused_invalid", 1),
            ("COUNTRY.usable", 1),
            ("EMAIL.mailto_removed", 1),
            ("PHONE.refused_invalid", 2),
            ("PHONE.usable", 0),
        ];
        let expected = expected.map(|(reason, count)| (reason.to_owned(), count));
        assert_eq!(counts.into_normalised(&keys), ReasonCounts::from(expected));
    }

    #[test]
    fn the_rows_of_a_member_come_after_the_removal_of_another_row() {
        let keys = ["EMAIL".to_owned(), "PHONE".to_owned()];
        let delivered = Delivered { state: DeliveredState::empty(keys.to_vec()), runs: Vec::new() };
        let mut shards = vec![RoaringBitmap::new(); SHARD_COUNT];
        shards[0].extend([3, 4]);
        let (target, scan) = (MemberSet::new(shards), Scan::empty());
        let facts = DifferenceFacts {
            delivered: &delivered,
            target: &target,
            scan: &scan,
            mode: SyncMode::Mirror,
            replace: false,
            keys: &keys,
            strong: &["EMAIL", "PHONE"],
            identifiers: "",
            adopts: None,
        };
        // User 3 has another e-mail address, user 4 is the same.
        let (old, new) = (row("a", "1"), row("b", "1"));
        let (second, same) = (row("c", "2"), row("d", "3"));
        let mut state = ShardState::default();
        for (ordinal, row) in [(3, &old), (3, &second), (4, &same)] {
            state.record_added(ordinal, row.clone(), true);
        }
        let usable = |row: &PreparedRow| -> RowWithNotes { (Ok(row.clone()), Vec::new()) };
        let rows =
            BTreeMap::from([(3, vec![usable(&new), usable(&second)]), (4, vec![usable(&same)])]);
        let mut loaded = Shard { state, rows, reduced: BTreeSet::new() };
        let digests = vec![row_digest(&old), digest(0, &old[0]), digest(1, &old[1])];
        let mut removed = RemovedIdentifiers { digests, kept: Vec::new() };
        removed.freeze();
        removed.mark_kept(digest(1, &old[1]));

        let removals = facts.removals(&loaded, 0, &keys, &removed);
        let expected: PreparedRow = vec![Cell::Plain("a".into()), Cell::Empty].into();
        assert_eq!(removals.len(), 1);
        assert_eq!((removals[0].ordinal, &removals[0].send), (3, &Ok(expected)));
        let leaving = Leaving { extern_id: None, removed: &removed, users: BTreeSet::from([3]) };
        let (add, re_add) = additions(&facts, &loaded, 0, &leaving, &mut Counts::default());
        assert!(add.is_empty(), "{add:?}");
        let sent: Vec<_> = re_add.into_iter().map(|entry| (entry.ordinal, entry.send)).collect();
        // Also the row that has not changed: the platform may have matched both to one person.
        assert_eq!(sent, [(3, Ok(new)), (3, Ok(second))]);

        // Users of whom rows are left out are counted after their rows, and without rows to send once.
        loaded.reduced = BTreeSet::from([3, 4]);
        for is_counted in [false, true] {
            let (add, re_add) = additions(&facts, &loaded, 0, &leaving, &mut Counts::default());
            let reason = Err(SKIP_SAME_EXTERN_ID.to_owned());
            assert_eq!(re_add.len(), 3);
            assert_eq!((re_add[2].ordinal, &re_add[2].send), (3, &reason));
            assert_eq!(add.iter().any(|of| of.ordinal == 4 && of.send == reason), !is_counted);
            loaded.state.without_identifiers.extend([3, 4]);
        }
    }
}
