//! Refreshes of one template that are built together. Whoever claims one of them claims the others that are due, if
//! their models can be one scan.

use std::time::Duration;

use throng_lake::Model;
use throng_spec::{Audience, Spec};
use throng_store::{LedgerError, Refresh};

use super::{LEASE, declared};
use crate::RefreshContext;

/// Refreshes that are built together, at most: a builder renews the leases of all of them in time.
const MAX_MEMBERS: usize = 5_000;
/// How long planning may take before a claim: the lease of the first refresh must not expire.
const PLAN_TIMEOUT: Duration = Duration::from_secs(8);
/// How long models that cannot be one scan are built alone before it is tried again.
const ALONE_FOR: Duration = Duration::from_secs(600);
/// After this many processes that died, a refresh is built alone: it may be the cause.
const MAX_CRASHES: u32 = 1;

/// A refresh of a template's audience.
pub(super) struct Member {
    pub(super) audience: Audience,
    pub(super) refresh: Refresh,
}

/// What a builder has claimed.
pub(super) enum Claimed {
    /// A refresh that is built by itself.
    One(Refresh),
    /// At least two that are built together.
    Several(Vec<Member>),
}

/// Claims the refreshes that can be built together with a claimed one.
pub(super) async fn claim(ctx: &RefreshContext, holder: &str, first: Refresh) -> Claimed {
    let spec = ctx.spec.load_full();
    let Some(audience) = declared(&spec, &first.audience) else { return Claimed::One(first) };
    let others = siblings(&spec, audience);
    if others.is_empty() || !may_share(&first) || !can_share(ctx, audience).await {
        return Claimed::One(first);
    }
    let mut members = vec![Member { audience: audience.clone(), refresh: first }];
    for other in others {
        if members.len() == MAX_MEMBERS {
            break;
        }
        match claim_of(ctx, holder, other).await {
            Ok(Some(refresh)) => members.push(Member { audience: other.clone(), refresh }),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to claim a refresh of a template, building those that are claimed"
                );
                break;
            }
        }
    }
    if members.len() == 1
        && let Some(only) = members.pop()
    {
        return Claimed::One(only.refresh);
    }
    Claimed::Several(members)
}

async fn claim_of(
    ctx: &RefreshContext,
    holder: &str,
    audience: &Audience,
) -> Result<Option<Refresh>, LedgerError> {
    let now = ctx.clock.now();
    let claimed = ctx.ledger.claim_refresh_of(&audience.name, holder, now, now.plus(LEASE)).await?;
    match claimed {
        Some(refresh) if !may_share(&refresh) => {
            // It is claimed again, and built alone.
            ctx.ledger.halt_refresh(refresh.id, holder, now).await?;
            Ok(None)
        }
        claimed => Ok(claimed),
    }
}

/// Whether a refresh may be built with others. One that failed is built alone, so that its error is its own.
fn may_share(refresh: &Refresh) -> bool {
    refresh.failures == 0 && refresh.crashes <= MAX_CRASHES
}

/// The other audiences whose models differ from that of an audience in parameters only.
fn siblings<'s>(spec: &'s Spec, audience: &Audience) -> Vec<&'s Audience> {
    // No scan of the lake has rows of a warehouse.
    let made_from = audience.made_from.as_ref().filter(|_| audience.source.is_none());
    let Some(made_from) = made_from else { return Vec::new() };
    let is_sibling = |other: &&Audience| {
        other.name != audience.name
            && other.made_from.as_ref().is_some_and(|of| of.template == made_from.template)
            && other.sql == audience.sql
            && other.key == audience.key
            && other.source.is_none()
    };
    spec.audiences.iter().filter(is_sibling).collect()
}

/// The model of all siblings.
fn template_of(audience: &Audience) -> String {
    Model { parameters: Vec::new(), ..Model::of(audience) }.fingerprint()
}

/// Whether the models of an audience and its siblings can be one scan, as far as its own values tell.
async fn can_share(ctx: &RefreshContext, audience: &Audience) -> bool {
    if ctx.builders.is_alone(&template_of(audience), ctx.clock.now()) {
        return false;
    }
    let lake = ctx.lake.load_full();
    let model = Model::of(audience);
    let planning = lake.plan_shared(&model, vec![model.parameters.clone()], Vec::new());
    match tokio::time::timeout(PLAN_TIMEOUT, planning).await {
        Ok(Ok(Some(_))) => true,
        // An error is that of the model: it is reported with its refresh.
        Ok(Ok(None) | Err(_)) => {
            build_alone(ctx, audience);
            false
        }
        // The next try finds the schemas of the files in the cache.
        Err(_) => false,
    }
}

/// Builds an audience and its siblings alone for a while.
pub(super) fn build_alone(ctx: &RefreshContext, audience: &Audience) {
    let until = ctx.clock.now().plus(ALONE_FOR);
    ctx.builders.build_alone(template_of(audience), until);
}
