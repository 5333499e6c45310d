//! A fleet of ad servers on one machine. Each one links [`throng_gate`], follows the node's feed over HTTP, decides
//! locally, and reports insertions, impressions and clicks when its users see and click the ads, seconds to
//! minutes later. Catalog, feed and snapshots arrive as in any ad server, by `throng-sidecar`; the snapshots are in one
//! folder, which all of them map.
//!
//! Traffic is fixed in advance ([`AdRequest`]): the user, the candidate ad groups, whether and when an ad would
//! be seen and clicked. So the same traffic can be run against nodes with and without prediction of in-flight
//! spend.

mod server;
mod traffic;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use throng_gate::Gate;
use throng_membership::MembershipIndex;
use throng_model::{AdGroupName, Clock, Secret, Timestamp, UserKey};
use throng_sidecar::{
    Cache, FeedFollower, MembershipObserver, MembershipSync, NodeClient, NodeOptions, SidecarError,
    SyncError,
};
use tokio_util::sync::CancellationToken;

pub use traffic::{Delays, LoggedImpression, TrafficError, read_impression_log, traffic_from_log};

/// A gate without a frame for this long is stale: the feed of a simulation has a frame per second, so this is
/// 30 frames.
const STALE_AFTER: Duration = Duration::from_secs(30);
/// How often the ad servers compare the snapshots with the node's, in real time.
const MEMBERSHIP_INTERVAL: Duration = Duration::from_secs(2);

/// One request for an ad, and the behavior of its user.
#[derive(Debug, Clone)]
pub struct AdRequest {
    /// Its number, unique in the traffic. Event ids derive from it, so that a retry is a duplicate and not a
    /// second event.
    pub number: u64,
    /// The time of the request after the start of the traffic.
    pub after: Duration,
    /// The user.
    pub user: UserKey,
    /// The candidate ad groups, best first.
    pub candidates: Vec<AdGroupName>,
    /// How long after the insertion the ad is seen; `None`: never.
    pub seen_after: Option<Duration>,
    /// How long after the insertion the ad is clicked; `None`: never.
    pub clicked_after: Option<Duration>,
}

/// The settings of a fleet.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// The URL of the node.
    pub node_url: String,
    /// The URL of the feed and the catalog: the node's or a relay's.
    pub feed_url: String,
    /// The folder for the copies of the node's snapshots.
    pub cache_dir: PathBuf,
    /// The node's token, if it requires one.
    pub token: Option<String>,
    /// The number of ad servers.
    pub servers: u32,
    /// The clock of the traffic.
    pub clock: Arc<dyn Clock>,
    /// The instant at which the traffic starts.
    pub start: Timestamp,
    /// The interval in which an ad server sends its events, on the clock.
    pub send_interval: Duration,
}

/// The progress of a fleet. Cheap to read while it runs.
#[derive(Debug, Default)]
pub struct FleetProgress {
    /// The progress of each running ad server, by its number.
    pub(crate) reached: Mutex<BTreeMap<u32, ServerProgress>>,
    /// Impressions and clicks that the node accepted, by kind and ad group.
    pub(crate) accepted: Mutex<HashMap<(&'static str, AdGroupName), u64>>,
    /// Ad servers that have started.
    pub(crate) started: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) allowed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) events_accepted: AtomicU64,
    pub(crate) frames: AtomicU64,
}

/// The progress of an ad server.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerProgress {
    /// Everything due before this instant is done.
    pub(crate) done: Option<Timestamp>,
    /// The time of the newest applied frame of each partition.
    pub(crate) frames: BTreeMap<u32, Timestamp>,
}

impl FleetProgress {
    /// Requests that were decided.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn update_server<T>(
        &self,
        number: u32,
        change: impl FnOnce(&mut ServerProgress) -> T,
    ) -> T {
        let mut reached = self.reached.lock();
        change(reached.entry(number).or_default())
    }

    pub(crate) fn remove_server(&self, number: u32) {
        self.reached.lock().remove(&number);
    }

    /// The instant up to which every ad server has decided and reported all due requests and has applied the
    /// feed. `None` until all `servers` have such an instant; the end of time once all have ended.
    pub fn reached(&self, servers: u32) -> Option<Timestamp> {
        let reached = self.reached.lock();
        let mut all = Timestamp(i64::MAX);
        for server in reached.values() {
            all = all.min(server.done?).min(*server.frames.values().min()?);
        }
        let started = self.started.load(Ordering::Relaxed) >= u64::from(servers);
        started.then_some(all)
    }

    /// Impressions or clicks of an ad group that the node has accepted.
    pub fn accepted(&self, kind: &'static str, ad_group: &AdGroupName) -> u64 {
        let accepted = self.accepted.lock();
        accepted.get(&(kind, ad_group.clone())).copied().unwrap_or(0)
    }
}

/// The result of a fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FleetReport {
    /// Requests that were decided.
    pub requests: u64,
    /// Requests with an allowed ad.
    pub allowed: u64,
    /// Requests without one.
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

/// An error that stops a fleet.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The node did not respond, or its response was invalid.
    #[error("ad server {server} cannot {doing}")]
    Node {
        /// The ad server.
        server: u32,
        /// What was being done.
        doing: &'static str,
        /// The client's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Catalog or snapshots cannot be read from the node.
    #[error("the ad servers cannot follow the node")]
    Sync(#[from] SyncError),
    /// The client or the folder of snapshots cannot be used.
    #[error("the ad servers do not start")]
    Start(#[from] SidecarError),
    /// The node rejected events that should be valid.
    #[error("the node rejected events of ad server {server}: {why}")]
    Rejected {
        /// The ad server.
        server: u32,
        /// The node's reason.
        why: String,
    },
}

/// Runs the traffic through the fleet until the last event of the last ad is accepted.
///
/// # Errors
/// [`FleetError`] if the node does not respond or rejects events.
pub async fn run(
    config: &FleetConfig,
    traffic: &[AdRequest],
    progress: Arc<FleetProgress>,
    stop: CancellationToken,
) -> Result<FleetReport, FleetError> {
    let client = NodeClient::new(&NodeOptions {
        url: config.node_url.clone(),
        feed_url: Some(config.feed_url.clone()),
        token: config.token.clone().map(Secret::new),
        ..NodeOptions::default()
    })?;
    let cache = Arc::new(Cache::open(&config.cache_dir)?);
    let mut membership = MembershipSync::new(client.clone(), cache);
    let Some(index) = membership.poll().await? else {
        let (url, problem) = (config.node_url.clone(), "it serves no membership".to_owned());
        return Err(SyncError::Response { url, problem }.into());
    };
    let (catalog, seed) = (client.catalog().await?, index.seed());
    let gates = (0..config.servers).map(|_| Arc::new(Gate::new(catalog.clone(), STALE_AFTER)));
    let gates = Gates(gates.collect());
    gates.loaded(&index);
    let mut servers = tokio::task::JoinSet::new();
    for (number, gate) in (0..config.servers).zip(&gates.0) {
        let requests_of_server: Vec<AdRequest> = traffic
            .iter()
            .filter(|r| r.number % u64::from(config.servers) == u64::from(number))
            .cloned()
            .collect();
        let gate = Arc::clone(gate);
        let id = format!("ad-server-{number:04}");
        let follower = FeedFollower::new(client.clone(), Arc::clone(&gate), id);
        let parts = server::AdServerParts { gate, follower, seed };
        let server = server::AdServer::new(number, config.clone(), Arc::clone(&progress), parts);
        servers.spawn(server.run(requests_of_server, stop.clone()));
    }
    let following = stop.child_token();
    // Ends with the ad servers, whatever they end with.
    let _ends = following.clone().drop_guard();
    tokio::spawn(async move {
        membership.follow(MEMBERSHIP_INTERVAL, &gates, &following).await;
    });
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

/// The gates of all ad servers, which map the same snapshots.
struct Gates(Vec<Arc<Gate>>);

impl MembershipObserver for Gates {
    fn loaded(&self, index: &Arc<MembershipIndex>) {
        for gate in &self.0 {
            gate.set_membership(Arc::clone(index));
        }
    }

    fn current(&self) {}

    fn failed(&self, error: &SyncError) {
        tracing::debug!(error = error as &dyn std::error::Error, "failed to read membership");
    }
}
