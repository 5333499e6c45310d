//! Connections that never finish a request: the node answers others, and its own work continues.

use std::io::Write as _;
use std::net::TcpStream;

use super::{Target, answers, built, impressions, scale};
use crate::process::wait_for;

#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_take_nothing_from_the_node() {
    let target = Target::new();
    let node = target.start();
    built(&node).await;
    let address = node.url.trim_start_matches("http://").to_owned();
    // The kernel accepts them whatever the node does; those that the node closes count too.
    let held: Vec<TcpStream> = (0..scale(400, 2_000))
        .filter_map(|_| {
            let mut connection = TcpStream::connect(&address).ok()?;
            connection.write_all(b"POST /v1/events HTTP/1.1\r\nHost: 127").ok()?;
            Some(connection)
        })
        .collect();
    assert!(held.len() >= scale(300, 1_000), "only {} connections", held.len());

    let sent = 1_000;
    let accepted = node.events(impressions("half-open", 0, sent)).await.expect("accepted");
    assert_eq!(accepted["accepted"].as_u64(), Some(sent), "{accepted}");
    let before = wait_for("the spend", async || {
        let answers = answers(&node).await?;
        let spend = super::PRICE_MICROS * i64::try_from(sent).expect("small");
        if answers["spend"][0][1].as_i64() == Some(spend) {
            Ok(answers)
        } else {
            Err(answers.to_string())
        }
    })
    .await;
    // The node itself needs file handles: to write and map snapshots, and to write checkpoints.
    node.post("/v1/audiences/everybody/refresh?force=true", &serde_json::json!({}))
        .await
        .expect("queued");
    wait_for("a second snapshot", async || {
        let audience = node.get("/v1/audiences/everybody").await?;
        if audience["current"]["version"].as_u64() == Some(2) {
            Ok(())
        } else {
            Err(audience.to_string())
        }
    })
    .await;
    drop(held);
    assert!(node.terminate(), "a clean end, with a last checkpoint");
    let node = target.start();
    built(&node).await;
    assert_eq!(answers(&node).await.expect("answers"), before);
}
