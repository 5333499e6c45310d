//! The only place that reads the system's clock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::Timestamp;

/// A source of the time. Passed in everywhere, so that tests and replays control the time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The current time. Goes backwards only if the system's clock does.
    fn now(&self) -> Timestamp;

    /// The time since a fixed moment, by a monotonic timer: it does not step when
    /// [`now`](Self::now) is set to another time. The default is for clocks that never step.
    fn elapsed(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.now().0).unwrap_or(0))
    }

    /// How long to wait in real time until `duration` has passed on this clock: a sixtieth for a
    /// clock that runs 60 times as fast.
    fn wall_duration(&self, duration: Duration) -> Duration {
        duration
    }
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
    fn elapsed(&self) -> Duration {
        static BEGIN: OnceLock<Instant> = OnceLock::new();
        BEGIN.get_or_init(Instant::now).elapsed()
    }
}

/// A clock that moves only when it is set. For tests and simulations.
///
/// ```
/// use std::time::Duration;
///
/// use throng_model::{Clock, ManualClock, Timestamp};
///
/// let clock = ManualClock::new(Timestamp(0));
/// clock.advance(Duration::from_secs(3));
/// assert_eq!(clock.now(), Timestamp(3_000_000));
/// // An administrator sets the clock back: the time of day steps, a timer does not.
/// clock.step(Timestamp(0));
/// assert_eq!((clock.now(), clock.elapsed()), (Timestamp(0), Duration::from_secs(3)));
/// ```
#[derive(Debug, Default)]
pub struct ManualClock {
    shown: AtomicI64,
    /// By how much it was stepped forward.
    stepped: AtomicI64,
}

impl ManualClock {
    /// A clock that shows `start`.
    pub fn new(start: Timestamp) -> Self {
        Self { shown: AtomicI64::new(start.0), stepped: AtomicI64::new(0) }
    }

    /// Moves the clock forward.
    pub fn advance(&self, duration: Duration) {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        self.shown.fetch_add(micros, Ordering::SeqCst);
    }

    /// Lets time pass until the clock shows this.
    pub fn set(&self, to: Timestamp) {
        self.shown.store(to.0, Ordering::SeqCst);
    }

    /// Steps the clock to another time without time passing, as an administrator or NTP does.
    pub fn step(&self, to: Timestamp) {
        let from = self.shown.swap(to.0, Ordering::SeqCst);
        self.stepped.fetch_add(to.0.saturating_sub(from), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.shown.load(Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        let stepped = self.stepped.load(Ordering::SeqCst);
        let micros = self.shown.load(Ordering::SeqCst).saturating_sub(stepped);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    fn wall_duration(&self, _: Duration) -> Duration {
        Duration::ZERO
    }
}

/// The system's clock with an offset and another speed: a demo can run through an hour of ad
/// traffic in a minute. Starts as the system's clock.
#[derive(Debug)]
pub struct AdjustableClock {
    state: Mutex<Adjustment>,
}

/// What an [`AdjustableClock`] shows: with the same adjustment the clocks of two processes show the same
/// time.
#[derive(Debug, Clone, Copy)]
pub struct Adjustment {
    /// A time of the system's clock.
    pub system_anchor: Timestamp,
    /// The time that is shown then.
    pub shown_anchor: Timestamp,
    /// How many times as fast as the system's clock it runs; more than zero.
    pub speed: f64,
    /// The time at which it stops.
    pub limit: Option<Timestamp>,
}

impl Adjustment {
    fn at(self, system: Timestamp) -> Timestamp {
        let passed = system.0.saturating_sub(self.system_anchor.0) as f64 * self.speed;
        let free = Timestamp(self.shown_anchor.0.saturating_add(passed as i64));
        match self.limit {
            // A limit in the past must not set the clock back.
            Some(limit) => free.min(limit.max(self.shown_anchor)),
            None => free,
        }
    }
}

impl Default for AdjustableClock {
    fn default() -> Self {
        let now = SystemClock.now();
        Self {
            state: Mutex::new(Adjustment {
                system_anchor: now,
                shown_anchor: now,
                speed: 1.0,
                limit: None,
            }),
        }
    }
}

impl AdjustableClock {
    fn state(&self) -> parking_lot::MutexGuard<'_, Adjustment> {
        self.state.lock()
    }

    /// From now on the clock runs `speed` times as fast as the system's (at least 0.001).
    pub fn set_speed(&self, speed: f64) {
        let system = SystemClock.now();
        let mut state = self.state();
        *state = Adjustment {
            system_anchor: system,
            shown_anchor: state.at(system),
            speed: if speed.is_finite() { speed.max(0.001) } else { 1.0 },
            ..*state
        };
    }

    /// From now on the clock stops at `limit` until another limit is set: a simulation waits for
    /// the parts that it simulates in this way, and no time is skipped when it continues. `None`:
    /// it does not stop.
    pub fn set_limit(&self, limit: Option<Timestamp>) {
        let system = SystemClock.now();
        let mut state = self.state();
        *state =
            Adjustment { system_anchor: system, shown_anchor: state.at(system), limit, ..*state };
    }

    /// A clock with the [`adjustment`](Self::adjustment) of another one.
    pub fn new(adjustment: Adjustment) -> Self {
        Self { state: Mutex::new(adjustment) }
    }

    /// How it differs from the system's clock.
    pub fn adjustment(&self) -> Adjustment {
        *self.state()
    }

    /// Jumps forward to `to`; does nothing if that is in the past.
    pub fn jump_to(&self, to: Timestamp) {
        let system = SystemClock.now();
        let mut state = self.state();
        let shown = state.at(system).max(to);
        *state = Adjustment { system_anchor: system, shown_anchor: shown, ..*state };
    }
}

impl Clock for AdjustableClock {
    fn now(&self) -> Timestamp {
        self.state().at(SystemClock.now())
    }

    fn wall_duration(&self, duration: Duration) -> Duration {
        duration.div_f64(self.state().speed)
    }
}
