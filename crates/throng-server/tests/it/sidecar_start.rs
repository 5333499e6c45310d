//! A sidecar whose node does not send files, or is gone: it starts, and counts the insertions that the node may have.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use throng_model::{Clock, ManualClock, SystemClock};
use throng_sidecar::{Sidecar, SidecarOptions};

use crate::proxy::{Proxy, Transfer};
use crate::sidecar::{Shop, client_of, code, is_ready, ready, token};
use crate::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_start_does_not_wait_for_files() {
    let shop = Shop::new();
    let node = shop.node().await;
    let proxy = Proxy::start(&node.url()).await;
    proxy.set(Transfer::Never);
    let starting = Sidecar::start(shop.options(&proxy.url, token(&node).await, "cache"));
    let sidecar = starting.await.unwrap();
    // A probe of a container does not wait for gigabytes either. A start that waits for a file ends when its request
    // is given up, and not before.
    assert_eq!(proxy.given_up(), 0, "it has waited for a file");
    let gate = client_of(&sidecar);
    assert_eq!(gate.request("GET", "/healthz").send().await.unwrap().status(), 200);
    assert!(!is_ready(&gate).await);
    assert_eq!(code(&gate, "c5", "shoes").await, "unavailable");
    sidecar.shutdown().await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insertion_that_the_node_may_have_counts_and_one_that_was_never_sent_does_not() {
    let shop = Shop::new();
    let node = shop.node().await;
    let proxy = Proxy::start(&node.url()).await;
    let token = token(&node).await;
    let direct = Sidecar::start(shop.options(&node.url(), token.clone(), "direct")).await.unwrap();
    let behind = Sidecar::start(shop.options(&proxy.url, token, "behind")).await.unwrap();
    let (at_node, at_proxy) = (client_of(&direct), client_of(&behind));
    ready(&at_node).await;
    ready(&at_proxy).await;
    node.shutdown().await;
    // 20 insertions of 0.05 reach the budget of 1.00.
    let question = json!({ "user": "c5", "ad_groups": ["shoes"], "record_insertion": true });
    for _ in 0..40 {
        assert_eq!(at_node.post("/v1/decide", &question).await.0, 503);
    }
    assert_eq!(code(&at_node, "c5", "shoes").await, "allowed");
    // The proxy answers 502: it is not known whether the node has the event.
    let mut unknown = 0;
    while at_proxy.post("/v1/decide", &question).await.0 == 503 {
        unknown += 1;
        assert!(unknown <= 20, "they do not count");
    }
    assert_eq!(code(&at_proxy, "c5", "shoes").await, "out_of_budget");
    direct.shutdown().await;
    behind.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_insertion_says_why_and_does_not_count() {
    let shop = Shop::new();
    let node = shop.node().await;
    // The clock of the ad server is wrong.
    let clock = Arc::new(ManualClock::new(SystemClock.now().plus(Duration::from_secs(3_600))));
    let options = shop.options(&node.url(), token(&node).await, "cache");
    let options = SidecarOptions { clock: clock as Arc<dyn Clock>, ..options };
    let sidecar = Sidecar::start(options).await.unwrap();
    let gate = client_of(&sidecar);
    ready(&gate).await;
    let question = json!({ "user": "c5", "ad_groups": ["shoes"], "record_insertion": true });
    // 20 insertions of 0.05 reach the budget of 1.00.
    for _ in 0..30 {
        let (status, answer) = gate.post("/v1/decide", &question).await;
        assert_eq!(status, 503, "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("more than 5 minutes in the future"), "{message}");
    }
    assert_eq!(code(&gate, "c5", "shoes").await, "allowed");
    sidecar.shutdown().await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_continues_the_transfer_of_the_one_before() {
    let shop = Shop::new();
    let node = shop.node().await;
    let proxy = Proxy::start(&node.url()).await;
    proxy.set(Transfer::CutInHalf);
    let sidecar = Sidecar::start(shop.options(&proxy.url, token(&node).await, "cache"));
    let sidecar = sidecar.await.unwrap();
    let gate = client_of(&sidecar);
    // All tries of an attempt are cut.
    until("the attempt fails", async || {
        let answer = gate.request("GET", "/readyz").send().await.unwrap().text().await.unwrap();
        answer.contains("membership: ")
    })
    .await;
    proxy.set(Transfer::Whole);
    ready(&gate).await;
    assert!(proxy.rests() > 0, "the files were read from their beginning");
    assert_eq!(code(&gate, "c5", "shoes").await, "allowed");
    sidecar.shutdown().await;
    node.shutdown().await;
}
