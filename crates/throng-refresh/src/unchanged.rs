//! Refreshes whose model, files and identifiers are those of the version that is served: they are
//! completed without a scan and without a snapshot.

use std::collections::{BTreeMap, HashSet};

use throng_lake::{InputQuery, InputState};
use throng_model::{AudienceName, RefreshId};
use throng_spec::Audience;
use throng_store::{AlertKind, HistoryEvent, LedgerError, Refresh, Snapshot};

use super::error::RefreshError;
use super::identifier_inputs::IdentifierInputs;
use super::siblings::Member;
use super::source_changes::inputs_of;
use super::{freshness, history};
use crate::damage::file_problem;
use crate::{RefreshContext, model_of};

/// The served version, if a refresh would make the same again. Costs a listing of the source's files,
/// and reads none.
pub(super) async fn find(
    ctx: &RefreshContext,
    audience: &Audience,
    refresh: &Refresh,
    identifiers: &IdentifierInputs,
) -> Result<Option<Snapshot>, RefreshError> {
    let served = ctx.ledger.audience(&audience.name).await?.and_then(|row| row.current);
    let Some((served, made_of)) = candidate(ctx, audience, refresh, served) else {
        return Ok(None);
    };
    if !with_parts(ctx, &[refresh.id]).await?.is_empty() {
        return Ok(None);
    }
    let Some(model) = fingerprint_now(ctx, audience).await else { return Ok(None) };
    Ok(is_same(identifiers, &audience.name, &model, &made_of).then_some(served))
}

/// [`find`] for refreshes of one template. Their models read the same tables, whose files are listed once.
pub(super) async fn find_among(
    ctx: &RefreshContext,
    group: &[Member],
    identifiers: &IdentifierInputs,
) -> Result<Vec<Option<Snapshot>>, RefreshError> {
    let rows = ctx.ledger.audiences().await?.into_iter();
    let mut served: BTreeMap<AudienceName, Option<Snapshot>> =
        rows.map(|row| (row.name, row.current)).collect();
    let ids: Vec<RefreshId> = group.iter().map(|member| member.refresh.id).collect();
    let with_parts = with_parts(ctx, &ids).await?;
    let mut candidates = Vec::with_capacity(group.len());
    for Member { audience, refresh } in group {
        let served = served.remove(&audience.name).flatten();
        let served = served.filter(|_| !with_parts.contains(&refresh.id));
        candidates.push(candidate(ctx, audience, refresh, served));
    }
    let now = match group.first() {
        Some(first) if candidates.iter().any(Option::is_some) => {
            fingerprint_now(ctx, &first.audience).await
        }
        _ => None,
    };
    let unchanged = candidates.into_iter().map(|candidate| {
        let (served, made_of) = candidate?;
        let model = now.as_ref()?;
        is_same(identifiers, &served.audience, model, &made_of).then_some(served)
    });
    Ok(unchanged.collect())
}

/// Whether the inputs of an audience are those that a version was made of.
fn is_same(
    identifiers: &IdentifierInputs,
    audience: &AudienceName,
    model: &str,
    made_of: &str,
) -> bool {
    let now = identifiers.fingerprint(audience, model);
    now.is_known && now.text == made_of
}

/// Those of the refreshes that have parts: an earlier try that has planned them has found a change.
async fn with_parts(
    ctx: &RefreshContext,
    ids: &[RefreshId],
) -> Result<HashSet<RefreshId>, LedgerError> {
    Ok(ctx.ledger.refreshes_with_parts(ids).await?.into_iter().collect())
}

/// The served version, and the fingerprint of the files that it was made of, if a refresh would make the
/// same again from these files.
fn candidate(
    ctx: &RefreshContext,
    audience: &Audience,
    refresh: &Refresh,
    served: Option<Snapshot>,
) -> Option<(Snapshot, String)> {
    let served = served.filter(|_| !refresh.forced)?;
    let model = model_of(audience).fingerprint();
    let inputs = inputs_of(served.inputs.as_deref()).filter(|inputs| !inputs.time_dependent);
    let inputs =
        inputs.filter(|_| served.model_fingerprint == model && !is_damaged(ctx, &served))?;
    Some((served, inputs.fingerprint))
}

/// The fingerprint of the files that a model reads. `None` if they cannot be inspected: planning the
/// refresh reports why.
async fn fingerprint_now(ctx: &RefreshContext, audience: &Audience) -> Option<String> {
    let query = InputQuery { sql: audience.sql.clone(), refuses_time: false, success_file: None };
    let states = ctx.lake_of(&audience.name).states_before_scan(&[query]).await;
    match states.ok()?.pop()? {
        InputState::Ready(fingerprint) => Some(fingerprint),
        InputState::Incomplete(_) | InputState::Refused(_) => None,
    }
}

/// Whether this process serves lookups, and does not serve this version as it was published: then a
/// refresh replaces its file.
fn is_damaged(ctx: &RefreshContext, served: &Snapshot) -> bool {
    let loaded = ctx.membership.load();
    let is_loaded =
        loaded.snapshot(&served.audience).is_some_and(|file| file.meta().version == served.version);
    ctx.serves_membership
        && (!is_loaded || ctx.changed_files.contains(&file_problem(&served.audience)))
}

/// What follows once refreshes are completed as unchanged, each with the version that is served.
pub(super) async fn follow_up(
    ctx: &RefreshContext,
    all: &[(&Refresh, &Snapshot)],
) -> Result<(), LedgerError> {
    let now = ctx.clock.now();
    let (mut resolved, mut entries) = (Vec::new(), Vec::with_capacity(all.len()));
    for (Refresh { audience: name, .. }, served) in all {
        // Both are about other files or another model: the served version is that of the present ones.
        let kinds = [AlertKind::RefreshFailed, AlertKind::SnapshotHeld];
        resolved.extend(kinds.map(|kind| (kind, name.as_str())));
        freshness::record_success(name, now);
        let why = format!(
            "version {} with {} members stays: the model, the files that it reads and those of the \
             identifiers are those that the version was made of",
            served.version, served.members
        );
        entries.push(history::entry(name, HistoryEvent::Unchanged, why, now));
    }
    ctx.ledger.resolve_alerts(&resolved, now).await?;
    ctx.ledger.record_history(&entries).await?;
    ctx.observer.audiences_changed();
    Ok(())
}
