//! Applying another spec.

use std::sync::Arc;

use throng_spec::{Plan, SpecFiles};

use crate::node::{Refusal, apply_planned, plan_sent};
use crate::{NodeContext, NodeError};

/// Checks the files of a spec and applies it to the running node; with a `base`, only over that version.
/// Returns the new version and what changed.
///
/// # Errors
/// [`Refusal`].
pub(crate) async fn apply(
    ctx: &Arc<NodeContext>,
    files: SpecFiles,
    base: Option<u64>,
    actor: &str,
) -> Result<(u64, Plan), Refusal> {
    let planned = plan_sent(ctx, files).await?;
    let (ctx, actor) = (Arc::clone(ctx), actor.to_owned());
    // In a separate task, so that it ends also if the client disconnects: a spec must not be applied in part.
    let applying = tokio::spawn(async move { apply_planned(&ctx, planned, base, &actor).await });
    match applying.await {
        Ok(applied) => applied,
        Err(panicked) => Err(Refusal::Failed(NodeError::Io {
            doing: "apply",
            what: "the spec".to_owned(),
            source: std::io::Error::other(panicked),
        })),
    }
}
