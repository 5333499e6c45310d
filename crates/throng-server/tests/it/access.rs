//! Access control: every route without a token, with the wrong scope, for another host, from a page
//! of another site, with the wrong content type; throttling; the admin token.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use throng_access::Scope;
use throng_model::ManualClock;
use throng_server::Node;

use crate::api::routes;
use crate::sessions::sign_in_with;
use crate::{Client, SPEC, http, noon, spec, start};

const OPEN: [&str; 2] = ["/healthz", "/readyz"];
const PAGES: [&str; 8] = [
    "/",
    "/sources",
    "/audiences",
    "/activation",
    "/budgets",
    "/budgets/shoes",
    "/decide",
    "/access",
];

pub(crate) async fn node(dir: &std::path::Path, clock: &Arc<ManualClock>, settings: &str) -> Node {
    start(dir, spec(&format!("{SPEC}{settings}")), clock).await.unwrap()
}

pub(crate) async fn status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

async fn code(request: reqwest::RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    if status < 400 {
        // The body may be an endless stream.
        return (status, String::new());
    }
    let body: Value = response.json().await.unwrap_or_default();
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

/// A client with a new token of these scopes.
pub(crate) async fn scoped(node: &Node, name: &str, scopes: &[Scope]) -> Client {
    let token = node.replace_token(name, scopes).await.unwrap();
    Client { http: http(Some(token.expose())), url: node.url() }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_without_a_token_and_pages_of_other_sites_reach_no_route() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), &noon(), "").await;
    let (admin, stranger) = (Client::of(&node), Client::stranger(&node));
    let mut routes = routes(&admin).await;
    assert!(routes.len() >= 34, "{routes:?}");
    routes.extend(PAGES.map(|page| ("GET".to_owned(), page.to_owned())));
    routes.push(("GET".to_owned(), "/nowhere".to_owned()));
    routes.push(("POST".to_owned(), "/sign-out".to_owned()));
    let port = node.url().rsplit_once(':').unwrap().1.to_owned();
    let other_port = format!("http://127.0.0.1:{}", port.parse::<u16>().unwrap() ^ 1);
    for (method, path) in routes {
        let open = OPEN.contains(&path.as_str());
        let case = format!("{method} {path}");
        assert_eq!(status(stranger.request(&method, &path)).await == 401, !open, "{case}");
        let wrong = status(stranger.request(&method, &path).bearer_auth("throng_wrong")).await;
        assert_eq!([401, 429].contains(&wrong), !open, "{case} with a wrong token: {wrong}");
        for host in ["evil.example", "127.0.0.1:1", "localhost.evil.example"] {
            let refusal = code(admin.request(&method, &path).header("host", host)).await;
            let probe = open && host == "127.0.0.1:1";
            assert_eq!(
                refusal == (421, "unknown_host".to_owned()),
                !probe,
                "{case}: {host} {refusal:?}"
            );
        }
        if method != "GET" {
            for (name, value) in [
                ("origin", "https://evil.example"),
                ("origin", other_port.as_str()),
                ("origin", "null"),
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-site", "same-site"),
            ] {
                let refusal = code(admin.request(&method, &path).header(name, value)).await;
                assert_eq!(refusal, (403, "foreign_origin".to_owned()), "{case}: {name} {value}");
            }
            let form = "application/x-www-form-urlencoded";
            for kind in ["text/plain", form, "multipart/form-data; boundary=a", ""] {
                if path == "/sign-out" {
                    continue;
                }
                let request = admin.request(&method, &path).header("content-type", kind).body("{}");
                assert_eq!(status(request).await, 415, "{case}: {kind}");
            }
        }
        // A valid request reaches the handler.
        let request = admin.request(&method, &path).header("sec-fetch-site", "same-origin");
        let outcome = code(request.header("origin", node.url())).await;
        assert!(![401, 403, 421].contains(&outcome.0) && outcome.0 < 500, "{case}: {outcome:?}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_names_exactly_one_known_host() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    let settings = "node: { public_url: \"https://ads.example.com\", allowed_hosts: [relay] }\n";
    let node = node(dir.path(), &noon(), settings).await;
    let address = node.url().strip_prefix("http://").unwrap().to_owned();
    let status_of = async |head: String| {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    let page = |hosts: &str| format!("GET /assets/throng.css HTTP/1.1\r\n{hosts}");
    assert_eq!(status_of(page(&format!("host: {address}\r\n"))).await, "200");
    assert_eq!(status_of(page("host: ads.example.com\r\n")).await, "200");
    assert_eq!(status_of(page("host: RELAY:80\r\n")).await, "200");
    assert_eq!(status_of(page("host: ads.example.com:7077\r\n")).await, "421");
    assert_eq!(status_of(page(&format!("host: {address}\r\nhost: {address}\r\n"))).await, "421");
    assert_eq!(status_of(page("")).await, "421");
    let absolute = format!("GET http://{address}/assets/throng.css HTTP/1.1\r\nhost: relay\r\n");
    assert_eq!(status_of(absolute).await, "421", "two hosts");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_the_routes_of_its_scopes_only() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), &noon(), "").await;
    let routes = routes(&Client::of(&node)).await;
    // The routes of each scope, independent of the implementation.
    let allowed = |scope: Scope, method: &str, path: &str| match scope {
        Scope::Events => path == "/v1/events",
        Scope::Lookup => {
            let stores = "/v1/stores/hash-seed";
            ["/v1/users/1/audiences", "/v1/lookups", "/v1/decide", stores].contains(&path)
                || path.starts_with("/v1/membership")
        }
        Scope::Feed => ["/v1/feed", "/v1/catalog", "/v1/gates/1/applied"].contains(&path),
        Scope::Metrics => path == "/metrics",
        Scope::Read | Scope::Operate => {
            let others = [
                "/v1/users/1/audiences",
                "/v1/stores/hash-seed",
                "/v1/feed",
                "/v1/events",
                "/v1/tokens",
                "/v1/sessions",
            ];
            let is_other = others.contains(&path) || path.starts_with("/v1/membership");
            let reads = method == "GET" && !is_other;
            let operates = [
                "refresh", "approve", "reject", "rollback", "requeue", "enqueue", "test", "cancel",
                "run", "recreate", "pause", "resume", "release", "keep", "rewrite", "remove",
            ];
            let last = path.rsplit('/').next().unwrap_or_default();
            let of_many = ["/v1/ingest/1", "/v1/bulk/1"].contains(&path);
            reads || (scope == Scope::Operate && (of_many || operates.contains(&last)))
        }
        Scope::Admin => true,
    };
    let open = ["/healthz", "/readyz", "/openapi.json", "/v1/sign-in-links"];
    for scope in Scope::ALL {
        let client = scoped(&node, "one", &[scope]).await;
        for (method, path) in &routes {
            let status = status(client.request(method, path)).await;
            let may = allowed(scope, method, path) || open.contains(&path.as_str());
            assert_eq!(status != 403, may, "{scope:?} {method} {path}: {status}");
            assert_ne!(status, 401, "{scope:?} {method} {path}");
        }
    }
    // An insertion is an event: a token for lookups only cannot record one.
    let question = json!({ "ad_groups": ["shoes"], "record_insertion": true });
    let client = scoped(&node, "one", &[Scope::Lookup]).await;
    assert_eq!(client.post("/v1/decide", &question).await.0, 403);
    let client = scoped(&node, "one", &[Scope::Lookup, Scope::Events]).await;
    assert_eq!(client.post("/v1/decide", &question).await.0, 200);
    // A person in a browser gets a page that says what is missing.
    let page = client.request("GET", "/budgets").header("accept", "text/html").send().await;
    let page = page.unwrap();
    assert_eq!(page.status(), 403);
    let text = page.text().await.unwrap();
    assert!(text.starts_with("<!doctype html>") && text.contains("needs the scope read"), "{text}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_created_listed_and_revoked() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), noon());
    let node = node(dir.path(), &clock, "").await;
    let admin = Client::of(&node);
    for wrong in [
        json!({ "name": "", "scopes": ["read"] }),
        json!({ "name": "admin", "scopes": ["read"] }),
        json!({ "name": "admin-1", "scopes": ["read"] }),
        json!({ "name": "node.token", "scopes": ["read"] }),
        json!({ "name": "a b", "scopes": ["read"] }),
        json!({ "name": "a", "scopes": [] }),
        json!({ "name": "a", "scopes": ["fly"] }),
        json!({ "name": "a", "scopes": ["read"], "expires_in_secs": 0 }),
        json!({ "name": "a", "scopes": ["read"], "expires_in_secs": u64::MAX }),
        json!({ "name": "a", "scopes": ["read"], "expires": 1 }),
    ] {
        assert_eq!(admin.post("/v1/tokens", &wrong).await.0, 400, "{wrong}");
    }
    let wanted = json!({ "name": "ci", "scopes": ["read", "operate"], "expires_in_secs": 60 });
    let (status, made) = admin.post("/v1/tokens", &wanted).await;
    assert_eq!(status, 200, "{made}");
    assert_eq!(admin.post("/v1/tokens", &wanted).await.0, 409, "the name is in use");
    let secret = made["token"].as_str().unwrap();
    assert!(secret.starts_with("throng_") && secret.len() == 71, "{}", secret.len());
    let ci = Client { http: http(Some(secret)), url: node.url() };
    ci.get("/v1/runs").await;
    let listed = admin.get("/v1/tokens").await;
    let text = listed.to_string();
    assert!(!text.contains(secret) && !text.contains("hash"), "{text}");
    let row = listed["tokens"].as_array().unwrap().iter().find(|t| t["name"] == "ci").unwrap();
    assert_eq!(row["scopes"], json!(["read", "operate"]));
    assert_eq!((&row["created_by"], &row["valid"]), (&json!("admin"), &json!(true)));
    assert!(row["last_used_at"].is_i64(), "{row}");

    clock.advance(Duration::from_secs(60));
    assert_eq!(self::status(ci.request("GET", "/v1/runs")).await, 401, "it has expired");
    let other = scoped(&node, "other", &[Scope::Read]).await;
    other.get("/v1/runs").await;
    assert_eq!(admin.post("/v1/tokens/other/revoke", &json!({})).await.0, 200);
    assert_eq!(self::status(other.request("GET", "/v1/runs")).await, 401, "it is revoked");
    assert_eq!(admin.post("/v1/tokens/other/revoke", &json!({})).await.0, 404);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_throttled_and_valid_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), &noon(), "").await;
    let (admin, stranger) = (Client::of(&node), Client::stranger(&node));
    let mut statuses = Vec::new();
    for n in 0..30 {
        let request = stranger.request("GET", "/v1/runs").bearer_auth(format!("throng_{n}"));
        let response = request.send().await.unwrap();
        statuses.push(response.status().as_u16());
        if response.status() == 429 {
            let after = response.headers()["retry-after"].to_str().unwrap().to_owned();
            assert!(after.parse::<u64>().unwrap() > 0, "{after}");
        }
        assert_eq!(status(admin.request("GET", "/v1/runs")).await, 200, "the valid one");
    }
    assert_eq!(statuses[..10], [401; 10]);
    assert_eq!(*statuses.last().unwrap(), 429);
    assert_eq!(sign_in_with(&node, "guess", "/").await.status(), 429);
    assert_eq!(
        status(stranger.request("GET", "/v1/runs")).await,
        401,
        "no token is not a wrong token"
    );
    let metrics = admin.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("throng_wrong_tokens_total{answer=\"slowed\"}"), "{metrics}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_response_has_headers_against_other_sites() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), &noon(), "").await;
    let (admin, stranger) = (Client::of(&node), Client::stranger(&node));
    let mut answers = Vec::new();
    for path in ["/healthz", "/v1/runs", "/v1/nowhere", "/metrics", "/assets/throng.css"] {
        answers.push((path, admin.request("GET", path).send().await.unwrap()));
        answers.push((path, stranger.request("GET", path).send().await.unwrap()));
    }
    for page in PAGES {
        let response = admin.request("GET", page).send().await.unwrap();
        assert_eq!(response.status(), 200, "{page}");
        answers.push((page, response));
        let request = stranger.request("GET", page).header("accept", "text/html");
        answers.push((page, request.send().await.unwrap()));
    }
    // Errors of the router.
    for path in ["/v1/tasks/x", "/v1/users/%ff/audiences", "/audiences/%ff"] {
        let response = admin.request("GET", path).send().await.unwrap();
        assert_eq!(response.status(), 400, "{path}");
        answers.push((path, response));
    }
    answers.push(("host", admin.request("GET", "/").header("host", "x").send().await.unwrap()));
    for (path, response) in answers {
        let headers = response.headers();
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        let policy = header("content-security-policy");
        assert!(policy.contains("default-src 'none'"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("x-frame-options"), "DENY", "{path}");
        assert_eq!(header("referrer-policy"), "same-origin", "{path}");
        assert_eq!(header("cross-origin-resource-policy"), "same-origin", "{path}");
        let caching = if path.starts_with("/assets/") { "no-cache" } else { "no-store" };
        assert_eq!(header("cache-control"), caching, "{path}");
        assert!(headers.keys().all(|name| !name.as_str().starts_with("access-control-")), "{path}");
        // The policy forbids inline styles and scripts.
        let text = response.text().await.unwrap();
        for inline in [" style=", "<style", "<script>", " onclick=", " onload=", "javascript:"] {
            assert!(!text.contains(inline), "{path} has {inline}");
        }
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_token_is_kept_replaced_if_lost_and_stored_as_a_hash() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), noon());
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let token = || std::fs::read_to_string(dir.path().join("admin.token")).unwrap();
    let mode =
        |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
    let works = async |node: &Node, token: &str| {
        let request = Client::stranger(node).request("GET", "/v1/tokens");
        status(request.bearer_auth(token.trim())).await == 200
    };
    let node = self::node(dir.path(), &clock, "").await;
    let first = token();
    assert_eq!((mode(""), mode("admin.token")), (0o700, 0o600));
    assert!(works(&node, &first).await);
    node.shutdown().await;

    let node = self::node(dir.path(), &clock, "").await;
    assert_eq!(token(), first, "it is kept");
    node.shutdown().await;

    for lost in ["removed", "emptied", "changed"] {
        let before = token();
        let path = dir.path().join("admin.token");
        match lost {
            "removed" => std::fs::remove_file(&path).unwrap(),
            "emptied" => std::fs::write(&path, "\n").unwrap(),
            _ => std::fs::write(&path, "throng_of_mine\n").unwrap(),
        }
        let node = self::node(dir.path(), &clock, "").await;
        let after = token();
        assert_ne!(after, before, "{lost}");
        assert!(works(&node, &after).await, "{lost}");
        assert!(!works(&node, &before).await, "{lost}: the previous one is revoked");
        assert!(!works(&node, "throng_of_mine").await, "{lost}");
        node.shutdown().await;
    }

    let current = token();
    let mut files = 0;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && !path.ends_with("admin.token") {
            files += 1;
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(64).any(|window| window == &current.as_bytes()[7..71]);
            assert!(!found, "{} contains the token", path.display());
        }
    }
    assert!(files > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_names_the_actor() {
    let dir = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("orders.csv"), "customer\n1\n").unwrap();
    let settings = format!(
        "sources:\n  - {{ name: s, path: \"{}\" }}\naudiences:\n  - {{ name: buyers, sql: SELECT customer FROM s.orders }}\n",
        data.path().display()
    );
    let node = node(dir.path(), &noon(), &settings).await;
    let ann = scoped(&node, "ann", &[Scope::Operate]).await;
    assert_eq!(ann.post("/v1/audiences/buyers/refresh", &json!({})).await.0, 200);
    let history = ann.get("/v1/why/audience/buyers").await;
    let entries = history["history"].as_array().unwrap();
    let asked = entries.iter().find(|e| e["what"] == "refresh requested").unwrap();
    assert_eq!(asked["actor"], "ann");
    let all = node.context().ledger.history(None, 100).await.unwrap();
    let made = all
        .iter()
        .find(|e| e.subject_kind == throng_store::SubjectKind::Token && e.subject == "ann")
        .unwrap();
    assert_eq!((made.what.name(), made.actor.as_deref()), ("created", Some("admin")));
    let applied = all.iter().find(|e| e.subject_kind == throng_store::SubjectKind::Spec).unwrap();
    assert_eq!(applied.actor, None, "by the node itself, at its start");
    node.shutdown().await;
}
