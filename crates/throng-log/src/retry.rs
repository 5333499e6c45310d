//! The retry loop of this crate, and its delays and timeouts.

use std::ops::{ControlFlow, RangeInclusive};
use std::time::Duration;

/// Before the first retry, doubled for each further one, and the longest delay: shorter than a restart of a broker, so
/// that its return is noticed soon; long enough that many readers do not load a cluster that recovers.
pub(crate) const RETRY_DELAYS: RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(2);
/// The same while the queue of a producer is full. Shorter: it is drained all the time, and no request is sent.
pub(crate) const QUEUE_FULL_RETRY_DELAYS: RangeInclusive<Duration> =
    Duration::from_millis(5)..=Duration::from_millis(100);
/// Between two polls for a change that sends no notification.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The timeout of one request to a broker.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// The timeout of a TCP connection to a broker. Short, because another broker can be asked instead.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Repeats `attempt` until it breaks, with growing delays. The caller limits the time, if at all.
///
/// The state moves into each attempt and comes back with `Continue`. By value, because a future that borrows
/// from a closure cannot be expressed as one type `F`.
pub(crate) async fn retry<S, T, F>(
    mut state: S,
    delays: RangeInclusive<Duration>,
    mut attempt: impl FnMut(S) -> F,
) -> T
where
    F: Future<Output = ControlFlow<T, S>>,
{
    let (mut delay, longest) = delays.into_inner();
    loop {
        match attempt(state).await {
            ControlFlow::Break(result) => return result,
            ControlFlow::Continue(next) => state = next,
        }
        tokio::time::sleep(delay).await;
        delay = next_delay(delay, longest);
    }
}

fn next_delay(delay: Duration, longest: Duration) -> Duration {
    (2 * delay).min(longest)
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    #[tokio::test]
    async fn attempts_are_repeated_until_one_breaks() {
        let result = retry(Vec::new(), Duration::ZERO..=Duration::ZERO, |mut attempts| {
            attempts.push(attempts.len());
            ready(match attempts.len() {
                4 => ControlFlow::Break(attempts),
                _ => ControlFlow::Continue(attempts),
            })
        });
        assert_eq!(result.await, [0, 1, 2, 3]);
    }

    #[test]
    fn delays_double_up_to_the_limit() {
        let millis = |delays: RangeInclusive<Duration>| -> Vec<u128> {
            let (first, longest) = delays.into_inner();
            let delays =
                std::iter::successors(Some(first), |delay| Some(next_delay(*delay, longest)));
            delays.take(8).map(|delay| delay.as_millis()).collect()
        };
        assert_eq!(millis(RETRY_DELAYS), [50, 100, 200, 400, 800, 1_600, 2_000, 2_000]);
        assert_eq!(millis(QUEUE_FULL_RETRY_DELAYS), [5, 10, 20, 40, 80, 100, 100, 100]);
    }
}
