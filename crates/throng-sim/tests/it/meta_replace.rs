//! Replacing all people of an audience in a session.

use std::time::Duration;

use serde_json::{Value, json};
use throng_sim::meta::{FaultKind, FaultRule, FaultScript, MetaSimConfig};

use crate::{Meta, batch, email, emails};

const MINUTE: Duration = Duration::from_secs(60);

async fn status(meta: &Meta, id: &str) -> Value {
    let body = meta.get(&format!("{id}?fields=operation_status")).await.body;
    body["operation_status"]["code"].clone()
}

#[tokio::test]
async fn a_session_replaces_everybody() {
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    meta.add(&id, 0..50).await;
    let replace = format!("{id}/usersreplace");
    let first = meta.post(&replace, batch(100..110, 9, 1, false)).await;
    assert_eq!(
        first.body,
        json!({"audience_id": id, "session_id": "9", "num_received": 10,
            "num_invalid_entries": 0, "invalid_entry_samples": {}, "account_id": 1})
    );
    assert_eq!((status(&meta, &id).await, meta.count(&id)), (json!(414), 50));
    for method in ["POST", "DELETE"] {
        let mut body = emails(0..1);
        body["method"] = json!(method);
        let refused = meta.post(&format!("{id}/users"), body).await;
        assert_eq!(refused.code(), (2650, 1_870_145), "{method}");
        assert_eq!(refused.body["error"]["error_user_title"], "Audience Update In Progress");
    }
    for (people, seq, last) in [(130..140, 4, false), (110..120, 2, false), (110..120, 2, false)] {
        assert_eq!(meta.post(&replace, batch(people, 9, seq, last)).await.status, 200);
    }
    let last = meta.post(&replace, batch(120..130, 9, 3, true)).await;
    assert_eq!(last.body["num_received"], 50);
    let mut expected: Vec<String> = (100..140).map(email).collect();
    expected.sort();
    assert_eq!(meta.sim.members(&id).unwrap(), expected);
    assert_eq!(status(&meta, &id).await, 200);
}

#[tokio::test]
async fn every_rule_has_its_subcode() {
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    let replace = format!("{id}/usersreplace");
    let send = async |session: u64, seq: u64, last: bool| {
        meta.post(&replace, batch(0..1, session, seq, last)).await.code()
    };
    assert_eq!(send(1, 2, false).await, (2650, 1_870_147), "the first batch is number 1");
    assert_eq!(send(1, 1, false).await, (0, 0));
    assert_eq!(send(2, 1, false).await, (2650, 1_870_145), "one replace at a time");
    assert_eq!(send(1, 5, true).await, (0, 0));
    assert_eq!(
        send(1, 5, true).await,
        (2650, 1_870_159),
        "no batch is accepted after the last one"
    );
    assert_eq!(send(3, 1, false).await, (0, 0));
    meta.clock.advance(90 * MINUTE);
    assert_eq!(send(3, 2, true).await, (2650, 1_870_158), "a session lasts 90 minutes");
    assert_eq!(send(4, 1, true).await, (0, 0));
}

#[tokio::test]
async fn payload_and_session_are_required() {
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    let replace = format!("{id}/usersreplace");
    let mut no_payload = batch(0..1, 1, 1, true);
    no_payload.as_object_mut().unwrap().remove("payload");
    for body in [emails(0..1), no_payload] {
        assert_eq!(meta.post(&replace, body).await.code().0, 100);
    }
    for field in ["session_id", "batch_seq"] {
        let mut body = batch(0..1, 1, 1, true);
        body["session"].as_object_mut().unwrap().remove(field);
        assert_eq!(meta.post(&replace, body).await.code().0, 100, "{field}");
    }
    meta.post(&replace, batch(0..1, 1, 1, false)).await;
    let mut other_schema = batch(0..1, 1, 2, true);
    other_schema["payload"]["schema"] = json!(["PHONE"]);
    assert_eq!(meta.post(&replace, other_schema).await.code().0, 100);
}

#[tokio::test]
async fn a_session_id_belongs_to_one_audience_of_the_account() {
    let meta = Meta::plain().await;
    let (a, b) = (meta.audience("a").await, meta.audience("b").await);
    assert_eq!(meta.post(&format!("{a}/usersreplace"), batch(0..1, 7, 1, true)).await.status, 200);
    let reply = meta.post(&format!("{b}/usersreplace"), batch(0..1, 7, 1, true)).await;
    assert_eq!(reply.code().0, 100);
    assert_eq!(meta.count(&b), 0);
}

#[tokio::test]
async fn an_unfinished_replace_is_applied_after_90_minutes() {
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    meta.add(&id, 0..50).await;
    meta.post(&format!("{id}/usersreplace"), batch(0..10, 1, 1, false)).await;
    meta.clock.advance(89 * MINUTE);
    assert_eq!((meta.count(&id), status(&meta, &id).await), (50, json!(414)));
    meta.clock.advance(MINUTE);
    assert_eq!((meta.count(&id), status(&meta, &id).await), (10, json!(200)));
}

#[tokio::test]
async fn repeating_the_first_batch_starts_the_session_over() {
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    let replace = format!("{id}/usersreplace");
    for (people, seq) in [(0..10, 1), (10..20, 2), (0..10, 1)] {
        meta.post(&replace, batch(people, 1, seq, false)).await;
    }
    let last = meta.post(&replace, batch(30..31, 1, 2, true)).await;
    assert_eq!((&last.body["num_received"], meta.count(&id)), (&json!(11), 11));
}

#[tokio::test]
async fn a_replace_waits_for_the_audience_to_settle() {
    let config = MetaSimConfig { processing_delay: 10 * MINUTE, ..MetaSimConfig::default() };
    let meta = Meta::start(config).await;
    let id = meta.audience("a").await;
    let replace = format!("{id}/usersreplace");
    meta.add(&id, 0..5).await;
    assert_eq!(meta.post(&replace, batch(0..1, 1, 1, true)).await.code(), (2650, 1_870_145));
    meta.clock.advance(10 * MINUTE);
    assert_eq!(meta.post(&replace, batch(0..1, 1, 1, true)).await.code(), (0, 0));
    assert_eq!(status(&meta, &id).await, 414);
    meta.clock.advance(10 * MINUTE);
    assert_eq!(status(&meta, &id).await, 200);
}

#[tokio::test]
async fn large_audiences_cannot_be_replaced() {
    let config = MetaSimConfig { replace_below_members: 5, ..MetaSimConfig::default() };
    let meta = Meta::start(config).await;
    let id = meta.audience("a").await;
    meta.add(&id, 0..5).await;
    let reply = meta.post(&format!("{id}/usersreplace"), batch(0..1, 1, 1, true)).await;
    assert_eq!(reply.code(), (2650, 1_870_144));
}

#[tokio::test]
async fn a_replace_may_fail_at_its_end() {
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    meta.add(&id, 0..5).await;
    let rule = FaultRule::new(FaultKind::ReplaceFails).times(1);
    meta.sim.set_faults(FaultScript::new(1, [rule.on_call("replace_users")])).unwrap();
    let replace = format!("{id}/usersreplace");
    assert_eq!(meta.post(&replace, batch(7..8, 1, 1, true)).await.code(), (2650, 1_870_148));
    assert_eq!((meta.count(&id), status(&meta, &id).await), (5, json!(415)));
    assert_eq!(meta.post(&replace, batch(7..8, 2, 1, true)).await.code(), (0, 0));
    assert_eq!((meta.count(&id), status(&meta, &id).await), (1, json!(200)));
}
