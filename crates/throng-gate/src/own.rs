//! Insertions that a gate has decided on itself and that the feed does not cover yet.
//!
//! Why: between an insertion and the frame that has it pass a second or two. Without this an ad server
//! with a thousand requests a second would show an ad group with money for one insertion two thousand
//! times. So each insertion adds what it is expected to earn to its ad group's slot, and subtracts it
//! when a frame whose log position is past the insertion's event has been applied.
//!
//! The sum of each ad group is in its slot, where decisions read it without a lock; this list, behind a
//! lock, only has what to subtract, and when.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use foldhash::fast::FixedState;
use parking_lot::{Mutex, MutexGuard};
use throng_feed::Frame;
use throng_model::{Micros, Timestamp};

use crate::slot::Slot;

/// For how long an insertion counts whose event, or the answer to it, was lost.
// Why it ends at all: an ad server that crashes between insertion and answer, or drops the answer, would
// keep the amount from its ad group until the process ends. Why so late: the event may be in the log all the
// same, and subtracting the amount before a frame has it lets the gate overspend.
const COUNTED_FOR: Duration = Duration::from_secs(600);

/// An insertion that a gate counts until the feed covers it: see
/// [`Gate::decide_and_count`](crate::Gate::decide_and_count).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "call `insertion_logged` or `insertion_dropped` with it"]
pub struct OwnInsertion(u64);

/// Where in the log an insertion is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Logged {
    pub(crate) partition: u32,
    /// The first offset after it.
    pub(crate) position: u64,
    /// When that was known here.
    pub(crate) at: Timestamp,
}

impl Logged {
    /// Whether the figures of a frame have it: by log position, or by time where the frame has none.
    // Why positions: they are exact. By time it is a guess: a frame made after the answer may come from an
    // owner that reads the log with a delay, and clocks of two machines differ. Then an insertion counts
    // for a short time in neither place. Frames of format 1 leave no other choice.
    pub(crate) fn is_in(&self, position: Option<u64>, at: Timestamp) -> bool {
        position.map_or(at > self.at, |position| position >= self.position)
    }
}

#[derive(Debug)]
struct Pending {
    slot: Arc<Slot>,
    amount: Micros,
    /// By the clock of the frames or by the caller's, whichever was later.
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
    /// The time of the frame that was applied last.
    frame_at: Timestamp,
    pending: HashMap<u64, Pending, FixedState>,
}

/// The list of them; each slot has the sum of its own.
#[derive(Debug, Default)]
pub(crate) struct OwnInsertions(Mutex<All>);

impl OwnInsertions {
    fn all(&self) -> MutexGuard<'_, All> {
        // A panic while the lock is held leaves no entry half written.
        self.0.lock()
    }

    /// Records what the caller has added to a slot.
    pub(crate) fn add(&self, slot: &Arc<Slot>, amount: Micros, now: Timestamp) -> OwnInsertion {
        let mut all = self.all();
        let number = all.next;
        all.next += 1;
        let slot = Arc::clone(slot);
        // Why not `now` alone: `covered_by` compares it with the times of frames, which are the node's. With a
        // clock that is ten minutes behind the node's, each insertion would be subtracted by the next frame,
        // whether that has it or not.
        let counted_at = now.max(all.frame_at);
        all.pending.insert(number, Pending { slot, amount, counted_at, logged: None });
        OwnInsertion(number)
    }

    /// The partition of an insertion's ad group, as far as frames have named the ad group.
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

    /// Subtracts an insertion from its slot.
    // Why it is safe to call late: the entry is removed under the lock, so an amount is subtracted once,
    // by a frame or by the caller.
    pub(crate) fn release(&self, insertion: OwnInsertion) {
        if let Some(pending) = self.all().pending.remove(&insertion.0) {
            pending.release();
        }
    }

    /// Subtracts what the figures of a frame have. Called after they were written to the slots.
    // Why after: `decide` reads `own` before the figures. Written first and subtracted second, an insertion
    // is in one of the two at least, whenever `decide` reads. The other way round it is in neither for a
    // moment, and the gate shows an ad for money that is spent.
    pub(crate) fn covered_by(&self, frame: &Frame) {
        let mut all = self.all();
        all.frame_at = frame.at;
        all.pending.retain(|_, pending| {
            let is_in = pending.logged.as_ref().is_some_and(|logged| {
                logged.partition == frame.partition && logged.is_in(frame.log_position, frame.at)
            });
            // By the frame's time: it advances also where no decision is made.
            let gone = is_in || frame.at.since(pending.counted_at) > COUNTED_FOR;
            if gone {
                pending.release();
            }
            !gone
        });
    }
}
