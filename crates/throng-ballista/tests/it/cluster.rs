//! What runs on a cluster, what happens when a part of it dies, and who may use it.

use std::collections::BTreeMap;
use std::time::Duration;

use throng_lake::{KeyBatch, Lake, LakeError, Model};
use throng_model::{HashSeed, Retry, UserHash, with_causes};

use crate::{Cluster, files};

pub(crate) const SEED: HashSeed = HashSeed(7);

/// How often a model returns each user.
type Found = BTreeMap<UserHash, usize>;

pub(crate) async fn users(lake: &Lake, sql: &str) -> Result<Found, LakeError> {
    let model = Model { sql: sql.to_owned(), key: None, source: None, parameters: Vec::new() };
    let mut found = Found::new();
    for part in lake.plan_scan(&model, &[]).await?.1 {
        let mut sink = |batch: KeyBatch| {
            batch.hashes.into_iter().for_each(|hash| *found.entry(hash).or_default() += 1);
            Ok(())
        };
        lake.scan(&model, &part, SEED, &mut sink).await?;
    }
    Ok(found)
}

pub(crate) const JOIN: &str = "SELECT o.who FROM shop.orders o JOIN shop.users u ON o.who = u.id
     JOIN shop.visits v ON v.who = o.who WHERE u.region <> 'east' AND v.n > 100 AND o.amount > 3";

/// Models that are not divided into parts.
pub(crate) const MODELS: [&str; 9] = [
    JOIN,
    "SELECT who FROM (SELECT who, row_number() OVER (PARTITION BY who ORDER BY amount DESC, id) AS place
     FROM shop.orders) WHERE place = 2",
    "SELECT who FROM shop.orders GROUP BY who HAVING count(DISTINCT amount) >= 3",
    "SELECT id FROM shop.users WHERE id NOT IN (SELECT who FROM shop.visits)",
    "SELECT who FROM shop.visits WHERE n > (SELECT avg(amount) FROM shop.orders)",
    "SELECT o.who FROM shop.orders o LEFT JOIN shop.visits v ON o.who = v.who WHERE v.who IS NULL",
    "SELECT who FROM shop.orders WHERE amount > 90 UNION SELECT who FROM shop.visits WHERE old = 1",
    "SELECT id FROM shop.users ORDER BY id LIMIT 17",
    "SELECT o.who FROM shop.orders o JOIN shop.visits v ON o.who = v.who GROUP BY o.who HAVING count(*) > 3",
];

#[tokio::test]
async fn a_cluster_finds_the_users_that_one_process_finds() {
    let mut cluster = Cluster::new();
    files::write(&cluster).await;
    cluster.start(2);
    let (alone, distributed) = (cluster.lake(), cluster.distributed());
    for sql in MODELS {
        let expected = users(&alone, sql).await.unwrap();
        assert!(!expected.is_empty(), "{sql}");
        assert_eq!(users(&distributed, sql).await.unwrap(), expected, "{sql}");
    }
    assert!((0..2).any(|executor| cluster.has_output(executor)), "no query ran on the cluster");
}

#[tokio::test]
async fn rows_that_are_evaluated_by_themselves_stay_on_this_machine() {
    let mut cluster = Cluster::new();
    files::write(&cluster).await;
    cluster.start(1);
    let distributed = cluster.distributed();
    for sql in [
        "SELECT who FROM shop.orders WHERE amount > 90",
        "SELECT id FROM shop.users WHERE region = 'north'",
        "SELECT who FROM shop.orders GROUP BY who HAVING count(*) >= 2",
    ] {
        assert!(!users(&distributed, sql).await.unwrap().is_empty(), "{sql}");
    }
    assert!(!cluster.has_output(0));
    // A query that cannot be sent runs here too.
    let recursive = "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 9)
         SELECT 'u' || n AS who FROM r";
    assert_eq!(users(&distributed, recursive).await.unwrap().len(), 9);
}

#[tokio::test]
async fn the_loss_of_an_executor_changes_no_result() {
    let mut cluster = Cluster::new();
    files::write(&cluster).await;
    cluster.start(2);
    let expected = users(&cluster.lake(), JOIN).await.unwrap();
    let distributed = cluster.distributed();
    let query = tokio::spawn(async move {
        let first = users(&distributed, JOIN).await;
        (first, distributed)
    });
    // It is killed when it has written something that others may need.
    while !query.is_finished() && !cluster.has_output(0) {
        tokio::task::yield_now().await;
    }
    cluster.executors[0].kill();
    let (first, distributed) = query.await.unwrap();
    match first {
        Ok(found) => assert_eq!(found, expected),
        // The result itself was lost with it: a refresh tries the part again.
        Err(error) => assert_eq!(error.retry(), Retry::Backoff, "{}", with_causes(&error)),
    }
    assert_eq!(users(&distributed, JOIN).await.unwrap(), expected);
}

#[tokio::test]
async fn errors_of_tasks_have_no_values() {
    let mut cluster = Cluster::new();
    files::write(&cluster).await;
    cluster.start(1);
    let sql = "SELECT o.who FROM shop.orders o JOIN shop.users u ON o.id = CAST(u.note AS BIGINT)";
    let error = users(&cluster.distributed(), sql).await.unwrap_err();
    let words = with_causes(&error);
    assert!(!words.contains("zoe"), "{words}");
    assert!(words.contains("cannot be converted"), "{words}");
    assert!(error.help().unwrap().contains("TRY_CAST"), "{words}");
}

#[tokio::test]
async fn integers_do_not_wrap_around_on_executors() {
    let mut cluster = Cluster::new();
    files::write(&cluster).await;
    cluster.start(1);
    let distributed = cluster.distributed();
    let sum = |of: &str| {
        format!(
            "SELECT who FROM (SELECT o.who, sum({of}) AS s FROM shop.orders o
             JOIN shop.visits v ON o.who = v.who GROUP BY o.who) WHERE s > 0"
        )
    };
    for of in ["o.amount * 9000000000000000000", "o.amount + 9000000000000000000"] {
        let error = users(&distributed, &sum(of)).await.unwrap_err();
        let words = with_causes(&error);
        assert!(words.contains("Arithmetic overflow"), "{of}: {words}");
    }
    let expected = users(&cluster.lake(), &sum("o.amount * o.id - 1")).await.unwrap();
    assert!(!expected.is_empty());
    assert_eq!(users(&distributed, &sum("o.amount * o.id - 1")).await.unwrap(), expected);
    assert!(cluster.has_output(0), "no query ran on the cluster");
}

#[tokio::test]
async fn a_query_whose_node_has_gone_ends() {
    let mut cluster = Cluster::new();
    files::write(&cluster).await;
    cluster.start(1);
    let distributed = cluster.distributed();
    // Never ends.
    let endless = "SELECT a.who FROM shop.orders a, shop.orders b, shop.orders c, shop.orders d
         WHERE a.amount + b.amount + c.amount + d.amount = -1";
    let on_cluster = distributed.clone();
    let query = tokio::spawn(async move { users(&on_cluster, endless).await });
    while !query.is_finished() && !cluster.has_output(0) {
        tokio::task::yield_now().await;
    }
    query.abort();
    // The only core of the only executor is free again.
    let next = users(&distributed, "SELECT id FROM shop.users ORDER BY id LIMIT 17");
    let next = tokio::time::timeout(Duration::from_secs(300), next).await;
    assert_eq!(next.unwrap().unwrap().len(), 17);
}

#[tokio::test]
async fn only_processes_with_certificates_of_the_cluster_use_it() {
    let mut cluster = Cluster::encrypted();
    files::write(&cluster).await;
    cluster.start(2);
    let expected = users(&cluster.lake(), JOIN).await.unwrap();
    assert_eq!(users(&cluster.distributed(), JOIN).await.unwrap(), expected);
    let others = cluster.certificates("others");
    for tls in [None, Some(others)] {
        let error = users(&cluster.distributed_with(tls.clone()), JOIN).await.unwrap_err();
        assert!(matches!(error, LakeError::Engine { .. }), "{tls:?}: {error:?}");
    }
}
