//! One ad server: follows the feed, decides requests, reports events.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use serde::Serialize;
use throng_api::{EventRejected, EventsAccepted};
use throng_gate::feed::Frame;
use throng_gate::{Catalog, FrameOutcome, Gate, OwnInsertion};
use throng_model::{AdGroupName, Timestamp};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{AdRequest, FleetConfig, FleetError, FleetProgress};

/// A gate without a frame for this long is stale: the feed of a simulation has a frame per second, so this is
/// 30 frames.
const STALE_AFTER: Duration = Duration::from_secs(30);

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

pub(super) struct AdServer {
    number: u32,
    config: FleetConfig,
    progress: Arc<FleetProgress>,
    http: reqwest::Client,
}

impl AdServer {
    pub(super) fn new(number: u32, config: FleetConfig, progress: Arc<FleetProgress>) -> Self {
        Self { number, config, progress, http: reqwest::Client::new() }
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

    async fn catalog(&self) -> Result<Catalog, FleetError> {
        let request = self.http.get(format!("{}/v1/catalog", self.config.feed_url));
        let response = self
            .with_token(request)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(|e| self.error("read the catalog", e))?;
        response.json().await.map_err(|e| self.error("decode the catalog", e))
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
        let gate = Arc::new(Gate::new(self.catalog().await?, STALE_AFTER));
        gate.set_membership(Arc::clone(&self.config.membership));
        let ready = Arc::new(Notify::new());
        let following = stop.child_token();
        let follower = tokio::spawn(follow(
            self.number,
            self.config.clone(),
            Arc::clone(&gate),
            Arc::clone(&self.progress),
            Arc::clone(&ready),
            following.clone(),
        ));
        tokio::select! {
            () = ready.notified() => {}
            () = stop.cancelled() => {}
        }
        let result = self.serve_requests(&gate, requests, &stop).await;
        following.cancel();
        if let Err(error) = follower.await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
        self.progress.remove_server(self.number);
        result
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
        let user = request.user.hash(self.config.membership.seed());
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

/// Applies the feed to a gate until `stop`; reconnects after an interruption.
async fn follow(
    number: u32,
    config: FleetConfig,
    gate: Arc<Gate>,
    progress: Arc<FleetProgress>,
    ready: Arc<Notify>,
    stop: CancellationToken,
) {
    let http = reqwest::Client::new();
    while !stop.is_cancelled() {
        let session = follow_once(number, &config, &gate, &progress, &ready, &http);
        tokio::select! {
            ended = session => {
                if let Err(error) = ended {
                    tracing::debug!(server = number, error = &*error, "feed connection closed");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            () = stop.cancelled() => {}
        }
    }
}

async fn follow_once(
    number: u32,
    config: &FleetConfig,
    gate: &Gate,
    progress: &FleetProgress,
    ready: &Notify,
    http: &reqwest::Client,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let with_token = |request: reqwest::RequestBuilder| match &config.token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let request =
        http.get(format!("{}/v1/feed?format=3&gate=ad-server-{number:04}", config.feed_url));
    let response = with_token(request).send().await?.error_for_status()?;
    let mut stream = response.bytes_stream();
    let mut buffer = Vec::new();
    while let Some(chunk) = stream.next().await {
        buffer.extend_from_slice(&chunk?);
        while let Some(frame) = take_frame(&mut buffer) {
            let frame = Frame::decode(&frame)?;
            match gate.apply(&frame) {
                // A new connection starts with keyframes.
                FrameOutcome::NeedKeyframe => return Ok(()),
                FrameOutcome::Applied { unknown, catalog_behind, .. }
                    if catalog_behind || unknown > 0 =>
                {
                    let request = http.get(format!("{}/v1/catalog", config.feed_url));
                    let response = with_token(request).send().await?.error_for_status()?;
                    gate.set_catalog(response.json().await?);
                }
                FrameOutcome::Applied { .. } | FrameOutcome::Ignored => {}
            }
            progress.frames.fetch_add(1, Ordering::Relaxed);
            progress.update_server(number, |reached| {
                let newest = reached.frames.entry(frame.partition).or_insert(frame.at);
                *newest = frame.at.max(*newest);
            });
            ready.notify_one();
        }
    }
    Ok(())
}

/// Removes one length-prefixed frame from the front of the buffer, if it is complete.
fn take_frame(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = u32::from_le_bytes(buffer.get(..4)?.try_into().ok()?) as usize;
    let frame = buffer.get(4..4 + length)?.to_vec();
    buffer.drain(..4 + length);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_frames_are_taken() {
        let mut buffer = vec![2, 0, 0, 0, 7, 8, 1, 0];
        assert_eq!(take_frame(&mut buffer), Some(vec![7, 8]));
        assert_eq!(take_frame(&mut buffer), None);
        assert_eq!(buffer, [1, 0]);
    }
}
