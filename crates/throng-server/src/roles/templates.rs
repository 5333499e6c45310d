//! Runs the queries of templates again when they are due, while this process leads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use throng_apply::Refusal;
use throng_model::{Timestamp, with_causes};
use throng_spec::Pattern;
use throng_templates::{due, scheduled};
use tokio_util::sync::CancellationToken;

use crate::{NodeContext, ProblemClass};

/// The longest time between two polls, on the node's clock and on the machine's timer.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
const MAX_WALL_INTERVAL: Duration = Duration::from_secs(2);
/// After queries that have failed.
const RETRY_DELAY: Duration = Duration::from_secs(60);
/// The key of the problem of the node.
const KEY: &str = "templates";

/// When each template was expanded last by this process.
type ExpandedAt = BTreeMap<Pattern, Timestamp>;

/// Runs until `shutdown`.
pub(crate) async fn run(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    let (mut expanded_at, mut retry_at) = (ExpandedAt::new(), None::<Timestamp>);
    loop {
        // A time that is later than the delay is from before the clock stepped back.
        let now = ctx.clock.now();
        if retry_at.is_none_or(|at| at <= now || at > now.plus(RETRY_DELAY)) {
            retry_at = match poll(&ctx, &mut expanded_at).await {
                Ok(()) => None,
                Err(why) => {
                    tracing::error!(why, "failed to expand templates, will retry");
                    ctx.health.report(ProblemClass::Config, KEY, why);
                    Some(ctx.clock.now().plus(RETRY_DELAY))
                }
            };
        }
        let pause = ctx.running.poll_delay(&*ctx.clock, POLL_INTERVAL).min(MAX_WALL_INTERVAL);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Expands what is due.
async fn poll(ctx: &NodeContext, expanded_at: &mut ExpandedAt) -> Result<(), String> {
    let spec = ctx.spec.load_full();
    if scheduled(&spec).next().is_none() {
        ctx.health.clear(ProblemClass::Config, KEY);
        return Ok(());
    }
    let failed = |error: throng_store::LedgerError| with_causes(&error);
    if !ctx.ledger.acquire_leadership().await.map_err(failed)? {
        // The leader expands them. What this process knows may be old when it leads again.
        expanded_at.clear();
        ctx.health.clear(ProblemClass::Config, KEY);
        return Ok(());
    }
    let now = ctx.clock.now();
    if !scheduled(&spec).all(|template| expanded_at.contains_key(template)) {
        let Some(applied) = ctx.ledger.applied_spec().await.map_err(failed)? else { return Ok(()) };
        // Rows of the applied spec may be as old as it is, and a firing since then may have been missed.
        for template in scheduled(&spec) {
            expanded_at.entry(template.clone()).or_insert(applied.applied_at);
        }
    }
    let due = due(&spec, expanded_at, now);
    let mut failures = Vec::new();
    match expand(ctx, &due).await {
        Ok(true) => expanded_at.extend(due.into_iter().map(|template| (template, now))),
        Ok(false) => return Ok(()),
        Err(why) if due.len() == 1 => failures.push(why),
        // Each by itself: a query that fails keeps no other template from its rows. Audiences come first, because
        // syncs refer to them.
        Err(_) => {
            for template in scheduled(&spec).filter(|template| due.contains(*template)) {
                match expand(ctx, &BTreeSet::from([template.clone()])).await {
                    Ok(true) => {
                        expanded_at.insert(template.clone(), now);
                    }
                    Ok(false) => return Ok(()),
                    Err(why) => failures.push(why),
                }
            }
        }
    }
    if !failures.is_empty() {
        return Err(failures.join("\n"));
    }
    ctx.health.clear(ProblemClass::Config, KEY);
    Ok(())
}

/// Expands these templates together. `false` if another spec was applied meanwhile, with rows of now.
async fn expand(ctx: &NodeContext, templates: &BTreeSet<Pattern>) -> Result<bool, String> {
    if templates.is_empty() {
        return Ok(true);
    }
    match ctx.applier.expand_templates(templates).await {
        Ok(Some((version, plan))) => {
            let changes = plan.changes.len();
            tracing::info!(version, changes, "applied the new rows of templates");
            Ok(true)
        }
        Ok(None) => Ok(true),
        Err(Refusal::Superseded { .. }) => Ok(false),
        Err(Refusal::Problems(problems)) => {
            let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Err(texts.join("\n"))
        }
        Err(Refusal::Failed(error)) => Err(with_causes(&error)),
    }
}
