//! The demo's clock waits for what it drives: it runs as fast as the ad servers decide and report, the
//! nodes count and the feed arrives. So the figures are those of the traffic, whatever else keeps the
//! machine busy.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Error;
use throng_model::{Clock, Timestamp};
use throng_server::Node;
use throng_sim::fleet::FleetProgress;

use super::Stage;
use super::steps::{set_limit, worth};
use crate::args::DemoArgs;

/// How far, on its own scale, the clock may be ahead of the slowest: one window of in-flight spend.
const LEAD: Duration = Duration::from_secs(10);
/// Between two looks, on the machine's clock.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Without progress for so long, in intervals of [`POLL_INTERVAL`], there will be none.
const STALLED_AFTER: Duration = Duration::from_secs(120);

/// A fleet of ad servers and the node that counts its events.
struct Pair<'a> {
    node: &'a Node,
    progress: &'a FleetProgress,
    /// When the accepted events were worth how much, oldest first.
    accepted: VecDeque<(Timestamp, i64)>,
    /// The instant up to which everything accepted is counted.
    counted: Timestamp,
}

impl Pair<'_> {
    /// The instant up to which the ad servers and the node have done everything.
    fn reached(&mut self, stage: &Stage, servers: u32) -> Option<Timestamp> {
        let now = stage.clock.now();
        let worth = worth(stage, |kind, ad_group| self.progress.accepted(kind, ad_group));
        self.accepted.push_back((now, worth));
        let counted: i64 = self.node.context().budgets.states().iter().map(|s| s.actual.0).sum();
        while let Some((at, _)) = self.accepted.front().filter(|(_, worth)| *worth <= counted) {
            self.counted = *at;
            self.accepted.pop_front();
        }
        Some(self.progress.reached(servers)?.min(self.counted))
    }
}

/// Moves the limit of the demo's clock on, from `start`, for as long as the traffic runs. Ends only if
/// there is no progress.
pub(super) async fn keep(
    stage: &Stage,
    arguments: &DemoArgs,
    start: Timestamp,
    fleets: &[(&Node, &FleetProgress)],
) -> Error {
    let pairs = fleets.iter().map(|&(node, progress)| Pair {
        node,
        progress,
        accepted: VecDeque::new(),
        counted: start,
    });
    let mut pairs: Vec<Pair<'_>> = pairs.collect();
    let (mut limit, mut stalled) = (start, Duration::ZERO);
    while stalled < STALLED_AFTER {
        tokio::time::sleep(POLL_INTERVAL).await;
        let reached = pairs.iter_mut().map(|pair| pair.reached(stage, arguments.ad_servers));
        // Every pair is asked: each remembers what it has seen.
        let reached: Vec<Option<Timestamp>> = reached.collect();
        let slowest = reached.into_iter().collect::<Option<Vec<_>>>();
        let slowest = slowest.and_then(|all| all.into_iter().min());
        let next = slowest.map_or(limit, |reached| reached.plus(LEAD));
        if next <= limit {
            stalled += POLL_INTERVAL;
            continue;
        }
        (limit, stalled) = (next, Duration::ZERO);
        if let Err(error) = set_limit(stage, limit) {
            return error;
        }
    }
    anyhow::anyhow!("the demo makes no progress: an ad server, a node or the feed stands still")
}
