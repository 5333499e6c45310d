//! Access tokens of Bigtable: a server returns them as the metadata server of a machine, and errors as Bigtable.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;

use crate::faults::fails;
use crate::rig::Rig;

const METADATA: &str = "/computeMetadata/v1/instance/service-accounts/default/token";

/// What the server returns, and what was asked for.
#[derive(Debug, Default)]
struct Seen {
    /// The status of requests for tokens; 0 means that they are issued.
    token_status: u16,
    tokens: u32,
    /// The `grpc-status` of calls.
    code: u8,
    /// Method, table and token of each call.
    calls: Vec<[String; 3]>,
}

type Shared = Arc<Mutex<Seen>>;

async fn token(State(seen): State<Shared>, headers: HeaderMap) -> Response {
    let mut seen = seen.lock();
    assert_eq!(headers["metadata-flavor"], "Google");
    if let Ok(status) = StatusCode::from_u16(seen.token_status) {
        return (status, r#"{"error": "access_denied"}"#).into_response();
    }
    seen.tokens += 1;
    format!(r#"{{"access_token": "token-{}", "expires_in": 3600}}"#, seen.tokens).into_response()
}

/// Reads the request completely before it answers.
async fn bigtable(
    State(seen): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    _body: Bytes,
) -> Response {
    let mut seen = seen.lock();
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let call = [uri.path().to_owned(), header("x-goog-request-params"), header("authorization")];
    seen.calls.push(call);
    let status = [
        ("content-type", "application/grpc".to_owned()),
        ("grpc-status", seen.code.to_string()),
        ("grpc-message", "row wrong-password".to_owned()),
    ];
    (status, "").into_response()
}

/// A rig whose store is on such a server.
async fn rig(seen: Seen) -> (Rig, Shared) {
    let shared = Arc::new(Mutex::new(seen));
    let router = Router::new().route(METADATA, get(token)).fallback(bigtable);
    let router = router.with_state(Arc::clone(&shared));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let fields = format!(
        "type: bigtable, project: \"example.com:it\", instance: i, table: t, app_profile: batch, \
         endpoint: \"{url}\", metadata_url: \"{url}\""
    );
    let mut rig = Rig::of(100, &fields, None).await;
    rig.publish("buyers", 0..50).await;
    (rig, shared)
}

fn calls(tokens: [u32; 3]) -> Vec<[String; 3]> {
    let name = "projects%2Fexample.com%3Ait%2Finstances%2Fi%2Ftables%2Ft";
    let call = |token: u32| {
        [
            "/google.bigtable.v2.Bigtable/MutateRows".to_owned(),
            format!("table_name={name}&app_profile_id=batch"),
            format!("Bearer token-{token}"),
        ]
    };
    tokens.map(call).to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_refused_is_replaced() {
    let (mut rig, seen) = rig(Seen { code: 16, ..Seen::default() }).await;
    fails(&mut rig, "refuses the access token (UNAUTHENTICATED)").await;
    assert_eq!(seen.lock().calls, calls([1, 2, 3]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_kept_until_it_expires() {
    let (mut rig, seen) = rig(Seen { code: 7, ..Seen::default() }).await;
    fails(&mut rig, "refuses the access token (PERMISSION_DENIED)").await;
    assert_eq!(seen.lock().calls, calls([1, 1, 1]));
    rig.clock.advance(std::time::Duration::from_secs(3_600));
    assert!(rig.pass().await);
    let last = seen.lock().calls.last().unwrap()[2].clone();
    assert_eq!(last, "Bearer token-2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_nothing_is_called() {
    let (mut rig, seen) = rig(Seen { token_status: 403, ..Seen::default() }).await;
    fails(&mut rig, "with status 403 (access_denied)").await;
    assert_eq!(seen.lock().calls, Vec::<[String; 3]>::new());
}
