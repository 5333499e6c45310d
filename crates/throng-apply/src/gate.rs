//! The gate of this node, which answers decisions over HTTP, fed by the node's own feed.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use throng_aggregator::{Budgets, FrameSink};
use throng_feed::Frame;
use throng_gate::{FrameOutcome, Gate};
use throng_membership::MembershipIndex;
use throng_spec::Spec;

/// A gate that applies the frames of the aggregator: borrowed or shared.
#[derive(Debug)]
pub struct GateSink<G>(pub G);

impl<G: Deref<Target = Gate> + Send + Sync> FrameSink for GateSink<G> {
    fn apply_frame(&self, frame: &Frame) -> bool {
        self.0.apply(frame) != FrameOutcome::NeedKeyframe
    }
}

/// After how long without a frame a gate's budget states are stale: some frames may be late.
fn stale_after(feed_interval: Duration) -> Duration {
    feed_interval.saturating_mul(10).max(Duration::from_secs(10))
}

/// The gate of this node, with the figures that its budgets have.
pub fn open_gate(budgets: &Budgets, spec: &Spec, membership: &Arc<MembershipIndex>) -> Arc<Gate> {
    let feed_interval = Duration::from_millis(u64::from(spec.node.feed_interval_ms));
    let gate = Gate::new(budgets.catalog().as_ref().clone(), stale_after(feed_interval));
    gate.set_membership(Arc::clone(membership));
    budgets.update_gate(&GateSink(&gate));
    Arc::new(gate)
}
