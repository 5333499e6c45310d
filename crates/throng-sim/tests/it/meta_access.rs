//! Versions, tokens, proofs, accounts, terms.

use reqwest::Method;
use serde_json::{Value, json};
use throng_model::Secret;
use throng_sim::meta::MetaSimConfig;

use crate::{Meta, TOKEN};

#[tokio::test]
async fn old_and_unknown_versions_are_refused() {
    let meta = Meta::plain().await;
    for (path, code) in [
        ("v18.0/act_1", 2635),
        ("act_1", 2635),
        ("v99.0/act_1", 2500),
        ("v25.0/act_1/nothing", 2500),
        ("v25.0//users", 803),
        ("v25.0/me", 803),
        ("v25.0/77", 100),
    ] {
        let call = meta.http.get(format!("{}/{path}", meta.sim.url())).bearer_auth(TOKEN);
        let reply = meta.send(call).await;
        assert_eq!(reply.code().0, code, "{path}");
    }
    let reply = meta.get("act_1").await;
    assert_eq!(reply.header("facebook-api-version"), Some("v25.0"));
    assert_eq!(reply.body, json!({"id": "act_1"}));
}

#[tokio::test]
async fn a_token_is_accepted_in_header_query_form_and_body() {
    let meta = Meta::plain().await;
    let url = format!("{}/v25.0/act_1/customaudiences", meta.sim.url());
    let with_header = |value: &str| meta.http.get(&url).header("authorization", value);
    let form = format!("access_token={TOKEN}&name=a&customer_file_source=USER_PROVIDED_ONLY");
    let body =
        json!({"access_token": TOKEN, "name": "b", "customer_file_source": "USER_PROVIDED_ONLY"});
    for (call, code) in [
        (with_header("Bearer sim-token"), 0),
        (with_header("OAuth sim-token"), 0),
        (with_header("Bearer other"), 190),
        (with_header("Basic sim-token"), 104),
        (meta.http.get(&url), 104),
        (meta.http.get(format!("{url}?access_token={TOKEN}")), 0),
        (
            meta.http
                .post(&url)
                .header("content-type", "application/x-www-form-urlencoded")
                .body(form),
            0,
        ),
        (meta.http.post(&url).json(&body), 0),
    ] {
        let shown = format!("{call:?}");
        assert_eq!(meta.send(call).await.code().0, code, "{shown}");
    }
    assert_eq!(meta.sim.audience_count(), 2);
}

#[tokio::test]
async fn errors_have_the_complete_envelope() {
    let meta = Meta::plain().await;
    let reply = meta.send(meta.http.get(format!("{}/v25.0/act_1", meta.sim.url()))).await;
    assert_eq!(reply.status, 400);
    let error = reply.body["error"].as_object().unwrap();
    assert_eq!(error["type"], "OAuthException");
    assert_eq!(error["is_transient"], false);
    assert_eq!(error["fbtrace_id"].as_str().map(str::len), Some(23));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let authenticate = reply.header("www-authenticate").unwrap();
    assert!(authenticate.starts_with("OAuth \"Facebook Platform\""), "{authenticate}");
    let again = meta.send(meta.http.get(format!("{}/v25.0/act_1", meta.sim.url()))).await;
    assert_ne!(again.body["error"]["fbtrace_id"], error["fbtrace_id"]);
}

#[tokio::test]
async fn with_an_app_secret_every_call_needs_its_proof() {
    let secret = Some(Secret::new("app-secret"));
    let meta = Meta::start(MetaSimConfig { app_secret: secret, ..MetaSimConfig::default() }).await;
    // HMAC-SHA256 with key "app-secret" of "sim-token", and of "sim-token|1800000000".
    let proof = "b9c39a6cbe2c8bfd110ecb79d57610675490b3eaae17a0bc060561cec993e8dd";
    let timed = "ec91eb2c16de73d458dadab1f5fbfc01642359bd3e060015c88cab2d996fe2f6";
    for (query, message) in [
        (String::new(), Some("API calls from the server require an appsecret_proof argument")),
        (
            "?appsecret_proof=00".into(),
            Some("Invalid appsecret_proof provided in the API argument"),
        ),
        (format!("?appsecret_proof={proof}"), None),
        (format!("?appsecret_proof={timed}&appsecret_time=1800000000"), None),
        (
            format!("?appsecret_proof={proof}&appsecret_time=1800000000"),
            Some("Invalid appsecret_proof provided in the API argument"),
        ),
    ] {
        let reply = meta.get(&format!("act_1{query}")).await;
        assert_eq!(reply.body["error"]["message"], message.map_or(Value::Null, Value::from));
    }
}

#[tokio::test]
async fn accounts_may_be_unknown_or_without_terms() {
    let meta = Meta::start(MetaSimConfig {
        accounts: vec!["act_1".to_owned(), "2".to_owned()],
        accounts_without_terms: vec!["act_2".to_owned()],
        ..MetaSimConfig::default()
    })
    .await;
    assert_eq!(meta.get("act_3").await.code(), (100, 33));
    let terms = |account: &str| format!("{account}?fields=tos_accepted");
    let accepted = meta.get(&terms("act_1")).await.body;
    assert_eq!(accepted, json!({"tos_accepted": {"custom_audience_tos": 1}, "id": "act_1"}));
    assert_eq!(meta.get(&terms("act_2")).await.body["tos_accepted"], json!({}));
    let body = json!({"name": "a", "customer_file_source": "USER_PROVIDED_ONLY"});
    let refused = meta.post("act_2/customaudiences", body).await;
    assert_eq!(refused.code().0, 2663);
    assert_eq!(refused.body["error"]["error_user_title"], "Custom Audience Terms Not Accepted");
}

#[tokio::test]
async fn requests_with_a_too_long_url_are_closed() {
    let meta = Meta::plain().await;
    let id = meta.audience("a").await;
    meta.add(&id, 0..400).await;
    let call = |people| meta.call_with_payload(Method::DELETE, &format!("{id}/users"), people);
    assert_eq!(meta.send(call(0..250)).await.body["num_received"], 250);
    let error = call(250..600).send().await.unwrap_err();
    assert!(!error.is_timeout() && error.status().is_none(), "{error:?}");
    assert_eq!(meta.count(&id), 150);
    assert_eq!(meta.sim.requests().calls["url_too_long"].requests, 1);
}
