//! Adding and removing people.

use reqwest::Method;
use serde_json::{Value, json};
use throng_sim::meta::MetaSimConfig;

use crate::{Meta, batch, email, emails, hash};

fn rows(schema: &[&str], data: Value) -> Value {
    json!({"payload": {"schema": schema, "data": data}})
}

#[tokio::test]
async fn responses_equal_the_recorded_ones() {
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    let (mail, zip) = (hash("user3@demo.com"), hash("71711"));
    let body = rows(
        &["EMAIL", "EXTERN_ID", "ZIP"],
        json!([[mail, "", zip], [email(1), "customer-1", ""]]),
    );
    let reply = meta.post(&format!("{id}/users"), body).await;
    assert_eq!(reply.status, 200);
    let session = reply.body["session_id"].as_str().unwrap();
    assert!(session.parse::<u64>().is_ok(), "{session}");
    assert_eq!(
        reply.body,
        json!({"audience_id": id, "session_id": session, "num_received": 2,
            "num_invalid_entries": 1,
            "invalid_entry_samples": {format!("[\"{mail}\",\"\",\"{zip}\"]"): "empty external ID"}})
    );
    assert_eq!(meta.sim.members(&id).unwrap(), ["customer-1"]);
    let member = &meta.sim.member_rows(&id).unwrap()[0];
    assert_eq!(member["EMAIL"], email(1));
    assert_eq!(member.get("ZIP"), None);
}

#[tokio::test]
async fn implicit_sessions_are_not_unique() {
    let meta = Meta::plain().await;
    let (a, b) = (meta.audience("a").await, meta.audience("b").await);
    let session = async |method: Method, id: &str, schema: &[&str]| {
        let cells: Vec<String> = schema.iter().map(|key| hash(key)).collect();
        let call = meta.call(method, &format!("{id}/users")).json(&rows(schema, json!([cells])));
        meta.send(call).await.body["session_id"].clone()
    };
    let first = session(Method::POST, &a, &["EMAIL"]).await;
    assert_eq!(session(Method::POST, &b, &["EMAIL"]).await, first);
    assert_ne!(session(Method::POST, &a, &["EMAIL", "FN"]).await, first);
    assert_ne!(session(Method::DELETE, &a, &["EMAIL"]).await, first);
}

#[tokio::test]
async fn counts_add_up_over_a_session() {
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    let users = format!("{id}/users");
    for (people, seq, last, received) in [(0..10, 1, false, 10), (10..15, 2, true, 15)] {
        let reply = meta.post(&users, batch(people, 77, seq, last)).await.body;
        assert_eq!(
            (&reply["num_received"], &reply["session_id"]),
            (&json!(received), &json!("77"))
        );
    }
    assert_eq!(meta.post(&users, emails(0..3)).await.body["num_received"], 3);
    let sessions = meta.get(&format!("{id}/sessions?session_id=77")).await.body;
    assert_eq!(
        sessions,
        json!({"data": [{"session_id": "77", "start_time": "1800000000", "end_time": "1800000000",
            "num_received": "15", "num_matched": "15", "num_invalid_entries": "0",
            "progress": "100", "stage": "finished"}]})
    );
    meta.post(&users, batch(20..21, 78, 1, false)).await;
    let sessions = meta.get(&format!("{id}/sessions")).await.body;
    assert_eq!(sessions["data"][0]["stage"], "uploading");
    assert_eq!(sessions["data"].as_array().map(Vec::len), Some(2));
    let mut wrong = emails(0..1);
    wrong["session"] = json!({"session_id": -1, "batch_seq": 1});
    assert_eq!(meta.post(&users, wrong).await.code().0, 100);
}

#[tokio::test]
async fn at_most_ten_thousand_rows() {
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    meta.add(&id, 0..10_000).await;
    let reply = meta.post(&format!("{id}/users"), emails(10_000..20_001)).await;
    assert_eq!(reply.code(), (1, 99));
    assert_eq!(reply.body["error"]["message"], "An unknown error occurred");
    assert_eq!(meta.count(&id), 10_000);
    assert_eq!(meta.sim.requests().calls["add_users"].max_rows, 10_001);
}

#[tokio::test]
async fn a_bad_payload_changes_nothing() {
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    let mail = email(1);
    for body in [
        json!({}),
        json!({"payload": "text"}),
        rows(&["EMAIL", "PHONE"], json!([[mail, ""], [mail]])),
        rows(&["EMAIL"], json!([mail])),
        rows(&["FAX"], json!([[mail]])),
        rows(&["EMAIL"], json!([])),
    ] {
        let shown = body.to_string();
        let reply = meta.post(&format!("{id}/users"), body).await;
        assert_eq!((reply.status, reply.code().0), (400, 100), "{shown}");
    }
    let reply = meta.post(&format!("{id}/users"), rows(&["EMAIL"], json!([[mail, mail]]))).await;
    assert_eq!(reply.body["error"]["message"], "(#100) Data is missing or does not match schema:");
    let call = meta.call(Method::POST, &format!("{id}/users"));
    let broken = call.header("content-type", "application/json").body("{\"payload\":");
    assert_eq!(meta.send(broken).await.code().0, 100);
    assert_eq!(meta.count(&id), 0);
}

#[tokio::test]
async fn samples_are_at_most_a_hundred_and_counts_are_not() {
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    let mut data: Vec<Value> = (0..150).map(|n| json!([format!("user{n}@example.com")])).collect();
    data.push(json!([email(1).to_uppercase()]));
    data.push(json!([""]));
    data.push(json!([email(1)]));
    let reply = meta.post(&format!("{id}/users"), rows(&["EMAIL"], json!(data))).await.body;
    assert_eq!((&reply["num_received"], &reply["num_invalid_entries"]), (&json!(153), &json!(152)));
    let samples = reply["invalid_entry_samples"].as_object().unwrap();
    assert_eq!(samples.len(), 100);
    assert_eq!(samples["[\"user0@example.com\"]"], "invalid hash in EMAIL");
    assert_eq!(meta.count(&id), 1);
    assert_eq!(meta.sim.requests().unhashed_cells, 151);
}

#[tokio::test]
async fn people_are_removed_by_body_query_and_post() {
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    meta.add(&id, 0..10).await;
    let users = format!("{id}/users");
    assert_eq!(meta.delete(&users, emails(0..2)).await.body["num_received"], 2);
    assert_eq!(meta.count(&id), 8);
    let call = meta.call_with_payload(Method::DELETE, &users, 2..4);
    assert_eq!(meta.send(call).await.body["num_received"], 2);
    assert_eq!(meta.count(&id), 6);
    let mut body = emails(4..6);
    body["method"] = json!("delete");
    assert_eq!(meta.post(&users, body).await.status, 200);
    assert_eq!(meta.count(&id), 4);
    let form = format!("method=DELETE&payload={}", emails(6..7)["payload"]);
    let call = meta.call(Method::POST, &users);
    let call = call.header("content-type", "application/x-www-form-urlencoded").body(form);
    assert_eq!(meta.send(call).await.status, 200);
    assert_eq!(meta.count(&id), 3);
    let again = meta.delete(&users, emails(0..6)).await;
    assert_eq!((again.status, &again.body["num_invalid_entries"]), (200, &json!(0)));
    assert_eq!(meta.sim.requests().calls["remove_users"].applied, 5);
}

#[tokio::test]
async fn a_removal_may_name_a_subset_of_the_keys() {
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    let users = format!("{id}/users");
    let phone = |n: u32| hash(&format!("1555000{n:04}"));
    let data = json!([[email(1), phone(1)], [email(2), phone(2)], [email(3), ""], ["", phone(4)]]);
    meta.post(&users, rows(&["EMAIL", "PHONE"], data)).await;
    assert_eq!(meta.count(&id), 4);
    meta.delete(&users, rows(&["EMAIL"], json!([[email(1)]]))).await;
    assert_eq!(meta.count(&id), 3);
    let contradicting = json!([[email(2), phone(9)]]);
    meta.delete(&users, rows(&["EMAIL", "PHONE"], contradicting)).await;
    assert_eq!(meta.count(&id), 3);
    meta.delete(&users, rows(&["EMAIL", "PHONE"], json!([["", phone(2)], [email(3), ""]]))).await;
    assert_eq!(meta.sim.members(&id).unwrap(), [phone(4)]);
}

#[tokio::test]
async fn an_external_id_identifies_a_member() {
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    let users = format!("{id}/users");
    let schema = ["EXTERN_ID", "EMAIL"];
    meta.post(&users, rows(&schema, json!([["1", email(1)], ["2", email(2)]]))).await;
    meta.post(&users, rows(&schema, json!([["1", email(9)]]))).await;
    assert_eq!(meta.sim.members(&id).unwrap(), ["1", "2"]);
    assert_eq!(meta.sim.member_rows(&id).unwrap()[0]["EMAIL"].len(), 64);
    meta.delete(&users, json!({"payload": {"schema": "EXTERN_ID", "data": ["2"]}})).await;
    assert_eq!(meta.sim.members(&id).unwrap(), ["1"]);
    meta.delete(&users, rows(&schema, json!([["1", email(1)]]))).await;
    assert_eq!(meta.count(&id), 0);
}

#[tokio::test]
async fn the_first_upload_determines_the_data_source() {
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    meta.add(&id, 0..1).await;
    let single = json!({"payload": {"schema": "EMAIL_SHA256", "data": [email(2)]}});
    let reply = meta.post(&format!("{id}/users"), single.clone()).await;
    assert_eq!(reply.code().0, 2650);
    assert_eq!(
        reply.body["error"]["message"],
        "(#2650) Failed to update the custom audience: This audience was created from data source \
         FILE_IMPORTED.MULTI_HASHES, which does not support data source \
         FILE_IMPORTED.HASHES_OR_USER_IDS."
    );
    let other = meta.audience("b").await;
    assert_eq!(meta.post(&format!("{other}/users"), single).await.status, 200);
    assert_eq!(meta.post(&format!("{other}/users"), emails(0..1)).await.code().0, 2650);
    assert_eq!((meta.count(&id), meta.count(&other)), (1, 1));
}

#[tokio::test]
async fn value_based_audiences_need_values() {
    let meta = Meta::plain().await;
    let body =
        json!({"name": "v", "customer_file_source": "USER_PROVIDED_ONLY", "is_value_based": true});
    let created = meta.post("act_1/customaudiences", body).await.body;
    let users = format!("{}/users", created["id"].as_str().unwrap());
    let reply = meta.post(&users, emails(0..1)).await;
    assert_eq!(
        reply.body["error"]["message"],
        "(#100) Value-Based Custom Audience requires LOOKALIKE_VALUE attribute."
    );
    let body = rows(&["EMAIL", "LOOKALIKE_VALUE"], json!([[email(1), 12.5], [email(2), "much"]]));
    let reply = meta.post(&users, body).await.body;
    assert_eq!(reply["num_invalid_entries"], 1);
    let read =
        meta.get(&format!("{}?fields=is_value_based", created["id"].as_str().unwrap())).await;
    assert_eq!(read.body["is_value_based"], true);
}

#[tokio::test]
async fn people_are_removed_from_every_audience_of_the_account() {
    let meta = Meta::plain().await;
    let (a, b) = (meta.audience("a").await, meta.audience("b").await);
    meta.add(&a, 0..5).await;
    meta.add(&b, 3..8).await;
    let reply = meta.delete("act_1/usersofanyaudience", emails(3..5)).await;
    assert_eq!((reply.status, &reply.body["num_received"]), (200, &json!(2)));
    assert_eq!((meta.count(&a), meta.count(&b)), (3, 3));
}

#[tokio::test]
async fn removals_that_leave_too_few_members_may_be_refused() {
    let config = MetaSimConfig { refuse_removals_below: Some(3), ..MetaSimConfig::default() };
    let meta = Meta::start(config).await;
    let id = meta.audience("a").await;
    meta.add(&id, 0..3).await;
    let reply = meta.delete(&format!("{id}/users"), emails(0..1)).await;
    assert_eq!((reply.status, reply.code()), (400, (200, 1_870_047)));
    assert_eq!(reply.body["error"]["message"], "Permissions error");
    assert_eq!(reply.body["error"]["error_user_title"], "Audience Size too Low");
    assert_eq!(meta.count(&id), 3);
}
