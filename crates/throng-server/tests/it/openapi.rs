//! The OpenAPI description is correct: responses of a node are compared with their schemas.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use throng_model::{Clock as _, SystemClock};
use throng_store::{AlertKind, NewAlert, RunState};

use crate::activation::{Shop, checked, settled};
use crate::{Client, until};

/// The ad groups that the spec of a shop does not have.
const AD_GROUPS: &str = r#"advertisers:
  - { name: shop, currency: USD, time_zone: UTC }
campaigns:
  - { name: autumn, advertiser: shop }
ad_groups:
  - { name: shoes, campaign: autumn, per: impression, price: "0.10", daily_budget: "1.00", impression_rate: 0.5, include: [buyers] }
"#;

/// Compares values with the schemas of one document. Properties that a schema does not name are errors.
pub(crate) struct Schemas<'a> {
    document: &'a Value,
    errors: Vec<String>,
}

impl<'a> Schemas<'a> {
    pub(crate) fn new(document: &'a Value) -> Self {
        Self { document, errors: Vec::new() }
    }

    /// What differs.
    pub(crate) fn into_errors(self) -> Vec<String> {
        self.errors
    }

    fn resolved(&self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(reference) => {
                let pointer = reference.strip_prefix('#').expect("a local reference");
                self.document.pointer(pointer).expect(reference)
            }
            None => schema,
        }
    }

    fn matches(&self, schema: &'a Value, value: &Value) -> bool {
        let mut tried = Self::new(self.document);
        tried.compare(schema, value, "");
        tried.errors.is_empty()
    }

    pub(crate) fn compare(&mut self, schema: &'a Value, value: &Value, at: &str) {
        let schema = self.resolved(schema);
        if let Some(parts) = schema["allOf"].as_array() {
            self.compare_parts(parts, value, at);
            return;
        }
        if let Some(any) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
            if !any.iter().any(|one| self.matches(one, value)) {
                // The last schema is the one that is not null.
                if let Some(last) = any.last() {
                    self.compare(last, value, at);
                }
            }
            return;
        }
        if !is_of_type(&schema["type"], value) {
            self.errors.push(format!("{at}: {value:.40} is not {}", schema["type"]));
            return;
        }
        if let Some(words) = schema["enum"].as_array()
            && !words.contains(value)
        {
            self.errors.push(format!("{at}: {value} is none of {words:?}"));
        }
        match value {
            Value::Object(_) => self.compare_object(schema, value, at),
            Value::Array(items) if schema["items"].is_object() => {
                for (place, item) in items.iter().enumerate() {
                    self.compare(&schema["items"], item, &format!("{at}[{place}]"));
                }
            }
            _ => {}
        }
    }

    /// The names of the properties of a schema and of its parts.
    fn properties(&self, schema: &'a Value) -> BTreeSet<&'a str> {
        let schema = self.resolved(schema);
        let own = schema["properties"].as_object().into_iter().flatten();
        let parts = schema["allOf"].as_array().into_iter().flatten();
        let of_parts = parts.flat_map(|part| self.properties(part));
        own.map(|(name, _)| name.as_str()).chain(of_parts).collect()
    }

    /// Compares each part with those properties of an object that it names.
    fn compare_parts(&mut self, parts: &'a [Value], value: &Value, at: &str) {
        let Some(object) = value.as_object() else {
            self.errors.push(format!("{at}: {value:.40} is not an object"));
            return;
        };
        let mut described = BTreeSet::new();
        for part in parts {
            let names = self.properties(part);
            let own = object.iter().filter(|(name, _)| names.contains(name.as_str()));
            let own: Map<String, Value> =
                own.map(|(name, value)| (name.clone(), value.clone())).collect();
            self.compare(part, &Value::Object(own), at);
            described.extend(names);
        }
        for name in object.keys().filter(|name| !described.contains(name.as_str())) {
            self.errors.push(format!("{at}.{name} is not described"));
        }
    }

    fn compare_object(&mut self, schema: &'a Value, value: &Value, at: &str) {
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().expect("a name");
            if value.get(name).is_none() {
                self.errors.push(format!("{at}: {name} is missing"));
            }
        }
        let (named, others) = (&schema["properties"], &schema["additionalProperties"]);
        for (name, value) in value.as_object().into_iter().flatten() {
            let at = format!("{at}.{name}");
            match (named.get(name), others) {
                (Some(schema), _) => self.compare(schema, value, &at),
                (None, Value::Object(_)) => self.compare(others, value, &at),
                (None, Value::Null) if named.is_object() => {
                    self.errors.push(format!("{at} is not described"));
                }
                (None, Value::Bool(false)) => self.errors.push(format!("{at} is not allowed")),
                _ => {}
            }
        }
    }
}

/// Whether a value has the type, or one of the types, of a schema.
fn is_of_type(expected: &Value, value: &Value) -> bool {
    let is = |expected: &str| match expected {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("{other} is not a type of JSON"),
    };
    match expected {
        Value::String(one) => is(one),
        Value::Array(some) => some.iter().filter_map(Value::as_str).any(is),
        _ => true,
    }
}

#[test]
fn the_comparison_finds_errors() {
    let document = json!({ "components": { "schemas": {
        "Word": { "type": "string", "enum": ["a", "b"] },
        "Thing": {
            "type": "object",
            "required": ["word", "n"],
            "properties": {
                "word": { "$ref": "#/components/schemas/Word" },
                "n": { "type": ["integer", "null"] },
                "other": { "oneOf": [{ "type": "null" }, { "$ref": "#/components/schemas/Word" }] },
                "counts": { "type": "object", "additionalProperties": { "type": "integer" } },
                "list": { "type": "array", "items": { "type": "number" } },
                "any": {},
            },
        },
        "More": { "allOf": [
            { "$ref": "#/components/schemas/Thing" },
            { "type": "object", "required": ["more"], "properties": { "more": { "type": "boolean" } } },
        ] },
    }}});
    let thing = json!({ "$ref": "#/components/schemas/Thing" });
    let check = |value: Value| Schemas::new(&document).matches(&thing, &value);
    assert!(check(json!({ "word": "a", "n": null })));
    assert!(check(json!({
        "word": "b", "n": 1, "other": "a", "counts": { "x": 1 }, "list": [1, 2.5], "any": [null],
    })));
    assert!(check(json!({ "word": "b", "n": 1, "other": null })));
    for wrong in [
        json!({ "word": "a" }),
        json!({ "word": "c", "n": 1 }),
        json!({ "word": "a", "n": 1.5 }),
        json!({ "word": "a", "n": 1, "more": 1 }),
        json!({ "word": "a", "n": 1, "other": "c" }),
        json!({ "word": "a", "n": 1, "counts": { "x": "1" } }),
        json!({ "word": "a", "n": 1, "list": [1, "2"] }),
        json!([]),
    ] {
        assert!(!check(wrong.clone()), "{wrong}");
    }
    let more = json!({ "$ref": "#/components/schemas/More" });
    let check = |value: Value| Schemas::new(&document).matches(&more, &value);
    assert!(check(json!({ "word": "a", "n": 1, "more": true })));
    for wrong in [
        json!({ "word": "a", "n": 1 }),
        json!({ "n": 1, "more": true }),
        json!({ "word": "a", "n": 1, "more": true, "other_word": "a" }),
        json!("a"),
    ] {
        assert!(!check(wrong.clone()), "{wrong}");
    }
}

/// The schema of a JSON response; `None` if the response is not JSON.
fn schema<'a>(document: &'a Value, path: &str, method: &str, status: &str) -> Option<&'a Value> {
    let responses = &document["paths"][path][method]["responses"];
    let response = responses.get(status).unwrap_or(&responses["default"]);
    let content = &response["content"];
    assert!(content.is_object(), "{method} {path} {status} has no schema");
    content.get("application/json").map(|content| &content["schema"])
}

/// A path with objects of the shop for its parameters.
fn filled(path: &str) -> String {
    let name = match path {
        _ if path.starts_with("/v1/audiences/") => "buyers",
        _ if path.starts_with("/v1/budgets/") => "shoes",
        _ if path.starts_with("/v1/syncs/") => "buyers-on-meta",
        _ if path.starts_with("/v1/stores/") => "cache",
        _ => "1",
    };
    path.replace("{kind}", "audience")
        .replace("/v1/why/audience/{name}", "/v1/why/audience/buyers")
        .replace("{name}", name)
        .replace("{ad_group}", "shoes")
        .replace("{audience}", "buyers")
        .replace("{key}", "c5")
        .replace("{id}", "1")
        .replace("{operation}", "approve-runs")
}

/// Creates at least one item of every list.
async fn fill_lists(shop: &Shop, client: &Client) {
    let at = SystemClock.now().to_string();
    let event = |id: &str, kind: &str| {
        let event = json!({ "id": id, "kind": kind, "ad_group": "shoes", "at": at });
        format!("{event}\n")
    };
    let lines = event("1", "insertion") + &event("2", "impression") + "{}\n";
    let counted = client.events(lines).await;
    assert_eq!((&counted["accepted"], &counted["rejected_count"]), (&json!(2), &json!(1)));
    let (status, response) =
        client.post("/v1/gates/gate-1/applied", &json!({ "versions": {} })).await;
    assert_eq!(status, 200, "{response}");
    until("the store is checked", async || {
        client.get("/v1/stores").await["stores"][0]["audiences"][0]["write"]["check"].is_object()
    })
    .await;
    shop.buyers(11..12);
    let (status, response) = client.post("/v1/audiences/buyers/refresh", &json!({})).await;
    assert_eq!(status, 200, "{response}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_response_matches_its_schema() {
    let shop = Shop::new().await;
    shop.buyers(0..12);
    let path = shop.dir.path().join("throng.yaml");
    let store = crate::shared::setting("THRONG_REDIS") + "/41";
    let stores = format!("serving_stores: [{{ name: cache, type: redis, url: \"{store}\" }}]\n");
    // The spend of the day is not reset during the test.
    let zone = format!("time_zone: {}", throng_sim::zone_far_from_midnight(SystemClock.now()));
    let ad_groups = AD_GROUPS.replace("time_zone: UTC", &zone);
    let text = std::fs::read_to_string(&path).unwrap() + &ad_groups + &stores;
    std::fs::write(&path, text).unwrap();
    let node = shop.node().await;
    let client = Client::of(&node);
    settled(&node, "delivery", |run| run.state == RunState::Completed).await;
    checked(&node).await;
    fill_lists(&shop, &client).await;
    settled(&node, "held", |run| run.state == RunState::Held).await;
    let alert = NewAlert {
        kind: AlertKind::NodeProblem,
        subject: "test".to_owned(),
        message: "a test".to_owned(),
    };
    node.context().ledger.raise_alert(&alert, SystemClock.now()).await.unwrap();
    until("the event is counted", async || {
        client.get("/v1/budgets/shoes").await["state"]["actual_micros"] == json!(100_000)
    })
    .await;

    let document = client.get("/openapi.json").await;
    let (mut schemas, mut compared) = (Schemas::new(&document), 0);
    for (path, methods) in document["paths"].as_object().unwrap() {
        if methods.get("get").is_none() {
            continue;
        }
        let Some(schema) = schema(&document, path, "get", "200") else { continue };
        let response = client.get(&filled(path)).await;
        schemas.compare(schema, &response, path);
        compared += 1;
    }
    assert!(compared >= 20, "only {compared} routes were compared");

    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        if !schema["example"].is_null() {
            schemas.compare(schema, &schema["example"], &format!("example of {name}"));
        }
    }

    let sent = crate::sent_file(&path);
    for (path, body) in [
        ("/v1/lookups", json!({ "keys": ["c5", "", "-7", "a\tb"] })),
        ("/v1/decide", json!({ "user": "c5", "ad_groups": ["shoes", "gloves"] })),
        ("/v1/decide", json!({ "user": "c11", "ad_groups": ["shoes"], "record_insertion": true })),
        ("/v1/spec/plan", sent.clone()),
        ("/v1/spec/apply", sent),
        ("/v1/spec/plan", json!({ "base": "/", "files": [] })),
        ("/v1/alerts/test", json!({})),
        ("/v1/tokens", json!({ "name": "t", "scopes": ["read"] })),
        ("/v1/tokens", json!({ "name": "t", "scopes": ["read"] })),
        ("/v1/tokens/{name}/revoke", json!({})),
        ("/v1/sign-in-links", json!({})),
        ("/v1/tasks/enqueue", json!({})),
        ("/v1/tasks/{id}/requeue", json!({})),
        ("/v1/bulk/{operation}", json!({})),
        ("/v1/runs/{id}/approve", json!({})),
        ("/v1/destinations/{name}/approve", json!({})),
        ("/v1/removals/{name}/approve", json!({})),
        ("/v1/removals/{name}/keep", json!({})),
        ("/v1/stores/{name}/rewrite", json!({})),
        ("/v1/stores/{name}/audiences/{audience}/remove", json!({})),
        ("/v1/audiences/{name}/refresh", json!({})),
        ("/v1/audiences/{name}/rollback", json!({ "version": 1 })),
        ("/v1/audiences/{name}/approve", json!({ "version": 99 })),
    ] {
        let (status, response) = client.post(&filled(path), &body).await;
        let schema = schema(&document, path, "post", &status.to_string()).expect(path);
        schemas.compare(schema, &response, &format!("{path} {status}"));
    }
    assert!(schemas.errors.is_empty(), "{:#?}", schemas.errors);
    node.shutdown().await;
}
