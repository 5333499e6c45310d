//! `/v1/audiences`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use throng_model::{AudienceName, Retry, Timestamp, with_causes};
use throng_refresh::open_snapshot;
use throng_store::{AudienceRow, HistoryEntry, LedgerError, Refresh, RefreshTrigger, Snapshot};
use utoipa::ToSchema;

use crate::access::Caller;
use crate::{Change, NodeContext};

use super::body::Body;
use super::error::ApiError;

type Ctx = State<Arc<NodeContext>>;

/// A version of an audience.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Version {
    /// The version.
    version: u64,
}

/// A refresh with its estimated remaining time.
#[derive(Serialize)]
struct RefreshView<'a> {
    #[serde(flatten)]
    refresh: &'a Refresh,
    eta_seconds: Option<u64>,
}

fn eta(refresh: &Refresh, now: Timestamp) -> Option<u64> {
    let (expected, started) = refresh.rows_expected.zip(refresh.started_at)?;
    if refresh.finished_at.is_some() || refresh.rows_read == 0 || expected <= refresh.rows_read {
        return None;
    }
    let left = (expected - refresh.rows_read) as f64 / refresh.rows_read as f64;
    Some(now.since(started).mul_f64(left).as_secs())
}

fn view(name: &AudienceName, row: Option<&AudienceRow>, now: Timestamp) -> Value {
    let refresh = row
        .and_then(|r| r.refresh.as_ref())
        .map(|refresh| RefreshView { refresh, eta_seconds: eta(refresh, now) });
    json!({
        "name": name,
        "current": row.and_then(|r| r.current.as_ref()),
        "refresh": refresh,
        "last_fired": row.and_then(|r| r.last_fired),
        "paused_at": row.and_then(|r| r.paused_at),
        "pinned_at": row.and_then(|r| r.pinned_at),
    })
}

/// All audiences of the applied spec.
#[utoipa::path(get, path = "/v1/audiences", responses((status = 200, body = super::answers::AudienceList, description = "`audiences`: name, current snapshot, newest refresh with ETA, paused_at, pinned_at")))]
pub(crate) async fn list(State(ctx): Ctx) -> Result<Json<Value>, ApiError> {
    let rows = ctx.ledger.audiences().await?;
    let now = ctx.clock.now();
    let spec = ctx.spec.load();
    let audiences: Vec<Value> = spec
        .audiences
        .iter()
        .map(|a| view(&a.name, rows.iter().find(|row| row.name == a.name), now))
        .collect();
    Ok(Json(json!({ "audiences": audiences })))
}

/// The name of an audience of the applied spec.
fn declared_audience(ctx: &NodeContext, name: &str) -> Result<AudienceName, ApiError> {
    let spec = ctx.spec.load();
    spec.audiences.iter().find(|a| a.name.as_str() == name).map(|a| a.name.clone()).ok_or_else(
        || {
            ApiError::not_found(format!("no audience `{name}` in the applied spec"))
                .help("`throng audience list` shows the names")
        },
    )
}

/// One audience with its snapshots.
#[utoipa::path(get, path = "/v1/audiences/{name}", params(("name" = String, Path)), responses((status = 200, body = super::answers::AudienceDetail, description = "the audience, its snapshots and size history"), (status = 404, description = "no such audience")))]
pub(crate) async fn one(
    State(ctx): Ctx,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let name = declared_audience(&ctx, &name)?;
    let row = ctx.ledger.audience(&name).await?;
    let mut response = view(&name, row.as_ref(), ctx.clock.now());
    response["snapshots"] = json!(ctx.ledger.snapshots(&name).await?);
    response["sizes"] = json!(ctx.ledger.size_history(&name, 1_000).await?);
    Ok(Json(response))
}

/// Queues a refresh.
#[utoipa::path(post, path = "/v1/audiences/{name}/refresh", params(("name" = String, Path)), responses((status = 200, body = super::answers::RefreshQueued, description = "`refresh`: the id of the refresh"), (status = 404, description = "no such audience"), (status = 409, description = "it is paused or pinned")))]
pub(crate) async fn refresh(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let name = declared_audience(&ctx, &name)?;
    let now = ctx.clock.now();
    let queued = ctx.ledger.schedule_refresh(&name, RefreshTrigger::Manual, now).await;
    let id = queued.map_err(|error| with_state_help(&name, error))?;
    record_history(&ctx, &name, &caller, "refresh requested", format!("refresh {id}")).await?;
    ctx.wake_build.notify_waiters();
    ctx.publish_change(Change::Audiences);
    Ok(Json(json!({ "refresh": id })))
}

/// Adds to a refusal because of a paused or pinned audience how to end that state.
fn with_state_help(name: &AudienceName, error: LedgerError) -> ApiError {
    let help = match &error {
        LedgerError::WrongState { what: "audience", state, .. } if state == "paused" => {
            format!("`throng audience resume {name}` resumes its refreshes")
        }
        LedgerError::WrongState { what: "audience", .. } => {
            format!("`throng audience release {name}` ends the pin of the rollback")
        }
        _ => return error.into(),
    };
    ApiError::from(error).help(help)
}

/// Records a change that a person made in the history of the audience.
async fn record_history(
    ctx: &NodeContext,
    name: &AudienceName,
    caller: &Caller,
    what: &str,
    why: String,
) -> Result<(), ApiError> {
    let entry = HistoryEntry {
        subject_kind: throng_store::SubjectKind::Audience,
        subject: name.to_string(),
        what: what.to_owned(),
        why,
        at: ctx.clock.now(),
        actor: Some(caller.name().to_owned()),
    };
    Ok(ctx.ledger.record_history(&[entry]).await?)
}

/// Pauses an audience: no refresh starts until it is resumed. An open refresh continues.
#[utoipa::path(post, path = "/v1/audiences/{name}/pause", params(("name" = String, Path)), responses((status = 200, body = super::answers::AudienceSummary, description = "the audience"), (status = 404, description = "no such audience"), (status = 409, description = "it is already paused")))]
pub(crate) async fn pause(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let name = declared_audience(&ctx, &name)?;
    if !ctx.ledger.pause_audience(&name, ctx.clock.now()).await? {
        return Err(ApiError::wrong_state(format!("audience `{name}` is already paused"))
            .help(format!("`throng audience resume {name}` resumes its refreshes")));
    }
    let why = "no refresh starts until it is resumed";
    record_history(&ctx, &name, &caller, "paused", why.to_owned()).await?;
    publish_change(&ctx, &name).await
}

/// Resumes a paused audience. It is refreshed at once if it has no snapshot of its current
/// model.
#[utoipa::path(post, path = "/v1/audiences/{name}/resume", params(("name" = String, Path)), responses((status = 200, body = super::answers::AudienceSummary, description = "the audience"), (status = 404, description = "no such audience"), (status = 409, description = "it is not paused")))]
pub(crate) async fn resume(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let name = declared_audience(&ctx, &name)?;
    if !ctx.ledger.resume_audience(&name).await? {
        return Err(ApiError::wrong_state(format!("audience `{name}` is not paused")));
    }
    record_history(&ctx, &name, &caller, "resumed", "it is refreshed again".to_owned()).await?;
    catch_up(&ctx, &name).await?;
    publish_change(&ctx, &name).await
}

/// Ends the pin that a rollback has set: new snapshots are served again.
#[utoipa::path(post, path = "/v1/audiences/{name}/release", params(("name" = String, Path)), responses((status = 200, body = super::answers::AudienceSummary, description = "the audience"), (status = 404, description = "no such audience"), (status = 409, description = "it is not pinned")))]
pub(crate) async fn release(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let name = declared_audience(&ctx, &name)?;
    if !ctx.ledger.unpin_audience(&name).await? {
        return Err(ApiError::wrong_state(format!("audience `{name}` is not pinned")));
    }
    record_history(&ctx, &name, &caller, "released", "it is refreshed again".to_owned()).await?;
    catch_up(&ctx, &name).await?;
    publish_change(&ctx, &name).await
}

/// Brings an audience up to date that is no longer paused or pinned.
async fn catch_up(ctx: &NodeContext, name: &AudienceName) -> Result<(), ApiError> {
    match crate::roles::schedule::refresh_if_stale(ctx, name).await {
        Ok(_) => Ok(()),
        // It was paused again in the meantime.
        Err(error) if error.is_wrong_state() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Notifies the pages of the change, and responds with the audience.
async fn publish_change(ctx: &NodeContext, name: &AudienceName) -> Result<Json<Value>, ApiError> {
    ctx.publish_change(Change::Audiences);
    let row = ctx.ledger.audience(name).await?;
    Ok(Json(view(name, row.as_ref(), ctx.clock.now())))
}

/// Refuses a version whose file is damaged or missing. Otherwise it would become the current version, and
/// no node could serve it.
async fn check_can_be_served(
    ctx: &NodeContext,
    name: &AudienceName,
    version: u64,
) -> Result<(), ApiError> {
    let row = match ctx.ledger.snapshot(name, version).await {
        Ok(row) => row,
        // The write that follows fails with the right error.
        Err(LedgerError::NotFound { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    match open_snapshot(&ctx.objects, &row).await {
        Ok(_) => Ok(()),
        Err(error) if error.retry() == Retry::Never => {
            let why = with_causes(&error);
            Err(ApiError::wrong_state(format!(
                "version {version} of `{name}` cannot be served: {why}"
            ))
            .help(format!("`throng audience refresh {name}` builds another version")))
        }
        Err(error) => Err(ApiError::unavailable(with_causes(&error))),
    }
}

/// Cancels the open refresh.
#[utoipa::path(post, path = "/v1/audiences/{name}/cancel", params(("name" = String, Path)), responses((status = 200, body = super::answers::RefreshCancelled, description = "the cancelled refresh, whose state is failed"), (status = 404, description = "no such audience"), (status = 409, description = "no refresh is open")))]
pub(crate) async fn cancel(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let name = declared_audience(&ctx, &name)?;
    match throng_refresh::cancel(&ctx.refresh, &name, caller.name()).await? {
        Some(refresh) => Ok(Json(json!({ "refresh": refresh }))),
        None => Err(ApiError::wrong_state(format!("audience `{name}` has no open refresh"))
            .help("`throng audience list` shows the states")),
    }
}

/// Publishes a held snapshot.
#[utoipa::path(post, path = "/v1/audiences/{name}/approve", params(("name" = String, Path)), request_body = Version, responses((status = 200, body = super::answers::AudienceSnapshot, description = "the snapshot"), (status = 409, description = "it is not held, its file is damaged, or another version is pinned")))]
pub(crate) async fn approve(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(Version { version }): Body<Version>,
) -> Result<Json<Value>, ApiError> {
    let name = declared_audience(&ctx, &name)?;
    check_can_be_served(&ctx, &name, version).await?;
    let approved = ctx.ledger.approve(&name, version, ctx.clock.now()).await;
    let snapshot = approved.map_err(|error| with_state_help(&name, error))?;
    let subject = name.as_str();
    let kind = throng_store::AlertKind::SnapshotHeld;
    ctx.ledger.resolve_alert(kind, subject, ctx.clock.now()).await?;
    publish_current(&ctx, &caller, &snapshot, "approved", "the held snapshot was approved").await
}

/// Rejects a held snapshot.
#[utoipa::path(post, path = "/v1/audiences/{name}/reject", params(("name" = String, Path)), request_body = Version, responses((status = 200, body = super::answers::AudienceSnapshot, description = "the snapshot"), (status = 409, description = "it is not held")))]
pub(crate) async fn reject(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(Version { version }): Body<Version>,
) -> Result<Json<Value>, ApiError> {
    let name = declared_audience(&ctx, &name)?;
    let snapshot = ctx.ledger.reject(&name, version, ctx.clock.now()).await?;
    let kind = throng_store::AlertKind::SnapshotHeld;
    ctx.ledger.resolve_alert(kind, name.as_str(), ctx.clock.now()).await?;
    record_snapshot_history(&ctx, &caller, &snapshot, "rejected", "the held snapshot was rejected")
        .await?;
    ctx.publish_change(Change::Audiences);
    Ok(Json(json!(snapshot)))
}

/// Rolls back to an older snapshot and pins it: no other snapshot is served until it is released. An open
/// refresh is cancelled.
#[utoipa::path(post, path = "/v1/audiences/{name}/rollback", params(("name" = String, Path)), request_body = Version, responses((status = 200, body = super::answers::AudienceSnapshot, description = "the snapshot"), (status = 409, description = "it was never published, or its file is damaged")))]
pub(crate) async fn rollback(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(Version { version }): Body<Version>,
) -> Result<Json<Value>, ApiError> {
    let name = declared_audience(&ctx, &name)?;
    check_can_be_served(&ctx, &name, version).await?;
    let snapshot = ctx.ledger.rollback(&name, version, ctx.clock.now()).await?;
    throng_refresh::cancel(&ctx.refresh, &name, caller.name()).await?;
    let why = "this version is current again and pinned: no refresh starts until it is released";
    publish_current(&ctx, &caller, &snapshot, "rolled back", why).await
}

async fn record_snapshot_history(
    ctx: &NodeContext,
    caller: &Caller,
    snapshot: &Snapshot,
    what: &str,
    why: &str,
) -> Result<(), ApiError> {
    let why = format!("version {} with {} members: {why}", snapshot.version, snapshot.members);
    record_history(ctx, &snapshot.audience, caller, what, why).await
}

/// After another snapshot became current: records why, serves it, and lets activation deliver it.
async fn publish_current(
    ctx: &Arc<NodeContext>,
    caller: &Caller,
    snapshot: &Snapshot,
    what: &str,
    why: &str,
) -> Result<Json<Value>, ApiError> {
    record_snapshot_history(ctx, caller, snapshot, what, why).await?;
    throng_refresh::reload_membership(&ctx.refresh).await.map_err(|error| ApiError::of(&error))?;
    ctx.wake_activate.notify_waiters();
    ctx.publish_change(Change::Audiences);
    Ok(Json(json!(snapshot)))
}
