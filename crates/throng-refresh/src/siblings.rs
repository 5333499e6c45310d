//! Refreshes of one template that are built together. Whoever claims one of them claims the others that are due, if
//! their models can be one scan.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use throng_lake::Model;
use throng_model::{AudienceName, RefreshId, Timestamp};
use throng_spec::{Audience, Spec};
use throng_store::{AudienceRow, LedgerError, Refresh, RefreshState};

use super::{LEASE, declared};
use crate::RefreshContext;

/// Refreshes that are built together, at most: a builder holds the words of a user shard of all of them in memory.
const MAX_MEMBERS: usize = 5_000;
/// How long planning may take before a claim: the lease of the first refresh must not expire.
const PLAN_TIMEOUT: Duration = Duration::from_secs(8);
/// How long models that cannot be one scan are built alone before it is tried again.
const ALONE_FOR: Duration = Duration::from_secs(600);
/// After this many processes that died, a refresh is built alone: it may be the cause.
const MAX_CRASHES: u32 = 1;
/// After this many failed tries, a refresh is built alone: the last of three tries. A failure that is worth another try,
/// such as a full disk, is mostly that of the whole group, and thousands of scans would be the next one.
const MAX_FAILURES: u32 = 1;

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
    let others = match due(ctx, &others, &first, holder).await {
        Ok(others) if !others.is_empty() => others,
        Ok(_) => return Claimed::One(first),
        Err(error) => {
            log_claim_failure(&error);
            return Claimed::One(first);
        }
    };
    let mut members = vec![Member { audience: audience.clone(), refresh: first }];
    match claim_all(ctx, holder, &others).await {
        Ok(claimed) => members.extend(claimed),
        Err(error) => log_claim_failure(&error),
    }
    if members.len() == 1
        && let Some(only) = members.pop()
    {
        return Claimed::One(only.refresh);
    }
    Claimed::Several(members)
}

fn log_claim_failure(error: &LedgerError) {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        "failed to claim a refresh of a template, building those that are claimed"
    );
}

/// Those of the siblings that have a refresh which is due and may be built with others, and not more than fit. One
/// read of the ledger: a template has up to 100,000 audiences, and a claim of each would be a write. Renews the lease
/// of the first refresh, which has to last until the others are claimed.
async fn due<'s>(
    ctx: &RefreshContext,
    siblings: &[&'s Audience],
    first: &Refresh,
    holder: &str,
) -> Result<Vec<&'s Audience>, LedgerError> {
    let rows = ctx.ledger.audiences().await?;
    let now = ctx.clock.now();
    let has_due =
        |row: &&AudienceRow| row.refresh.as_ref().is_some_and(|refresh| is_due(refresh, now));
    let due: HashSet<&AudienceName> = rows.iter().filter(has_due).map(|row| &row.name).collect();
    let others = siblings.iter().copied().filter(|other| due.contains(&other.name));
    let others: Vec<&Audience> = others.take(MAX_MEMBERS - 1).collect();
    let Refresh { id, rows_read, null_keys, rows_expected, .. } = *first;
    let until = now.plus(LEASE);
    ctx.ledger
        .record_refresh_progress(id, holder, until, rows_read, null_keys, rows_expected)
        .await?;
    Ok(others)
}

/// Whether a refresh could be claimed now, to be built with others. Claiming it decides.
fn is_due(refresh: &Refresh, now: Timestamp) -> bool {
    let is_free = match refresh.state {
        RefreshState::Scheduled | RefreshState::Halted => refresh.not_before <= now,
        RefreshState::Processing => refresh.lease_until.is_none_or(|until| until <= now),
        RefreshState::Completed | RefreshState::Failed | RefreshState::Held => false,
    };
    is_free && may_share(refresh)
}

/// Claims the refreshes of some audiences, in the order in which they were queued.
async fn claim_all(
    ctx: &RefreshContext,
    holder: &str,
    audiences: &[&Audience],
) -> Result<Vec<Member>, LedgerError> {
    let by_name: HashMap<&AudienceName, &Audience> =
        audiences.iter().map(|audience| (&audience.name, *audience)).collect();
    let names: Vec<AudienceName> = audiences.iter().map(|it| it.name.clone()).collect();
    let now = ctx.clock.now();
    let claimed = ctx.ledger.claim_refreshes_of(&names, holder, now, now.plus(LEASE)).await?;
    let (mut shared, alone): (Vec<Refresh>, Vec<Refresh>) =
        claimed.into_iter().partition(may_share);
    if !alone.is_empty() {
        // They are claimed again, and built alone.
        let ids: Vec<RefreshId> = alone.iter().map(|refresh| refresh.id).collect();
        // Not the error of the others, which are claimed: without it these wait until their leases expire.
        if let Err(error) = ctx.ledger.halt_refreshes(&ids, holder, now).await {
            tracing::warn!(
                refreshes = ids.len(),
                error = &error as &dyn std::error::Error,
                "failed to halt refreshes"
            );
        }
    }
    shared.sort_unstable_by_key(|refresh| refresh.id);
    let member = |refresh: Refresh| {
        let audience = by_name.get(&refresh.audience)?;
        Some(Member { audience: (*audience).clone(), refresh })
    };
    Ok(shared.into_iter().filter_map(member).collect())
}

/// Whether a refresh may be built with others. One that failed often is built alone, so that its error is its own.
fn may_share(refresh: &Refresh) -> bool {
    refresh.failures <= MAX_FAILURES && refresh.crashes <= MAX_CRASHES
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
    let lake = ctx.lake_of(&audience.name);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::audience_row;

    #[test]
    fn refreshes_that_can_be_claimed_and_have_not_failed_twice_are_due() {
        let now = Timestamp(10);
        let due = |state, change: &dyn Fn(&mut Refresh)| {
            let mut refresh = audience_row(state, None).refresh.unwrap();
            change(&mut refresh);
            is_due(&refresh, now)
        };
        let nothing = |_: &mut Refresh| {};
        assert!(due(RefreshState::Scheduled, &nothing) && due(RefreshState::Halted, &nothing));
        assert!(!due(RefreshState::Completed, &nothing) && !due(RefreshState::Held, &nothing));
        assert!(!due(RefreshState::Scheduled, &|refresh: &mut Refresh| refresh.not_before =
            Timestamp(11)));
        assert!(due(RefreshState::Scheduled, &|refresh: &mut Refresh| refresh.failures = 1));
        assert!(!due(RefreshState::Scheduled, &|refresh: &mut Refresh| refresh.failures = 2));
        let until = |at| move |refresh: &mut Refresh| refresh.lease_until = Some(Timestamp(at));
        assert!(!due(RefreshState::Processing, &until(11)));
        assert!(due(RefreshState::Processing, &until(10)));
    }
}
