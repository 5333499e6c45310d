//! `/` and `/sim`: the simulator's own page and API, which the platform does not have.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::faults::FaultScript;
use super::{Shared, oracle};

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/", get(page))
        .route("/sim/faults", get(read_faults).post(set_faults).delete(clear_faults))
        .route("/sim/oracle/audiences", get(audiences))
        .route("/sim/oracle/audiences/{id}/members", get(members))
        .route("/sim/oracle/requests", get(requests))
        .route("/sim/reset", post(reset))
}

async fn read_faults(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(faults_json(&shared))
}

fn faults_json(shared: &Shared) -> Value {
    let faults = shared.faults();
    json!({ "script": faults.script(), "strikes": faults.injected() })
}

async fn set_faults(State(shared): State<Arc<Shared>>, body: String) -> Response {
    let script: FaultScript = match serde_json::from_str(&body) {
        Ok(script) => script,
        Err(error) => return refuse(vec![error.to_string()]),
    };
    match shared.set_faults(script) {
        Ok(()) => Json(faults_json(&shared)).into_response(),
        Err(problems) => refuse(problems),
    }
}

fn refuse(problems: Vec<String>) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "problems": problems }))).into_response()
}

async fn clear_faults(State(shared): State<Arc<Shared>>) -> Json<Value> {
    *shared.faults() = super::faults::Faults::new(FaultScript::default());
    Json(faults_json(&shared))
}

async fn audiences(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({ "audiences": shared.audiences() }))
}

#[derive(Deserialize)]
struct MembersQuery {
    /// `rows=false` leaves the rows out.
    #[serde(default = "yes")]
    rows: bool,
}

fn yes() -> bool {
    true
}

async fn members(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Query(query): Query<MembersQuery>,
) -> Response {
    match shared.with_audience(&id, |audience| oracle::members_json(audience, query.rows)) {
        Some(members) => Json(members).into_response(),
        None => {
            let problem = "there is no such audience; GET /sim/oracle/audiences lists all";
            (StatusCode::NOT_FOUND, Json(json!({ "problems": [problem] }))).into_response()
        }
    }
}

async fn requests(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!(*shared.requests()))
}

async fn reset(State(shared): State<Arc<Shared>>) -> Json<Value> {
    shared.reset();
    Json(json!({ "reset": true }))
}

const PAGE_HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
<title>Simulated Meta</title><style>\
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;\
margin:2rem auto;padding:0 1rem}table{border-collapse:collapse}td,th{text-align:left;\
padding:.2rem 1rem .2rem 0;border-bottom:1px solid #8884}td.n{text-align:right}\
pre{overflow-x:auto;padding:.6rem;background:#8882}code{font-size:.95em}</style></head><body>\
<h1>Simulated Meta</h1><p>This server stores custom audiences by the rules of Meta's Marketing \
API: hashed rows, batches of 10,000, replace sessions, quotas, error codes. Nothing leaves this \
machine. Its data is lost when it stops.</p>";

const PAGE_CALLS: &str = "<h2>Calls</h2><table>\
<tr><td><code>POST /v25.0/act_1/customaudiences</code></td><td>create an audience</td></tr>\
<tr><td><code>GET /v25.0/act_1/customaudiences</code></td><td>list them, newest first</td></tr>\
<tr><td><code>GET /v25.0/act_1?fields=tos_accepted</code></td><td>read the account</td></tr>\
<tr><td><code>DELETE /v25.0/act_1/usersofanyaudience</code></td><td>remove people from all</td></tr>\
<tr><td><code>GET, POST, DELETE /v25.0/ID</code></td><td>read, change, delete an audience</td></tr>\
<tr><td><code>POST, DELETE /v25.0/ID/users</code></td><td>add, remove people</td></tr>\
<tr><td><code>POST /v25.0/ID/usersreplace</code></td><td>replace all people in a session</td></tr>\
<tr><td><code>GET /v25.0/ID/sessions</code></td><td>sessions of uploads</td></tr></table>\
<h2>For tests</h2><table>\
<tr><td><a href=\"/sim/oracle/audiences\"><code>GET /sim/oracle/audiences</code></a></td>\
<td>all audiences, with exact sizes</td></tr>\
<tr><td><code>GET /sim/oracle/audiences/ID/members</code></td><td>the members of an audience</td></tr>\
<tr><td><a href=\"/sim/oracle/requests\"><code>GET /sim/oracle/requests</code></a></td>\
<td>counts of calls</td></tr>\
<tr><td><a href=\"/sim/faults\"><code>GET, POST, DELETE /sim/faults</code></a></td>\
<td>inject faults into calls</td></tr>\
<tr><td><code>POST /sim/reset</code></td><td>delete everything</td></tr></table>";

async fn page(State(shared): State<Arc<Shared>>) -> Html<String> {
    let audiences = shared.audiences();
    let mut html = String::from(PAGE_HEAD);
    let token = match shared.config.tokens.len() {
        0 => "Any access token is accepted.",
        _ => "Only the access tokens it was started with are accepted.",
    };
    let example = "curl -s \"$URL/v25.0/act_1/customaudiences\" -H \"Authorization: Bearer TOKEN\" \
        -d name=test -d customer_file_source=USER_PROVIDED_ONLY";
    let example = example.replace("$URL", &shared.url);
    // Writing to a String does not fail.
    let _ = write!(
        html,
        "<p>{token} Put <code>base_url: {}</code> into a destination of your spec, or try:</p>\
         <pre>{}</pre><h2>Audiences ({})</h2>",
        escape(&shared.url),
        escape(&example),
        audiences.len()
    );
    if !audiences.is_empty() {
        html.push_str("<table><tr><th>id</th><th>account</th><th>name</th><th>members</th></tr>");
        for audience in audiences.iter().rev().take(200) {
            let _ = write!(
                html,
                "<tr><td><a href=\"/sim/oracle/audiences/{id}/members?rows=false\">{id}</a></td>\
                 <td>act_{}</td><td>{}</td><td class=\"n\">{}</td></tr>",
                escape(&audience.account),
                escape(&audience.name),
                audience.members,
                id = audience.id,
            );
        }
        html.push_str("</table>");
    }
    let rules = shared.faults().script().rules.len();
    let _ = write!(html, "<p>Rules in the fault script: {rules}.</p>{PAGE_CALLS}</body></html>");
    Html(html)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
