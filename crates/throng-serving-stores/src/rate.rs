//! The rate of requests to a store: one for all its connections, so that writes of several audiences, further tries
//! and the questions of checks together do not exceed it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// When the next request to a store may be sent; `None`: at once. One for each store of the process.
pub(crate) type NextRequest = Arc<Mutex<Option<Instant>>>;

/// The rate of a store, as the settings of one connection have it.
#[derive(Debug, Clone)]
pub(crate) struct RateLimit {
    next: NextRequest,
    per_second: u32,
}

impl RateLimit {
    /// A limit of so many users in a second, together with the other connections that have the same `next`.
    pub(crate) fn new(next: NextRequest, per_second: u32) -> Self {
        Self { next, per_second }
    }

    /// Waits until a request with so many users may be sent. At most a second where no request has more users than a
    /// second may have.
    pub(crate) async fn wait(&self, users: usize) {
        let start = self.reserve(users, Instant::now());
        tokio::time::sleep_until(start).await;
    }

    /// When a request with so many users may be sent, `now` or later. The next one waits for as long as these users
    /// may take. They count also if the request is not sent.
    pub(crate) fn reserve(&self, users: usize, now: Instant) -> Instant {
        let mut next = self.next.lock();
        let start = next.map_or(now, |next| next.max(now));
        let takes = users as f64 / f64::from(self.per_second.max(1));
        *next = Some(start + Duration::from_secs_f64(takes));
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_connections_of_a_store_have_one_rate() {
        let (next, now) = (NextRequest::default(), Instant::now());
        let at = |seconds: u64| now + Duration::from_secs(seconds);
        let first = RateLimit::new(Arc::clone(&next), 100);
        assert_eq!(first.reserve(200, at(0)), at(0));
        // The store is declared with another rate; what was sent before still counts.
        let second = RateLimit::new(Arc::clone(&next), 50);
        assert_eq!(second.reserve(50, at(0)), at(2));
        assert_eq!(first.reserve(100, at(1)), at(3));
        // Time in which nothing was sent allows no larger rate later.
        assert_eq!(second.reserve(50, at(60)), at(60));
        assert_eq!(second.reserve(50, at(60)), at(61));
        // Another store.
        assert_eq!(RateLimit::new(NextRequest::default(), 1).reserve(9, at(60)), at(60));
    }
}
