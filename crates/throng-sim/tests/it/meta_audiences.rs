//! Creating, reading, listing, changing and deleting audiences.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use throng_sim::meta::MetaSimConfig;

use crate::{Meta, emails};

#[tokio::test]
async fn creating_needs_a_name_and_a_source() {
    let meta = Meta::plain().await;
    for (body, blamed) in [
        (json!({}), "name"),
        (json!({"name": " ", "customer_file_source": "USER_PROVIDED_ONLY"}), "name"),
        (json!({"name": "a"}), "customer_file_source"),
        (json!({"name": "a", "customer_file_source": "ME"}), "customer_file_source"),
        (
            json!({"name": "a", "customer_file_source": "USER_PROVIDED_ONLY", "subtype": "WEBSITE"}),
            "subtype",
        ),
        (
            json!({"name": "a", "customer_file_source": "USER_PROVIDED_ONLY", "retention_days": 181}),
            "retention_days",
        ),
    ] {
        let reply = meta.post("act_1/customaudiences", body).await;
        assert_eq!((reply.status, reply.code().0), (400, 100));
        assert_eq!(reply.body["error"]["error_data"]["blame_field_specs"], json!([[blamed]]));
    }
    assert_eq!(meta.sim.audience_count(), 0);
}

#[tokio::test]
async fn a_create_returns_only_the_id_of_the_audience() {
    let meta = Meta::plain().await;
    let body = json!({"name": "(test) Group 1", "subtype": "CUSTOM", "description": "d", "id": "x",
        "customer_file_source": "USER_PROVIDED_ONLY", "retention_days": 30});
    let created = meta.post("act_1/customaudiences", body).await;
    let id = created.body["id"].as_str().unwrap();
    assert_eq!(created.body, json!({"id": id}));
    assert!(id.len() >= 17 && id.bytes().all(|b| b.is_ascii_digit()), "{id}");

    assert_eq!(meta.get(id).await.body, json!({"id": id}));
    let read = meta.get(&format!("{id}?fields=id,name,subtype")).await;
    assert_eq!(read.body, json!({"id": id, "name": "(test) Group 1", "subtype": "CUSTOM"}));
    let all = "account_id,description,customer_file_source,approximate_count_lower_bound,\
        approximate_count_upper_bound,operation_status{code},delivery_status,is_value_based,\
        retention_days,time_created,time_updated,permission_for_actions";
    let read = meta.get(&format!("{id}?fields={all}")).await.body;
    assert_eq!((&read["account_id"], &read["retention_days"]), (&json!("1"), &json!(30)));
    assert_eq!(read["approximate_count_lower_bound"], -1);
    assert_eq!(read["operation_status"], json!({"code": 200, "description": "Normal"}));
    assert_eq!(read["delivery_status"]["code"], 300);
    assert_eq!(read["time_created"], 1_800_000_000);
    let gone = meta.get(&format!("{id}?fields=approximate_count")).await;
    let message = "(#100) Tried accessing nonexisting field (approximate_count) on node type \
        (CustomAudience)";
    assert_eq!(gone.body["error"]["message"], message);
}

#[tokio::test]
async fn forms_create_audiences_too() {
    let meta = Meta::plain().await;
    let form = "name=caf%C3%A9+%26+bar&customer_file_source=USER_PROVIDED_ONLY";
    let call = meta.call(Method::POST, "act_1/customaudiences");
    let call = call.header("content-type", "application/x-www-form-urlencoded").body(form);
    assert_eq!(meta.send(call).await.status, 200);
    assert_eq!(meta.sim.audiences()[0].name, "café & bar");
}

#[tokio::test]
async fn an_account_has_a_limit_of_audiences() {
    let config = MetaSimConfig { max_audiences_per_account: 2, ..MetaSimConfig::default() };
    let meta = Meta::start(config).await;
    let first = meta.audience("a").await;
    meta.audience("b").await;
    let body = |name: &str, fetch: bool| json!({"name": name, "enable_fetch_or_create": fetch, "customer_file_source": "USER_PROVIDED_ONLY"});
    assert_eq!(meta.post("act_1/customaudiences", body("c", false)).await.code().0, 2654);
    let fetched = meta.post("act_1/customaudiences", body("a", true)).await;
    assert_eq!(fetched.body["id"], first.as_str());
    assert_eq!(meta.post("act_2/customaudiences", body("c", false)).await.status, 200);
    assert_eq!(MetaSimConfig::default().max_audiences_per_account, 500);
}

#[tokio::test]
async fn lists_are_newest_first_and_paged_by_cursors() {
    let meta = Meta::plain().await;
    let path = "act_1/customaudiences?fields=name&limit=2";
    assert_eq!(meta.get(path).await.body, json!({"data": []}));
    for name in ["a", "b", "c", "d", "e"] {
        meta.audience(name).await;
    }
    let names = |body: &Value| -> String {
        body["data"].as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap()).collect()
    };
    let mut seen = Vec::new();
    let mut next = path.to_owned();
    let mut before = String::new();
    loop {
        let page = meta.get(&next).await.body;
        if page == json!({"data": []}) {
            break;
        }
        seen.push(names(&page));
        let cursors = &page["paging"]["cursors"];
        before = cursors["before"].as_str().unwrap().to_owned();
        next = format!("{path}&after={}", cursors["after"].as_str().unwrap());
    }
    assert_eq!(seen, ["ed", "cb", "a"]);
    assert_eq!(names(&meta.get(&format!("{path}&before={before}")).await.body), "cb");
    assert_eq!(meta.get("act_1/customaudiences?limit=0").await.code().0, 100);
    assert_eq!(meta.get("act_1/customaudiences?after=invalid").await.code().0, 100);
    assert_eq!(meta.get("act_2/customaudiences").await.body, json!({"data": []}));
}

#[tokio::test]
async fn a_cursor_is_valid_after_its_audience_was_deleted() {
    let meta = Meta::plain().await;
    let ids = [meta.audience("a").await, meta.audience("b").await, meta.audience("c").await];
    let page = meta.get("act_1/customaudiences?limit=2").await.body;
    let after = page["paging"]["cursors"]["after"].as_str().unwrap();
    meta.delete(&ids[1], json!({})).await;
    let rest = meta.get(&format!("act_1/customaudiences?limit=2&after={after}")).await.body;
    assert_eq!(rest["data"], json!([{"id": ids[0]}]));
}

#[tokio::test]
async fn audiences_are_changed_and_deleted() {
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    meta.add(&id, 0..3).await;
    let changed = meta.post(&id, json!({"name": "b", "description": "new"})).await;
    assert_eq!(changed.body, json!({"success": true}));
    assert_eq!(meta.get(&format!("{id}?fields=name,description")).await.body["name"], "b");
    assert_eq!(meta.post(&id, json!({"name": ""})).await.code().0, 100);
    assert_eq!(meta.delete(&id, json!({})).await.body, json!({"success": true}));
    for reply in [
        meta.get(&id).await,
        meta.delete(&id, json!({})).await,
        meta.post(&format!("{id}/users"), emails(0..1)).await,
    ] {
        assert_eq!((reply.status, reply.code()), (400, (100, 33)));
        assert_eq!(reply.body["error"]["type"], "GraphMethodException");
    }
    assert_eq!(meta.sim.member_count(&id), None);
}

#[tokio::test]
async fn changes_show_after_the_processing_delay() {
    let config = MetaSimConfig {
        processing_delay: Duration::from_secs(3600),
        match_rate: 0.5,
        ..MetaSimConfig::default()
    };
    let meta = Meta::start(config).await;
    let id = meta.audience("a").await;
    let fields = format!(
        "{id}?fields=operation_status,delivery_status,approximate_count_lower_bound,approximate_count_upper_bound"
    );
    let read = async || {
        let body = meta.get(&fields).await.body;
        let number = |value: &Value| value.as_i64().unwrap();
        (
            number(&body["operation_status"]["code"]),
            number(&body["delivery_status"]["code"]),
            number(&body["approximate_count_lower_bound"]),
            number(&body["approximate_count_upper_bound"]),
        )
    };
    meta.add(&id, 0..3_000).await;
    assert_eq!(read().await, (441, 300, -1, -1));
    meta.clock.advance(Duration::from_secs(3599));
    assert_eq!(read().await, (441, 300, -1, -1));
    meta.clock.advance(Duration::from_secs(1));
    assert_eq!(read().await, (200, 200, 1500, 1600));
    assert_eq!(meta.count(&id), 3_000, "the oracle shows the exact number");
}
