//! A lookup node whose bucket is unavailable, or whose local copies are damaged.

use std::path::{Path, PathBuf};

use serde_json::json;
use throng_spec::Role;

use crate::shared::{Deployment, lookup, setting};
use crate::{Client, until};

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_bucket_a_node_serves_what_it_served_last() {
    let deployment = Deployment::new();
    let builder = deployment.node("builder", &[Role::Api, Role::Schedule, Role::Build]).await;
    let lookups = deployment.start("lookups", &[Role::Lookup], true).await.unwrap();
    until("both audiences are served", async || {
        lookup(&Client::of(&lookups), "c60").await == ["big", "buyers"]
    })
    .await;
    lookups.shutdown().await;

    // While it is down, another version is published, with users that it does not have.
    deployment.purchases(0..120);
    let client = Client::of(&builder);
    let (status, _) = client.post("/v1/audiences/buyers/refresh", &json!({})).await;
    assert_eq!(status, 200);
    until("the new version is served", async || lookup(&client, "c110").await == ["buyers"]).await;

    let file = deployment.path().join("throng.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let unreachable = text.replace(&setting("THRONG_S3"), "http://127.0.0.1:1");
    assert_ne!(text, unreachable);
    std::fs::write(&file, unreachable).unwrap();
    let lookups = deployment.start("lookups", &[Role::Lookup], true).await.unwrap();
    let client = Client::of(&lookups);
    assert_eq!(lookup(&client, "c60").await, ["big", "buyers"]);
    assert_eq!(lookup(&client, "c110").await, [] as [&str; 0], "it serves the previous version");
    let health = client.get("/v1/node/health").await;
    assert_eq!(health["snapshots"], json!({ "big": 1, "buyers": 1 }));
    lookups.shutdown().await;

    // With the bucket it serves the new version; a copy that was damaged meanwhile is downloaded
    // again.
    std::fs::write(&file, text).unwrap();
    let objects = deployment.path().join("lookups/objects");
    let copies = [files(&objects.join("snapshots")), files(&objects.join("dictionary"))].concat();
    assert!(copies.len() > 2, "{copies:?}");
    for copy in &copies {
        let mut bytes = std::fs::read(copy).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        // It is read-only.
        std::fs::remove_file(copy).unwrap();
        std::fs::write(copy, bytes).unwrap();
    }
    let lookups = deployment.start("lookups", &[Role::Lookup], true).await.unwrap();
    let client = Client::of(&lookups);
    until("the damaged copies are replaced", async || {
        lookup(&client, "c60").await == ["big", "buyers"]
            && lookup(&client, "c110").await == ["buyers"]
    })
    .await;
    lookups.shutdown().await;
    builder.shutdown().await;
}
