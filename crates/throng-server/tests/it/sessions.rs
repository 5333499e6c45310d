//! Sign-in links and sessions of browsers.

use std::time::Duration;

use serde_json::json;
use throng_access::Scope;
use throng_server::Node;

use crate::access::{node, scoped, status};
use crate::{Client, http, noon};

/// A browser: keeps its cookie and sends the origin of its requests.
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

    /// A request of the node's own page.
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
    // Previews, prefetching and pages of other sites do not redeem the code.
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

    // Any token creates a link with its own rights; a session cannot.
    let reader = scoped(&node, "reader", &[Scope::Read]).await;
    let (status, body) = reader.post("/v1/sign-in-links", &json!({})).await;
    assert_eq!(status, 200, "{body}");
    let response = post(body["url"].as_str().unwrap()).await;
    let cookie = response.headers()["set-cookie"].to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let browser = Browser { http: http(None), url: node.url(), cookie };
    assert_eq!(crate::access::status(browser.own("GET", "/v1/runs")).await, 200);
    assert_eq!(crate::access::status(browser.own("GET", "/v1/tokens")).await, 403);
    assert_eq!(crate::access::status(browser.own("POST", "/v1/sign-in-links")).await, 403);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_acts_only_for_the_nodes_own_page() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), &noon(), "").await;
    let browser = Browser::sign_in(&node).await;
    let enqueue = "/v1/tasks/enqueue";
    assert_eq!(status(browser.own("POST", enqueue)).await, 200);
    let origin = browser.request("POST", enqueue).header("origin", node.url());
    assert_eq!(status(origin).await, 200);
    assert_eq!(status(browser.request("POST", enqueue)).await, 401, "it has no origin");
    // Browsers hide the origin of a sandboxed frame, whatever site it is of.
    let hidden = browser.own("POST", enqueue).header("origin", "null");
    assert_eq!(status(hidden).await, 403);
    for site in ["cross-site", "same-site"] {
        let request = browser.request("POST", enqueue).header("sec-fetch-site", site);
        assert_eq!(status(request).await, 403, "{site}");
        // An image, a script or a fetch of another site reads nothing.
        let request = browser.request("GET", "/v1/budgets").header("sec-fetch-site", site);
        assert_eq!(status(request.header("sec-fetch-mode", "no-cors")).await, 401, "{site}");
        // A link to a page of the node works.
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
    let response = out.own("POST", "/sign-out").header("content-type", form).send().await.unwrap();
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
pub(crate) async fn sign_in_with(node: &Node, token: &str, back: &str) -> reqwest::Response {
    let request = http(None).post(format!("{}/sign-in", node.url()));
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let request = request.header("origin", node.url());
    request.body(format!("token={token}&back={back}")).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_the_spec_signs_in_and_redirects_to_own_pages_only() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), &noon(), "node: { token: \"env:TOKEN\" }\n").await;
    let client = Client::stranger(&node);
    assert_eq!(status(client.request("GET", "/v1/tokens").bearer_auth("s3cret")).await, 200);
    let page = client.request("GET", "/budgets?x=1").header("accept", "text/html");
    let page = page.send().await.unwrap();
    assert_eq!(page.status(), 401);
    assert!(page.text().await.unwrap().contains("name=\"back\" value=\"/budgets?x=1\""));
    let right = sign_in_with(&node, "s3cret", "%2Fbudgets").await;
    assert_eq!(
        (right.status().as_u16(), right.headers()["location"].as_bytes()),
        (303, &b"/budgets"[..])
    );
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
    // A session ends when its token is removed from the spec.
    node.shutdown().await;
    let node = crate::access::node(dir.path(), &noon(), "").await;
    let port_changed = Client::stranger(&node);
    let new_name = node.url().rsplit_once(':').unwrap().1.to_owned();
    let value = pair.split_once('=').unwrap().1;
    let pair = format!("throng-session-{new_name}={value}");
    assert_eq!(status(port_changed.request("GET", "/budgets").header("cookie", pair)).await, 401);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_is_secure_if_the_public_url_is_https() {
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
