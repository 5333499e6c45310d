//! How often loops poll the ledger and the queues for work besides the signals.

use std::time::Duration;

use crate::Clock;

/// How often a loop polls for due work without a signal, by the node's clock.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long a loop waits after an error of the ledger or of a queue: an outage must not become a stream of
/// failing calls.
pub const RETRY_DELAY: Duration = Duration::from_secs(5);

/// How long a loop that polls waits on the machine's timer for an interval of this clock. At least
/// `shortest`: however fast the clock runs, a loop must not poll without a pause, least of all a ledger
/// that many processes poll.
pub fn poll_delay(clock: &dyn Clock, interval: Duration, shortest: Duration) -> Duration {
    clock.wall_duration(interval).max(shortest)
}
