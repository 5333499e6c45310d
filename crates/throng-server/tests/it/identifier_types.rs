//! A sync whose identifiers have another type than those that it has delivered.

use throng_store::{AlertKind, RunState};

use crate::activation::{Shop, recorded, refresh, settled};
use crate::{Client, until};

#[tokio::test(flavor = "multi_thread")]
async fn identifiers_by_keys_of_another_type_are_refused_and_the_list_stays() {
    let shop = Shop::new().await;
    let write = |name: &str, text: &str| {
        let temporary = shop.dir.path().join("aside");
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(temporary, shop.dir.path().join("data").join(name)).unwrap();
    };
    let customers = std::fs::read_to_string(shop.dir.path().join("data/customers.csv")).unwrap();
    shop.buyers(2..6);
    let node = shop.node().await;
    settled(&node, "first", |r| r.state == RunState::Completed).await;
    recorded(&node).await;
    let ledger = &node.context().ledger;
    assert!(ledger.delivered_records().await.unwrap()[0].tables.is_some());

    // The same SQL finds no member by these keys: all of them would be removed, or sent as other people.
    write("customers.csv", &customers.replace("\nc", "\n"));
    shop.buyers(2..8);
    refresh(&Client::of(&node)).await;
    until("the identifiers are refused", async || {
        let alert = ledger.open_alert(AlertKind::TaskFailed, "buyers-on-meta").await.unwrap();
        let words = [
            "column customer is Int64 in",
            "customers.csv",
            "was text",
            "columns: { customer: text }",
        ];
        alert.is_some_and(|message| words.iter().all(|word| message.contains(word)))
    })
    .await;
    assert_eq!(ledger.runs(None, 9).await.unwrap().len(), 1, "no run was planned");
    assert!(shop.holds(2..6));
    node.shutdown().await;

    write("customers.csv", &customers);
    let node = shop.node().await;
    settled(&node, "correction", |r| r.to_version == 2 && r.state == RunState::Completed).await;
    assert!(shop.holds(2..8));
    node.shutdown().await;
}
