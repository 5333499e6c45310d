//! Properties of all routes: they are described and bounded, and their errors have one form.

use serde_json::{Value, json};

use crate::{Client, SPEC, noon, spec, start};

/// The methods and paths of the OpenAPI description, with a value for every parameter.
pub(crate) async fn routes(client: &Client) -> Vec<(String, String)> {
    let request = client.request("GET", "/openapi.json");
    let document: Value = request.send().await.unwrap().json().await.unwrap();
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let filled: Vec<&str> = path
                .split('/')
                .map(|part| if part.starts_with('{') { "1" } else { part })
                .collect();
            routes.push((method.to_uppercase(), filled.join("/")));
        }
    }
    routes
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_one_form() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{SPEC}node: {{ max_request_bytes: 2000 }}\n");
    let node = start(dir.path(), spec(&text), &noon()).await.unwrap();
    let client = Client::of(&node);
    let large = "x".repeat(3_000);
    for (method, path, sent, status, code) in [
        ("GET", "/v1/nowhere", "", 404, "unknown_path"),
        ("DELETE", "/v1/budgets", "", 405, "method_not_allowed"),
        ("GET", "/v1/audiences/nobody", "", 404, "not_found"),
        ("GET", "/v1/budgets/gloves", "", 404, "not_found"),
        ("GET", "/v1/tasks/99", "", 404, "not_found"),
        ("GET", "/v1/tasks/many", "", 400, "invalid_path"),
        ("GET", "/v1/why/building/shoes", "", 400, "bad_request"),
        ("POST", "/v1/lookups", "{", 400, "bad_request"),
        ("POST", "/v1/lookups", "{\"keys\": 1}", 400, "bad_request"),
        ("POST", "/v1/decide", "[]", 400, "bad_request"),
        ("POST", "/v1/spec/apply", "{\"spec\": {}}", 400, "bad_request"),
        ("POST", "/v1/gates/%20/applied", "{\"versions\": {}}", 400, "bad_request"),
        ("POST", "/v1/lookups", large.as_str(), 413, "too_large"),
        ("POST", "/v1/events", large.as_str(), 413, "too_large"),
    ] {
        let kind = if path == "/v1/events" { "application/x-ndjson" } else { "application/json" };
        let request = client.request(method, path).header("content-type", kind);
        let response = request.body(sent.to_owned()).send().await.unwrap();
        let case = format!("{method} {path} {sent:.20}");
        assert_eq!(response.status(), status, "{case}");
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let body: Value = response.json().await.expect(&case);
        assert_eq!(body["error"]["code"], code, "{case}: {body}");
        assert_eq!(body["error"]["request_id"], json!(id), "{case}");
        assert!(body["error"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{case}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_does_not_exist_is_a_page_for_a_browser_and_json_for_a_program() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), spec(SPEC), &noon()).await.unwrap();
    let (client, stranger) = (Client::of(&node), Client::stranger(&node));
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for (path, accept, is_page) in [
        ("/nowhere", browser, true),
        ("/audiences/a/b", browser, true),
        ("/v10", browser, true),
        ("/nowhere", "*/*", false),
        ("/nowhere", "application/json, text/html;q=0.5", false),
        ("/v1", browser, false),
        ("/v1/nowhere", browser, false),
    ] {
        let case = format!("{path} {accept}");
        let response = client.request("GET", path).header("accept", accept).send().await.unwrap();
        assert_eq!(response.status(), 404, "{case}");
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert!(header("content-security-policy").contains("default-src 'none'"), "{case}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{case}");
        let kind = if is_page { "text/html; charset=utf-8" } else { "application/json" };
        assert_eq!(header("content-type"), kind, "{case}");
        let body = response.text().await.unwrap();
        let part = if is_page { "<a href=\"/\">" } else { "\"unknown_path\"" };
        assert!(body.contains(part), "{case}: {body}");
        // Strangers do not find out which paths exist.
        let response = stranger.request("GET", path).header("accept", accept).send().await.unwrap();
        assert_eq!(response.status(), 401, "{case}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_of_another_kind_is_named_without_its_value() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), spec(SPEC), &noon()).await.unwrap();
    let client = Client::of(&node);
    for (path, name) in [
        ("/alerts?from=s3cret", "from"),
        ("/alerts?limit=s3cret", "limit"),
        ("/audiences?limit=s3cret", "limit"),
        ("/activation/syncs?limit=-1", "limit"),
        ("/activation/runs?limit=s3cret", "limit"),
        ("/activation/tasks?limit=s3cret", "limit"),
        ("/budgets/report?format=s3cret", "format"),
        ("/budgets?search=s3cret&search=s3cret", "search"),
        ("/decide?user=s3cret&user=s3cret", "user"),
        ("/v1/alerts?offset=s3cret", "offset"),
        ("/v1/tasks?limit=s3cret", "limit"),
        ("/v1/feed?format=s3cret", "format"),
        ("/v1/budgets/report?format=s3cret", "format"),
        ("/v1/budgets/report?from=s3cret", "from"),
        ("/budgets/report?to=s3cret", "to"),
    ] {
        let response = client.request("GET", path).send().await.unwrap();
        assert_eq!(response.status(), 400, "{path}");
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        let is_page = !path.starts_with("/v1/");
        assert_eq!(kind.starts_with("text/html"), is_page, "{path}: {kind}");
        let body = response.text().await.unwrap();
        let hint = if is_page { "Suggested fix:" } else { "\"help\":\"" };
        assert!(body.contains(hint) && body.contains(&format!("`{name}`")), "{path}: {body}");
        assert!(!body.contains("s3cret"), "{path}: {body}");
    }
    let link = client.request("GET", "/sign-in?code=s3cret&code=s3cret").send().await.unwrap();
    assert_eq!(link.status(), 400);
    let body = link.text().await.unwrap();
    assert!(body.contains("<main>") && !body.contains("s3cret"), "{body}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_data_responds_to_every_route() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), spec(SPEC), &noon()).await.unwrap();
    let client = Client::of(&node);
    for (path, field) in [
        ("/v1/audiences", "audiences"),
        ("/v1/syncs", "syncs"),
        ("/v1/removals", "removals"),
        ("/v1/runs", "runs"),
        ("/v1/tasks", "tasks"),
        ("/v1/alerts", "alerts"),
        ("/v1/gates", "gates"),
        ("/v1/why/ad_group/shoes", "history"),
        ("/v1/users/nobody/audiences", "audiences"),
    ] {
        assert_eq!(client.get(path).await[field], json!([]), "{path}");
    }
    assert_eq!(client.get("/readyz").await["ready"], json!(true));
    assert_eq!(client.get("/v1/spec").await["version"], json!(1));
    let (status, users) = client.post("/v1/lookups", &json!({ "keys": ["a", "b"] })).await;
    assert_eq!((status, users["users"].as_array().map(Vec::len)), (200, Some(2)));
    let metrics = client.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("throng_http_requests_total"), "{metrics}");
    assert!(!metrics.contains("nobody"), "the key of a user is in the metrics");
    node.shutdown().await;
}
