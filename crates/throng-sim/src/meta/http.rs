//! Handles a request: version, token, fault script, quota, call, headers.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use throng_model::{Timestamp, to_hex};

use super::Shared;
use super::call::{Call, Route, route, version_of};
use super::conn::Cutter;
use super::error::GraphError;
use super::faults::{CallFacts, FaultKind};
use super::oracle::ServedRequest;
use super::params::Params;
use super::payload::{SessionStep, Upload, row_count};
use super::state::{Input, UsersCall};
use super::usage::Usage;

/// Larger bodies get an HTML page as response, like from the real platform.
const MAX_BODY_BYTES: usize = 32 << 20;

const HTML: &str = "<!DOCTYPE html>\n<html lang=\"en\"><head><title>Error</title></head><body>\
    <h1>Sorry, something went wrong.</h1><p>We're working on it and we'll get it fixed as soon as \
    we can.</p></body></html>\n";

/// The result of a request.
enum Reply {
    /// Send a response.
    Respond(Response),
    /// Close the connection without a response.
    Cut,
}

/// A request after its version, token and parameters were read.
struct Incoming {
    method: String,
    path: String,
    version: String,
    route: Route,
    params: Params,
    rows: u64,
    payload: Option<Value>,
}

pub(super) async fn graph(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(cutter): ConnectInfo<Cutter>,
    request: Request,
) -> Response {
    let reply = if request.uri().path_and_query().map_or(0, |pq| pq.as_str().len())
        > shared.config.max_url_bytes
    {
        shared.record(ServedRequest::rejected("url_too_long"));
        Reply::Cut
    } else {
        serve(&shared, request).await
    };
    match reply {
        Reply::Respond(response) => response,
        Reply::Cut => {
            cutter.cut();
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn serve(shared: &Shared, request: Request) -> Reply {
    let (parts, body) = request.into_parts();
    let Some(body) = collect(body).await else {
        shared.record(ServedRequest::rejected("body_too_large"));
        return Reply::Respond(html(StatusCode::PAYLOAD_TOO_LARGE));
    };
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default();
    let incoming = match read(shared, &parts.method, &path, query, &parts.headers, &body) {
        Ok(incoming) => incoming,
        Err(error) => {
            tracing::debug!(method = %parts.method, path, code = error.code, "refused");
            shared.record(ServedRequest::rejected("refused").with_error(error.code));
            let version = path.split('/').nth(1).unwrap_or_default().to_owned();
            return Reply::Respond(failure(shared, &error, &version, &[]));
        }
    };
    drop(body);
    respond(shared, incoming).await
}

/// Reads version, parameters, token and proof, and routes the call.
fn read(
    shared: &Shared,
    method: &Method,
    path: &str,
    query: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Incoming, GraphError> {
    let config = &shared.config;
    // Calls without a version use the oldest version, which is no longer supported.
    let (version, rest) =
        version_of(path).ok_or_else(|| GraphError::old_version(config.newest_version))?;
    if version < config.oldest_version {
        return Err(GraphError::old_version(config.newest_version));
    }
    if version > config.newest_version {
        return Err(GraphError::unknown_path(&format!("/v{}.{}", version.0, version.1)));
    }
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let content_type = text(header::CONTENT_TYPE).unwrap_or_default();
    let mut params = Params::read(query, content_type, body)?;
    check_token(shared, &params, text(header::AUTHORIZATION))?;
    let method = match params.text("method") {
        Some(other) if method == Method::POST => other.to_ascii_uppercase(),
        _ => method.as_str().to_owned(),
    };
    let route = route(&method, rest)?;
    let payload = takes_payload(route.call).then(|| params.take_json("payload")).flatten();
    Ok(Incoming {
        rows: payload.as_ref().map_or(0, row_count),
        method,
        path: path.to_owned(),
        version: format!("v{}.{}", version.0, version.1),
        route,
        params,
        payload,
    })
}

fn takes_payload(call: Call) -> bool {
    matches!(
        call,
        Call::AddUsers | Call::RemoveUsers | Call::ReplaceUsers | Call::RemoveUsersOfAnyAudience
    )
}

fn check_token(
    shared: &Shared,
    params: &Params,
    authorization: Option<&str>,
) -> Result<(), GraphError> {
    let config = &shared.config;
    let from_header = authorization
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| {
            scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("oauth")
        })
        .map(|(_, token)| token.trim().to_owned());
    let token = params
        .text("access_token")
        .or(from_header)
        .filter(|token| !token.is_empty())
        .ok_or_else(GraphError::no_token)?;
    if !config.tokens.is_empty() && !config.tokens.contains(&token) {
        return Err(GraphError::wrong_token());
    }
    let Some(secret) = &config.app_secret else { return Ok(()) };
    let proof = params.text("appsecret_proof").ok_or_else(GraphError::no_proof)?;
    let signed = match params.text("appsecret_time") {
        Some(time) => format!("{token}|{time}"),
        None => token,
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(signed.as_bytes());
    let expected = to_hex(&mac.finalize().into_bytes());
    if proof == expected { Ok(()) } else { Err(GraphError::wrong_proof()) }
}

/// Applies faults and quota, executes the call, and builds the response.
async fn respond(shared: &Shared, incoming: Incoming) -> Reply {
    let call = incoming.route.call;
    let faults = shared.faults().decide(CallFacts {
        method: &incoming.method,
        path: &incoming.path,
        call: call.name(),
    });
    if faults.slow_millis > 0 {
        let wait = shared.config.clock.wall_duration(Duration::from_millis(faults.slow_millis));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.stop.cancelled() => return Reply::Cut,
        }
    }
    let served = ServedRequest::call(call.name(), &incoming.path, incoming.rows);
    tracing::debug!(
        call = call.name(),
        path = incoming.path,
        rows = incoming.rows,
        fault = ?faults.fault,
        "call"
    );
    if faults.fault == Some(FaultKind::CutBefore) {
        shared.record(served.with_fault());
        return Reply::Cut;
    }
    let version = incoming.version.clone();
    let (headers, result) = handle(shared, incoming, faults.fault.as_ref());
    let served = match &result {
        Ok(_) => served.applied(),
        Err(error) => served.with_error(error.code),
    };
    let Some(fault) = faults.fault else {
        shared.record(served);
        return Reply::Respond(match result {
            Ok(value) => success(&value, &version, &headers),
            Err(error) => failure(shared, &error, &version, &headers),
        });
    };
    shared.record(served.with_fault());
    match (fault, result) {
        (FaultKind::CutAfter, _) => Reply::Cut,
        (FaultKind::ServerError { status, .. }, _) => {
            Reply::Respond(failure(shared, &GraphError::unavailable(status), &version, &headers))
        }
        (FaultKind::Html { status, .. }, _) => {
            Reply::Respond(html(StatusCode::from_u16(status).unwrap_or(StatusCode::OK)))
        }
        (_, Ok(value)) => Reply::Respond(success(&value, &version, &headers)),
        (_, Err(error)) => Reply::Respond(failure(shared, &error, &version, &headers)),
    }
}

type Headers = Vec<(&'static str, String)>;

/// Charges the call and executes it, unless the fault prevents its effect.
fn handle(
    shared: &Shared,
    incoming: Incoming,
    fault: Option<&FaultKind>,
) -> (Headers, Result<Value, GraphError>) {
    let Incoming { method, route: Route { call, node }, params, payload, .. } = incoming;
    let config = &shared.config;
    let now = config.clock.now();
    // Rows are checked before the state is locked.
    let input = input_of(shared, call, &method, params, payload, fault);
    let mut state = shared.state();
    let account = match state.account_of(&node, &method, config) {
        Ok(account) => account,
        Err(error) => return (Vec::new(), Err(error)),
    };
    let (mut usage, charged) = state.charge(&account, call, config, now);
    let refused = charged.err().or_else(|| refusal(fault, now, &mut usage));
    let headers = usage.headers(call.usage_headers(), &account);
    let result = match refused {
        Some(error) => Err(error),
        None => input.and_then(|input| state.apply(call, &node, input, config, now)),
    };
    (headers, result)
}

/// The error of a fault that prevents the effect of a call.
fn refusal(fault: Option<&FaultKind>, now: Timestamp, usage: &mut Usage) -> Option<GraphError> {
    match fault? {
        FaultKind::ServerError { status, applied: false } => Some(GraphError::unavailable(*status)),
        FaultKind::Html { applied: false, .. } => Some(GraphError::unavailable(500)),
        FaultKind::Throttled { code, regain_minutes } => {
            *usage = Usage { percent: 100, regain_minutes: *regain_minutes };
            Some(GraphError::throttled(*code))
        }
        FaultKind::TokenExpired => Some(GraphError::expired_token(&now.to_string())),
        FaultKind::Error { code, subcode, status, message } => {
            let mut error = GraphError::new(*code, message.clone()).status(*status);
            error.subcode = *subcode;
            Some(error)
        }
        _ => None,
    }
}

fn input_of(
    shared: &Shared,
    call: Call,
    method: &str,
    mut params: Params,
    payload: Option<Value>,
    fault: Option<&FaultKind>,
) -> Result<Input, GraphError> {
    if !takes_payload(call) {
        return Ok(Input::Plain(params));
    }
    let missing =
        |name: &str| GraphError::parameter(name, &format!("The parameter {name} is required"));
    let payload = payload.ok_or_else(|| missing("payload"))?;
    let step = match params.take_json("session") {
        Some(session) => Some(SessionStep::parse(&session)?),
        None if call == Call::ReplaceUsers => return Err(missing("session")),
        None => None,
    };
    let mut upload = Upload::parse(&payload)?;
    shared.record_unhashed(upload.unhashed_cells);
    if let Some(FaultKind::WrongCounts { missing }) = fault {
        let lost = (*missing).min(upload.received);
        upload.received -= lost;
        let kept = upload.rows.len().saturating_sub(usize::try_from(lost).unwrap_or(usize::MAX));
        upload.rows.truncate(kept);
        upload.invalid = upload.invalid.min(upload.received);
    }
    let method = if method == "DELETE" { "DELETE" } else { "POST" };
    let fails = fault == Some(&FaultKind::ReplaceFails);
    Ok(Input::Users(Box::new(UsersCall { upload, step, method, fails })))
}

async fn collect(body: Body) -> Option<Vec<u8>> {
    let mut collected = Vec::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.ok()?;
        if collected.len() + chunk.len() > MAX_BODY_BYTES {
            return None;
        }
        collected.extend_from_slice(&chunk);
    }
    Some(collected)
}

fn success(value: &Value, version: &str, headers: &Headers) -> Response {
    json_response(StatusCode::OK, value, version, headers)
}

fn failure(
    shared: &Shared,
    error: &GraphError,
    version: &str,
    headers: &[(&'static str, String)],
) -> Response {
    let status = StatusCode::from_u16(error.http_status).unwrap_or(StatusCode::BAD_REQUEST);
    let trace_id = shared.trace_id();
    let mut response = json_response(status, &error.envelope(&trace_id), version, headers);
    if error.kind == "OAuthException" && error.http_status == 400 {
        let kind = if error.code == 190 { "invalid_token" } else { "invalid_request" };
        let text = format!("OAuth \"Facebook Platform\" \"{kind}\" \"{}\"", error.message);
        set(&mut response, "www-authenticate", &text);
    }
    set(&mut response, "cache-control", "no-store");
    set(&mut response, "x-fb-trace-id", &trace_id);
    response
}

fn json_response(
    status: StatusCode,
    value: &Value,
    version: &str,
    headers: &[(&'static str, String)],
) -> Response {
    let mut response = (status, value.to_string()).into_response();
    set(&mut response, "content-type", "application/json; charset=UTF-8");
    set(&mut response, "facebook-api-version", version);
    for (name, text) in headers {
        set(&mut response, name, text);
    }
    response
}

/// Sets a header, unless the text is not valid in one.
fn set(response: &mut Response, name: &'static str, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

fn html(status: StatusCode) -> Response {
    let mut response = (status, HTML).into_response();
    set(&mut response, "content-type", "text/html; charset=utf-8");
    response
}
