//! Routes: each call with its fault, its access token and its rules.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Shared;
use crate::error::ApiError;
use crate::faults::{CallKind, FaultKind};
use crate::jobs::{NewJob, PageLimits, PageQuery, dry_run};
use crate::oracle::JobRecord;

type Sim = State<Arc<Shared>>;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/bigquery/v2/projects/{project}/jobs", post(insert))
        .route("/bigquery/v2/projects/{project}/jobs/{job}", get(poll))
        .route("/bigquery/v2/projects/{project}/queries/{job}", get(page))
        .route("/token", post(token))
        .route("/computeMetadata/v1/instance/service-accounts/default/token", get(metadata_token))
        .route("/oracle", get(oracle))
        .with_state(shared)
}

/// What happens with a call.
enum Outcome {
    /// It is done and answered.
    Done,
    /// It is done, and its connection is closed.
    CutAfter,
    /// The job is lost, or fails, before the call is done.
    Job(FaultKind),
    /// It is refused.
    Refused(ApiError),
    /// Nothing is done, and its connection is closed.
    Cut,
}

impl Outcome {
    /// The answer of a call that is not done.
    fn answer(&self) -> Option<Response> {
        match self {
            Self::Refused(error) => Some(error.clone().into_response()),
            Self::Cut => Some(cut()),
            Self::Done | Self::CutAfter | Self::Job(_) => None,
        }
    }

    /// The answer of a call that was done.
    fn finish(&self, result: Result<Value, ApiError>) -> Response {
        match (self, result) {
            (Self::CutAfter, _) => cut(),
            (_, Ok(value)) => Json(value).into_response(),
            (_, Err(error)) => error.into_response(),
        }
    }
}

/// Evaluates the fault rules.
async fn outcome(shared: &Shared, call: CallKind) -> Outcome {
    let Some(fault) = shared.faults.lock().next(call) else { return Outcome::Done };
    shared.oracle.lock().faults += 1;
    let refused =
        |status, reason| Outcome::Refused(ApiError::new(status, reason, "injected by a rule"));
    match fault {
        FaultKind::Unavailable => refused(503, "backendError"),
        FaultKind::RateLimited => refused(403, "rateLimitExceeded"),
        FaultKind::TooManyRequests => refused(429, "rateLimitExceeded"),
        FaultKind::QuotaExceeded => refused(403, "quotaExceeded"),
        FaultKind::ExpiredToken => {
            shared.tokens.lock().expire();
            Outcome::Done
        }
        FaultKind::JobLost | FaultKind::JobFails => Outcome::Job(fault),
        FaultKind::CutAfter => Outcome::CutAfter,
        FaultKind::Cut => Outcome::Cut,
        FaultKind::Hang => {
            shared.oracle.lock().hanging += 1;
            shared.stop.cancelled().await;
            Outcome::Cut
        }
        FaultKind::Slow(millis) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Outcome::Done
        }
    }
}

/// An answer whose body fails: the client's connection is closed before the answer is complete.
fn cut() -> Response {
    let failed = Err::<Bytes, _>(std::io::Error::other("cut by a rule"));
    Body::from_stream(futures::stream::iter([failed])).into_response()
}

fn authorize(shared: &Shared, headers: &HeaderMap) -> Result<(), ApiError> {
    let header = headers.get("authorization").and_then(|value| value.to_str().ok());
    shared.tokens.lock().check(header, shared.config.clock.now())
}

async fn insert(
    State(shared): Sim,
    Path(project): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    // A dry run creates no job, so the rules for creations do not count it.
    let outcome = match body["configuration"]["dryRun"] == true {
        true => Outcome::Done,
        false => outcome(&shared, CallKind::Insert).await,
    };
    if let Some(answer) = outcome.answer() {
        return answer;
    }
    outcome.finish(insert_job(&shared, &project, &headers, &body).await)
}

async fn insert_job(
    shared: &Shared,
    project: &str,
    headers: &HeaderMap,
    body: &Value,
) -> Result<Value, ApiError> {
    authorize(shared, headers)?;
    let location = &shared.config.location;
    let job = NewJob::read(body, project, location)?;
    if !job.dry_run && shared.jobs.lock().has(project, &job.id) {
        shared.oracle.lock().duplicates += 1;
        return Err(ApiError::new(409, "duplicate", format!("Already Exists: Job {}", job.id)));
    }
    let table = shared.config.engine.query(&job.sql, job.dataset.as_deref()).await?;
    job.check_bytes(&table)?;
    if job.dry_run {
        shared.oracle.lock().dry_runs += 1;
        return Ok(dry_run(project, location, &table));
    }
    let resource = shared.jobs.lock().insert(project, &job.id, location, table)?;
    let NewJob { id, sql, labels, .. } = job;
    shared.oracle.lock().jobs.push(JobRecord { id, sql, labels, pages: Vec::new() });
    Ok(resource)
}

/// The query of a poll of a job, or of a page.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct JobQuery {
    location: Option<String>,
    max_results: Option<String>,
    page_token: Option<String>,
}

/// Loses or fails the job, if that is the outcome of the call.
fn apply_to_job(shared: &Shared, outcome: &Outcome, project: &str, id: &str) {
    match outcome {
        Outcome::Job(FaultKind::JobLost) => shared.jobs.lock().remove(project, id),
        Outcome::Job(_) => shared.jobs.lock().fail(project, id, shared.config.clock.now()),
        Outcome::Done | Outcome::CutAfter | Outcome::Refused(_) | Outcome::Cut => {}
    }
}

async fn poll(
    State(shared): Sim,
    Path((project, id)): Path<(String, String)>,
    Query(query): Query<JobQuery>,
    headers: HeaderMap,
) -> Response {
    let outcome = outcome(&shared, CallKind::Poll).await;
    if let Some(answer) = outcome.answer() {
        return answer;
    }
    apply_to_job(&shared, &outcome, &project, &id);
    let result = authorize(&shared, &headers).and_then(|()| {
        let times = (shared.config.polls, shared.config.clock.now());
        shared.jobs.lock().poll(&project, &id, query.location.as_deref(), times)
    });
    outcome.finish(result)
}

async fn page(
    State(shared): Sim,
    Path((project, id)): Path<(String, String)>,
    Query(query): Query<JobQuery>,
    headers: HeaderMap,
) -> Response {
    let outcome = outcome(&shared, CallKind::Page).await;
    if let Some(answer) = outcome.answer() {
        return answer;
    }
    apply_to_job(&shared, &outcome, &project, &id);
    let result = authorize(&shared, &headers).and_then(|()| {
        let config = &shared.config;
        let query = PageQuery {
            location: query.location.as_deref(),
            max_results: query.max_results.as_deref(),
            page_token: query.page_token.as_deref(),
        };
        let limits = PageLimits { rows: config.max_page_rows, kept: config.results_kept };
        let now = config.clock.now();
        let (page, first) = shared.jobs.lock().page((&project, &id), query, limits, now)?;
        if page["jobComplete"] == true
            && let Some(job) = shared.oracle.lock().jobs.iter_mut().find(|job| job.id == id)
        {
            job.pages.push(first);
        }
        Ok(page)
    });
    outcome.finish(result)
}

async fn token(State(shared): Sim, body: Bytes) -> Response {
    let outcome = outcome(&shared, CallKind::Token).await;
    if let Some(answer) = outcome.answer() {
        return answer;
    }
    let form: Vec<(String, String)> = url::form_urlencoded::parse(&body).into_owned().collect();
    let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| &**value);
    let now = shared.config.clock.now();
    let verified = match &shared.config.account {
        None => Err(ApiError::new(400, "invalid_grant", "no service account is accepted")),
        Some(_) if field("grant_type") != Some("urn:ietf:params:oauth:grant-type:jwt-bearer") => {
            Err(ApiError::new(400, "unsupported_grant_type", "Invalid grant_type"))
        }
        Some(account) => account.verify(field("assertion").unwrap_or_default(), now),
    };
    outcome.finish(verified.map(|()| issue(&shared)))
}

async fn metadata_token(State(shared): Sim, headers: HeaderMap) -> Response {
    let outcome = outcome(&shared, CallKind::Token).await;
    if let Some(answer) = outcome.answer() {
        return answer;
    }
    let flavor = headers.get("metadata-flavor").and_then(|value| value.to_str().ok());
    let result = match flavor {
        Some("Google") => Ok(issue(&shared)),
        _ => Err(ApiError::new(403, "forbidden", "Missing Metadata-Flavor:Google header")),
    };
    outcome.finish(result)
}

fn issue(shared: &Shared) -> Value {
    let valid = shared.config.token_valid;
    let token = shared.tokens.lock().issue(shared.config.clock.now(), valid);
    shared.oracle.lock().tokens += 1;
    json!({ "access_token": token, "expires_in": valid.as_secs(), "token_type": "Bearer" })
}

async fn oracle(State(shared): Sim) -> Response {
    Json(shared.oracle.lock().clone()).into_response()
}
