//! The simulator's own page and API: oracle, faults, reset.

use std::io;
use std::sync::{Arc, Mutex};

use reqwest::Client;
use serde_json::{Value, json};
use throng_sim::meta::{FaultKind, FaultRule, FaultScript, MetaSim, MetaSimConfig, digest_of};

use crate::{Meta, email, emails};

async fn get(meta: &Meta, path: &str) -> (u16, Value) {
    let reply = meta.send(meta.http.get(format!("{}{path}", meta.sim.url()))).await;
    (reply.status, reply.body)
}

async fn post(meta: &Meta, path: &str, body: &str) -> (u16, Value) {
    let url = format!("{}{path}", meta.sim.url());
    let reply = meta.send(meta.http.post(url).body(body.to_owned())).await;
    (reply.status, reply.body)
}

#[tokio::test]
async fn the_page_explains_how_to_use_it() {
    let meta = Meta::plain().await;
    meta.audience("<b>loyal</b>").await;
    let (status, page) = get(&meta, "/").await;
    let page = page.as_str().unwrap();
    assert_eq!(status, 200);
    for part in [&meta.sim.url(), "/sim/faults", "usersreplace", "&lt;b&gt;loyal&lt;/b&gt;"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("sim-token"), "tokens are not shown");
}

#[tokio::test]
async fn the_oracle_shows_members_and_calls() {
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    meta.add(&id, 0..3).await;
    meta.post(&format!("{id}/users"), json!({"payload": {"schema": ["EMAIL"], "data": [[]]}}))
        .await;
    let (_, audiences) = get(&meta, "/sim/oracle/audiences").await;
    let expected = json!({"audiences": [{"id": id, "account": "1", "name": "a", "members": 3}]});
    assert_eq!(audiences, expected);
    let mut people = vec![email(0), email(1), email(2)];
    people.sort();
    let (_, members) = get(&meta, &format!("/sim/oracle/audiences/{id}/members")).await;
    let rows: Vec<Value> = people.iter().map(|person| json!({"EMAIL": person})).collect();
    let digest = digest_of(&people);
    assert_eq!(members, json!({"id": id, "name": "a", "count": 3, "digest": digest, "rows": rows}));
    let (_, brief) = get(&meta, &format!("/sim/oracle/audiences/{id}/members?rows=false")).await;
    assert_eq!((brief.get("rows"), &brief["digest"]), (None, &json!(digest)));
    assert_eq!(meta.sim.digest(&id), Some(digest));
    assert_eq!(get(&meta, "/sim/oracle/audiences/7/members").await.0, 404);
    let (_, requests) = get(&meta, "/sim/oracle/requests").await;
    assert_eq!(
        requests["calls"]["add_users"],
        json!({"requests": 2, "applied": 1, "faults": 0, "rows": 4, "max_rows": 3,
            "errors": {"100": 1}})
    );
    assert_eq!(requests["applied_by_path"][format!("/{id}/users")], 1);
    assert_eq!(requests["unhashed_cells"], 0);
}

#[tokio::test]
async fn faults_are_set_read_and_cleared_over_http() {
    let meta = Meta::plain().await;
    let script = r#"{"seed": 3, "rules": [{"fault": {"kind": "server_error"}, "method": "GET", "times": 1}]}"#;
    let (status, set) = post(&meta, "/sim/faults", script).await;
    assert_eq!((status, &set["strikes"]), (200, &json!([0])));
    assert_eq!(meta.get("act_1").await.status, 503);
    assert_eq!(meta.get("act_1").await.status, 200);
    let (_, read) = get(&meta, "/sim/faults").await;
    assert_eq!((&read["strikes"], &read["script"]["seed"]), (&json!([1]), &json!(3)));
    for wrong in [
        "{",
        r#"{"rules": [{"fault": {"kind": "meteor"}}]}"#,
        r#"{"rules": [{"fault": {"kind": "html"}, "chance": 1}]}"#,
        r#"{"rules": [{"fault": {"kind": "html"}, "probability": 2}]}"#,
    ] {
        let (status, answer) = post(&meta, "/sim/faults", wrong).await;
        assert_eq!((status, answer["problems"].as_array().map(Vec::len)), (400, Some(1)));
    }
    assert_eq!(get(&meta, "/sim/faults").await.1, read, "an invalid script changes nothing");
    let url = format!("{}/sim/faults", meta.sim.url());
    let cleared = meta.send(meta.http.delete(url)).await.body;
    assert_eq!(cleared["script"]["rules"], json!([]));
}

#[tokio::test]
async fn a_reset_deletes_everything_except_the_settings() {
    let throttled = FaultKind::Throttled { code: 17, regain_minutes: 0 };
    let faults = FaultScript::new(1, [FaultRule::new(throttled).on_call("list_sessions")]);
    let config =
        MetaSimConfig { faults, quota_calls_per_hour: Some(2), ..MetaSimConfig::default() };
    let meta = Meta::start(config).await;
    let id = meta.audience("a").await;
    assert_eq!(meta.get(&format!("{id}/sessions")).await.code().0, 17);
    assert_eq!(meta.get(&id).await.code().0, 80_003);
    meta.sim.set_faults(FaultScript::default()).unwrap();
    assert_eq!(post(&meta, "/sim/reset", "").await, (200, json!({"reset": true})));
    assert_eq!(meta.sim.audience_count(), 0);
    assert_eq!(meta.sim.requests(), Default::default());
    let id = meta.audience("a").await;
    assert_eq!(meta.get(&format!("{id}/sessions")).await.code().0, 17);
}

#[tokio::test]
async fn invalid_scripts_and_used_ports_are_refused_at_the_start() {
    let rule = FaultRule::new(FaultKind::CutAfter).with_probability(1.5);
    let faults = FaultScript::new(1, [rule]);
    let error = MetaSim::start(MetaSimConfig { faults, ..MetaSimConfig::default() }).await;
    assert_eq!(error.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    let meta = Meta::plain().await;
    let port = meta.sim.address().port();
    let error = MetaSim::start(MetaSimConfig { port, ..MetaSimConfig::default() }).await;
    assert_eq!(error.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn without_tokens_any_token_is_accepted_and_shutdown_frees_the_port() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let sim = MetaSim::start(MetaSimConfig::default()).await.unwrap();
    let (url, address) = (format!("{}/v25.0/act_1", sim.url()), sim.address());
    let http = Client::new();
    assert_eq!(http.get(&url).bearer_auth("any").send().await.unwrap().status(), 200);
    assert_eq!(http.get(&url).send().await.unwrap().status(), 400);
    sim.shutdown().await;
    assert!(tokio::net::TcpListener::bind(address).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_and_a_large_audience() {
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    let users = format!("{id}/users");
    let adds = (0..20u32).map(|n| meta.post(&users, emails(n * 500..n * 500 + 1_000)));
    let mut received = 0;
    for reply in futures::future::join_all(adds).await {
        received += reply.body["num_received"].as_u64().unwrap();
    }
    assert_eq!((received, meta.count(&id)), (20_000, 10_500));
    assert_eq!(meta.sim.requests().calls["add_users"].applied, 20);
}

/// Collects log lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_log_line_has_a_row_or_a_token() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // For all threads: other tests must not log a row or a token either.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    let users = format!("{id}/users");
    let row = json!({"payload": {"schema": ["EMAIL"], "data": [["ann@example.com"], [email(1)]]}});
    meta.post(&users, row.clone()).await;
    meta.delete(&users, row.clone()).await;
    meta.send(meta.call_with_payload(reqwest::Method::DELETE, &users, 1..2)).await;
    meta.post("nowhere/users", row).await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("add_users") && log.contains("rows=2"), "{log}");
    // The HTTP libraries of client and server log nothing either.
    for private in ["ann@example.com", &email(1), "sim-token"] {
        assert!(!log.contains(private), "{private} in {log}");
    }
}
