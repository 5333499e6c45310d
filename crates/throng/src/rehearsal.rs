//! The clock of a rehearsal that several processes share: one of them sets it and writes it to a
//! file, the others read it there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use throng_model::{AdjustableClock, Clock, SystemClock, Timestamp};

/// A reader looks into the file this often.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Writes what a clock shows, how fast it runs and how far.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn publish(clock: &AdjustableClock, path: &Path) -> std::io::Result<()> {
    let (system, shown, speed, limit) = clock.parts();
    let limit = limit.map_or(String::new(), |limit| format!(" {}", limit.0));
    let aside = path.with_extension("aside");
    std::fs::write(&aside, format!("{} {} {speed}{limit}\n", system.0, shown.0))?;
    std::fs::rename(aside, path)
}

/// A clock that another process sets.
#[derive(Debug)]
pub(crate) struct FollowedClock {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    clock: AdjustableClock,
    looked_at: Timestamp,
}

impl FollowedClock {
    /// Follows the clock in a file. The system's clock counts until there is one.
    pub(crate) fn new(path: PathBuf) -> Self {
        let clock = read(&path).unwrap_or_default();
        let state = Mutex::new(State { clock, looked_at: SystemClock.now() });
        Self { path, state }
    }

    fn with<T>(&self, ask: impl FnOnce(&AdjustableClock) -> T) -> T {
        let mut state = self.state.lock();
        let now = SystemClock.now();
        if now.since(state.looked_at) >= LOOK_EVERY {
            state.looked_at = now;
            if let Some(clock) = read(&self.path) {
                state.clock = clock;
            }
        }
        ask(&state.clock)
    }
}

fn read(path: &Path) -> Option<AdjustableClock> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut words = text.split_whitespace();
    let system = words.next()?.parse().ok()?;
    let shown = words.next()?.parse().ok()?;
    let speed: f64 = words.next()?.parse().ok()?;
    let limit = match words.next() {
        Some(limit) => Some(Timestamp(limit.parse().ok()?)),
        None => None,
    };
    (speed.is_finite() && speed > 0.0)
        .then(|| AdjustableClock::from_parts(Timestamp(system), Timestamp(shown), speed, limit))
}

impl Clock for FollowedClock {
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
    fn a_follower_shows_what_the_leader_shows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clock");
        let leader = AdjustableClock::default();
        leader.jump_to(SystemClock.now().plus(Duration::from_secs(86_400)));
        leader.set_speed(1_000.0);
        publish(&leader, &path).unwrap();
        let follower = FollowedClock::new(path.clone());
        // Asked before and after, however long a busy machine takes in between. Times are kept in
        // microseconds, of which one is a millisecond at this speed.
        let (before, shown, after) = (leader.now(), follower.now(), leader.now());
        let rounding = Duration::from_millis(10);
        assert!(before.minus(rounding) <= shown, "{before} {shown}");
        assert!(shown <= after.plus(rounding), "{shown} {after}");
        assert_eq!(follower.wall_duration(Duration::from_secs(1)), Duration::from_millis(1));
        // It is past this limit already, so it stands still where it is, and so does the follower.
        leader.set_limit(Some(before));
        publish(&leader, &path).unwrap();
        let still = leader.now();
        assert_eq!((leader.now(), FollowedClock::new(path.clone()).now()), (still, still));
        std::fs::write(&path, "nonsense").unwrap();
        let still = FollowedClock::new(path);
        assert!(
            leader.now().since(still.now()) > Duration::from_secs(80_000),
            "the system's clock"
        );
    }
}
