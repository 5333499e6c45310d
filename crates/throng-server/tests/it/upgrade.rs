//! What earlier versions wrote is read: a data directory opens with equal answers, and bytes of the
//! feed and of the event log are understood. `fixtures/README.md` says how they were made.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use throng_gate::feed::Frame;
use throng_gate::{Catalog, FrameOutcome, Gate};
use throng_log::{EventLog, FileLog};
use throng_model::{AdGroupName, Clock, ManualClock, Timestamp};
use throng_server::{Node, NodeConfig};

use crate::Client;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures")
}

/// The versions of which there is a fixture, by commit.
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

/// When the answers were given.
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

/// What a start changes in any version: the spec is applied anew where its sources lie now, the figures
/// of the day are written down, and the last point of a chart is that of the start.
fn changes_at_a_start(path: &str) -> bool {
    let of_a_budget = path.starts_with("/v1/budgets/");
    path == "/v1/catalog.version"
        || (of_a_budget && path.contains(".points[") && path.ends_with(".at"))
        || (of_a_budget && path.contains(".days[") && path.ends_with(".actual"))
}

/// Every difference of two answers. The new one may say more.
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
        // Amounts in words have got their currency.
        (Value::String(old), Value::String(new)) if *old == new.replace(" USD", "") => {}
        _ => found.push(format!("{path}: {old} became {new}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_an_earlier_version_gives_equal_answers() {
    for commit in commits() {
        let expected = expected(&commit);
        let dir = unpacked(&commit);
        let clock = Arc::new(ManualClock::new(moment(&expected)));
        // Once more: what this version wrote meanwhile is read as well.
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

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Frames of an earlier version make a gate of this one answer as that version's gates did; a frame
/// of a version that is not known yet is refused by its number.
#[test]
fn the_feed_of_an_earlier_version_is_applied() {
    for commit in commits() {
        let expected = expected(&commit);
        let catalog: Catalog =
            serde_json::from_value(expected["get"]["/v1/catalog"].clone()).unwrap();
        let gate = Gate::new(catalog, std::time::Duration::from_secs(60));
        let frames = expected["feed_frames"].as_array().unwrap();
        for frame in frames {
            let frame = Frame::decode(&bytes(frame.as_str().unwrap())).unwrap();
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

/// The records of the log, which Kafka has the same: events of all kinds.
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
