//! Batches of records over HTTP, and the audience of their table.

use std::io::Write as _;

use reqwest::StatusCode;
use serde_json::{Value, json};
use throng_model::HashedIdentifier;
use throng_server::Node;

use crate::audiences::settled;
use crate::{Client, noon, sent_file, start, until};

const SPEC: &str = r#"version: 1
node:
  lake: lake
  max_request_bytes: 4096
schemas:
  - name: customers
    key: email
    day: seen
    fields:
      - { name: email, type: email, required: true, anonymise: hash }
      - { name: seen, type: date, required: true }
audiences:
  - { name: recent, sql: "SELECT email FROM lake.customers WHERE day >= '2026-11-01'" }
"#;

async fn node(dir: &std::path::Path) -> Node {
    let file = dir.join("throng.yaml");
    std::fs::write(&file, SPEC).unwrap();
    start(&dir.join("node"), throng_spec::load(&file).unwrap(), &noon()).await.unwrap()
}

async fn send(client: &Client, path: &str, kind: &str, body: Vec<u8>) -> (StatusCode, Value) {
    let request = client.request("POST", path).header("content-type", kind).body(body);
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn records_become_the_members_of_an_audience() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    let client = Client::of(&node);
    // The table exists before its rows, so the audience is built.
    settled(&node, "recent", |a| a["current"]["members"] == 0).await;
    // Larger than node.max_request_bytes.
    let rows: String =
        (0..1000).map(|n| format!("u{n}@example.com,2026-11-{:02}\n", 1 + n % 3)).collect();
    let csv = format!("email,seen\n{rows}nobody,2026-11-01\nold@example.com,2026-10-31\n");
    let path = "/v1/ingest/customers?batch=one";
    let (status, report) = send(&client, path, "text/csv; charset=utf-8", csv.clone().into()).await;
    assert_eq!(status, 200, "{report}");
    assert_eq!((&report["accepted"], &report["quarantined"]), (&json!(1001), &json!(1)));
    let fault =
        json!({ "field": "email", "reason": "not_an_email", "rows": 1, "first_line": 1002 });
    assert_eq!(report["faults"], json!([fault]));
    // The same batch, compressed, is not stored again.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(csv.as_bytes()).unwrap();
    let request = client.request("POST", path).header("content-type", "text/csv");
    let request = request.header("content-encoding", "gzip").body(gzip.finish().unwrap());
    let again: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!((&again["repeated"], &again["accepted"]), (&json!(true), &json!(1001)));
    let (status, _) = client.post("/v1/audiences/recent/refresh", &json!({})).await;
    assert_eq!(status, 200);
    settled(&node, "recent", |a| a["current"]["members"] == 1000).await;
    let key = HashedIdentifier::of_normalised("u7@example.com").to_hex();
    let path = format!("/v1/users/{key}/audiences");
    until("the member is served", async || {
        client.get(&path).await["audiences"] == json!(["recent"])
    })
    .await;
    let sources = client.get("/v1/sources").await;
    let lake = &sources["sources"][0];
    assert_eq!((&lake["name"], &lake["tables"][0]["rows"]), (&json!("lake"), &json!(1001)));
    assert_eq!(lake["tables"][0]["passed_over_count"], json!(0), "{lake}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_batches_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    let client = Client::of(&node);
    let (csv, row) = ("text/csv", "email,seen\na@example.com,2026-11-01\n");
    for (path, kind, body, status, code) in [
        ("/v1/ingest/orders", csv, row, 404, "not_found"),
        ("/v1/ingest/customers", "application/json", row, 415, "unsupported_media_type"),
        ("/v1/ingest/customers", csv, "email\n", 400, "bad_request"),
        ("/v1/ingest/customers?batch=a%20b", csv, row, 400, "bad_request"),
        ("/v1/ingest/customers?batch=1", csv, row, 200, ""),
        (
            "/v1/ingest/customers?batch=1",
            csv,
            "email,seen\nb@example.com,2026-11-01\n",
            409,
            "conflict",
        ),
    ] {
        let (found, answer) = send(&client, path, kind, body.into()).await;
        assert_eq!(found, status, "{path}: {answer}");
        assert_eq!(answer["error"]["code"].as_str().unwrap_or(""), code, "{path}: {answer}");
    }
    // An id in the query and another one in the header: neither is chosen.
    for (header, status) in [("2", 400), ("3", 200)] {
        let request = client.request("POST", "/v1/ingest/customers?batch=3");
        let request = request.header("content-type", csv).header("idempotency-key", header);
        let response = request.body(row).send().await.unwrap();
        let (found, answer) = (response.status(), response.json::<Value>().await.unwrap());
        assert_eq!(found, status, "{answer}");
        if status == 400 {
            let message = answer["error"]["message"].as_str().unwrap();
            let is_named = message.contains("`?batch=`") && message.contains("`idempotency-key`");
            assert!(is_named, "{answer}");
        } else {
            assert_eq!((&answer["batch"], &answer["repeated"]), (&json!("3"), &json!(false)));
        }
    }
    // Compressed content without its encoding is not rows for the quarantine.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(row.as_bytes()).unwrap();
    let (path, kind) = ("/v1/ingest/customers?batch=4", "application/x-ndjson");
    let (found, answer) = send(&client, path, kind, gzip.finish().unwrap()).await;
    assert_eq!((found.as_u16(), &answer["error"]["code"]), (400, &json!("bad_request")));
    let help = answer["error"]["help"].as_str().unwrap();
    assert!(help.contains("`content-encoding: gzip`"), "{answer}");
    // A column that changes its type is a problem of the spec that is sent.
    let file = dir.path().join("throng.yaml");
    std::fs::write(&file, SPEC.replace("type: date", "type: timestamp")).unwrap();
    let (status, answer) = client.post("/v1/spec/plan", &sent_file(&file)).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("invalid_spec")), "{answer}");
    let message = "the column `seen` of the schema `customers` is timestamp, and in its table date";
    assert_eq!(answer["error"]["problems"][0]["message"], json!(message), "{answer}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_changes_no_table() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    let client = Client::of(&node);
    let file = dir.path().join("throng.yaml");
    let sent = |of: &str| {
        let seen = "      - { name: seen,";
        let spec = SPEC.replace(seen, &format!("      - {{ name: age, type: '{of}' }}\n{seen}"));
        let spec = spec.replace(
            "SELECT email FROM",
            "SELECT email FROM lake.customers WHERE age > 20 UNION SELECT email FROM",
        );
        std::fs::write(&file, spec).unwrap();
        sent_file(&file)
    };
    let columns = dir.path().join("lake/default/customers/_batches/columns.json");
    let before = std::fs::read(&columns).unwrap();
    // A type that was only planned, by mistake, is not that of the column.
    for of in ["decimal(5, 1)", "integer"] {
        let (status, answer) = client.post("/v1/spec/plan", &sent(of)).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(std::fs::read(&columns).unwrap(), before, "{of}");
    }
    // Neither does one with a template, whose query reads the rows of the tables.
    let template = r#"  - name: "{slug}-seen"
    for_each: SELECT 'all' AS slug, count(*) AS customers FROM lake.customers
    sql: SELECT email FROM lake.customers WHERE age > 30
"#;
    sent("integer");
    let spec = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, spec + template).unwrap();
    let (status, answer) = client.post("/v1/spec/plan", &sent_file(&file)).await;
    assert_eq!(status, 200, "{answer}");
    let changes = answer["plan"]["changes"].as_array().unwrap();
    assert!(changes.iter().any(|change| change["name"] == "all-seen"), "{answer}");
    assert_eq!(std::fs::read(&columns).unwrap(), before);
    let (status, answer) = client.post("/v1/spec/apply", &sent("integer")).await;
    assert_eq!(status, 200, "{answer}");
    let row = "email,age,seen\na@example.com,30,2026-11-01\n";
    let (status, report) = send(&client, "/v1/ingest/customers", "text/csv", row.into()).await;
    assert_eq!((status.as_u16(), &report["accepted"]), (200, &json!(1)), "{report}");
    let request = client.request("POST", "/v1/ingest/customers").header("content-type", "text/csv");
    let request = request.header("idempotency-key", [0xe4_u8].as_slice()).body(row);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    node.shutdown().await;
}
