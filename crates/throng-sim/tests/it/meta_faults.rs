//! Injected faults.

use reqwest::Method;
use serde_json::{Value, json};
use throng_sim::meta::{FaultKind, FaultRule, FaultScript, MetaSimConfig};

use crate::{Meta, email, emails};

/// A simulator with an audience, whose next upload gets `fault`.
async fn with_fault(fault: FaultKind) -> (Meta, String) {
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    let rule = FaultRule::new(fault).on_call("add_users").nth([1]);
    meta.sim.set_faults(FaultScript::new(1, [rule])).unwrap();
    (meta, id)
}

#[tokio::test]
async fn a_closed_connection_is_an_error_and_the_call_may_have_had_an_effect() {
    for (fault, members) in [(FaultKind::CutBefore, 0), (FaultKind::CutAfter, 3)] {
        let (meta, id) = with_fault(fault.clone()).await;
        let call = meta.call(Method::POST, &format!("{id}/users")).json(&emails(0..3));
        let error = call.send().await.unwrap_err();
        assert!(error.is_request() && error.status().is_none(), "{fault:?}: {error:?}");
        assert!(!error.is_timeout() && !error.is_connect(), "{fault:?}: {error:?}");
        assert_eq!(meta.count(&id), members, "{fault:?}");
        meta.add(&id, 0..3).await;
        assert_eq!(meta.count(&id), 3, "{fault:?}: the next call works");
        assert_eq!(meta.sim.injected_faults(), [1]);
    }
}

#[tokio::test]
async fn a_closed_connection_delivers_no_byte_of_a_response() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (meta, id) = with_fault(FaultKind::CutAfter).await;
    let body = emails(0..3).to_string();
    let request = format!(
        "POST /v25.0/{id}/users HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sim-token\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut tcp = tokio::net::TcpStream::connect(meta.sim.address()).await.unwrap();
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Closed or reset, but nothing to read.
    let _ = tcp.read_to_end(&mut answer).await;
    assert_eq!(answer, b"");
    assert_eq!(meta.count(&id), 3);
}

#[tokio::test]
async fn server_errors_occur_before_or_after_the_effect() {
    for (applied, members) in [(false, 0), (true, 3)] {
        let (meta, id) = with_fault(FaultKind::ServerError { status: 502, applied }).await;
        let reply = meta.post(&format!("{id}/users"), emails(0..3)).await;
        assert_eq!((reply.status, reply.code().0, meta.count(&id)), (502, 2, members));
        assert_eq!(reply.body["error"]["is_transient"], true);
    }
}

#[tokio::test]
async fn html_pages_replace_json() {
    for (applied, members) in [(false, 0), (true, 3)] {
        let (meta, id) = with_fault(FaultKind::Html { status: 200, applied }).await;
        let reply = meta.post(&format!("{id}/users"), emails(0..3)).await;
        assert_eq!((reply.status, meta.count(&id)), (200, members));
        assert!(reply.body.as_str().unwrap().starts_with("<!DOCTYPE html>"));
    }
}

#[tokio::test]
async fn throttles_have_their_envelopes() {
    for (code, subcode) in [(80_003, 2_446_079), (17, 2_446_079), (613, 1_487_742), (4, 1_504_022)]
    {
        let meta = Meta::plain().await;
        let id = meta.audience("a").await;
        let rule = FaultRule::new(FaultKind::Throttled { code, regain_minutes: 7 });
        meta.sim.set_faults(FaultScript::new(1, [rule])).unwrap();
        let reply = meta.delete(&format!("{id}/users"), emails(0..3)).await;
        assert_eq!((reply.status, reply.code()), (400, (code, subcode)));
        let usage: Value =
            serde_json::from_str(reply.header("x-business-use-case-usage").unwrap()).unwrap();
        assert_eq!(usage["1"][0]["estimated_time_to_regain_access"], 7);
    }
}

#[tokio::test]
async fn counts_may_be_wrong() {
    let (meta, id) = with_fault(FaultKind::WrongCounts { missing: 2 }).await;
    let reply = meta.post(&format!("{id}/users"), emails(0..5)).await;
    assert_eq!((reply.status, &reply.body["num_received"]), (200, &json!(3)));
    let mut kept = [email(0), email(1), email(2)];
    kept.sort();
    assert_eq!(meta.sim.members(&id).unwrap(), kept);
}

#[tokio::test]
async fn tokens_expire_and_any_error_can_be_injected() {
    let (meta, id) = with_fault(FaultKind::TokenExpired).await;
    let reply = meta.post(&format!("{id}/users"), emails(0..1)).await;
    assert_eq!((reply.status, reply.code()), (400, (190, 463)));
    let blocked = FaultKind::Error {
        code: 100,
        subcode: Some(1_713_230),
        status: 400,
        message: "Audience Upload Blocked".to_owned(),
    };
    let (meta, id) = with_fault(blocked).await;
    let reply = meta.post(&format!("{id}/users"), emails(0..1)).await;
    assert_eq!((reply.code(), meta.count(&id)), ((100, 1_713_230), 0));
    assert_eq!(reply.body["error"]["message"], "Audience Upload Blocked");
}

#[tokio::test]
async fn a_delay_is_counted_and_has_no_other_effect() {
    // The manual clock shortens every wait, so only the count shows the fault.
    let (meta, id) = with_fault(FaultKind::Slow { millis: 60_000 }).await;
    meta.add(&id, 0..3).await;
    assert_eq!((meta.count(&id), meta.sim.injected_faults()), (3, vec![1]));
}

#[tokio::test]
async fn a_delayed_call_does_not_block_the_shutdown() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let slow = FaultRule::new(FaultKind::Slow { millis: 3_600_000 });
    let sim = throng_sim::meta::MetaSim::start(MetaSimConfig {
        faults: FaultScript::new(1, [slow]),
        ..MetaSimConfig::default()
    });
    let sim = sim.await.unwrap();
    let url = format!("{}/v25.0/act_1?access_token=any", sim.url());
    let call = tokio::spawn(reqwest::get(url));
    while sim.injected_faults() != [1] {
        tokio::task::yield_now().await;
    }
    sim.shutdown().await;
    assert!(call.await.unwrap().is_err());
}

#[tokio::test]
async fn the_same_seed_injects_the_same_faults() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let config =
            MetaSimConfig { faults: FaultScript::mixed(42, 0.5), ..MetaSimConfig::default() };
        let meta = Meta::start(config).await;
        let mut ends = Vec::new();
        for _ in 0..40 {
            let end = meta.call(Method::GET, "act_1").send().await;
            ends.push(end.map_or(0, |response| response.status().as_u16()));
        }
        runs.push((ends, meta.sim.injected_faults()));
    }
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].1.iter().sum::<u64>() > 5, "{runs:?}");
}

#[tokio::test]
async fn a_client_that_retries_succeeds_despite_many_faults() {
    let config = MetaSimConfig { faults: FaultScript::mixed(7, 0.3), ..MetaSimConfig::default() };
    let meta = Meta::start(config).await;
    let create = json!({"name": "a", "enable_fetch_or_create": true, "customer_file_source": "USER_PROVIDED_ONLY"});
    let until_done = async |method: Method, path: &str, body: &Value| loop {
        let end = meta.call(method.clone(), path).json(body).send().await;
        let Ok(response) = end else { continue };
        match response.json::<Value>().await {
            Ok(body) if body.get("error").is_none() => return body,
            _ => {}
        }
    };
    let created = until_done(Method::POST, "act_1/customaudiences", &create).await;
    let id = created["id"].as_str().unwrap();
    for start in (0..1_000).step_by(50) {
        until_done(Method::POST, &format!("{id}/users"), &emails(start..start + 50)).await;
    }
    for start in (0..500).step_by(50) {
        until_done(Method::DELETE, &format!("{id}/users"), &emails(start..start + 50)).await;
    }
    let mut expected: Vec<String> = (500..1_000).map(email).collect();
    expected.sort();
    assert_eq!(meta.sim.members(id).unwrap(), expected);
    assert_eq!(meta.sim.audience_count(), 1);
    let adds = &meta.sim.requests().calls["add_users"];
    assert!(adds.requests > 20 && adds.applied >= 20 && adds.faults > 0, "{adds:?}");
}
