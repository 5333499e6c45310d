//! A backup of a node that takes events, restored to another folder: it has the exact spend, and the members
//! that the ledger names.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::{PRICE_MICROS, Target, answers, built, impressions, scale};
use crate::process::{output, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_node_under_load_is_exact() {
    let target = Target::new();
    let node = Arc::new(target.start());
    built(&node).await;
    let acknowledged = Arc::new(AtomicI64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let sending = {
        let (node, acknowledged, stop) =
            (Arc::clone(&node), Arc::clone(&acknowledged), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut batch = 0;
            while !stop.load(Ordering::Acquire) {
                node.events(impressions(&format!("b{batch}"), 0, 10)).await.expect("accepted");
                acknowledged.fetch_add(10, Ordering::AcqRel);
                batch += 1;
            }
        })
    };
    for round in 0..scale(2, 20) {
        wait_for("some events", async || {
            let sent = acknowledged.load(Ordering::Acquire);
            if sent > 50 { Ok(()) } else { Err(sent.to_string()) }
        })
        .await;
        node.post("/v1/audiences/everybody/refresh?force=true", &serde_json::json!({}))
            .await
            .expect("queued");
        let file = target.folder.path().join(format!("backup-{round}"));
        let before = acknowledged.load(Ordering::Acquire);
        let (data_dir, to) = (target.data_dir(), file.clone());
        let made = tokio::task::spawn_blocking(move || {
            output(&[
                "backup",
                "--json",
                "--dir",
                &data_dir.to_string_lossy(),
                "--to",
                &to.to_string_lossy(),
            ])
        })
        .await
        .expect("ran");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let after = acknowledged.load(Ordering::Acquire) + 10;

        let restored = target.folder.path().join(format!("restored-{round}"));
        let done = output(&[
            "restore",
            "--json",
            "--from",
            &file.to_string_lossy(),
            "--dir",
            &restored.to_string_lossy(),
        ]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let other = target.start_in(&restored);
        built(&other).await;
        let spend =
            answers(&other).await.expect("answers")["spend"][0][1].as_i64().expect("micros");
        assert_eq!(spend % PRICE_MICROS, 0, "a part of an event");
        let events = spend / PRICE_MICROS;
        assert!((before..=after).contains(&events), "{events} events, not {before} to {after}");
        assert!(other.terminate(), "a clean end");
    }
    stop.store(true, Ordering::Release);
    sending.await.expect("sent");
}
