//! A serving store of a node: published versions are written, and operators read, repair and empty it over HTTP.

use serde_json::{Value, json};
use throng_model::{HashSeed, UserKey};

use crate::shared::setting;
use crate::{Client, sent_file, start, until};

/// The spec, with these stores.
fn spec(stores: &str) -> String {
    format!(
        "version: 1\nsources:\n  - {{ name: shop, path: data }}\naudiences:\n  - {{ name: buyers, sql: \"SELECT \
         customer FROM shop.purchases\", guard: {{ max_shrink_percent: 100 }} }}\n  - {{ name: visitors, sql: \
         \"SELECT customer FROM shop.purchases\" }}\n{stores}"
    )
}

fn store(url: &str, audiences: &str) -> String {
    format!(
        "serving_stores:\n  - {{ name: cache, type: redis, url: \"{url}/40\", prefix: \"node:\", audiences: {audiences} }}\n"
    )
}

/// What the store has of an audience: version and state of the newest write, and the sum of its check.
async fn of_audience(client: &Client, name: &str) -> Option<(Value, Value, Option<u64>)> {
    let list = client.get("/v1/stores").await;
    let audiences = list["stores"][0]["audiences"].as_array()?;
    let found = audiences.iter().find(|audience| audience["audience"] == name)?;
    let check = &found["write"]["check"];
    let differences =
        check["missing"].as_u64().zip(check["unexpected"].as_u64()).map(|(a, b)| a + b);
    Some((found["store_version"].clone(), found["write"]["state"].clone(), differences))
}

async fn unknown_names_are_not_found(client: &Client) {
    let wrong = [
        ("/v1/stores/cash/rewrite", json!({})),
        ("/v1/stores/cache/rewrite", json!({ "audience": "byers" })),
        ("/v1/stores/cache/audiences/byers/remove", json!({})),
    ];
    for (path, body) in wrong {
        assert_eq!(client.post(path, &body).await.0, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn published_versions_are_in_the_store() {
    let (dir, url) = (tempfile::tempdir().unwrap(), setting("THRONG_REDIS"));
    let file = dir.path().join("throng.yaml");
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let purchases = |customers: &[&str]| {
        let text = format!("customer\n{}\n", customers.join("\n"));
        let aside = dir.path().join("aside");
        std::fs::write(&aside, text).unwrap();
        std::fs::rename(aside, dir.path().join("data/purchases.csv")).unwrap();
    };
    let server = redis::Client::open(format!("{url}/40")).unwrap();
    let mut server = server.get_connection().unwrap();
    redis::cmd("FLUSHDB").exec(&mut server).unwrap();
    purchases(&["ann", "bob", "cem"]);
    std::fs::write(&file, spec(&store(&url, "all"))).unwrap();
    let clock = crate::noon();
    let loaded = throng_spec::load(&file).unwrap();
    let node = start(&dir.path().join("node"), loaded, &clock).await.unwrap();
    let client = Client::of(&node);
    let written = async |name: &str, version: u64| {
        of_audience(&client, name).await == Some((json!(version), json!("done"), Some(0)))
    };
    until("both are written and checked", async || {
        written("buyers", 1).await && written("visitors", 1).await
    })
    .await;

    // An ad server hashes its user with the seed, and reads the user's audiences.
    let seed = client.get("/v1/stores/hash-seed").await;
    let seed = u64::from_str_radix(seed["hash_seed"].as_str().unwrap(), 16).unwrap();
    let mut audiences = |user: &str| {
        let hash = UserKey::text(user).hash(HashSeed(seed)).0;
        let mut found: Vec<String> =
            redis::cmd("SMEMBERS").arg(format!("node:u:{hash:016x}")).query(&mut server).unwrap();
        found.sort();
        found
    };
    assert_eq!(audiences("ann"), ["buyers", "visitors"]);
    assert!(audiences("dan").is_empty());

    purchases(&["bob", "cem", "dan"]);
    assert_eq!(client.post("/v1/audiences/buyers/refresh", &json!({})).await.0, 200);
    until("version 2 is written", async || written("buyers", 2).await).await;
    assert_eq!(audiences("ann"), ["visitors"]);
    assert_eq!(audiences("dan"), ["buyers"]);
    let writes = client.get("/v1/stores/cache/writes").await;
    let newest = &writes["writes"][0];
    assert_eq!((&newest["added"], &newest["removed"]), (&json!(1), &json!(1)));
    assert_eq!((&newest["batches"], &newest["from_version"]), (&json!(1), &json!(1)));

    // A rewrite does not depend on what the store has.
    let other = redis::Client::open(format!("{url}/40")).unwrap();
    redis::cmd("FLUSHDB").exec(&mut other.get_connection().unwrap()).unwrap();
    let (status, body) = client.post("/v1/stores/cache/rewrite", &json!({})).await;
    assert_eq!((status, &body["writes"]), (200, &json!(2)), "{body}");
    until("both are written again", async || {
        written("buyers", 2).await && written("visitors", 1).await
    })
    .await;
    assert_eq!(audiences("ann"), ["visitors"]);
    unknown_names_are_not_found(&client).await;

    // An audience that the spec no longer has in the store stays until a person has it removed.
    let remove = "/v1/stores/cache/audiences/visitors/remove";
    assert_eq!(client.post(remove, &json!({})).await.0, 409);
    std::fs::write(&file, spec(&store(&url, "[buyers]"))).unwrap();
    let (status, body) = client.post("/v1/spec/apply", &sent_file(&file)).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(audiences("ann"), ["visitors"]);
    assert_eq!(client.post(remove, &json!({})).await.0, 200);
    until("it is removed", async || of_audience(&client, "visitors").await.is_none()).await;
    assert!(audiences("ann").is_empty());
    assert_eq!(audiences("bob"), ["buyers"]);
    node.shutdown().await;
}
