//! The simulated clock of several processes: one of them sets it and writes it to a file, the others
//! read it from there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use throng_model::{AdjustableClock, Adjustment, Clock, SystemClock, Timestamp};

/// How often a process reads the file again.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Writes the time of a clock, its speed and its limit.
///
/// # Errors
/// If the file cannot be written.
pub fn publish(clock: &AdjustableClock, path: &Path) -> std::io::Result<()> {
    let Adjustment { system_anchor, shown_anchor, speed, limit } = clock.adjustment();
    let limit = limit.map_or(String::new(), |limit| format!(" {}", limit.0));
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, format!("{} {} {speed}{limit}\n", system_anchor.0, shown_anchor.0))?;
    std::fs::rename(temporary, path)
}

/// A clock that another process sets.
#[derive(Debug)]
pub struct SimulatedClock {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    clock: AdjustableClock,
    polled_at: Timestamp,
}

impl SimulatedClock {
    /// The clock in a file. Until the file exists it shows the system's time.
    pub fn new(path: PathBuf) -> Self {
        let clock = read(&path).unwrap_or_default();
        let state = Mutex::new(State { clock, polled_at: SystemClock.now() });
        Self { path, state }
    }

    fn with<T>(&self, read_clock: impl FnOnce(&AdjustableClock) -> T) -> T {
        let mut state = self.state.lock();
        let now = SystemClock.now();
        if now.since(state.polled_at) >= POLL_INTERVAL {
            state.polled_at = now;
            // An unreadable file changes nothing: the clock continues from what it showed last.
            if let Some(clock) = read(&self.path) {
                state.clock = clock;
            }
        }
        read_clock(&state.clock)
    }
}

fn read(path: &Path) -> Option<AdjustableClock> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut words = text.split_whitespace();
    let system_anchor = Timestamp(words.next()?.parse().ok()?);
    let shown_anchor = Timestamp(words.next()?.parse().ok()?);
    let speed: f64 = words.next()?.parse().ok()?;
    let limit = match words.next() {
        Some(limit) => Some(Timestamp(limit.parse().ok()?)),
        None => None,
    };
    let adjustment = Adjustment { system_anchor, shown_anchor, speed, limit };
    (speed.is_finite() && speed > 0.0).then(|| AdjustableClock::new(adjustment))
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        self.with(Clock::now)
    }

    fn wall_duration(&self, duration: Duration) -> Duration {
        self.with(|clock| clock.wall_duration(duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_the_time_of_the_process_that_sets_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clock");
        let source = AdjustableClock::default();
        source.jump_to(SystemClock.now().plus(Duration::from_secs(86_400)));
        source.set_speed(1_000.0);
        publish(&source, &path).unwrap();
        let clock = SimulatedClock::new(path.clone());
        // The source is read before and after, however long a busy machine takes in between. Times are in
        // microseconds, and one of them is a millisecond at this speed.
        let (before, shown, after) = (source.now(), clock.now(), source.now());
        let rounding = Duration::from_millis(10);
        assert!(before.minus(rounding) <= shown, "{before} {shown}");
        assert!(shown <= after.plus(rounding), "{shown} {after}");
        assert_eq!(clock.wall_duration(Duration::from_secs(1)), Duration::from_millis(1));
        // It is past this limit already, so both stop at the time that they show.
        source.set_limit(Some(before));
        publish(&source, &path).unwrap();
        let stopped = source.now();
        assert_eq!((source.now(), SimulatedClock::new(path.clone()).now()), (stopped, stopped));
        std::fs::write(&path, "invalid").unwrap();
        let fallback = SimulatedClock::new(path);
        assert!(
            source.now().since(fallback.now()) > Duration::from_secs(80_000),
            "the system's clock"
        );
    }
}
