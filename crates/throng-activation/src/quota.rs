//! Quota of ad accounts: who may work now, and who had better wait.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use throng_model::{DestinationName, Timestamp};

use crate::Usage;

/// Above this the account is paced.
const PACE_FROM_PERCENT: f64 = 75.0;
/// The pause between requests of an account whose meter shows 100 percent. In between it grows in a
/// straight line. Platforms that refuse say so with an error, which brings a pause of its own.
const PAUSE_WHEN_FULL: Duration = Duration::from_secs(10);

/// The state of one account. Pure.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Quota {
    paused_until: Option<Timestamp>,
    tasks: u32,
}

impl Quota {
    /// Takes note of what the platform said about its meters.
    pub fn observe(&mut self, usage: Usage, now: Timestamp) {
        let full = (usage.percent - PACE_FROM_PERCENT) / (100.0 - PACE_FROM_PERCENT);
        if full > 0.0 {
            self.pause(PAUSE_WHEN_FULL.mul_f64(full.min(1.0)), now);
        }
        if let Some(regain) = usage.regain.filter(|r| !r.is_zero()) {
            self.pause(regain, now);
        }
    }

    /// No request before `now + pause`. A longer pause that is in force stays.
    pub fn pause(&mut self, pause: Duration, now: Timestamp) {
        let until = now.plus(pause);
        self.paused_until = Some(self.paused_until.map_or(until, |before| before.max(until)));
    }

    /// How long the next request has to wait; zero if not at all.
    pub fn wait(&self, now: Timestamp) -> Duration {
        self.paused_until.map_or(Duration::ZERO, |until| until.since(now))
    }
}

/// The accounts of a node, shared by its workers. Lost at a restart: the platform's next answer
/// tells all of it again.
#[derive(Debug, Default)]
pub struct Quotas(Mutex<HashMap<DestinationName, Quota>>);

impl Quotas {
    fn with<T>(&self, name: &DestinationName, act: impl FnOnce(&mut Quota) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(all.entry(name.clone()).or_default())
    }

    /// See [`Quota::observe`].
    pub fn observe(&self, name: &DestinationName, usage: Usage, now: Timestamp) {
        self.with(name, |quota| quota.observe(usage, now));
    }

    /// See [`Quota::pause`].
    pub fn pause(&self, name: &DestinationName, pause: Duration, now: Timestamp) {
        self.with(name, |quota| quota.pause(pause, now));
    }

    /// See [`Quota::wait`].
    pub fn wait(&self, name: &DestinationName, now: Timestamp) -> Duration {
        self.with(name, |quota| quota.wait(now))
    }

    /// The accounts of which no task may be started now: paused, or with `max_tasks` at work.
    pub fn avoid(
        &self,
        now: Timestamp,
        max_tasks: impl Fn(&DestinationName) -> u32,
    ) -> Vec<DestinationName> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .filter(|(name, quota)| !quota.wait(now).is_zero() || quota.tasks >= max_tasks(name))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Counts a task at work.
    pub fn enter(&self, name: &DestinationName) {
        self.with(name, |quota| quota.tasks += 1);
    }

    /// Counts a task that is not at work any more.
    pub fn leave(&self, name: &DestinationName) {
        self.with(name, |quota| quota.tasks = quota.tasks.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    #[test]
    fn fuller_meters_slow_the_account_down() {
        for (percent, millis) in
            [(0.0, 0), (75.0, 0), (80.0, 2_000), (100.0, 10_000), (900.0, 10_000)]
        {
            let mut quota = Quota::default();
            quota.observe(Usage { percent, regain: None }, NOW);
            assert_eq!(quota.wait(NOW).as_millis(), millis, "{percent}");
        }
    }

    #[test]
    fn the_longest_pause_counts_and_ends() {
        let mut quota = Quota::default();
        quota.observe(Usage { percent: 0.0, regain: Some(Duration::from_secs(120)) }, NOW);
        quota.pause(Duration::from_secs(5), NOW);
        assert_eq!(quota.wait(NOW).as_secs(), 120);
        assert!(quota.wait(NOW.plus(Duration::from_secs(120))).is_zero());
    }

    #[test]
    fn busy_and_paused_accounts_are_avoided() {
        let quotas = Quotas::default();
        let (a, b): (DestinationName, DestinationName) =
            ("a".parse().unwrap(), "b".parse().unwrap());
        quotas.enter(&a);
        assert_eq!(quotas.avoid(NOW, |_| 1), std::slice::from_ref(&a));
        quotas.leave(&a);
        quotas.pause(&b, Duration::from_secs(1), NOW);
        assert_eq!(quotas.avoid(NOW, |_| 1), [b]);
    }
}
