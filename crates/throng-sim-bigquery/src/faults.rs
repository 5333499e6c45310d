//! Fault rules: which calls go wrong, and how.

use serde::{Deserialize, Serialize};

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallKind {
    /// A request for an access token.
    Token,
    /// The creation of a job.
    Insert,
    /// A poll of the state of a job.
    Poll,
    /// A page of a result.
    Page,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// 503 with `backendError`.
    Unavailable,
    /// 403 with `rateLimitExceeded`.
    RateLimited,
    /// 429 with `rateLimitExceeded`.
    TooManyRequests,
    /// 403 with `quotaExceeded`.
    QuotaExceeded,
    /// 401: the access token is no longer valid, now and in later calls.
    ExpiredToken,
    /// The job no longer exists, now and in later calls.
    JobLost,
    /// The job ends with `jobBackendError`.
    JobFails,
    /// The call is done, and the connection is closed without an answer.
    CutAfter,
    /// The connection is closed, and nothing is done.
    Cut,
    /// The call is not answered until the simulator stops.
    Hang,
    /// The call is answered after this many milliseconds.
    Slow(u64),
}

/// A rule: calls of a kind go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRule {
    /// Which calls.
    pub on: CallKind,
    /// Calls of this kind before it that succeed.
    #[serde(default)]
    pub after: u64,
    /// How many calls go wrong.
    pub times: u64,
    /// How.
    pub kind: FaultKind,
}

/// The rules, with the calls that they have counted.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Vec<(FaultRule, u64)>,
}

impl Faults {
    pub(crate) fn new(rules: Vec<FaultRule>) -> Self {
        Self { rules: rules.into_iter().map(|rule| (rule, 0)).collect() }
    }

    /// What goes wrong with the next call of a kind. Every rule counts it.
    pub(crate) fn next(&mut self, call: CallKind) -> Option<FaultKind> {
        let mut fault = None;
        for (rule, calls) in self.rules.iter_mut().filter(|(rule, _)| rule.on == call) {
            let number = *calls;
            *calls += 1;
            if number >= rule.after && number - rule.after < rule.times {
                fault = fault.or(Some(rule.kind));
            }
        }
        fault
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_counts_the_calls_of_its_kind() {
        let rule =
            FaultRule { on: CallKind::Page, after: 1, times: 2, kind: FaultKind::Unavailable };
        let mut faults = Faults::new(vec![rule]);
        assert_eq!(faults.next(CallKind::Insert), None);
        let pages: Vec<bool> = (0..4).map(|_| faults.next(CallKind::Page).is_some()).collect();
        assert_eq!(pages, [false, true, true, false]);
    }
}
