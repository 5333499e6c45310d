//! Invalid event bodies and the node's answers: `cases/events/*.ndjson`, each with an `*.expected.json`.
//! `THRONG_BLESS=1` writes the current answers, to be reviewed before they are committed.

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
async fn invalid_events_are_explained_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), spec(SPEC), &noon()).await.unwrap();
    let client = Client::of(&node);
    let cases = cases();
    assert!(cases.len() >= 20, "{} cases", cases.len());
    for case in cases {
        let mut said = client.events(std::fs::read(&case).unwrap()).await;
        if let Some(error) = said.get_mut("error").and_then(Value::as_object_mut) {
            assert!(error.remove("request_id").is_some(), "{}", case.display());
        }
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
async fn bodies_that_are_not_events_are_refused() {
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
        money: throng_budget::EventMoney::NONE,
        placement: None,
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

/// Sends one event in an encoded body, over a connection of its own: making the next body may take longer
/// than the node keeps an idle one.
async fn send_encoded(client: &Client, encoding: &str, body: Vec<u8>) -> (u16, Value) {
    let request = client.request("POST", "/v1/events").header("connection", "close");
    let request = request.header("content-type", "application/x-ndjson");
    let request = request.header("content-encoding", encoding).body(body);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn encoded_bodies_are_decoded_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let settings = format!("{SPEC}node:\n  max_request_bytes: 100000\n");
    let node = start(dir.path(), spec(&settings), &clock).await.unwrap();
    let client = Client::of(&node);
    let now = throng_model::Clock::now(&*clock);
    let line = |id: &str| {
        json!({ "id": id, "kind": "impression", "ad_group": "shoes", "at": now.to_string() })
            .to_string()
    };
    // One event in a line, compressed by another implementation.
    let brotli = include_bytes!("cases/events/one-event.ndjson.br").to_vec();
    for (encoding, body) in [
        ("gzip", gzip(line("gzip").as_bytes())),
        ("x-gzip", gzip(line("x-gzip").as_bytes())),
        ("zstd", zstd::encode_all(line("zstd").as_bytes(), 3).unwrap()),
        ("br", brotli.clone()),
        ("identity", line("identity").into_bytes()),
    ] {
        let (status, said) = send_encoded(&client, encoding, body).await;
        assert_eq!((status, &said["accepted"]), (200, &json!(1)), "{encoding}: {said}");
    }
    let bomb = vec![b' '; 50 << 20];
    let cut = gzip(line("cut").as_bytes());
    for (encoding, body, status) in [
        ("gzip", gzip(&bomb), 413),
        ("zstd", zstd::encode_all(&*bomb, 3).unwrap(), 413),
        ("gzip", b"not gzip".to_vec(), 400),
        ("gzip", cut[..cut.len() - 4].to_vec(), 400),
        ("zstd", b"not zstd".to_vec(), 400),
        ("br", b"not brotli at all".to_vec(), 400),
        ("br", [&brotli[..], &brotli[..]].concat(), 400),
        ("br", [&brotli[..], b"\n"].concat(), 400),
        ("deflate", b"?".to_vec(), 415),
        ("gzip, br", b"?".to_vec(), 415),
    ] {
        let (got, said) = send_encoded(&client, encoding, body).await;
        assert_eq!(got, status, "{encoding}: {said}");
        assert!(said["error"]["help"].is_string(), "{said}");
    }
    let state = client.get("/v1/budgets/shoes").await;
    assert_eq!(state["state"]["actual_micros"], json!(500_000), "{state}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_names_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), spec(SPEC), &noon()).await.unwrap();
    let client = Client::of(&node);
    let question = json!({ "ad_groups": ["Not A Name", "shoes", ""] });
    let (status, answer) = client.post("/v1/decide", &question).await;
    assert_eq!((status, &answer["allowed"]), (200, &json!(["shoes"])), "{answer}");
    let refused = answer["refused"].as_array().unwrap();
    let names: Vec<&str> = refused.iter().map(|one| one["ad_group"].as_str().unwrap()).collect();
    assert_eq!(names, ["Not A Name", ""]);
    assert!(refused.iter().all(|one| one["code"] == "not_a_name"), "{answer}");
    let (status, answer) =
        client.post("/v1/decide", &json!({ "ad_groups": [], "record": true })).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("bad_request")), "{answer}");
    node.shutdown().await;
}
