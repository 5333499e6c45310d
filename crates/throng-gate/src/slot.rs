//! One ad group's spend, read without a lock while frames are applied.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering, fence};

use arc_swap::ArcSwapOption;
use throng_model::Micros;

/// A partition of the feed, as its ad groups see it.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) number: u32,
    /// When its last frame was made, in microseconds.
    pub(crate) heard: AtomicI64,
}

/// A sequence lock: readers that overlap a write read again. There is one writer at a time.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    sequence: AtomicU64,
    actual: AtomicI64,
    in_flight: AtomicI64,
    flags: AtomicU8,
    /// What this gate's own insertions are expected to earn that the figures do not have yet.
    pub(crate) own: AtomicI64,
    /// The newest keyframe of its partition does not name it.
    pub(crate) unknown: AtomicBool,
    /// Who told about it; empty until somebody has.
    pub(crate) partition: ArcSwapOption<Partition>,
}

/// What a slot holds at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Spend {
    pub(crate) actual: Micros,
    pub(crate) in_flight: Micros,
    pub(crate) flags: u8,
}

impl Slot {
    /// The caller is the only writer.
    pub(crate) fn write(&self, spend: Spend) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.actual.store(spend.actual.0, Ordering::Relaxed);
        self.in_flight.store(spend.in_flight.0, Ordering::Relaxed);
        self.flags.store(spend.flags, Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    #[inline]
    pub(crate) fn read(&self) -> Spend {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let spend = Spend {
                actual: Micros(self.actual.load(Ordering::Relaxed)),
                in_flight: Micros(self.in_flight.load(Ordering::Relaxed)),
                flags: self.flags.load(Ordering::Relaxed),
            };
            fence(Ordering::Acquire);
            if before & 1 == 0 && before == self.sequence.load(Ordering::Relaxed) {
                return spend;
            }
            std::hint::spin_loop();
        }
    }
}
