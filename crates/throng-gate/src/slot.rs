//! One ad group's spend, read without a lock while frames are applied.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU16, AtomicU64, Ordering, fence};

use arc_swap::ArcSwapOption;
use throng_feed::PassThroughRate;
use throng_model::Micros;

/// A partition of the feed, as its ad groups see it.
// Why one for all of its ad groups: a heartbeat makes all of them fresh with one store, instead of one
// store for each ad group every second.
#[derive(Debug)]
pub(crate) struct FeedPartition {
    pub(crate) number: u32,
    /// The time of the last frame that was applied, in microseconds.
    pub(crate) last_frame_at: AtomicI64,
}

/// A sequence lock: readers that overlap a write read again. There is one writer at a time.
// Why a sequence lock: an impression moves money from `in_flight` to `actual`, so the two only make sense
// together. Two plain atomics could be read half before and half after a frame: the money is then in
// neither, and an ad is shown past the budget, or in both, and an ad group is refused that has budget
// left. With a mutex every decision of every thread would write to the lock's cache line; with an `Arc`
// swapped for each update, a frame of 20,000 entries would allocate 20,000 times. Here readers write
// nothing, and a writer makes six stores.
//
// Why everything of an ad group is in one allocation: a decision reads the figures, `own`, `unknown` and
// `partition` of each candidate. Side by side they are in one or two cache lines; with an array for each
// field it would be one line a field, each of them a possible cache miss.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Odd while a write is under way.
    sequence: AtomicU64,
    actual: AtomicI64,
    in_flight: AtomicI64,
    flags: AtomicU8,
    /// 65,535 minus the pass-through rate: a slot that no frame has named lets every request pass.
    held_back: AtomicU16,
    /// What this gate's own insertions are expected to earn that the figures do not have yet.
    // Why outside of the sequence lock: it has many writers, one for each insertion in any thread, and a
    // sequence lock allows one. The order of reads and writes makes up for it: see `Gate::decide`.
    pub(crate) own: AtomicI64,
    /// The newest keyframe of its partition does not name it.
    pub(crate) unknown: AtomicBool,
    /// The partition whose frames name it; empty until one has.
    // Why taken from frames: the sender decides how ad groups are distributed over partitions, and that
    // changes with the number of partitions.
    pub(crate) partition: ArcSwapOption<FeedPartition>,
}

/// What a slot holds at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Spend {
    pub(crate) actual: Micros,
    pub(crate) in_flight: Micros,
    pub(crate) flags: u8,
    pub(crate) pass_through_rate: PassThroughRate,
}

impl Slot {
    /// The caller is the only writer.
    // Why that matters: two writers could both make the sequence odd and even again in between, and a
    // reader would accept a mix of both. `Gate` holds its writers' lock here.
    pub(crate) fn write(&self, spend: Spend) {
        // Relaxed: there is no other writer.
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        // Why a fence: a release *store* of the odd number would only order what comes before it. Without
        // the fence a new figure may become visible before the odd number does, and a reader that sees the
        // old even number twice accepts it.
        fence(Ordering::Release);
        self.actual.store(spend.actual.0, Ordering::Relaxed);
        self.in_flight.store(spend.in_flight.0, Ordering::Relaxed);
        self.flags.store(spend.flags, Ordering::Relaxed);
        self.held_back.store(u16::MAX - spend.pass_through_rate.0, Ordering::Relaxed);
        // Release: whoever sees this even number sees all figures above.
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    #[inline]
    pub(crate) fn read(&self) -> Spend {
        loop {
            // Acquire: the figures are read after it, and are at least those of that number.
            let before = self.sequence.load(Ordering::Acquire);
            let spend = Spend {
                actual: Micros(self.actual.load(Ordering::Relaxed)),
                in_flight: Micros(self.in_flight.load(Ordering::Relaxed)),
                flags: self.flags.load(Ordering::Relaxed),
                pass_through_rate: PassThroughRate(
                    u16::MAX - self.held_back.load(Ordering::Relaxed),
                ),
            };
            // Why a fence: an acquire *load* of the sequence would only order what comes after it. Without
            // the fence the second read of the sequence may happen before the figures are read, and a
            // write in between is missed.
            fence(Ordering::Acquire);
            if before & 1 == 0 && before == self.sequence.load(Ordering::Relaxed) {
                return spend;
            }
            // A write takes nanoseconds, unless its thread loses the processor in the middle of it; then
            // this loop lasts as long as that. Writers apply frames and nothing else, so it is rare.
            std::hint::spin_loop();
        }
    }
}
