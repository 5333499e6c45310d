//! The settings of a simulated Meta.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use throng_model::{Clock, Secret, SystemClock};

use super::faults::FaultScript;

/// The access tier of the app: how many custom-audience calls an ad account has per rolling hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// "Limited", formerly "development": 5,000 + 40 for each audience.
    Limited,
    /// "Full", formerly "standard": 190,000 + 40 for each audience, never more than 700,000.
    Full,
}

/// The settings of a simulated Meta. `Default`: a free port, any token, no faults, no processing delay.
#[derive(Debug, Clone)]
pub struct MetaSimConfig {
    /// The port of 127.0.0.1 to listen on; 0 selects a free one.
    pub port: u16,
    /// The accepted access tokens. Empty: any token is accepted, but one is required.
    pub tokens: Vec<String>,
    /// With an app secret every call must carry `appsecret_proof`.
    pub app_secret: Option<Secret>,
    /// Ad accounts that exist, with or without `act_`. Empty: every account exists.
    pub accounts: Vec<String>,
    /// Ad accounts whose custom-audience terms nobody has accepted, with or without `act_`.
    pub accounts_without_terms: Vec<String>,
    /// The clock of sessions, delays and quotas.
    pub clock: Arc<dyn Clock>,
    /// The time until counts show a change and `operation_status` is 200 again. The real platform takes up to 24
    /// hours.
    pub processing_delay: Duration,
    /// The share of members that is matched, 0 to 1. Only approximate counts show it.
    pub match_rate: f64,
    /// Determines the quota.
    pub tier: Tier,
    /// Calls per ad account and rolling hour, instead of the quota of `tier`.
    pub quota_calls_per_hour: Option<u64>,
    /// Whether the older meter also applies: a read costs 1 point, a write 3, points decay over 300
    /// seconds, too many block the account (codes 17 and 613).
    pub account_score: bool,
    /// Custom audiences per ad account; the real limit is 500.
    pub max_audiences_per_account: usize,
    /// Refuse removals (200/1870047) that would leave fewer members than this. The limit of the real platform
    /// is not known; by default there is none.
    pub refuse_removals_below: Option<u64>,
    /// Match people: a removal removes every member that shares a key of one person with it (`EMAIL`, `PHONE`,
    /// `EXTERN_ID` …), also one that differs in another key. Otherwise it removes only members that differ in no
    /// key.
    pub matches_people: bool,
    /// Audiences of this many members or more cannot be replaced (2650/1870144).
    pub replace_below_members: u64,
    /// The connection of a request with a longer URL is closed, as the real platform does for removals of about
    /// 300 rows in the query string.
    pub max_url_bytes: usize,
    /// The oldest supported version of the API, as (major, minor).
    pub oldest_version: (u32, u32),
    /// The newest version of the API.
    pub newest_version: (u32, u32),
    /// The faults at the start.
    pub faults: FaultScript,
}

impl Default for MetaSimConfig {
    fn default() -> Self {
        Self {
            port: 0,
            tokens: Vec::new(),
            app_secret: None,
            accounts: Vec::new(),
            accounts_without_terms: Vec::new(),
            clock: Arc::new(SystemClock),
            processing_delay: Duration::ZERO,
            match_rate: 1.0,
            tier: Tier::Full,
            quota_calls_per_hour: None,
            account_score: false,
            max_audiences_per_account: 500,
            refuse_removals_below: None,
            matches_people: false,
            replace_below_members: 100_000_000,
            max_url_bytes: 22_000,
            oldest_version: (23, 0),
            newest_version: (26, 0),
            faults: FaultScript::default(),
        }
    }
}

impl MetaSimConfig {
    /// Whether the account (digits only) exists.
    pub(super) fn has_account(&self, account: &str) -> bool {
        self.accounts.is_empty() || names(&self.accounts, account)
    }

    /// Whether somebody has accepted the custom-audience terms for the account (digits only).
    pub(super) fn has_terms(&self, account: &str) -> bool {
        !names(&self.accounts_without_terms, account)
    }
}

fn names(list: &[String], account: &str) -> bool {
    list.iter().any(|name| name.strip_prefix("act_").unwrap_or(name) == account)
}
