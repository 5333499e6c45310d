//! Clients that hold connections without using them.

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::{Client, NOON, SPEC, noon, spec, start};

/// 2,000 incomplete request heads from one address, against a node with a cap of 500 connections:
/// it serves other clients, accepts events and writes its checkpoints.
#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_do_not_block_other_clients() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{SPEC}node: {{ connections: {{ total: 500 }} }}\n");
    let node = start(dir.path(), spec(&text), &noon()).await.unwrap();
    let address = node.url().replace("http://", "");
    let mut held = Vec::new();
    for _ in 0..2_000 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nx: ").await.unwrap();
        held.push(stream);
    }
    // Each request on a connection of its own.
    for _ in 0..20 {
        let client = Client::of(&node);
        assert_eq!(client.get("/readyz").await["ready"], json!(true));
        let (status, users) = client.post("/v1/lookups", &json!({ "keys": ["a"] })).await;
        assert_eq!((status, users["users"].as_array().map(Vec::len)), (200, Some(1)));
    }
    let client = Client::of(&node);
    let event = format!(
        "{{\"id\":\"i1\",\"kind\":\"impression\",\"ad_group\":\"shoes\",\"at\":\"{NOON}\"}}\n"
    );
    assert_eq!(client.events(event).await["accepted"], 1);
    node.context().budgets.checkpoint().await.unwrap();
    let metrics = client.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("throng_connections_closed_total{reason=\"evicted\"}"), "{metrics}");
    drop(held);
    node.shutdown().await;

    let node = start(dir.path(), spec(&text), &noon()).await.unwrap();
    let shoes = Client::of(&node).get("/v1/budgets/shoes").await;
    assert_eq!(shoes["state"]["actual_micros"], 100_000);
    node.shutdown().await;
}
