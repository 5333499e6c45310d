//! Refreshes whose model and files are those of the version that is served: they are completed
//! without a scan and without a snapshot.

use throng_lake::{InputQuery, InputState};
use throng_spec::Audience;
use throng_store::{AlertKind, HistoryEvent, LedgerError, Refresh, Snapshot};

use super::error::RefreshError;
use super::history;
use super::source_changes::inputs_of;
use crate::damage::file_problem;
use crate::{RefreshContext, model_of};

/// The served version, if a refresh would make the same again. Costs a listing of the source's files,
/// and reads none.
pub(super) async fn find(
    ctx: &RefreshContext,
    audience: &Audience,
    refresh: &Refresh,
) -> Result<Option<Snapshot>, RefreshError> {
    // An earlier try that has planned its parts has found a change.
    if refresh.forced || !ctx.ledger.parts(refresh.id).await?.is_empty() {
        return Ok(None);
    }
    let row = ctx.ledger.audience(&audience.name).await?;
    let Some(served) = row.and_then(|row| row.current) else { return Ok(None) };
    let model = model_of(audience).fingerprint();
    let inputs = inputs_of(served.inputs.as_deref()).filter(|inputs| !inputs.time_dependent);
    let Some(inputs) = inputs.filter(|_| served.model_fingerprint == model) else {
        return Ok(None);
    };
    if is_damaged(ctx, &served) {
        return Ok(None);
    }
    let query = InputQuery { sql: audience.sql.clone(), success_file: None };
    // Planning the refresh reports why the files cannot be read.
    let Ok(state) = ctx.lake.load_full().input_state(query).await else { return Ok(None) };
    let is_same = state == InputState::Ready(inputs.fingerprint);
    Ok(is_same.then_some(served))
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

/// What follows once a refresh is completed as unchanged.
pub(super) async fn follow_up(
    ctx: &RefreshContext,
    refresh: &Refresh,
    served: &Snapshot,
) -> Result<(), LedgerError> {
    let (name, now) = (&refresh.audience, ctx.clock.now());
    // Both are about other files or another model: the served version is that of the present ones.
    for kind in [AlertKind::RefreshFailed, AlertKind::SnapshotHeld] {
        ctx.ledger.resolve_alert(kind, name.as_str(), now).await?;
    }
    let why = format!(
        "version {} with {} members stays: the model and the files that it reads are those that the \
         version was made of",
        served.version, served.members
    );
    history::record(ctx, name, HistoryEvent::Unchanged, why).await?;
    ctx.observer.audiences_changed();
    Ok(())
}
