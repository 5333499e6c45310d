//! Insertions that a gate has decided on itself and that the feed does not cover yet.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::FixedState;
use throng_model::{Micros, Timestamp};

use crate::feed::Frame;
use crate::slot::Slot;

/// An insertion whose event was lost on its way, or whose answer, counts for so long.
const COUNTED_FOR: Duration = Duration::from_secs(600);

/// An insertion that a gate counts until the feed covers it: see
/// [`Gate::decide_and_count`](crate::Gate::decide_and_count).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "tell the gate what became of the insertion's event"]
pub struct OwnInsertion(u64);

/// Where in the log an insertion is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Logged {
    pub(crate) partition: u32,
    /// The first offset behind it.
    pub(crate) position: u64,
    /// When that was known.
    pub(crate) at: Timestamp,
}

impl Logged {
    /// Whether figures up to a position, or of a time if the position is not told, have it.
    pub(crate) fn is_in(&self, position: Option<u64>, at: Timestamp) -> bool {
        position.map_or(at > self.at, |position| position >= self.position)
    }
}

#[derive(Debug)]
struct Pending {
    slot: Arc<Slot>,
    amount: Micros,
    counted_at: Timestamp,
    logged: Option<Logged>,
}

impl Pending {
    fn release(&self) {
        self.slot.own.fetch_sub(self.amount.0, Ordering::AcqRel);
    }
}

#[derive(Debug, Default)]
struct All {
    next: u64,
    pending: HashMap<u64, Pending, FixedState>,
}

/// See the module. What each slot has of it is in the slot too, for decisions.
#[derive(Debug, Default)]
pub(crate) struct OwnInsertions(Mutex<All>);

impl OwnInsertions {
    fn all(&self) -> MutexGuard<'_, All> {
        // Every statement leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what was added to a slot.
    pub(crate) fn add(&self, slot: &Arc<Slot>, amount: Micros, now: Timestamp) -> OwnInsertion {
        let mut all = self.all();
        let number = all.next;
        all.next += 1;
        let slot = Arc::clone(slot);
        all.pending.insert(number, Pending { slot, amount, counted_at: now, logged: None });
        OwnInsertion(number)
    }

    /// The partition of an insertion's ad group, as the feed has told it.
    pub(crate) fn partition(&self, insertion: &OwnInsertion) -> Option<u32> {
        let all = self.all();
        let pending = all.pending.get(&insertion.0)?;
        let partition = pending.slot.partition.load();
        partition.as_ref().map(|partition| partition.number)
    }

    /// The event is in the log.
    pub(crate) fn logged(&self, insertion: OwnInsertion, logged: Logged) {
        if let Some(pending) = self.all().pending.get_mut(&insertion.0) {
            pending.logged = Some(logged);
        }
    }

    /// It counts no longer.
    pub(crate) fn release(&self, insertion: OwnInsertion) {
        if let Some(pending) = self.all().pending.remove(&insertion.0) {
            pending.release();
        }
    }

    /// Lets go of what the figures of a frame have, after they were written.
    pub(crate) fn covered_by(&self, frame: &Frame) {
        self.all().pending.retain(|_, pending| {
            let is_in = pending.logged.as_ref().is_some_and(|logged| {
                logged.partition == frame.partition && logged.is_in(frame.log_position, frame.at)
            });
            let gone = is_in || frame.at.since(pending.counted_at) > COUNTED_FOR;
            if gone {
                pending.release();
            }
            !gone
        });
    }
}
