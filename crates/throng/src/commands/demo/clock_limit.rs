//! Limits the demo's clock: it runs only as fast as the ad servers decide and report, the nodes count and
//! the feed arrives. So the figures depend on the traffic, and not on how busy the machine is.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Error;
use throng_model::{Clock, Timestamp};
use throng_server::Node;
use throng_sim::fleet::FleetProgress;

use super::DemoEnvironment;
use crate::args::DemoArgs;

/// How far the clock may be ahead of the slowest, in its own time: one window of in-flight spend.
const LEAD: Duration = Duration::from_secs(10);
/// Time between two polls, on the machine's clock.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The demo fails after this time without progress, measured in intervals of [`POLL_INTERVAL`].
const TIMEOUT: Duration = Duration::from_secs(120);

/// A fleet of ad servers and the node that counts its events.
struct FleetOfNode<'a> {
    node: &'a Node,
    progress: &'a FleetProgress,
    /// The value of all accepted events at each poll, oldest first.
    accepted: VecDeque<(Timestamp, i64)>,
    /// All events that were accepted until this instant are counted.
    counted: Timestamp,
}

impl FleetOfNode<'_> {
    /// The instant until which the ad servers and the node have done everything; `None` before the first
    /// report.
    fn reached(&mut self, environment: &DemoEnvironment, servers: u32) -> Option<Timestamp> {
        let now = environment.clock.now();
        let accepted =
            environment.billable_micros(|kind, ad_group| self.progress.accepted(kind, ad_group));
        self.accepted.push_back((now, accepted));
        let counted: i64 = self.node.context().budgets.states().iter().map(|s| s.actual.0).sum();
        while let Some((at, _)) = self.accepted.front().filter(|(_, value)| *value <= counted) {
            self.counted = *at;
            self.accepted.pop_front();
        }
        Some(self.progress.reached(servers)?.min(self.counted))
    }
}

/// Advances the limit of the demo's clock from `start`, until the caller drops the future. Returns only an
/// error: there is no progress, or the clock cannot be published.
pub(super) async fn advance(
    environment: &DemoEnvironment,
    arguments: &DemoArgs,
    start: Timestamp,
    fleets: &[(&Node, &FleetProgress)],
) -> Error {
    let fleets = fleets.iter().map(|&(node, progress)| FleetOfNode {
        node,
        progress,
        accepted: VecDeque::new(),
        counted: start,
    });
    let mut fleets: Vec<FleetOfNode<'_>> = fleets.collect();
    let (mut limit, mut stalled) = (start, Duration::ZERO);
    while stalled < TIMEOUT {
        tokio::time::sleep(POLL_INTERVAL).await;
        let reached =
            fleets.iter_mut().map(|fleet| fleet.reached(environment, arguments.ad_servers));
        // Collected before the minimum is taken, so that every fleet is polled each time.
        let reached: Vec<Option<Timestamp>> = reached.collect();
        let slowest = reached.into_iter().collect::<Option<Vec<_>>>();
        let slowest = slowest.and_then(|all| all.into_iter().min());
        let next = slowest.map_or(limit, |reached| reached.plus(LEAD));
        if next <= limit {
            stalled += POLL_INTERVAL;
            continue;
        }
        (limit, stalled) = (next, Duration::ZERO);
        if let Err(error) = environment.set_limit(limit) {
            return error;
        }
    }
    anyhow::anyhow!("the demo makes no progress: an ad server, a node or the feed has stopped")
}
