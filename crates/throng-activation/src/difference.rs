//! What has to be added and removed so that the platform's list is the audience. A difference of
//! identifier rows, not of users.
//!
//! A platform matches people, not rows: a removal that names an identifier takes whoever has it. So a
//! removal names only identifiers that no member has, and the `EXTERN_ID` where there is one; members
//! that have a named `EXTERN_ID` are put in again after the removals.

use std::collections::BTreeMap;
use std::path::Path;

use throng_membership::MemberSet;
use throng_model::SHARD_COUNT;
use throng_store::{Batch, BatchState, Operation, ReasonCounts, SyncMode};

use crate::delivered::{DeliveredState, Given, ShardState, StateMeta, StateWriter};
use crate::planned::{AFTER, Entry, FIRST, PlanFile, PlanMeta, PlanWriter, REMOVE};
use crate::scan::{Noted, Scan};
use crate::sealed::{Binding, IdentifierKeys, SealedWriter};
use crate::{Cell, Note, PreparedRow, SealedError};

/// Users for whom the identifier query has no row.
pub(crate) const NO_IDENTIFIERS: &str = "no_identifiers";
/// Removals of a row that a member has too.
const ROW_OF_A_MEMBER: &str = "row_of_another_member";
/// Removals of a row whose every identifier some member has.
const SHARED: &str = "identifiers_of_other_members";

/// A run that has ended and is not yet in the delivered state.
#[derive(Debug)]
pub struct EndedRun {
    /// What it was to do.
    pub plan: PlanFile,
    /// How far it came.
    pub batches: Vec<Batch>,
    /// It completed. Otherwise what it did not finish may have arrived all the same.
    pub completed: bool,
}

impl EndedRun {
    /// What became of a row: whether its batch has an end, and whether the platform refused it.
    fn fate(&self, operation: Operation, rank: u64) -> (bool, bool) {
        let holds = |b: &&Batch| {
            b.operation == operation && (b.first_rank..b.first_rank + b.rows).contains(&rank)
        };
        let Some(batch) = self.batches.iter().find(holds) else { return (false, false) };
        let place = rank - batch.first_rank;
        let outcome = batch.outcome.as_ref().filter(|_| batch.state == BatchState::Done);
        let refused = outcome.is_some_and(|outcome| {
            outcome.refused.iter().any(|(from, to)| (*from..*to).contains(&(place as u32)))
        });
        (outcome.is_some(), refused)
    }

    fn apply(&self, shard: u8, state: &mut ShardState) -> Result<(), SealedError> {
        let replaces = self.plan.meta.put == Operation::Replace;
        if replaces && self.completed {
            *state = ShardState::default();
        } else if replaces {
            state.users.values_mut().flatten().for_each(|given| given.certain = false);
        }
        for (operation, rank, entry) in self.plan.shard(shard)? {
            let (done, refused) = self.fate(operation, rank);
            let certain = done && (!replaces || self.completed);
            match (operation, entry.send, entry.of) {
                (Operation::Remove, Ok(_), Some(row)) if done && !refused => {
                    state.removed(entry.ordinal, &row);
                }
                // Refused, or without an answer. Another removal may have taken the same person.
                (Operation::Remove, Ok(_), Some(row)) => {
                    state.mark(entry.ordinal, &row, |given| given.certain = false);
                }
                (Operation::Remove, Err(reason), Some(row)) if reason == SHARED => {
                    state.mark(entry.ordinal, &row, |given| given.shared = true);
                }
                (Operation::Remove, Err(_), Some(row)) => state.removed(entry.ordinal, &row),
                (Operation::Remove, ..) => {}
                (_, Ok(row), _) if !refused => state.added(entry.ordinal, row, certain),
                (_, Ok(_), _) => {}
                (_, Err(_), _) => {
                    if done {
                        state.without.insert(entry.ordinal);
                    }
                }
            }
        }
        Ok(())
    }
}

/// What the platform was given: the recorded state, and the runs that ended since, the oldest first.
#[derive(Debug)]
pub struct Delivered {
    /// As it was recorded.
    pub state: DeliveredState,
    /// Since then.
    pub runs: Vec<EndedRun>,
}

impl Delivered {
    fn shard(&self, shard: u8) -> Result<ShardState, SealedError> {
        let mut state = self.state.shard(shard)?;
        for run in &self.runs {
            run.apply(shard, &mut state)?;
        }
        Ok(state)
    }

    /// Records the state with the ended runs in it, in a new file.
    ///
    /// # Errors
    /// [`SealedError`].
    pub fn write(
        &self,
        path: &Path,
        keys: &IdentifierKeys,
        binding: Binding,
        salt: [u8; 32],
    ) -> Result<StateMeta, SealedError> {
        let columns = self.runs.last().map_or(&self.state.meta.keys, |run| &run.plan.meta.keys);
        let writer = SealedWriter::create(path, keys, binding, salt)?;
        let mut writer = StateWriter::new(writer, columns.clone());
        for shard in 0..SHARD_COUNT {
            writer.shard(shard as u8, &self.shard(shard as u8)?)?;
        }
        writer.finish()
    }
}

/// What a difference is worked out from.
#[derive(Debug)]
pub struct DifferenceFacts<'a> {
    /// What the platform was given.
    pub delivered: &'a Delivered,
    /// The members to deliver.
    pub target: &'a MemberSet,
    /// Their identifiers now.
    pub scan: &'a Scan,
    /// How the sync is kept.
    pub mode: SyncMode,
    /// Everything is sent anew in a replace session: by the mode, or because what the platform holds
    /// is not known.
    pub replace: bool,
    /// The platform's keys, in the order of cells.
    pub keys: &'a [String],
    /// Keys of which each names one person.
    pub strong: &'a [&'a str],
    /// A fingerprint of the identifiers' SQL, key and columns.
    pub identifiers: &'a str,
}

/// A difference, written as a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What the plan says about itself.
    pub meta: PlanMeta,
    /// Users who are on the platform now.
    pub before: u64,
    /// Users of those who will not be.
    pub leaving: u64,
    /// What was changed or refused in the identifiers that are put in, by key and reason.
    pub normalised: ReasonCounts,
}

impl Difference {
    /// Nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.meta.rows == [0; 3]
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
            let of = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
            let mut bytes = [0u8; 16];
            bytes.copy_from_slice(&of.as_ref()[..16]);
            u128::from_le_bytes(bytes).wrapping_add(key as u128)
        }
        Cell::Empty => key as u128,
    }
}

/// Which cells of a row name one person; none: only the whole row does.
fn named<'r>(strong: &'r [bool], row: &'r PreparedRow) -> impl Iterator<Item = usize> + 'r {
    let is_strong = |at: &usize| strong.get(*at) == Some(&true) && row[*at] != Cell::Empty;
    (0..row.len()).filter(is_strong)
}

fn whole(row: &PreparedRow) -> Digest {
    let cells = row.iter().enumerate().map(|(at, cell)| digest(at, cell));
    cells.fold(1u128, |sum, cell| {
        (sum ^ cell).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

/// Identifiers of rows that go, and which of them a member has.
#[derive(Default)]
struct Leaving {
    digests: Vec<Digest>,
    kept: Vec<bool>,
}

impl Leaving {
    fn seal(&mut self) {
        self.digests.sort_unstable();
        self.digests.dedup();
        self.kept = vec![false; self.digests.len()];
    }

    fn keep(&mut self, digest: Digest) {
        if let Ok(at) = self.digests.binary_search(&digest) {
            self.kept[at] = true;
        }
    }

    fn is_kept(&self, digest: Digest) -> bool {
        self.digests.binary_search(&digest).is_ok_and(|at| self.kept[at])
    }

    fn names(&self, digest: Digest) -> bool {
        self.digests.binary_search(&digest).is_ok()
    }
}

struct Shard {
    state: ShardState,
    rows: BTreeMap<u32, Noted>,
}

impl DifferenceFacts<'_> {
    fn shard(&self, shard: u8) -> Result<Shard, SealedError> {
        Ok(Shard { state: self.delivered.shard(shard)?, rows: self.scan.shard(shard)? })
    }

    fn strong(&self, keys: &[String]) -> Vec<bool> {
        keys.iter().map(|key| self.strong.contains(&key.as_str())).collect()
    }

    fn removes(&self) -> bool {
        self.mode != SyncMode::Add && !self.replace
    }

    /// The row that a member should have.
    fn wanted<'s>(&self, of: &'s Shard, shard: u8, ordinal: u32) -> Option<&'s PreparedRow> {
        if !self.target.contains(shard, ordinal) {
            return None;
        }
        of.rows.get(&ordinal).and_then(|(row, _)| row.as_ref().ok())
    }

    /// The rows of a shard that have to go.
    fn gone<'s>(&self, of: &'s Shard, shard: u8) -> Vec<(u32, &'s Given)> {
        let mut gone = Vec::new();
        for (ordinal, given) in &of.state.users {
            let wanted = self.wanted(of, shard, *ordinal);
            gone.extend(given.iter().filter(|g| Some(&g.row) != wanted).map(|g| (*ordinal, g)));
        }
        gone
    }
}

/// Works out a difference and writes it as a plan. Reads the delivered state and the scan three times,
/// shard by shard: memory is that of a shard, and 17 bytes for each identifier of a row that goes.
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
    let remove_keys = facts
        .delivered
        .runs
        .last()
        .map_or(&facts.delivered.state.meta.keys, |run| &run.plan.meta.keys);
    let (now, then) = (facts.strong(facts.keys), facts.strong(remove_keys));
    let leaving = if facts.removes() { leaving(facts, &now, &then)? } else { Leaving::default() };
    let extern_id = facts.keys.iter().position(|key| key == "EXTERN_ID");
    let mut writer = PlanWriter::new(SealedWriter::create(path, keys, binding, salt)?);
    let mut out = Counts::default();
    for shard in 0..SHARD_COUNT {
        let shard = shard as u8;
        let of = facts.shard(shard)?;
        let (first, after) = puts(facts, &of, shard, extern_id, &leaving, &mut out);
        writer.shard(FIRST, shard, &first)?;
        writer.shard(AFTER, shard, &after)?;
        for (ordinal, _) in of.state.users.iter().filter(|(_, g)| g.iter().any(|g| !g.shared)) {
            out.before += 1;
            out.leaving += u64::from(facts.wanted(&of, shard, *ordinal).is_none());
        }
        if facts.removes() {
            let gone = facts.gone(&of, shard);
            let entries: Vec<Entry> = gone
                .into_iter()
                .filter_map(|(ordinal, given)| {
                    removal(ordinal, given, remove_keys, &then, &leaving)
                })
                .collect();
            writer.shard(REMOVE, shard, &entries)?;
        }
    }
    let put = if facts.replace { Operation::Replace } else { Operation::Add };
    let meta = writer.finish(
        put,
        facts.keys.to_vec(),
        remove_keys.clone(),
        facts.identifiers.to_owned(),
    )?;
    Ok(Difference { meta, before: out.before, leaving: out.leaving, normalised: out.normalised })
}

#[derive(Default)]
struct Counts {
    before: u64,
    leaving: u64,
    normalised: ReasonCounts,
}

/// The identifiers of rows that go, and which of them members have.
fn leaving(
    facts: &DifferenceFacts<'_>,
    now: &[bool],
    then: &[bool],
) -> Result<Leaving, SealedError> {
    let mut leaving = Leaving::default();
    for shard in 0..SHARD_COUNT {
        let of = facts.shard(shard as u8)?;
        for (_, given) in facts.gone(&of, shard as u8) {
            leaving.digests.push(whole(&given.row));
            leaving.digests.extend(named(then, &given.row).map(|at| digest(at, &given.row[at])));
        }
    }
    leaving.seal();
    if leaving.digests.is_empty() {
        return Ok(leaving);
    }
    for shard in 0..SHARD_COUNT {
        let of = facts.shard(shard as u8)?;
        for ordinal in facts.target.shard(shard as u8) {
            let Some(row) = facts.wanted(&of, shard as u8, ordinal) else { continue };
            leaving.keep(whole(row));
            named(now, row).for_each(|at| leaving.keep(digest(at, &row[at])));
        }
    }
    Ok(leaving)
}

/// The entries that put members in: those that come first, and those that come after the removals.
fn puts(
    facts: &DifferenceFacts<'_>,
    of: &Shard,
    shard: u8,
    extern_id: Option<usize>,
    leaving: &Leaving,
    out: &mut Counts,
) -> (Vec<Entry>, Vec<Entry>) {
    let (mut first, mut after) = (Vec::new(), Vec::new());
    for ordinal in facts.target.shard(shard) {
        let none: &[Note] = &[];
        let (send, notes) = match of.rows.get(&ordinal) {
            Some((Ok(row), notes)) => (Ok(row.clone()), notes.as_slice()),
            Some((Err(skip), notes)) => (Err(skip.0.to_owned()), notes.as_slice()),
            None => (Err(NO_IDENTIFIERS.to_owned()), none),
        };
        let again = match (&send, extern_id) {
            (Ok(row), Some(at)) => leaving.names(digest(at, &row[at])),
            _ => false,
        };
        let there = match &send {
            Ok(row) => {
                let given = of.state.users.get(&ordinal).into_iter().flatten();
                given.into_iter().any(|g| g.row == *row && g.certain)
            }
            Err(_) => of.state.without.contains(ordinal),
        };
        if there && !again && !facts.replace {
            continue;
        }
        for note in notes {
            let key = facts.keys.get(usize::from(note.cell)).map_or("", String::as_str);
            *out.normalised.entry(format!("{key}.{}", note.reason)).or_default() += 1;
        }
        let entry = Entry { ordinal, send, of: None };
        if again { after.push(entry) } else { first.push(entry) }
    }
    (first, after)
}

/// The entry that takes a row off the platform; `None` if it can not be named and was counted before.
fn removal(
    ordinal: u32,
    given: &Given,
    keys: &[String],
    strong: &[bool],
    leaving: &Leaving,
) -> Option<Entry> {
    let row = &given.row;
    let mut send: Vec<Cell> = vec![Cell::Empty; row.len()];
    let mut has_names = false;
    for at in named(strong, row) {
        has_names = true;
        let is_extern_id = keys.get(at).is_some_and(|key| key == "EXTERN_ID");
        if is_extern_id || !leaving.is_kept(digest(at, &row[at])) {
            send[at] = row[at].clone();
        }
    }
    let nothing = send.iter().all(|cell| *cell == Cell::Empty);
    let send = if !nothing {
        Ok(send.into())
    } else if leaving.is_kept(whole(row)) {
        Err(ROW_OF_A_MEMBER.to_owned())
    } else if has_names {
        if given.shared {
            return None;
        }
        Err(SHARED.to_owned())
    } else {
        // Only names and places: they name somebody all together or not at all.
        Ok(row.clone())
    };
    Some(Entry { ordinal, send, of: Some(row.clone()) })
}
