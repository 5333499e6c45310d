//! A file system becomes full while the node runs, and later has free space again.

use throng_sim::SmallDisk;

use super::{PRICE_MICROS, Running, Target, answers, built, impressions};
use crate::process::wait_for;

async fn problems(node: &Running) -> Vec<String> {
    let Ok(health) = node.health().await else { return Vec::new() };
    let problems = health["problems"].as_array().cloned().unwrap_or_default();
    problems.iter().filter_map(|problem| problem.as_str().map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_reported_and_events_are_refused_until_there_is_space() {
    let target = Target::new();
    let Some(disk) = SmallDisk::mount(&target.folder.path().join("disk"), 48) else { return };
    let data_dir = target.folder.path().join("disk/node");
    let node = target.start_in(&data_dir);
    built(&node).await;
    node.events(impressions("before", 0, 200)).await.expect("accepted");

    let ballast = disk.fill().expect("filled");
    // Acknowledged events count; refused ones are sent again later.
    let mut refused = None;
    let mut sent = 0;
    for batch in 0..2_000 {
        let events = impressions(&format!("full-{batch}"), 0, 100);
        match node.events(events).await {
            Ok(_) => sent = batch + 1,
            Err(why) => {
                assert!(why.contains("503"), "{why}");
                refused = Some(batch);
                break;
            }
        }
    }
    let refused = refused.expect("events are refused on a full disk");
    wait_for("the report", async || {
        let problems = problems(&node).await;
        let named = problems.iter().any(|p| p == "disk" || p == "ledger" || p == "log");
        if named { Ok(()) } else { Err(format!("{problems:?}")) }
    })
    .await;
    // Lookups do not write.
    let lookup = node.get("/v1/users/c0099/audiences").await.expect("lookups still work");
    assert_eq!(lookup["audiences"].as_array().map(Vec::len), Some(2));

    std::fs::remove_file(ballast).expect("removed");
    wait_for("a node that is ready again", async || {
        let health = node.health().await?;
        if health["ready"] == true && health["problems"] == serde_json::json!([]) {
            Ok(())
        } else {
            Err(health.to_string())
        }
    })
    .await;
    for batch in refused..refused + 5 {
        let events = impressions(&format!("full-{batch}"), 0, 100);
        node.events(events).await.expect("accepted again");
    }
    let expected = PRICE_MICROS * (200 + 100 * (i64::from(sent) + 5));
    let spends = async |node: &Running| {
        wait_for("the spend", async || {
            let answers = answers(node).await?;
            let spend = answers["spend"][0][1].as_i64();
            if spend == Some(expected) { Ok(()) } else { Err(format!("{spend:?}, not {expected}")) }
        })
        .await;
    };
    spends(&node).await;
    node.post("/v1/audiences/everybody/refresh?force=true", &serde_json::json!({}))
        .await
        .expect("queued");
    wait_for("a refresh after it", async || {
        let audience = node.get("/v1/audiences/everybody").await?;
        let version = audience["current"]["version"].as_u64();
        if version >= Some(2) { Ok(()) } else { Err(audience.to_string()) }
    })
    .await;
    node.kill();
    let node = target.start_in(&data_dir);
    spends(&node).await;
    drop(node);
}
