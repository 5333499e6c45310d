//! Queries stay within their memory: they spill, or fail with a hint.

use throng_lake::LakeError;

use crate::{Shop, model, scan};

/// A million rows of 300 thousand users.
async fn shop() -> Shop {
    let sql = "SELECT 'user-' || CAST((value * 7919) % 300000 AS VARCHAR) AS id, value AS n
        FROM generate_series(1, 1000000)";
    Shop::new().query("big.parquet", "PARQUET", sql).await
}

const GROUPS: &str = "SELECT id FROM shop.big GROUP BY id HAVING count(*) >= 3 AND sum(n) > 0";

#[tokio::test]
async fn what_does_not_fit_is_spilled() {
    let shop = shop().await;
    let part = throng_lake::ScanPart::default();
    let (enough, _) = scan(&shop.lake(), &model(GROUPS), &part).await.unwrap();
    let (little, _) = scan(&shop.lake_with(16 << 20), &model(GROUPS), &part).await.unwrap();
    assert_eq!(little.len(), 300_000);
    let sorted = |mut hashes: Vec<throng_model::UserHash>| {
        hashes.sort_unstable();
        hashes
    };
    assert_eq!(sorted(enough), sorted(little));
}

#[tokio::test]
async fn too_little_memory_is_an_error_with_a_hint() {
    let shop = shop().await;
    let part = throng_lake::ScanPart::default();
    let error = scan(&shop.lake_with(64 << 10), &model(GROUPS), &part).await.unwrap_err();
    assert!(matches!(error, LakeError::OutOfMemory { .. }), "{error:?}");
    assert!(error.help().unwrap().contains("memory_limit_bytes"));
}
