//! One node per data directory, and who may talk to it.

use throng_server::NodeError;

use crate::{Client, SPEC, noon, spec, start};

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
async fn a_token_that_is_not_there_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{SPEC}node: {{ token: \"env:OTHER\" }}\n");
    let error = start(dir.path(), spec(&text), &noon()).await.unwrap_err();
    assert!(matches!(error, NodeError::Secret { field: "token", .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_open_streams() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), spec(SPEC), &noon()).await.unwrap();
    let client = Client::of(&node);
    let feed = client.request("GET", "/v1/feed").send().await.unwrap();
    let pages = client.request("GET", "/v1/stream").send().await.unwrap();
    let begun = std::time::Duration::from_secs(10);
    tokio::time::timeout(begun, node.shutdown()).await.expect("streams do not hold it up");
    // The ends of the streams, not errors that never come.
    let _ = (feed.bytes().await, pages.bytes().await);
}
