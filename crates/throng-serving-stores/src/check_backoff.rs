//! The backoff of checks that could not be made.

use std::collections::HashMap;

use parking_lot::Mutex;
use throng_model::{AudienceName, Backoff, ServingStoreName, Timestamp};

/// What could not be checked: an audience in a store, or, without an audience, the store itself.
type Checked = (ServingStoreName, Option<AudienceName>);

/// The backoff of checks that could not be made. In memory only: a new leader tries them at once.
#[derive(Debug, Default)]
pub struct CheckBackoff {
    /// Consecutive failures, and the time of the next try.
    failed: Mutex<HashMap<Checked, (u32, Timestamp)>>,
}

impl CheckBackoff {
    /// Whether the next check of an audience in a store is not due yet.
    pub(crate) fn is_waiting(
        &self,
        store: &ServingStoreName,
        audience: &AudienceName,
        now: Timestamp,
    ) -> bool {
        let failed = self.failed.lock();
        let of_store = (store.clone(), None);
        let of_audience = (store.clone(), Some(audience.clone()));
        [of_store, of_audience]
            .iter()
            .any(|checked| failed.get(checked).is_some_and(|(_, until)| is_ahead(*until, now)))
    }

    /// A check failed. `audience`: `None` if no audience of the store can be checked.
    pub(crate) fn record_failure(
        &self,
        store: &ServingStoreName,
        audience: Option<&AudienceName>,
        now: Timestamp,
        seed: u64,
    ) {
        let mut failed = self.failed.lock();
        let (failures, until) =
            failed.entry((store.clone(), audience.cloned())).or_insert((0, now));
        *failures = failures.saturating_add(1);
        *until = now.plus(Backoff::WORK.delay(*failures, seed));
    }

    /// An audience was checked or written.
    pub(crate) fn record_success(&self, store: &ServingStoreName, audience: &AudienceName) {
        let mut failed = self.failed.lock();
        failed.remove(&(store.clone(), None));
        failed.remove(&(store.clone(), Some(audience.clone())));
    }
}

/// Whether the time of a try has not come. One that is later than any delay is from before a step back of the clock.
fn is_ahead(until: Timestamp, now: Timestamp) -> bool {
    now < until && until <= now.plus(Backoff::WORK.longest * 2)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_check_waits_longer_after_each_failure_until_one_succeeds() {
        let backoff = CheckBackoff::default();
        let (store, other): (ServingStoreName, ServingStoreName) =
            ("cache".parse().unwrap(), "other".parse().unwrap());
        let (buyers, visitors): (AudienceName, AudienceName) =
            ("buyers".parse().unwrap(), "visitors".parse().unwrap());
        let at = |seconds: u64| Timestamp(0).plus(Duration::from_secs(seconds));
        let is_waiting = |audience, seconds| backoff.is_waiting(&store, audience, at(seconds));
        assert!(!is_waiting(&buyers, 0));
        // 5 seconds, then 10, up to 600: each with a jitter of a fifth.
        backoff.record_failure(&store, Some(&buyers), at(0), 1);
        assert!(is_waiting(&buyers, 3) && !is_waiting(&buyers, 6));
        backoff.record_failure(&store, Some(&buyers), at(10), 2);
        assert!(is_waiting(&buyers, 17) && !is_waiting(&buyers, 22));
        for _ in 0..20 {
            backoff.record_failure(&store, Some(&buyers), at(100), 3);
        }
        assert!(is_waiting(&buyers, 579) && !is_waiting(&buyers, 820));
        let late = 1_000_000;
        backoff.record_failure(&store, Some(&visitors), at(late), 5);
        assert!(is_waiting(&visitors, late + 3) && is_waiting(&visitors, late - 600));
        assert!(!is_waiting(&visitors, late - 86_400), "the clock has stepped back");
        backoff.record_success(&store, &visitors);
        assert!(!is_waiting(&visitors, 100), "another audience of the store");
        backoff.record_success(&store, &buyers);
        assert!(!is_waiting(&buyers, 100));
        backoff.record_failure(&store, None, at(200), 4);
        assert!(is_waiting(&buyers, 201) && is_waiting(&visitors, 201));
        assert!(!backoff.is_waiting(&other, &buyers, at(201)), "another store");
        backoff.record_success(&store, &visitors);
        assert!(!is_waiting(&buyers, 201));
    }
}
