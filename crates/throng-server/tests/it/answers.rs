//! Events are answered alike whichever log they are in: one test body, on a single node and on a node with
//! shared backends.

use serde_json::{Value, json};
use throng_server::Node;
use throng_spec::Role;

use crate::shared::Deployment;
use crate::{Client, SPEC, noon, spec, start, until};

/// Six events, of which the node that aggregates them counts three.
fn batch(at: &str, number: u32) -> String {
    let line = |id: &str, kind: &str, ad_group: &str, insertion: &str| {
        let (id, insertion) = (format!("{id}-{number}"), format!("{insertion}-{number}"));
        let event = json!({
            "id": id, "kind": kind, "ad_group": ad_group, "insertion_id": insertion, "at": at,
        });
        format!("{event}\n")
    };
    [
        line("i", "insertion", "shoes", "n"),
        line("m", "impression", "shoes", "n"),
        line("second", "impression", "shoes", "n"),
        line("m", "impression", "shoes", "n"),
        line("c", "click", "hats", "h"),
        line("x", "click", "boots", "b"),
    ]
    .concat()
}

async fn actual(client: &Client, ad_group: &str) -> Value {
    client.get(&format!("/v1/budgets/{ad_group}")).await["state"]["actual_micros"].clone()
}

async fn answers_say_what_became_of_events(node: &Node) {
    let client = Client::of(node);
    until("it leads every partition", async || {
        node.context().budgets.led_partitions() == [0, 1, 2, 3]
    })
    .await;
    let at = node.context().clock.now().to_string();
    // A leader that is slow for a moment answers before it has applied the events. They count all the same.
    let (mut sent, mut answer) = (0, Value::Null);
    until("an answer has what became of the events", async || {
        answer = client.events(batch(&at, sent)).await;
        sent += 1;
        answer["duplicates"] != json!(0)
    })
    .await;
    let counts = ["accepted", "duplicates", "repeated", "rejected_count"];
    let of = |answer: &Value| counts.map(|count| answer[count].as_u64().unwrap());
    assert_eq!(of(&answer), [3, 1, 1, 1], "{answer}");
    let rejected = &answer["rejected"][0];
    assert_eq!((&rejected["line"], &rejected["field"]), (&json!(6), &json!("ad_group")));
    let positions = answer["positions"].as_object().unwrap();
    assert!(!positions.is_empty() && positions.values().all(|end| end.as_u64() > Some(0)));
    until("the same events are duplicates", async || {
        answer = client.events(batch(&at, 0)).await;
        // Those of both ad groups, whose partitions are applied independently.
        answer["duplicates"] == json!(5)
    })
    .await;
    assert_eq!(of(&answer), [0, 5, 0, 1], "{answer}");
    let spent = i64::from(sent) * 100_000;
    until("each batch counts once", async || {
        (actual(&client, "shoes").await, actual(&client, "hats").await)
            == (json!(spent), json!(20 * spent))
    })
    .await;
    // Nothing of a request counts, and the answer has the same form.
    let boots = batch(&at, 0).lines().last().unwrap().to_owned();
    let answer = client.events(boots).await;
    assert_eq!(of(&answer), [0, 0, 0, 1], "{answer}");
    assert_eq!(
        (&answer["error"]["code"], &answer["positions"]),
        (&json!("no_event_counts"), &json!({}))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_says_what_became_of_events() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), spec(SPEC), &noon()).await.unwrap();
    answers_say_what_became_of_events(&node).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_shared_backends_says_what_became_of_events() {
    let deployment = Deployment::new();
    let node = deployment.node("node", &Role::ALL).await;
    answers_say_what_became_of_events(&node).await;
    node.shutdown().await;
}
