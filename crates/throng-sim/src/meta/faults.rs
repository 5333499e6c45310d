//! Fault injection: which calls fail, and how.

use serde::{Deserialize, Serialize};
use throng_model::{Entropy, SplitMix64};

/// A fault of a call. As JSON: `{"kind": "slow", "millis": 200}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// The response is delayed by this time on the simulator's clock. The call is then handled, or gets another
    /// fault.
    Slow {
        /// Milliseconds.
        millis: u64,
    },
    /// HTTP 5xx with error code 2, `is_transient`.
    ServerError {
        /// The HTTP status.
        #[serde(default = "status_503")]
        status: u16,
        /// Whether the call takes effect nevertheless.
        #[serde(default)]
        applied: bool,
    },
    /// The connection is closed without a response; the call has no effect.
    CutBefore,
    /// The call takes effect; the connection is closed without a response.
    CutAfter,
    /// A throttle error. The call has no effect.
    Throttled {
        /// 80003, 17, 613 or 4.
        #[serde(default = "code_80003")]
        code: i64,
        /// The value of `estimated_time_to_regain_access`, if the response has that header.
        #[serde(default)]
        regain_minutes: u64,
    },
    /// A web page instead of JSON.
    Html {
        /// The HTTP status.
        #[serde(default = "status_200")]
        status: u16,
        /// Whether the call takes effect nevertheless.
        #[serde(default)]
        applied: bool,
    },
    /// The last rows of an upload or removal are lost, and `num_received` does not count them.
    WrongCounts {
        /// The number of lost rows.
        #[serde(default = "one")]
        missing: u64,
    },
    /// The access token has expired (190/463). The call has no effect.
    TokenExpired,
    /// A replace that this call would finish fails (2650/1870148, then `operation_status` 415). Other calls are
    /// not affected.
    ReplaceFails,
    /// Any other error. The call has no effect.
    Error {
        /// `error.code`.
        code: i64,
        /// `error.error_subcode`.
        #[serde(default)]
        subcode: Option<i64>,
        /// The HTTP status.
        #[serde(default = "status_400")]
        status: u16,
        /// `error.message`.
        #[serde(default)]
        message: String,
    },
}

fn status_503() -> u16 {
    503
}
fn status_200() -> u16 {
    200
}
fn status_400() -> u16 {
    400
}
fn code_80003() -> i64 {
    80_003
}
fn one() -> u64 {
    1
}

/// A fault and the calls that it is injected into: those that match every filter and that `probability`, `nth`
/// or `every` selects; without any of the three, all matching calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// The fault.
    pub fault: FaultKind,
    /// The probability for each matching call, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// The numbers of matching calls, counted from 1 since the script was set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nth: Vec<u64>,
    /// Every n-th matching call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// Stop after this many faults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// Only calls with this HTTP method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Only calls whose path contains this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Only calls of this kind, by the names that `/sim/oracle/requests` uses, such as `add_users`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
}

impl FaultRule {
    /// A fault of every call.
    pub fn new(fault: FaultKind) -> Self {
        Self {
            fault,
            probability: None,
            nth: Vec::new(),
            every: None,
            times: None,
            method: None,
            path: None,
            call: None,
        }
    }

    /// Only with this probability.
    #[must_use]
    pub fn with_probability(mut self, probability: f64) -> Self {
        self.probability = Some(probability);
        self
    }

    /// Only these of the matching calls, counted from 1.
    #[must_use]
    pub fn nth(mut self, nth: impl IntoIterator<Item = u64>) -> Self {
        self.nth = nth.into_iter().collect();
        self
    }

    /// Only calls of this kind, such as `add_users`.
    #[must_use]
    pub fn on_call(mut self, call: &str) -> Self {
        self.call = Some(call.to_owned());
        self
    }

    /// Only calls with this method whose path contains `path`.
    #[must_use]
    pub fn on_path(mut self, method: &str, path: &str) -> Self {
        self.method = Some(method.to_owned());
        self.path = Some(path.to_owned());
        self
    }

    /// Only this many faults.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    fn problem(&self) -> Option<String> {
        if self.probability.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
            return Some("`probability` must be between 0 and 1".to_owned());
        }
        if self.every == Some(0) || self.nth.contains(&0) {
            return Some("`every` and `nth` count from 1".to_owned());
        }
        match self.fault {
            FaultKind::ServerError { status, .. } if !(500..600).contains(&status) => {
                Some("the status of a `server_error` must be between 500 and 599".to_owned())
            }
            FaultKind::Html { status, .. } | FaultKind::Error { status, .. }
                if !(200..600).contains(&status) =>
            {
                Some("`status` must be between 200 and 599".to_owned())
            }
            _ => None,
        }
    }
}

/// All fault rules. As JSON: `{"seed": 1, "rules": [{"fault": {"kind": "cut_after"}, "probability":
/// 0.05, "call": "add_users"}]}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultScript {
    /// The seed of the probabilities: the same calls in the same order get the same faults.
    #[serde(default)]
    pub seed: u64,
    /// The rules in order. The delays of all applicable `slow` rules add up; of the other rules the first
    /// applicable one counts.
    #[serde(default)]
    pub rules: Vec<FaultRule>,
}

impl FaultScript {
    /// A script.
    pub fn new(seed: u64, rules: impl IntoIterator<Item = FaultRule>) -> Self {
        Self { seed, rules: rules.into_iter().collect() }
    }

    /// About `share` of all calls get a fault that a client has to handle by itself: connection closed before
    /// and after the effect, 503 before and after, a throttle without a waiting time, and HTML, equally often.
    pub fn mixed(seed: u64, share: f64) -> Self {
        let kinds = [
            FaultKind::CutBefore,
            FaultKind::CutAfter,
            FaultKind::ServerError { status: 503, applied: false },
            FaultKind::ServerError { status: 503, applied: true },
            FaultKind::Throttled { code: 80_003, regain_minutes: 0 },
            FaultKind::Html { status: 200, applied: false },
        ];
        let each = share / kinds.len() as f64;
        Self::new(seed, kinds.map(|kind| FaultRule::new(kind).with_probability(each)))
    }

    /// The problems of the script, one text for each invalid rule.
    pub fn problems(&self) -> Vec<String> {
        self.rules
            .iter()
            .enumerate()
            .filter_map(|(at, rule)| Some(format!("rules[{at}]: {}", rule.problem()?)))
            .collect()
    }
}

/// The properties of a call that rules match.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallFacts<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) call: &'a str,
}

/// The faults of one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CallFaults {
    pub(super) slow_millis: u64,
    pub(super) fault: Option<FaultKind>,
}

/// An active script.
#[derive(Debug)]
pub(super) struct Faults {
    script: FaultScript,
    random: SplitMix64,
    /// Matching calls and injected faults, by rule.
    counts: Vec<(u64, u64)>,
}

impl Faults {
    pub(super) fn new(script: FaultScript) -> Self {
        let random = SplitMix64::new(script.seed);
        let counts = vec![(0, 0); script.rules.len()];
        Self { script, random, counts }
    }

    pub(super) fn script(&self) -> &FaultScript {
        &self.script
    }

    /// The number of faults that each rule has injected.
    pub(super) fn injected(&self) -> Vec<u64> {
        self.counts.iter().map(|(_, injected_count)| *injected_count).collect()
    }

    /// Decides the faults of a call, and counts them.
    pub(super) fn decide(&mut self, facts: CallFacts<'_>) -> CallFaults {
        let mut faults_of_call = CallFaults::default();
        for (rule, (matched, injected_count)) in self.script.rules.iter().zip(&mut self.counts) {
            let same = |wanted: &Option<String>, is: &str| {
                wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(is))
            };
            let matches = same(&rule.method, facts.method)
                && same(&rule.call, facts.call)
                && rule.path.as_ref().is_none_or(|part| facts.path.contains(part.as_str()));
            if !matches {
                continue;
            }
            *matched += 1;
            // Drawn for every matching call, so that the random numbers do not depend on the counts.
            let drawn = rule.probability.map(|chance| self.random.next_f64() < chance);
            let counted = rule.nth.contains(matched)
                || rule.every.is_some_and(|every| matched.is_multiple_of(every.max(1)));
            let unconditional =
                rule.probability.is_none() && rule.nth.is_empty() && rule.every.is_none();
            let injected = drawn == Some(true) || counted || unconditional;
            if !injected || rule.times.is_some_and(|times| *injected_count >= times) {
                continue;
            }
            match &rule.fault {
                FaultKind::Slow { millis } => faults_of_call.slow_millis += millis,
                fault if faults_of_call.fault.is_none() => {
                    faults_of_call.fault = Some(fault.clone())
                }
                _ => continue,
            }
            *injected_count += 1;
        }
        faults_of_call
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injected(rule: FaultRule, calls: u64) -> Vec<u64> {
        let mut faults = Faults::new(FaultScript::new(1, [rule]));
        let facts = CallFacts { method: "POST", path: "/v25.0/1/users", call: "add_users" };
        (1..=calls).filter(|_| faults.decide(facts).fault.is_some()).collect()
    }

    #[test]
    fn rules_select_calls() {
        let cut = || FaultRule::new(FaultKind::CutBefore);
        assert_eq!(injected(cut(), 3), [1, 2, 3]);
        assert_eq!(injected(cut().nth([2, 3]), 5), [2, 3]);
        assert_eq!(injected(FaultRule { every: Some(2), ..cut() }, 5), [2, 4]);
        assert_eq!(injected(cut().times(1), 3), [1]);
        assert_eq!(injected(cut().on_path("GET", "/users"), 3), [0u64; 0]);
        assert_eq!(injected(cut().on_call("add_users"), 1), [1]);
        let some = injected(cut().with_probability(0.05), 10_000).len();
        assert!((400..600).contains(&some), "{some}");
    }

    #[test]
    fn delays_add_up_and_the_first_other_fault_counts() {
        let script = FaultScript::new(
            1,
            [
                FaultKind::Slow { millis: 5 },
                FaultKind::TokenExpired,
                FaultKind::CutAfter,
                FaultKind::Slow { millis: 7 },
            ]
            .map(FaultRule::new),
        );
        let mut faults = Faults::new(script);
        let faults_of_call = faults.decide(CallFacts { method: "GET", path: "/", call: "x" });
        assert_eq!(
            faults_of_call,
            CallFaults { slow_millis: 12, fault: Some(FaultKind::TokenExpired) }
        );
        assert_eq!(faults.injected(), [1, 1, 0, 1]);
    }

    #[test]
    fn scripts_are_json_with_defaults() {
        let script: FaultScript = serde_json::from_str(
            r#"{"rules": [{"fault": {"kind": "throttled"}, "nth": [1]}, {"fault": {"kind": "html"}}]}"#,
        )
        .unwrap();
        assert_eq!(script.rules[0].fault, FaultKind::Throttled { code: 80_003, regain_minutes: 0 });
        assert!(serde_json::from_str::<FaultScript>(r#"{"rule": []}"#).is_err());
        let wrong =
            FaultScript::new(1, [FaultRule::new(FaultKind::CutAfter).with_probability(5.0)]);
        assert_eq!(wrong.problems(), ["rules[0]: `probability` must be between 0 and 1"]);
    }
}
