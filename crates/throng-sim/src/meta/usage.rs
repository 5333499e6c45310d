//! Meters of calls, and the usage headers. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::json;
use throng_model::Timestamp;

use super::config::Tier;

const HOUR_SECS: i64 = 3600;

/// Calls of the last rolling hour, by second. At most 3,600 entries.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter {
    seconds: VecDeque<(i64, u64)>,
    calls: u64,
}

impl Meter {
    /// Counts a call.
    pub(super) fn count(&mut self, now: Timestamp) {
        let second = now.0.div_euclid(1_000_000);
        self.forget(second);
        match self.seconds.back_mut() {
            Some((last, calls)) if *last >= second => *calls += 1,
            _ => self.seconds.push_back((second, 1)),
        }
        self.calls += 1;
    }

    /// Calls within the hour before the last counted call.
    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    /// Minutes, rounded up, until fewer than `limit` calls are in the last hour; 0 if that is the case now.
    pub(super) fn regain_minutes(&self, now: Timestamp, limit: u64) -> u64 {
        let mut left = self.calls;
        let second = now.0.div_euclid(1_000_000);
        for (at, calls) in &self.seconds {
            if left < limit {
                break;
            }
            left -= calls;
            if left < limit {
                let wait = u64::try_from(at + HOUR_SECS - second).unwrap_or(0);
                return wait.div_ceil(60).max(1);
            }
        }
        0
    }

    fn forget(&mut self, second: i64) {
        while let Some((at, calls)) = self.seconds.front().copied() {
            if at > second - HOUR_SECS {
                break;
            }
            self.calls -= calls;
            self.seconds.pop_front();
        }
    }
}

/// The quota of an ad account: calls per hour.
pub(super) fn quota(tier: Tier, custom: Option<u64>, audiences: u64) -> u64 {
    let base = match tier {
        Tier::Limited => 5_000,
        Tier::Full => 190_000,
    };
    custom.unwrap_or_else(|| (base + 40 * audiences).min(700_000))
}

/// The older meter: points that decay, and a block if there are too many.
#[derive(Debug, Clone, Default)]
pub(super) struct Score {
    points: f64,
    at: Timestamp,
    blocked_until: Timestamp,
}

const SCORE_DECAY: Duration = Duration::from_secs(300);

impl Score {
    /// Counts a call. Returns whether the account is blocked.
    pub(super) fn count(&mut self, now: Timestamp, write: bool, tier: Tier) -> bool {
        let (most, block) = match tier {
            Tier::Limited => (60.0, Duration::from_secs(300)),
            Tier::Full => (9_000.0, Duration::from_secs(60)),
        };
        let passed = now.since(self.at).as_secs_f64() / SCORE_DECAY.as_secs_f64();
        self.points = (self.points - most * passed).max(0.0) + if write { 3.0 } else { 1.0 };
        self.at = now;
        if self.points > most {
            self.blocked_until = now.plus(block);
        }
        now < self.blocked_until
    }
}

/// The usage headers of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UsageHeaders {
    /// `X-Business-Use-Case-Usage`: all calls except uploads.
    BusinessUseCase,
    /// `X-App-Usage` and `X-Ad-Account-Usage`: uploads.
    AppAndAccount,
}

/// The values of the headers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) percent: u64,
    pub(super) regain_minutes: u64,
}

impl Usage {
    /// Name and value of each header.
    pub(super) fn headers(self, which: UsageHeaders, account: &str) -> Vec<(&'static str, String)> {
        // CPU time is not simulated: a third of the share of calls.
        let (calls, time) = (self.percent, self.percent / 3);
        match which {
            UsageHeaders::BusinessUseCase => {
                let meter = json!([{
                    "type": "custom_audience",
                    "call_count": calls,
                    "total_cputime": time,
                    "total_time": time,
                    "estimated_time_to_regain_access": self.regain_minutes,
                }]);
                let usage = serde_json::Map::from_iter([(account.to_owned(), meter)]);
                vec![("x-business-use-case-usage", serde_json::Value::Object(usage).to_string())]
            }
            UsageHeaders::AppAndAccount => {
                let app = json!({ "call_count": calls, "total_cputime": time, "total_time": time });
                let used = json!({ "acc_id_util_pct": self.percent as f64 });
                vec![("x-app-usage", app.to_string()), ("x-ad-account-usage", used.to_string())]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp(secs * 1_000_000)
    }

    #[test]
    fn a_meter_drops_calls_after_an_hour() {
        let mut meter = Meter::default();
        meter.count(at(0));
        meter.count(at(0));
        meter.count(at(1800));
        assert_eq!((meter.calls(), meter.regain_minutes(at(1800), 2)), (3, 30));
        assert_eq!(meter.regain_minutes(at(1800), 1), 60);
        assert_eq!(meter.regain_minutes(at(1800), 4), 0);
        meter.count(at(3600));
        assert_eq!(meter.calls(), 2);
    }

    #[test]
    fn quotas_grow_with_audiences_up_to_a_limit() {
        assert_eq!(quota(Tier::Limited, None, 10), 5_400);
        assert_eq!(quota(Tier::Full, None, 10), 190_400);
        assert_eq!(quota(Tier::Full, None, 100_000), 700_000);
        assert_eq!(quota(Tier::Full, Some(7), 10), 7);
    }

    #[test]
    fn a_score_blocks_and_decays() {
        let mut score = Score::default();
        assert!((0..20).all(|_| !score.count(at(1_000), true, Tier::Limited)));
        assert!(score.count(at(1_000), false, Tier::Limited));
        assert!(score.count(at(1_200), false, Tier::Limited), "blocked for 300 seconds");
        assert!(!score.count(at(1_501), false, Tier::Limited));
    }

    #[test]
    fn headers_are_as_documented() {
        let usage = Usage { percent: 32, regain_minutes: 0 };
        assert_eq!(
            usage.headers(UsageHeaders::BusinessUseCase, "542676646349772"),
            [(
                "x-business-use-case-usage",
                r#"{"542676646349772":[{"type":"custom_audience","call_count":32,"total_cputime":10,"total_time":10,"estimated_time_to_regain_access":0}]}"#.to_owned()
            )]
        );
        let names: Vec<&str> =
            usage.headers(UsageHeaders::AppAndAccount, "1").iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["x-app-usage", "x-ad-account-usage"]);
    }
}
