//! One node per data directory, secrets at the start, shutdown, and a ledger on PostgreSQL.

use throng_backends::BackendError;
use throng_server::NodeError;

use crate::{Client, NOON, SPEC, TIMEOUT, noon, spec, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), spec(SPEC), &noon()).await.unwrap();
    let second = start(dir.path(), spec(SPEC), &noon()).await.unwrap_err();
    assert!(second.to_string().contains(&format!("process {}", std::process::id())), "{second}");
    node.shutdown().await;
    start(dir.path(), spec(SPEC), &noon()).await.unwrap().shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_of_a_missing_token_names_the_field() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{SPEC}node: {{ token: \"env:OTHER\" }}\n");
    let error = start(dir.path(), spec(&text), &noon()).await.unwrap_err();
    assert!(
        matches!(error, NodeError::Backend(BackendError::Secret { field: "token", .. })),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_open_streams() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), spec(SPEC), &noon()).await.unwrap();
    let client = Client::of(&node);
    let feed = client.request("GET", "/v1/feed").send().await.unwrap();
    let pages = client.request("GET", "/v1/stream").send().await.unwrap();
    tokio::time::timeout(TIMEOUT, node.shutdown())
        .await
        .expect("open streams do not delay the shutdown");
    // Both streams end.
    let _ = (feed.bytes().await, pages.bytes().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_stores_its_state_on_a_postgres_server() {
    if std::env::var_os("THRONG_POSTGRES").is_none() {
        let message = "PostgreSQL is not provided (THRONG_POSTGRES): run `cargo xtask test`";
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("skipped: {message}");
        return;
    }
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let text = format!("{SPEC}node: {{ ledger: postgres, ledger_url: \"env:LEDGER\" }}\n");
    let clock = noon();
    let node = start(dir.path(), spec(&text), &clock).await.unwrap();
    let client = Client::of(&node);
    let events: String = (0..3)
        .map(|n| format!("{{\"id\":\"i{n}\",\"kind\":\"impression\",\"ad_group\":\"shoes\",\"at\":\"{NOON}\"}}\n"))
        .collect();
    assert_eq!(client.events(events).await["accepted"], 3);
    let version = client.get("/v1/spec").await["version"].clone();
    // Its objects are in a local folder, so a second node would miss them.
    let second = start(other.path(), spec(&text), &clock).await.unwrap_err();
    assert!(matches!(second, NodeError::Backend(BackendError::LedgerInUse)), "{second}");
    node.shutdown().await;
    assert!(!dir.path().join("ledger.db").exists());

    let node = start(dir.path(), spec(&text), &clock).await.unwrap();
    let client = Client::of(&node);
    assert_eq!(client.get("/v1/spec").await["version"], version);
    let shoes = client.get("/v1/budgets/shoes").await;
    assert_eq!(shoes["state"]["actual_micros"], 300_000);
    node.shutdown().await;
}
