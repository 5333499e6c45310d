//! A fleet of ad servers. Each one links [`throng_gate`], follows the node's feed over HTTP, decides
//! locally, and reports insertions, impressions and clicks as its users see and click the ads:
//! seconds to minutes later.
//!
//! Traffic is decided beforehand ([`AdRequest`]): who asks, for which ad groups, whether an ad would
//! be seen, when, and clicked, when. So the same traffic can be run against nodes that predict
//! in-flight spend and nodes that do not.

mod server;
mod traffic;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use throng_membership::MembershipIndex;
use throng_model::{AdGroupName, Clock, Timestamp, UserKey};
use tokio_util::sync::CancellationToken;

pub use traffic::{Delays, LoggedImpression, TrafficError, read_impression_log, traffic_from_log};

/// One request for an ad, and what its user would do.
#[derive(Debug, Clone)]
pub struct AdRequest {
    /// Its number, unique in the traffic. Ids of events derive from it, so that a retry is a
    /// duplicate and not a second event.
    pub number: u64,
    /// How long after the start of the traffic it comes.
    pub after: Duration,
    /// Who asks.
    pub user: UserKey,
    /// The ad groups that may answer, best first.
    pub candidates: Vec<AdGroupName>,
    /// How long after the insertion the ad is seen; `None`: never.
    pub seen_after: Option<Duration>,
    /// How long after the insertion the ad is clicked; `None`: never.
    pub clicked_after: Option<Duration>,
}

/// How a fleet runs.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// Where the node listens.
    pub node_url: String,
    /// Where the feed and the catalog come from: the same, or a relay.
    pub feed_url: String,
    /// The node's token, if it wants one.
    pub token: Option<String>,
    /// How many ad servers.
    pub servers: u32,
    /// The time that the traffic lives in.
    pub clock: Arc<dyn Clock>,
    /// The instant at which the traffic starts.
    pub start: Timestamp,
    /// Snapshots for targeting.
    pub membership: Arc<MembershipIndex>,
    /// How often an ad server sends its events, on the clock.
    pub send_every: Duration,
}

/// What a fleet has done so far. Cheap to read while it runs.
#[derive(Debug, Default)]
pub struct FleetProgress {
    /// How far the ad servers have come, by their numbers; none once one has ended.
    pub(crate) reached: Mutex<BTreeMap<u32, Reached>>,
    /// Impressions and clicks that the node accepted, by kind and ad group.
    pub(crate) accepted: Mutex<HashMap<(&'static str, AdGroupName), u64>>,
    /// Ad servers that have begun.
    pub(crate) started: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) allowed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) events_accepted: AtomicU64,
    pub(crate) frames: AtomicU64,
}

/// How far an ad server has come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reached {
    /// Before this instant it has nothing to do that it has not done.
    pub(crate) done: Option<Timestamp>,
    /// The time of the newest frame that it has applied, of each partition.
    pub(crate) frames: BTreeMap<u32, Timestamp>,
}

impl FleetProgress {
    /// Requests decided.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn of_server<T>(&self, number: u32, change: impl FnOnce(&mut Reached) -> T) -> T {
        let mut reached = self.reached.lock();
        change(reached.entry(number).or_default())
    }

    pub(crate) fn end_of_server(&self, number: u32) {
        self.reached.lock().remove(&number);
    }

    /// The instant up to which every ad server has decided and reported what was due, and has figures
    /// of the feed. `None` while one of `servers` has not come so far as to say; the end of time once
    /// all have ended.
    pub fn reached(&self, servers: u32) -> Option<Timestamp> {
        let reached = self.reached.lock();
        let mut all = Timestamp(i64::MAX);
        for server in reached.values() {
            all = all.min(server.done?).min(*server.frames.values().min()?);
        }
        let started = self.started.load(Ordering::Relaxed) >= u64::from(servers);
        started.then_some(all)
    }

    /// Impressions (or clicks) of an ad group that the node has accepted.
    pub fn accepted(&self, kind: &'static str, ad_group: &AdGroupName) -> u64 {
        let accepted = self.accepted.lock();
        accepted.get(&(kind, ad_group.clone())).copied().unwrap_or(0)
    }
}

/// What a fleet did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FleetReport {
    /// Requests decided.
    pub requests: u64,
    /// Requests that got an ad.
    pub allowed: u64,
    /// Requests that got none.
    pub refused: u64,
    /// Refusals by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Impressions that the node accepted, by ad group.
    pub impressions: BTreeMap<AdGroupName, u64>,
    /// Clicks that the node accepted, by ad group.
    pub clicks: BTreeMap<AdGroupName, u64>,
    /// Events that the node accepted.
    pub events_accepted: u64,
    /// Feed frames applied.
    pub frames: u64,
}

/// Why a fleet stopped.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The node did not answer, or not as it should.
    #[error("ad server {server} cannot {doing}")]
    Node {
        /// Which ad server.
        server: u32,
        /// What it was doing.
        doing: &'static str,
        /// The client's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The node refused events that should have been right.
    #[error("the node rejected events of ad server {server}: {why}")]
    Rejected {
        /// Which ad server.
        server: u32,
        /// The node's words.
        why: String,
    },
}

/// Runs the traffic through the fleet until the last event of the last ad is accepted.
///
/// # Errors
/// [`FleetError`] if the node stays away or refuses events.
pub async fn run(
    config: &FleetConfig,
    traffic: &[AdRequest],
    progress: Arc<FleetProgress>,
    stop: CancellationToken,
) -> Result<FleetReport, FleetError> {
    let mut servers = tokio::task::JoinSet::new();
    for number in 0..config.servers {
        let mine: Vec<AdRequest> = traffic
            .iter()
            .filter(|r| r.number % u64::from(config.servers) == u64::from(number))
            .cloned()
            .collect();
        let server = server::AdServer::new(number, config.clone(), Arc::clone(&progress));
        servers.spawn(server.run(mine, stop.clone()));
    }
    let mut report = FleetReport::default();
    while let Some(ended) = servers.join_next().await {
        let reasons = match ended {
            Ok(ended) => ended?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        for (reason, count) in reasons {
            *report.reasons.entry(reason).or_default() += count;
        }
    }
    let accepted = progress.accepted.lock();
    for ((kind, ad_group), count) in accepted.iter() {
        let events = if *kind == "click" { &mut report.clicks } else { &mut report.impressions };
        events.insert(ad_group.clone(), *count);
    }
    report.requests = progress.requests.load(Ordering::Relaxed);
    report.allowed = progress.allowed.load(Ordering::Relaxed);
    report.refused = progress.refused.load(Ordering::Relaxed);
    report.events_accepted = progress.events_accepted.load(Ordering::Relaxed);
    report.frames = progress.frames.load(Ordering::Relaxed);
    Ok(report)
}
