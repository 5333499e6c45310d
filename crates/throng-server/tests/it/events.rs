//! Wrong event bodies and what the node says about them: `cases/events/*.ndjson` with
//! `*.expected.json` beside. `THRONG_BLESS=1` writes what is said now, to be read before it is
//! checked in.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{Client, SPEC, noon, spec, start};

fn cases() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/cases/events");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "ndjson"))
        .collect();
    cases.sort();
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_events_are_explained_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), spec(SPEC), &noon()).await.unwrap();
    let client = Client::of(&node);
    let cases = cases();
    assert!(cases.len() >= 20, "{} cases", cases.len());
    for case in cases {
        let said = client.events(std::fs::read(&case).unwrap()).await;
        let said = format!("{}\n", serde_json::to_string_pretty(&said).unwrap());
        let expected = case.with_extension("expected.json");
        if std::env::var_os("THRONG_BLESS").is_some() {
            std::fs::write(&expected, &said).unwrap();
        }
        let wanted = std::fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(said, wanted, "{}", case.display());
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_events_at_all_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), spec(SPEC), &noon()).await.unwrap();
    let client = Client::of(&node);
    for (kind, body, status, code) in [
        ("application/x-protobuf", "not protobuf", 400, "bad_request"),
        ("text/csv", "id,kind", 415, "unsupported_media_type"),
    ] {
        let request = client.request("POST", "/v1/events").header("content-type", kind).body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{kind}");
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let said: Value = response.json().await.unwrap();
        assert_eq!(said["error"]["code"], code);
        assert_eq!(said["error"]["request_id"], json!(id));
        assert!(said["error"]["help"].is_string(), "{said}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn protobuf_and_ndjson_are_the_same_events() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
    let client = Client::of(&node);
    let now = throng_model::Clock::now(&*clock);
    let event = throng_budget::Event {
        id: "one".to_owned(),
        kind: throng_budget::EventKind::Impression,
        ad_group: "shoes".parse().unwrap(),
        insertion_id: None,
        at: now,
        inserted_at: None,
    };
    // A record of the log is such a message.
    let body = throng_budget::events_to_record([&event]);
    let request = client.request("POST", "/v1/events");
    let request = request.header("content-type", "application/x-protobuf").body(body);
    let said: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!((&said["accepted"], &said["duplicates"]), (&json!(1), &json!(0)), "{said}");
    let line =
        json!({ "id": "one", "kind": "impression", "ad_group": "shoes", "at": now.to_string() });
    let said = client.events(line.to_string()).await;
    assert_eq!((&said["accepted"], &said["duplicates"]), (&json!(0), &json!(1)), "{said}");
    node.shutdown().await;
}
