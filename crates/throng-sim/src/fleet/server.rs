//! One ad server: follows the feed, decides requests, reports events.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use throng_api::{EventRejected, EventsAccepted};
use throng_gate::feed::Frame;
use throng_gate::{Gate, OwnInsertion};
use throng_model::{AdGroupName, HashSeed, Timestamp};
use throng_sidecar::{FeedFollower, FeedObserver, SyncError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{AdRequest, FleetConfig, FleetError, FleetProgress};

/// How often an ad server reports which frames it has applied, in real time.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// An event that will be sent to the node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Timestamp,
    request: u64,
    kind: &'static str,
    ad_group: AdGroupName,
    inserted_at: Timestamp,
}

/// Refusals by reason.
pub(super) type Reasons = BTreeMap<String, u64>;

/// Events that wait to be sent to the node.
#[derive(Debug, Default)]
struct Outbox {
    due: BinaryHeap<Reverse<Due>>,
    /// Insertions that the gate counts itself until the node has accepted their events, by request.
    counted: HashMap<u64, OwnInsertion>,
}

/// What an ad server decides with.
pub(super) struct AdServerParts {
    /// Its gate.
    pub(super) gate: Arc<Gate>,
    /// Keeps the gate current.
    pub(super) follower: FeedFollower,
    /// The seed of the hashes of users.
    pub(super) seed: HashSeed,
}

pub(super) struct AdServer {
    number: u32,
    config: FleetConfig,
    progress: Arc<FleetProgress>,
    http: reqwest::Client,
    parts: AdServerParts,
}

impl AdServer {
    pub(super) fn new(
        number: u32,
        config: FleetConfig,
        progress: Arc<FleetProgress>,
        parts: AdServerParts,
    ) -> Self {
        Self { number, config, progress, http: reqwest::Client::new(), parts }
    }

    fn error(
        &self,
        doing: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> FleetError {
        FleetError::Node { server: self.number, doing, source: source.into() }
    }

    fn with_token(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.config.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Decides its part of the traffic and reports until every event is accepted. Returns the refusals.
    pub(super) async fn run(
        self,
        mut requests: Vec<AdRequest>,
        stop: CancellationToken,
    ) -> Result<Reasons, FleetError> {
        requests.sort_by_key(|r| Reverse(r.after));
        self.progress.update_server(self.number, |_| ());
        self.progress.started.fetch_add(1, Ordering::Relaxed);
        let observer = Arc::new(Observer {
            number: self.number,
            progress: Arc::clone(&self.progress),
            ready: Notify::new(),
        });
        let following = stop.child_token();
        let tasks = self.follow(&observer, &following);
        tokio::select! {
            () = observer.ready.notified() => {}
            () = stop.cancelled() => {}
        }
        let result = self.serve_requests(&self.parts.gate, requests, &stop).await;
        following.cancel();
        for task in tasks {
            if let Err(error) = task.await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        self.progress.remove_server(self.number);
        result
    }

    /// Follows the feed, and reports what is applied.
    fn follow(
        &self,
        observer: &Arc<Observer>,
        stop: &CancellationToken,
    ) -> [tokio::task::JoinHandle<()>; 2] {
        let (follower, from, ended) =
            (self.parts.follower.clone(), Arc::clone(observer), stop.clone());
        let feed = tokio::spawn(async move { follower.follow(&*from, &ended).await });
        let (follower, from, ended) =
            (self.parts.follower.clone(), Arc::clone(observer), stop.clone());
        let report =
            tokio::spawn(async move { follower.report(REPORT_INTERVAL, &*from, &ended).await });
        [feed, report]
    }

    async fn serve_requests(
        &self,
        gate: &Gate,
        mut requests: Vec<AdRequest>,
        stop: &CancellationToken,
    ) -> Result<Reasons, FleetError> {
        let mut reasons = Reasons::new();
        let mut outbox = Outbox::default();
        let mut next_send = self.config.clock.now();
        while !(stop.is_cancelled() || requests.is_empty() && outbox.due.is_empty()) {
            let now = self.config.clock.now();
            while requests.last().is_some_and(|r| self.config.start.plus(r.after) <= now) {
                if let Some(request) = requests.pop() {
                    self.decide(gate, &request, now, &mut outbox, &mut reasons);
                }
            }
            if now >= next_send {
                self.report(gate, &mut outbox, now).await?;
                next_send = now.plus(self.config.send_interval);
            }
            let next_request =
                requests.last().map_or(next_send, |r| self.config.start.plus(r.after));
            let next = next_request.min(next_send);
            self.progress.update_server(self.number, |reached| reached.done = Some(next));
            let wait = next.since(self.config.clock.now());
            tokio::time::sleep(self.config.clock.wall_duration(wait)).await;
        }
        Ok(reasons)
    }

    fn decide(
        &self,
        gate: &Gate,
        request: &AdRequest,
        now: Timestamp,
        outbox: &mut Outbox,
        reasons: &mut Reasons,
    ) {
        let user = request.user.hash(self.parts.seed);
        let (decision, counted) = gate.decide_and_count(Some(user), &request.candidates, now);
        self.progress.requests.fetch_add(1, Ordering::Relaxed);
        for (_, reason) in &decision.refused {
            *reasons.entry(reason.code().to_owned()).or_default() += 1;
        }
        let Some(chosen) = decision.allowed.first() else {
            self.progress.refused.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.progress.allowed.fetch_add(1, Ordering::Relaxed);
        outbox.counted.extend(counted.map(|counted| (request.number, counted)));
        let mut plan = |kind: &'static str, after: Duration| {
            outbox.due.push(Reverse(Due {
                at: now.plus(after),
                request: request.number,
                kind,
                ad_group: chosen.clone(),
                inserted_at: now,
            }));
        };
        plan("insertion", Duration::ZERO);
        if let Some(after) = request.seen_after {
            plan("impression", after);
        }
        if let Some(after) = request.clicked_after {
            plan("click", after);
        }
    }

    /// Sends due events. The gate counts an insertion itself until the node has accepted its event: otherwise
    /// its spend would be missing in between.
    async fn report(
        &self,
        gate: &Gate,
        outbox: &mut Outbox,
        now: Timestamp,
    ) -> Result<(), FleetError> {
        let mut batch = Vec::new();
        while outbox.due.peek().is_some_and(|Reverse(event)| event.at <= now) {
            if let Some(Reverse(event)) = outbox.due.pop() {
                batch.push(event);
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        let mut body = Vec::new();
        for event in &batch {
            serde_json::to_writer(&mut body, &EventLine::new(event))
                .map_err(|error| self.error("write an event", error))?;
            body.push(b'\n');
        }
        let request = self
            .http
            .post(format!("{}/v1/events", self.config.node_url))
            .header("content-type", "application/x-ndjson")
            .body(body);
        let outcome: EventsAccepted = self
            .with_token(request)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(|e| self.error("send events", e))?
            .json()
            .await
            .map_err(|e| self.error("decode the response to events", e))?;
        if let Some(EventRejected { line, field, message, .. }) = outcome.rejected.first() {
            let why = format!("line {line}, {field}: {message}");
            return Err(FleetError::Rejected { server: self.number, why });
        }
        self.progress.events_accepted.fetch_add(outcome.accepted, Ordering::Relaxed);
        let mut all = self.progress.accepted.lock();
        let positions: Vec<(u32, u64)> = outcome.positions.into_iter().collect();
        for event in batch {
            if event.kind != "insertion" {
                *all.entry((event.kind, event.ad_group)).or_default() += 1;
            } else if let Some(counted) = outbox.counted.remove(&event.request) {
                gate.insertion_logged(counted, &positions, now);
            }
        }
        Ok(())
    }
}

/// An event as a line of NDJSON.
#[derive(Serialize)]
struct EventLine<'a> {
    id: String,
    kind: &'a str,
    ad_group: &'a AdGroupName,
    insertion_id: String,
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    inserted_at: Option<String>,
}

impl<'a> EventLine<'a> {
    /// Its id derives from the request, so that it counts once if it is sent twice.
    fn new(event: &'a Due) -> Self {
        Self {
            id: format!("{}-{}", event.kind, event.request),
            kind: event.kind,
            ad_group: &event.ad_group,
            insertion_id: format!("insertion-{}", event.request),
            at: event.at.to_string(),
            inserted_at: (event.kind != "insertion").then(|| event.inserted_at.to_string()),
        }
    }
}

/// Records the frames that an ad server has applied.
struct Observer {
    number: u32,
    progress: Arc<FleetProgress>,
    /// Notified by every frame.
    ready: Notify,
}

impl FeedObserver for Observer {
    fn catalog_read(&self) {}

    fn connected(&self) {}

    fn applied(&self, frame: &Frame) {
        self.progress.frames.fetch_add(1, Ordering::Relaxed);
        self.progress.update_server(self.number, |reached| {
            let newest = reached.frames.entry(frame.partition).or_insert(frame.at);
            *newest = frame.at.max(*newest);
        });
        self.ready.notify_one();
    }

    fn failed(&self, error: &SyncError) {
        tracing::debug!(
            server = self.number,
            error = error as &dyn std::error::Error,
            "feed connection closed"
        );
    }

    fn reported(&self) {}

    fn not_reported(&self, error: &SyncError) {
        tracing::debug!(
            server = self.number,
            error = error as &dyn std::error::Error,
            "failed to report applied versions"
        );
    }
}
