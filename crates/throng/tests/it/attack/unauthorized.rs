//! Requests that must be refused, on every route of the OpenAPI description: without a token, with a wrong
//! one, and with a foreign host, origin or content type.

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::{Running, Target, answers, built};
use crate::process::http;

/// One operation of the OpenAPI description, with a value for each parameter.
struct Operation {
    method: Method,
    path: String,
    /// Whether it can be called without a token.
    open: bool,
}

fn operations(description: &Value) -> Vec<Operation> {
    let mut found = Vec::new();
    for (template, methods) in description["paths"].as_object().expect("paths") {
        let path = template
            .split('/')
            .map(|part| match part {
                "{id}" => "1",
                "{kind}" => "audience",
                part if part.starts_with('{') => "everybody",
                part => part,
            })
            .collect::<Vec<_>>()
            .join("/");
        for (method, operation) in methods.as_object().expect("methods") {
            let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) else { continue };
            let open = operation["security"] == json!([{}]) || operation["security"] == json!([]);
            found.push(Operation { method, path: path.clone(), open });
        }
    }
    assert!(found.len() > 30, "the description has {} operations", found.len());
    found
}

struct Caller<'a> {
    http: Client,
    node: &'a Running,
}

impl Caller<'_> {
    fn request(&self, operation: &Operation) -> RequestBuilder {
        let url = format!("{}{}", self.node.url, operation.path);
        let request = self.http.request(operation.method.clone(), url);
        if operation.method == Method::GET { request } else { request.json(&json!({})) }
    }

    fn signed(&self, operation: &Operation) -> RequestBuilder {
        self.request(operation).bearer_auth(&self.node.token)
    }
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.expect("an answer").status()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_refuses_unauthorized_requests() {
    let target = Target::new();
    let node = target.start();
    built(&node).await;
    let description = node.get("/openapi.json").await.expect("the description");
    let before = answers(&node).await.expect("answers");
    let spec_before = node.get("/v1/spec").await.expect("spec");
    let caller = Caller { http: http(), node: &node };

    for operation in operations(&description) {
        let name = format!("{} {}", operation.method, operation.path);
        let changes = operation.method != Method::GET;
        if !operation.open {
            let bare = status(caller.request(&operation)).await;
            assert_eq!(bare, StatusCode::UNAUTHORIZED, "{name} without a token");
            let wrong = caller.request(&operation).bearer_auth("not-a-token");
            let wrong = status(wrong).await;
            let refused = [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS];
            assert!(refused.contains(&wrong), "{name} with a wrong token: {wrong}");
            let host = caller.signed(&operation).header("host", "evil.example");
            assert_eq!(status(host).await, StatusCode::MISDIRECTED_REQUEST, "{name}, foreign Host");
        }
        if !changes {
            continue;
        }
        for (header, value) in [
            ("origin", "http://evil.example"),
            ("origin", "http://127.0.0.1:1"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let foreign = caller.signed(&operation).header(header, value);
            assert_eq!(status(foreign).await, StatusCode::FORBIDDEN, "{name}, {header}: {value}");
        }
        for kind in
            ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
        {
            let url = format!("{}{}", node.url, operation.path);
            let body = caller
                .http
                .request(operation.method.clone(), url)
                .bearer_auth(&node.token)
                .header("content-type", kind)
                .body("{}");
            let answer = status(body).await;
            assert_eq!(answer, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{name} as {kind}");
        }
    }
    assert_eq!(answers(&node).await.expect("answers"), before);
    let spec_after = node.get("/v1/spec").await.expect("spec");
    assert_eq!(spec_after["version"], spec_before["version"]);
}
