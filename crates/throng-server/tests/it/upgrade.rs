//! Data of earlier versions is read: a data directory opens and gives equal responses, and bytes of
//! the feed and of the event log are decoded. `fixtures/README.md` describes how the fixtures were
//! made.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use throng_gate::feed::Frame;
use throng_gate::{Catalog, FrameOutcome, Gate};
use throng_log::{EventLog, FileLog};
use throng_model::{AdGroupName, Clock, ManualClock, SyncName, Timestamp};
use throng_server::{Node, NodeConfig};
use throng_store::DeliveredRecord;

use crate::activation::Shop;
use crate::{Client, until};

fn fixtures() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("tests/it/fixtures")
}

/// The versions with a fixture, by commit.
fn commits() -> Vec<String> {
    let mut commits: Vec<String> = std::fs::read_dir(fixtures())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".tar.gz").map(str::to_owned))
        .collect();
    commits.sort();
    assert!(!commits.is_empty(), "no fixture");
    commits
}

fn expected(commit: &str) -> Value {
    let text = std::fs::read_to_string(fixtures().join(format!("{commit}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Unpacks the folders `node` and `spec`.
fn unpacked(commit: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let archive = fixtures().join(format!("{commit}.tar.gz"));
    let status = std::process::Command::new("tar")
        .arg("xzf")
        .arg(archive)
        .arg("-C")
        .arg(dir.path())
        .status()
        .unwrap();
    assert!(status.success(), "tar");
    dir
}

/// The time of the recorded responses.
fn moment(expected: &Value) -> Timestamp {
    Timestamp(expected["now_micros"].as_i64().unwrap())
}

async fn open(dir: &Path, clock: &Arc<ManualClock>) -> Node {
    Node::start(NodeConfig {
        accept_log_loss: Vec::new(),
        data_dir: dir.join("node"),
        spec: throng_spec::load(&dir.join("spec")).unwrap(),
        join: false,
        roles: None,
        listen: Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0))),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        access_clock: Arc::clone(clock) as Arc<dyn Clock>,
        recovery: throng_server::Recovery::default(),
        env: Arc::new(|name: &str| (name == "META").then(|| "token".to_owned())),
        limits: Default::default(),
        query_worker: crate::query_worker(),
    })
    .await
    .unwrap()
}

/// What a start changes in any version: the spec is applied again with the current paths of its
/// sources, the spend of the day is recorded, and the last point of a chart is that of the start.
fn changes_at_a_start(path: &str) -> bool {
    let of_a_budget = path.starts_with("/v1/budgets/");
    path == "/v1/catalog.version"
        || (of_a_budget && path.contains(".points[") && path.ends_with(".at"))
        || (of_a_budget && path.contains(".days[") && path.ends_with(".actual"))
}

/// Collects the differences of two responses. The new one may have more fields.
fn differences(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(fields), Value::Object(_)) => {
            for (name, value) in fields {
                differences(&format!("{path}.{name}"), value, &new[name], found);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (place, (old, new)) in old.iter().zip(new).enumerate() {
                differences(&format!("{path}[{place}]"), old, new, found);
            }
        }
        _ if old == new || changes_at_a_start(path) => {}
        // Formatted amounts have a currency since then.
        (Value::String(old), Value::String(new)) if *old == new.replace(" USD", "") => {}
        _ => found.push(format!("{path}: {old} became {new}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_an_earlier_version_gives_equal_responses() {
    for commit in commits() {
        let expected = expected(&commit);
        let dir = unpacked(&commit);
        let clock = Arc::new(ManualClock::new(moment(&expected)));
        // Opened again, so that what this version wrote is read as well.
        for round in ["opened", "opened again"] {
            let node = open(dir.path(), &clock).await;
            let client = Client::of(&node);
            let mut found = Vec::new();
            for (path, old) in expected["get"].as_object().unwrap() {
                differences(path, old, &client.get(path).await, &mut found);
            }
            for question in expected["post"].as_array().unwrap() {
                let path = question[0].as_str().unwrap();
                let (status, new) = client.post(path, &question[1]).await;
                assert_eq!(status, 200, "{path}");
                differences(&format!("{path} {}", question[1]), &question[2], &new, &mut found);
            }
            assert!(found.is_empty(), "{commit} {round}:\n{}", found.join("\n"));
            node.shutdown().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_without_its_audience_is_compared_once_and_sends_nothing() {
    let shop = Shop::new().await;
    shop.buyers(2..6);
    let node = shop.node().await;
    let ledger = &node.context().ledger;
    let sync: SyncName = "buyers-on-meta".parse().unwrap();
    let record = async || ledger.delivered_record(&sync).await.unwrap();
    until("the delivery is recorded", async || record().await.is_some()).await;
    let recorded = record().await.unwrap();
    let (identifiers, audience) = recorded.identifiers.split_once(' ').unwrap();
    assert_eq!(audience, "buyers");
    let earlier = DeliveredRecord { identifiers: identifiers.to_owned(), ..recorded.clone() };
    assert!(ledger.replace_delivered_record(Some(&recorded), &earlier, &[]).await.unwrap());
    until("it is compared", async || record().await.as_ref() == Some(&recorded)).await;
    assert_eq!(ledger.runs(None, 9).await.unwrap().len(), 1);
    assert!(shop.holds(2..6));
    node.shutdown().await;
}

fn decode_hex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A gate of this version that applies frames of an earlier version decides as that version's gates
/// did.
#[test]
fn the_feed_of_an_earlier_version_is_applied() {
    for commit in commits() {
        let expected = expected(&commit);
        let catalog: Catalog =
            serde_json::from_value(expected["get"]["/v1/catalog"].clone()).unwrap();
        let gate = Gate::new(catalog, std::time::Duration::from_secs(60));
        let frames = expected["feed_frames"].as_array().unwrap();
        for frame in frames {
            let frame = Frame::decode(&decode_hex(frame.as_str().unwrap())).unwrap();
            assert_ne!(gate.apply(&frame), FrameOutcome::NeedKeyframe);
        }
        for budget in expected["get"]["/v1/budgets"]["budgets"].as_array().unwrap() {
            let name: AdGroupName = budget["name"].as_str().unwrap().parse().unwrap();
            let spend = gate.spend(&name).unwrap();
            assert_eq!(spend.actual.0, budget["actual_micros"].as_i64().unwrap(), "{name}");
            let decision = gate.decide(None, std::slice::from_ref(&name), moment(&expected));
            let refused = decision.refused.first().map(|(_, reason)| reason.code());
            let closed = refused == Some("out_of_budget");
            assert_eq!(closed, !budget["open"].as_bool().unwrap(), "{name}: {refused:?}");
        }
    }
}

/// The records of the log, whose format is the same in Kafka: events of all kinds.
#[tokio::test]
async fn the_event_log_of_an_earlier_version_is_read() {
    for commit in commits() {
        let dir = unpacked(&commit);
        let log = FileLog::open_read_only(&dir.path().join("node/log")).unwrap();
        let mut kinds = std::collections::BTreeMap::<&str, u32>::new();
        for partition in 0..log.partitions() {
            let from = log.start(partition).await.unwrap();
            let end = log.end(partition).await.unwrap();
            let mut next = from;
            while next < end {
                for record in log.read(partition, next, 1 << 20).await.unwrap() {
                    next = record.offset + 1;
                    throng_budget::read_record(&record.value, |event| {
                        let kind = match event.kind() {
                            Some(throng_budget::EventKind::Insertion) => "insertion",
                            Some(throng_budget::EventKind::Impression) => "impression",
                            Some(throng_budget::EventKind::Click) => "click",
                            None => "unknown",
                        };
                        *kinds.entry(kind).or_default() += 1;
                    })
                    .unwrap();
                }
            }
        }
        assert_eq!(
            kinds.into_iter().collect::<Vec<_>>(),
            [("click", 6), ("impression", 74), ("insertion", 70)],
            "{commit}"
        );
    }
}
