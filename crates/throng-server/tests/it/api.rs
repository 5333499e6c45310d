//! What holds for every route: described, protected, bounded, and errors in one form.

use serde_json::{Value, json};

use crate::{Client, SPEC, noon, spec, start};

/// Methods and paths by the OpenAPI description, with something in place of every parameter.
async fn routes(client: &Client) -> Vec<(String, String)> {
    let request = client.request("GET", "/openapi.json").bearer_auth("s3cret");
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
async fn every_route_but_health_wants_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{SPEC}node: {{ token: \"env:TOKEN\" }}\n");
    let node = start(dir.path(), spec(&text), &noon()).await.unwrap();
    let client = Client::of(&node);
    let routes = routes(&client).await;
    assert!(routes.len() >= 28, "{routes:?}");
    for (method, path) in routes {
        let open = ["/healthz", "/readyz"].contains(&path.as_str());
        for wrong in [None, Some("s3cre"), Some("s3crets"), Some("")] {
            let mut request = client.request(&method, &path);
            if let Some(token) = wrong {
                request = request.bearer_auth(token);
            }
            let status = request.send().await.unwrap().status().as_u16();
            assert_eq!(status == 401, !open, "{method} {path} with {wrong:?}: {status}");
        }
        let request = client.request(&method, &path).bearer_auth("s3cret");
        let status = request.send().await.unwrap().status().as_u16();
        assert!(
            ![401, 404, 405].contains(&status) || path.contains("/1"),
            "{method} {path}: {status}"
        );
        assert!(status < 500, "{method} {path}: {status}");
    }
    // Pages too, and paths that do not exist tell nothing.
    for page in ["/", "/budgets", "/nowhere"] {
        assert_eq!(client.request("GET", page).send().await.unwrap().status(), 401, "{page}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_signs_in_with_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{SPEC}node: {{ token: \"env:TOKEN\" }}\n");
    let node = start(dir.path(), spec(&text), &noon()).await.unwrap();
    let client = Client::of(&node);
    let page = client.request("GET", "/budgets?x=1").header("accept", "text/html");
    let page = page.send().await.unwrap();
    assert_eq!(page.status(), 401);
    assert!(page.text().await.unwrap().contains("name=\"back\" value=\"/budgets?x=1\""));
    assert_eq!(client.request("GET", "/assets/throng.css").send().await.unwrap().status(), 200);

    let http =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let sign_in = async |body: &'static str| {
        let request = http.post(format!("{}/sign-in", node.url()));
        let form = "application/x-www-form-urlencoded";
        request.header("content-type", form).body(body).send().await.unwrap()
    };
    let wrong = sign_in("token=guess&back=%2Fbudgets").await;
    assert_eq!((wrong.status().as_u16(), wrong.headers().get("set-cookie")), (401, None));
    let right = sign_in("token=s3cret&back=%2Fbudgets").await;
    assert_eq!(right.status(), 303);
    assert_eq!(right.headers()["location"], "/budgets");
    let cookie = right.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let pair = cookie.split(';').next().unwrap();
    let page = client.request("GET", "/budgets").header("cookie", pair).send().await.unwrap();
    assert_eq!(page.status(), 200);
    let elsewhere = sign_in("token=s3cret&back=https%3A%2F%2Fevil.example").await;
    assert_eq!(elsewhere.headers()["location"], "/");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_one_form() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{SPEC}node: {{ max_request_bytes: 2000 }}\n");
    let node = start(dir.path(), spec(&text), &noon()).await.unwrap();
    let client = Client::of(&node);
    let large = "x".repeat(3_000);
    for (method, path, body, status, code) in [
        ("GET", "/v1/nowhere", "", 404, "not_found"),
        ("DELETE", "/v1/budgets", "", 405, "method_not_allowed"),
        ("GET", "/v1/audiences/nobody", "", 404, "not_found"),
        ("GET", "/v1/budgets/gloves", "", 404, "not_found"),
        ("GET", "/v1/tasks/99", "", 404, "not_found"),
        ("GET", "/v1/tasks/many", "", 400, "bad_request"),
        ("GET", "/v1/why/house/shoes", "", 400, "bad_request"),
        ("POST", "/v1/lookups", "{", 400, "bad_request"),
        ("POST", "/v1/lookups", "{\"keys\": 1}", 400, "bad_request"),
        ("POST", "/v1/decide", "[]", 400, "bad_request"),
        ("POST", "/v1/spec/apply", "{\"spec\": {}}", 400, "bad_request"),
        ("POST", "/v1/gates/%20/applied", "{\"versions\": {}}", 400, "bad_request"),
        ("POST", "/v1/lookups", large.as_str(), 413, "too_large"),
        ("POST", "/v1/events", large.as_str(), 413, "too_large"),
    ] {
        let request = client.request(method, path).body(body.to_owned());
        let response = request.send().await.unwrap();
        let case = format!("{method} {path} {body:.20}");
        assert_eq!(response.status(), status, "{case}");
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let said: Value = response.json().await.expect(&case);
        assert_eq!(said["error"]["code"], code, "{case}: {said}");
        assert_eq!(said["error"]["request_id"], json!(id), "{case}");
        assert!(said["error"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{case}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_data_answers_everything() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), spec(SPEC), &noon()).await.unwrap();
    let client = Client::of(&node);
    for (path, field) in [
        ("/v1/audiences", "audiences"),
        ("/v1/syncs", "syncs"),
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
    assert!(!metrics.contains("nobody"), "a user's key is in the metrics");
    node.shutdown().await;
}
