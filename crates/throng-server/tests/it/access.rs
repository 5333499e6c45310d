//! Who may do what: every route without a token, with the wrong scope, for another host, from
//! another site's page, with the wrong content type; sessions; throttling; the admin token.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use throng_model::ManualClock;
use throng_server::Node;
use throng_server::access::Scope;

use crate::api::routes;
use crate::{Client, SPEC, http, noon, spec, start};

const OPEN: [&str; 2] = ["/healthz", "/readyz"];
const PAGES: [&str; 7] =
    ["/", "/audiences", "/activation", "/budgets", "/budgets/shoes", "/decide", "/access"];

async fn node(dir: &std::path::Path, clock: &Arc<ManualClock>, settings: &str) -> Node {
    start(dir, spec(&format!("{SPEC}{settings}")), clock).await.unwrap()
}

async fn status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

async fn code(request: reqwest::RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    if status < 400 {
        // It may be a stream, which does not end.
        return (status, String::new());
    }
    let said: Value = response.json().await.unwrap_or_default();
    (status, said["error"]["code"].as_str().unwrap_or_default().to_owned())
}

/// A client with a new token of these scopes.
async fn scoped(node: &Node, name: &str, scopes: &[Scope]) -> Client {
    let token = node.replace_token(name, scopes).await.unwrap();
    Client { http: http(Some(token.expose())), url: node.url() }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_pages_of_other_sites_reach_no_route() {
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
            let said = code(admin.request(&method, &path).header("host", host)).await;
            let probe = open && host == "127.0.0.1:1";
            assert_eq!(said == (421, "unknown_host".to_owned()), !probe, "{case}: {host} {said:?}");
        }
        if method != "GET" {
            for (name, value) in [
                ("origin", "https://evil.example"),
                ("origin", other_port.as_str()),
                ("origin", "null"),
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-site", "same-site"),
            ] {
                let said = code(admin.request(&method, &path).header(name, value)).await;
                assert_eq!(said, (403, "foreign_origin".to_owned()), "{case}: {name} {value}");
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
        // What is asked for in the right way is answered, by a handler.
        let request = admin.request(&method, &path).header("sec-fetch-site", "same-origin");
        let said = code(request.header("origin", node.url())).await;
        assert!(![401, 403, 421].contains(&said.0) && said.0 < 500, "{case}: {said:?}");
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
    let said = async |head: String| {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    let page = |hosts: &str| format!("GET /assets/throng.css HTTP/1.1\r\n{hosts}");
    assert_eq!(said(page(&format!("host: {address}\r\n"))).await, "200");
    assert_eq!(said(page("host: ads.example.com\r\n")).await, "200");
    assert_eq!(said(page("host: RELAY:80\r\n")).await, "200");
    assert_eq!(said(page("host: ads.example.com:7077\r\n")).await, "421");
    assert_eq!(said(page(&format!("host: {address}\r\nhost: {address}\r\n"))).await, "421");
    assert_eq!(said(page("")).await, "421");
    let absolute = format!("GET http://{address}/assets/throng.css HTTP/1.1\r\nhost: relay\r\n");
    assert_eq!(said(absolute).await, "421", "two hosts");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_the_routes_of_its_scopes_only() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), &noon(), "").await;
    let routes = routes(&Client::of(&node)).await;
    // What each scope is for, written down a second time.
    let allowed = |scope: Scope, method: &str, path: &str| match scope {
        Scope::Events => path == "/v1/events",
        Scope::Lookup => {
            ["/v1/users/1/audiences", "/v1/lookups", "/v1/decide"].contains(&path)
        }
        Scope::Feed => ["/v1/feed", "/v1/catalog", "/v1/gates/1/applied"].contains(&path),
        Scope::Metrics => path == "/metrics",
        Scope::Read | Scope::Operate => {
            let others = [
                "/v1/users/1/audiences", "/v1/feed", "/v1/events", "/v1/tokens", "/v1/sessions",
            ];
            let reads = method == "GET" && !others.contains(&path);
            let operates = ["refresh", "approve", "reject", "rollback", "requeue", "announce"];
            let last = path.rsplit('/').next().unwrap_or_default();
            reads || (scope == Scope::Operate && operates.contains(&last))
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
    // An insertion is an event: who may only look up cannot record one.
    let question = json!({ "ad_groups": ["shoes"], "record_insertion": true });
    let client = scoped(&node, "one", &[Scope::Lookup]).await;
    assert_eq!(client.post("/v1/decide", &question).await.0, 403);
    let client = scoped(&node, "one", &[Scope::Lookup, Scope::Events]).await;
    assert_eq!(client.post("/v1/decide", &question).await.0, 200);
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
    assert_eq!(admin.post("/v1/tokens", &wanted).await.0, 409, "the name is taken");
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

/// A browser: keeps its cookie and says where its requests come from.
struct Browser {
    http: reqwest::Client,
    url: String,
    cookie: String,
}

impl Browser {
    /// Opens a sign-in link as a person does.
    async fn sign_in(node: &Node) -> Self {
        let link = node.sign_in_link().await.unwrap();
        let mut browser = Self { http: http(None), url: node.url(), cookie: String::new() };
        let path = link.strip_prefix(&node.url()).unwrap().to_owned();
        let response = browser.open(&path).send().await.unwrap();
        assert_eq!(response.status(), 303);
        assert_eq!(response.headers()["location"], "/");
        let cookie = response.headers()["set-cookie"].to_str().unwrap().to_owned();
        browser.cookie = cookie.split(';').next().unwrap().to_owned();
        browser
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.http.request(method, format!("{}{path}", self.url));
        request.header("cookie", format!("a=b; {}", self.cookie))
    }

    fn open(&self, path: &str) -> reqwest::RequestBuilder {
        let request = self.request("GET", path).header("accept", "text/html");
        request.header("sec-fetch-site", "none").header("sec-fetch-mode", "navigate")
    }

    /// What the node's own page sends.
    fn own(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.request(method, path).header("sec-fetch-site", "same-origin")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_link_works_once_and_for_ten_minutes() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), noon());
    let node = node(dir.path(), &clock, "").await;
    let link = node.sign_in_link().await.unwrap();
    let open = |site: &'static str, purpose: Option<&'static str>| {
        let request = http(None).get(&link).header("sec-fetch-mode", "navigate");
        let request = match site {
            "" => request,
            site => request.header("sec-fetch-site", site),
        };
        purpose.into_iter().fold(request, |request, value| request.header("sec-purpose", value))
    };
    // Previews, prefetching and pages of other sites use nothing up.
    for (site, purpose) in
        [("", None), ("cross-site", None), ("same-site", None), ("none", Some("prefetch"))]
    {
        let response = open(site, purpose).send().await.unwrap();
        assert_eq!(response.status(), 200, "{site} {purpose:?}");
        assert!(response.headers().get("set-cookie").is_none(), "{site} {purpose:?}");
        assert!(response.text().await.unwrap().contains("name=\"code\""), "a button");
    }
    assert_eq!(status(open("none", None)).await, 303);
    assert_eq!(status(open("none", None)).await, 401, "once");

    // The button.
    let post = async |link: &str| {
        let code = link.split_once("code=").unwrap().1;
        let request = http(None).post(format!("{}/sign-in", node.url()));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        request.header("origin", node.url()).body(format!("code={code}")).send().await.unwrap()
    };
    let link = node.sign_in_link().await.unwrap();
    assert_eq!(post(&link).await.status(), 303);
    assert_eq!(post(&link).await.status(), 401, "once");
    let late = node.sign_in_link().await.unwrap();
    clock.advance(Duration::from_secs(600));
    assert_eq!(post(&late).await.status(), 401, "after ten minutes");

    // Any token makes a link with its own rights; a session makes none.
    let reader = scoped(&node, "reader", &[Scope::Read]).await;
    let (status, said) = reader.post("/v1/sign-in-links", &json!({})).await;
    assert_eq!(status, 200, "{said}");
    let response = post(said["url"].as_str().unwrap()).await;
    let cookie = response.headers()["set-cookie"].to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let browser = Browser { http: http(None), url: node.url(), cookie };
    assert_eq!(self::status(browser.own("GET", "/v1/runs")).await, 200);
    assert_eq!(self::status(browser.own("GET", "/v1/tokens")).await, 403);
    assert_eq!(self::status(browser.own("POST", "/v1/sign-in-links")).await, 403);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_acts_only_for_the_nodes_own_page() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), &noon(), "").await;
    let browser = Browser::sign_in(&node).await;
    let announce = "/v1/tasks/announce";
    assert_eq!(status(browser.own("POST", announce)).await, 200);
    let origin = browser.request("POST", announce).header("origin", node.url());
    assert_eq!(status(origin).await, 200);
    assert_eq!(status(browser.request("POST", announce)).await, 401, "it does not say from where");
    for site in ["cross-site", "same-site"] {
        let request = browser.request("POST", announce).header("sec-fetch-site", site);
        assert_eq!(status(request).await, 403, "{site}");
        // A picture, a script, a fetch of another page reads nothing.
        let request = browser.request("GET", "/v1/budgets").header("sec-fetch-site", site);
        assert_eq!(status(request.header("sec-fetch-mode", "no-cors")).await, 401, "{site}");
        // A link to a page of the node does.
        let request = browser.request("GET", "/budgets").header("sec-fetch-site", site);
        assert_eq!(status(request.header("sec-fetch-mode", "navigate")).await, 200, "{site}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_expire_and_are_ended() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), noon());
    let node = node(dir.path(), &clock, "").await;
    let admin = Client::of(&node);
    let hours = |n: u64| Duration::from_secs(n * 3_600);
    let works = async |browser: &Browser| status(browser.own("GET", "/v1/runs")).await == 200;

    let idle = Browser::sign_in(&node).await;
    clock.advance(hours(11));
    assert!(works(&idle).await, "it was used within twelve hours");
    clock.advance(hours(11));
    assert!(works(&idle).await);
    clock.advance(hours(12));
    assert!(!works(&idle).await, "it was not used for twelve hours");

    let busy = Browser::sign_in(&node).await;
    for hour in 1..17 {
        clock.advance(hours(10));
        assert!(works(&busy).await, "{hour}");
    }
    clock.advance(hours(8));
    assert!(!works(&busy).await, "it is seven days old");

    let ended = Browser::sign_in(&node).await;
    assert!(works(&ended).await);
    let sessions = admin.get("/v1/sessions").await;
    let [session] = sessions["sessions"].as_array().unwrap().as_slice() else {
        panic!("{sessions}")
    };
    assert_eq!(session["token"], "admin");
    let (_, value) = ended.cookie.split_once('=').unwrap();
    assert!(!sessions.to_string().contains(value), "the cookie is not shown");
    let path = format!("/v1/sessions/{}/end", session["id"]);
    assert_eq!(admin.post(&path, &json!({})).await.0, 200);
    assert!(!works(&ended).await);
    assert_eq!(admin.post(&path, &json!({})).await.0, 404);

    let out = Browser::sign_in(&node).await;
    let form = "application/x-www-form-urlencoded";
    let response =
        out.own("POST", "/sign-out").header("content-type", form).send().await.unwrap();
    assert_eq!(response.status(), 303);
    assert!(response.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert!(!works(&out).await);

    // A session ends with its token.
    let token = node.replace_token("person", &[Scope::Read]).await.unwrap();
    let signed_in = sign_in_with(&node, token.expose(), "/").await;
    let cookie = signed_in.headers()["set-cookie"].to_str().unwrap();
    assert!(!cookie.contains(token.expose()), "the cookie is not the token");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let person = Browser { http: http(None), url: node.url(), cookie };
    assert!(works(&person).await);
    admin.post("/v1/tokens/person/revoke", &json!({})).await;
    assert!(!works(&person).await);
    node.shutdown().await;
}

/// Sends the form of the page to sign in.
async fn sign_in_with(node: &Node, token: &str, back: &str) -> reqwest::Response {
    let request = http(None).post(format!("{}/sign-in", node.url()));
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let request = request.header("origin", node.url());
    request.body(format!("token={token}&back={back}")).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_the_spec_signs_in_and_leads_only_to_own_pages() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), &noon(), "node: { token: \"env:TOKEN\" }\n").await;
    let client = Client::stranger(&node);
    assert_eq!(status(client.request("GET", "/v1/tokens").bearer_auth("s3cret")).await, 200);
    let page = client.request("GET", "/budgets?x=1").header("accept", "text/html");
    let page = page.send().await.unwrap();
    assert_eq!(page.status(), 401);
    assert!(page.text().await.unwrap().contains("name=\"back\" value=\"/budgets?x=1\""));
    let right = sign_in_with(&node, "s3cret", "%2Fbudgets").await;
    assert_eq!((right.status().as_u16(), right.headers()["location"].as_bytes()), (303, &b"/budgets"[..]));
    let cookie = right.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    assert!(!cookie.contains("Secure"), "not without https: {cookie}");
    let pair = cookie.split(';').next().unwrap();
    let page = client.request("GET", "/budgets").header("cookie", pair);
    assert_eq!(status(page).await, 200);
    for elsewhere in
        ["https%3A%2F%2Fevil.example", "%2F%09%2Fevil.example", "%2F%0d%0ax%3A%20y", "%2F%5Cevil"]
    {
        let response = sign_in_with(&node, "s3cret", elsewhere).await;
        assert_eq!(response.headers()["location"], "/", "{elsewhere}");
    }
    let wrong = sign_in_with(&node, "guess", "%2Fbudgets").await;
    assert_eq!((wrong.status().as_u16(), wrong.headers().get("set-cookie")), (401, None));
    // A session of a token that the spec does not have any longer is over.
    node.shutdown().await;
    let node = self::node(dir.path(), &noon(), "").await;
    let port_changed = Client::stranger(&node);
    let new_name = node.url().rsplit_once(':').unwrap().1.to_owned();
    let value = pair.split_once('=').unwrap().1;
    let pair = format!("throng-session-{new_name}={value}");
    assert_eq!(status(port_changed.request("GET", "/budgets").header("cookie", pair)).await, 401);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_is_secure_where_people_come_by_https() {
    let dir = tempfile::tempdir().unwrap();
    let settings = "node: { token: \"env:TOKEN\", public_url: \"https://ads.example.com\" }\n";
    let node = node(dir.path(), &noon(), settings).await;
    let link = node.sign_in_link().await.unwrap();
    assert!(link.starts_with("https://ads.example.com/sign-in?code="), "{link}");
    let sign_in = async |origin: &'static str| {
        let request = http(None).post(format!("{}/sign-in", node.url()));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let request = request.header("host", "ads.example.com").header("origin", origin);
        request.body("token=s3cret").send().await.unwrap()
    };
    let response = sign_in("https://ads.example.com").await;
    let cookie = response.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("__Host-throng-session-443="), "{cookie}");
    assert!(cookie.ends_with("; HttpOnly; SameSite=Strict; Secure"), "{cookie}");
    assert_eq!(sign_in("http://ads.example.com").await.status(), 403);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_slowed_down_and_right_ones_are_not() {
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
        assert_eq!(status(admin.request("GET", "/v1/runs")).await, 200, "the right one");
    }
    assert_eq!(statuses[..10], [401; 10]);
    assert_eq!(*statuses.last().unwrap(), 429);
    assert_eq!(sign_in_with(&node, "guess", "/").await.status(), 429);
    assert_eq!(status(stranger.request("GET", "/v1/runs")).await, 401, "none is not a wrong one");
    let metrics = admin.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("throng_wrong_tokens_total{answer=\"slowed\"}"), "{metrics}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_keeps_other_pages_away() {
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
        assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(header("cross-origin-resource-policy"), "same-origin", "{path}");
        let caching = if path.starts_with("/assets/") { "no-cache" } else { "no-store" };
        assert_eq!(header("cache-control"), caching, "{path}");
        assert!(headers.keys().all(|name| !name.as_str().starts_with("access-control-")), "{path}");
        // The policy forbids what stands in the page itself.
        let text = response.text().await.unwrap();
        for inline in [" style=", "<style", "<script>", " onclick=", " onload=", "javascript:"] {
            assert!(!text.contains(inline), "{path} has {inline}");
        }
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_token_is_kept_made_anew_and_stored_as_a_hash() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), noon());
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let token = || std::fs::read_to_string(dir.path().join("admin.token")).unwrap();
    let mode = |name: &str| {
        std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777
    };
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
        assert!(!works(&node, &before).await, "{lost}: the old one is revoked");
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
            assert!(!found, "{} holds the token", path.display());
        }
    }
    assert!(files > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_says_who_did_it() {
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
    let made = all.iter().find(|e| e.subject_kind == "token" && e.subject == "ann").unwrap();
    assert_eq!((made.what.as_str(), made.actor.as_deref()), ("created", Some("admin")));
    let applied = all.iter().find(|e| e.subject_kind == "spec").unwrap();
    assert_eq!(applied.actor, None, "the node itself, at its start");
    node.shutdown().await;
}
