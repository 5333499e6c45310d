//! Pauses of accounts: which ones may be called now, which have to wait, and which start no task. How many calls an
//! account makes is decided where they are made, by its destination: see [`SendClass::Paced`](crate::SendClass::Paced).

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use throng_model::{DestinationName, Timestamp};

use crate::Usage;

/// A quota is one of an hour: a task that would start later than in two was postponed before the clock was set back.
const LONGEST_POSTPONEMENT: Duration = Duration::from_secs(2 * 3_600);

/// The state of one account. Pure.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Quota {
    paused_until: Option<Timestamp>,
    /// After a failure of the whole account: since when and until when the account is suspended.
    suspended: Option<(Timestamp, Timestamp)>,
    /// No task starts before this: its quota of calls is used. Other calls may be made.
    tasks_from: Option<Timestamp>,
    tasks: u32,
}

impl Quota {
    /// Pauses the account if the platform reported that it refuses calls.
    pub fn observe(&mut self, usage: Usage, now: Timestamp) {
        if let Some(regain) = usage.regain.filter(|r| !r.is_zero()) {
            self.pause(regain, now);
        }
    }

    /// No request before `now + pause`. A longer pause remains in force.
    pub fn pause(&mut self, pause: Duration, now: Timestamp) {
        let until = now.plus(pause);
        self.paused_until = Some(self.paused_until.map_or(until, |before| before.max(until)));
    }

    /// Suspends the account for this long after a failure of the whole account, unless a person resumes
    /// it earlier. A longer suspension remains in force.
    pub fn suspend(&mut self, duration: Duration, now: Timestamp) {
        let until = now.plus(duration);
        self.suspended = Some((now, self.suspended.map_or(until, |(_, before)| before.max(until))));
    }

    /// Ends a suspension that began at `at` or earlier. A pause that the platform asked for remains.
    pub fn resume(&mut self, at: Timestamp) {
        self.suspended = self.suspended.filter(|(since, _)| *since > at);
    }

    /// How long the next request has to wait; zero if it can be sent now.
    pub fn wait(&self, now: Timestamp) -> Duration {
        let suspended_until = self.suspended.map(|(_, until)| until);
        self.paused_until.max(suspended_until).map_or(Duration::ZERO, |until| until.since(now))
    }

    /// Whether no task starts now, because the quota of calls is used.
    fn is_postponed(&self, now: Timestamp) -> bool {
        let wait = self.tasks_from.map_or(Duration::ZERO, |from| from.since(now));
        !wait.is_zero() && wait <= LONGEST_POSTPONEMENT
    }
}

/// The accounts of a node, shared by its workers. Lost at a restart: the platform's next response
/// restores the state.
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

    /// No task starts before `now + wait`.
    pub fn postpone_tasks(&self, name: &DestinationName, wait: Duration, now: Timestamp) {
        self.with(name, |quota| quota.tasks_from = quota.tasks_from.max(Some(now.plus(wait))));
    }

    /// See [`Quota::suspend`].
    pub fn suspend(&self, name: &DestinationName, duration: Duration, now: Timestamp) {
        self.with(name, |quota| quota.suspend(duration, now));
    }

    /// See [`Quota::resume`]. Returns whether the account was suspended and no longer is.
    pub fn resume(&self, name: &DestinationName, at: Timestamp) -> bool {
        self.with(name, |quota| {
            let before = quota.suspended;
            quota.resume(at);
            before.is_some() && quota.suspended.is_none()
        })
    }

    /// The accounts that are suspended after a failure, each with the end.
    pub fn suspended(&self, now: Timestamp) -> Vec<(DestinationName, Timestamp)> {
        let all = self.0.lock();
        let until = |quota: &Quota| quota.suspended.map(|(_, until)| until).filter(|at| *at > now);
        all.iter().filter_map(|(name, quota)| Some((name.clone(), until(quota)?))).collect()
    }

    /// See [`Quota::wait`].
    pub fn wait(&self, name: &DestinationName, now: Timestamp) -> Duration {
        self.with(name, |quota| quota.wait(now))
    }

    /// The accounts of which no task may start now: paused, suspended, without quota, or with `max_tasks` running.
    pub fn unavailable(
        &self,
        now: Timestamp,
        max_tasks: impl Fn(&DestinationName) -> u32,
    ) -> Vec<DestinationName> {
        let all = self.0.lock();
        all.iter()
            .filter(|(name, quota)| {
                !quota.wait(now).is_zero()
                    || quota.is_postponed(now)
                    || quota.tasks >= max_tasks(name)
            })
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Counts a running task.
    pub fn task_started(&self, name: &DestinationName) {
        self.with(name, |quota| quota.tasks += 1);
    }

    /// Counts a task that no longer runs.
    pub fn task_ended(&self, name: &DestinationName) {
        self.with(name, |quota| quota.tasks = quota.tasks.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    #[test]
    fn the_longest_pause_counts_and_ends() {
        let mut quota = Quota::default();
        let regain = Some(Duration::from_secs(120));
        quota.observe(Usage { regain, ..Usage::default() }, NOW);
        quota.pause(Duration::from_secs(5), NOW);
        assert_eq!(quota.wait(NOW).as_secs(), 120);
        assert!(quota.wait(NOW.plus(Duration::from_secs(120))).is_zero());
    }

    #[test]
    fn a_person_ends_a_suspension_but_not_a_pause_of_the_platform() {
        let mut quota = Quota::default();
        quota.suspend(Duration::from_secs(300), NOW);
        quota.resume(Timestamp(NOW.0 - 1));
        assert_eq!(quota.wait(NOW).as_secs(), 300, "it began after that");
        quota.pause(Duration::from_secs(60), NOW);
        quota.resume(NOW);
        assert_eq!(quota.wait(NOW).as_secs(), 60);
    }

    #[test]
    fn a_suspended_account_is_named_until_the_end() {
        let quotas = Quotas::default();
        let a: DestinationName = "a".parse().unwrap();
        quotas.pause(&"b".parse().unwrap(), Duration::from_secs(900), NOW);
        quotas.suspend(&a, Duration::from_secs(300), NOW);
        let end = NOW.plus(Duration::from_secs(300));
        assert_eq!(quotas.suspended(NOW), [(a, end)]);
        assert_eq!(quotas.suspended(end), []);
    }

    #[test]
    fn busy_and_paused_accounts_are_unavailable() {
        let quotas = Quotas::default();
        let (a, b): (DestinationName, DestinationName) =
            ("a".parse().unwrap(), "b".parse().unwrap());
        quotas.task_started(&a);
        assert_eq!(quotas.unavailable(NOW, |_| 1), std::slice::from_ref(&a));
        quotas.task_ended(&a);
        quotas.pause(&b, Duration::from_secs(1), NOW);
        assert_eq!(quotas.unavailable(NOW, |_| 1), [b]);
    }

    #[test]
    fn an_account_without_quota_starts_no_task_and_may_be_checked() {
        let quotas = Quotas::default();
        let a: DestinationName = "a".parse().unwrap();
        quotas.postpone_tasks(&a, Duration::from_secs(60), NOW);
        quotas.postpone_tasks(&a, Duration::from_secs(5), NOW);
        assert!(quotas.wait(&a, NOW).is_zero());
        let after = |secs| quotas.unavailable(NOW.plus(Duration::from_secs(secs)), |_| 1);
        assert_eq!(after(59), [a]);
        assert!(after(60).is_empty());
        let day_before = NOW.minus(Duration::from_secs(86_400));
        assert!(quotas.unavailable(day_before, |_| 1).is_empty(), "the clock was set back");
    }
}
