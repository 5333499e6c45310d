//! Quota of ad accounts: who may work now, and who had better wait.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
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
    /// After a failure that holds for the whole account: since when and until when it rests.
    rest: Option<(Timestamp, Timestamp)>,
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

    /// The account rests for so long after a failure that holds for all of it, unless a person ends
    /// the rest. A longer rest that is in force stays.
    pub fn rest(&mut self, rest: Duration, now: Timestamp) {
        let until = now.plus(rest);
        self.rest = Some((now, self.rest.map_or(until, |(_, before)| before.max(until))));
    }

    /// Ends a rest that began at `at` or before. What the platform asked for stays.
    pub fn end_rest(&mut self, at: Timestamp) {
        self.rest = self.rest.filter(|(since, _)| *since > at);
    }

    /// How long the next request has to wait; zero if not at all.
    pub fn wait(&self, now: Timestamp) -> Duration {
        let rest = self.rest.map(|(_, until)| until);
        self.paused_until.max(rest).map_or(Duration::ZERO, |until| until.since(now))
    }
}

/// The accounts of a node, shared by its workers. Lost at a restart: the platform's next answer
/// tells all of it again.
#[derive(Debug, Default)]
pub struct Quotas(Mutex<HashMap<DestinationName, Quota>>);

impl Quotas {
    fn with<T>(&self, name: &DestinationName, act: impl FnOnce(&mut Quota) -> T) -> T {
        let mut all = self.0.lock();
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

    /// See [`Quota::rest`].
    pub fn rest(&self, name: &DestinationName, rest: Duration, now: Timestamp) {
        self.with(name, |quota| quota.rest(rest, now));
    }

    /// See [`Quota::end_rest`]. Whether the account rested.
    pub fn end_rest(&self, name: &DestinationName, at: Timestamp) -> bool {
        self.with(name, |quota| {
            let before = quota.rest;
            quota.end_rest(at);
            before.is_some() && quota.rest.is_none()
        })
    }

    /// Whether any account rests after a failure.
    pub fn any_rests(&self, now: Timestamp) -> bool {
        let all = self.0.lock();
        all.values().any(|quota| quota.rest.is_some_and(|(_, until)| until > now))
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
        let all = self.0.lock();
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
    fn a_person_ends_a_rest_and_not_what_the_platform_asks_for() {
        let mut quota = Quota::default();
        quota.rest(Duration::from_secs(300), NOW);
        quota.end_rest(Timestamp(NOW.0 - 1));
        assert_eq!(quota.wait(NOW).as_secs(), 300, "it began after that");
        quota.pause(Duration::from_secs(60), NOW);
        quota.end_rest(NOW);
        assert_eq!(quota.wait(NOW).as_secs(), 60);
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
