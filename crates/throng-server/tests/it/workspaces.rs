//! Callers that are limited to a workspace: every route and page shows them objects of that workspace only, and
//! answers for others as for what does not exist.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use throng_model::{Clock, SystemClock};
use throng_server::{Node, NodeConfig};
use throng_spec::Role;
use throng_store::{AlertKind, HistoryEvent, NewAlert, RunState, SyncRun};

use crate::lists::{all_pages, column, plan};
use crate::shared::{Deployment, setting};
use crate::{Client, http, until};

/// What all names have that the caller of the other workspace must not see.
const MARK: &str = "zebra";
/// Parts of the paths that are closed to callers of a workspace, independent of the implementation.
const CLOSED: [&str; 16] = [
    "feed",
    "catalog",
    "budgets",
    "events",
    "decide",
    "membership",
    "metrics",
    "spec",
    "node",
    "nodes",
    "tokens",
    "sessions",
    "gates",
    "enqueue",
    "test",
    "hash-seed",
];

/// A workspace whose objects have names that begin with `mark`. `run`: is in the keys of its store, so that no other
/// test has them.
fn workspace(name: &str, mark: &str, run: &str) -> String {
    let redis = setting("THRONG_REDIS");
    format!(
        r#"  - name: {name}
    sources:
      - {{ name: {mark}shop, path: {mark}data }}
    schemas:
      - name: {mark}visits
        key: email
        day: seen
        fields:
          - {{ name: email, type: email, required: true, anonymise: hash }}
          - {{ name: seen, type: date, required: true }}
    audiences:
      - {{ name: {mark}buyers, sql: "SELECT customer FROM {mark}shop.purchases" }}
    destinations:
      - {{ name: {mark}files, platform: file, folder: {mark}out }}
    syncs:
      - name: {mark}sync
        audience: {mark}buyers
        destination: {mark}files
        identifiers:
          sql: "SELECT customer, email FROM {mark}shop.customers"
          key: customer
          columns: {{ email: EMAIL }}
    serving_stores:
      - {{ name: {mark}cache, type: redis, url: "{redis}/42", prefix: "{mark}{run}:" }}
"#
    )
}

/// A node with the workspaces `zebra` and `other`, and an audience in neither, whose users are the same.
async fn node(dir: &Path) -> Node {
    let run = dir.file_name().unwrap().to_str().unwrap().to_lowercase();
    let run: String = run.chars().filter(char::is_ascii_alphanumeric).collect();
    for mark in [MARK, "own"] {
        let data = dir.join(format!("{mark}data"));
        std::fs::create_dir(&data).unwrap();
        std::fs::create_dir(dir.join(format!("{mark}out"))).unwrap();
        std::fs::write(data.join("purchases.csv"), "customer\nc1\nc2\n").unwrap();
        let customers = "customer,email\nc1,c1@example.com\nc2,c2@example.com\n";
        std::fs::write(data.join("customers.csv"), customers).unwrap();
    }
    let text = format!(
        "version: 1\nnode: {{ lake: lake }}\nsources:\n  - {{ name: {MARK}shop, path: {MARK}data }}\naudiences:\n  \
         - {{ name: {MARK}all, sql: \"SELECT customer FROM {MARK}shop.purchases\" }}\nworkspaces:\n{}{}",
        workspace(MARK, MARK, &run),
        workspace("other", "own", &run),
    );
    let file = dir.join("throng.yaml");
    std::fs::write(&file, text).unwrap();
    let spec = throng_spec::load(&file).unwrap_or_else(|problems| panic!("{problems:#?}"));
    Node::start(NodeConfig {
        accept_log_loss: Vec::new(),
        data_dir: dir.join("node"),
        spec,
        join: false,
        roles: None,
        listen: Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0))),
        clock: Arc::new(SystemClock),
        access_clock: Arc::new(SystemClock),
        recovery: throng_server::Recovery::default(),
        env: Arc::new(|_: &str| None),
        limits: Default::default(),
        query_worker: crate::query_worker(),
    })
    .await
    .unwrap()
}

/// A client with a token of a workspace.
async fn limited(node: &Node, workspace: &str) -> Client {
    let scopes = ["lookup", "read", "operate"];
    let name = format!("{workspace}-token");
    let wanted = json!({ "name": name, "scopes": scopes, "workspace": workspace });
    let (status, made) = Client::of(node).post("/v1/tokens", &wanted).await;
    assert_eq!((status, &made["workspace"]), (200, &json!(workspace)), "{made}");
    Client { http: http(made["token"].as_str()), url: node.url() }
}

/// Waits until both syncs have delivered, both stores are written, and what follows is done. Returns their runs by
/// workspace.
async fn delivered(node: &Node) -> [SyncRun; 2] {
    let (ledger, admin) = (&node.context().ledger, Client::of(node));
    until("both syncs have delivered", async || {
        let runs = ledger.runs(None, 10).await.unwrap();
        runs.iter().filter(|run| run.state == RunState::Completed).count() == 2
    })
    .await;
    until("both stores are written", async || {
        let list = admin.get("/v1/stores").await;
        let stores = list["stores"].as_array().unwrap().iter();
        stores.filter(|store| store["audiences"][0]["write"]["check"].is_object()).count() == 2
    })
    .await;
    // The last step after a publication and after a delivery. The one before it resolves alerts: it would resolve those
    // that a test raises.
    until("three publications and two deliveries are recorded", async || {
        let history = ledger.history(None, 1_000).await.unwrap();
        let count = |what: HistoryEvent| history.iter().filter(|entry| entry.what == what).count();
        (count(HistoryEvent::Published), count(HistoryEvent::Delivered)) == (3, 2)
    })
    .await;
    let runs = ledger.runs(None, 10).await.unwrap();
    [MARK, "other"].map(|workspace| {
        let found = runs.iter().find(|run| run.sync.workspace() == Some(workspace));
        found.cloned().expect("both were delivered")
    })
}

/// Alerts about objects of the marked workspace, and one about a node that names one.
async fn raise_alerts(node: &Node) {
    let sync = format!("{MARK}:{MARK}sync");
    for (kind, subject) in [
        (AlertKind::TaskFailed, sync.clone()),
        (AlertKind::RunHeld, format!("destination {MARK}:{MARK}files")),
        (AlertKind::NullKeys, format!("{MARK}:{MARK}buyers")),
        (AlertKind::Damaged, format!("snapshot {MARK}:{MARK}buyers on this node")),
    ] {
        let alert = NewAlert { kind, subject, message: format!("a test of {sync}") };
        node.context().ledger.raise_alert(&alert, SystemClock.now()).await.unwrap();
    }
}

/// The path of a route, with objects of a workspace for its parameters.
fn filled(path: &str, workspace: &str, mark: &str, id: &str) -> String {
    let object = match path.split('/').nth(2) {
        Some("syncs" | "removals") => "sync",
        Some("stores") => "cache",
        Some("destinations") => "files",
        _ => "buyers",
    };
    path.replace("{kind}", "audience")
        .replace("{name}", &format!("{workspace}:{mark}{object}"))
        .replace("{audience}", &format!("{workspace}:{mark}buyers"))
        .replace("{schema}", &format!("{workspace}:{mark}visits"))
        .replace("{key}", "c1")
        .replace("{id}", id)
        .replace("{version}", "1")
        .replace("{ad_group}", "shoes")
        .replace("{shard}", "00")
        .replace("{segment}", "1")
}

/// Status and body of a request, without the id of the request; headers and body as one text.
async fn ask(client: &Client, method: &str, path: &str) -> (u16, String) {
    let request = client.request(method, path);
    let request = match (method, path) {
        ("GET", _) => request,
        (_, path) if path.starts_with("/v1/ingest/") => request
            .header("content-type", "text/csv")
            .body("email,seen\na@example.com,2026-11-25\n"),
        (_, "/v1/lookups") => request.json(&json!({ "keys": ["c1"] })),
        (_, path) if path.starts_with("/v1/audiences/") => request.json(&json!({ "version": 1 })),
        _ => request.json(&json!({})),
    };
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let headers = format!("{:?}", response.headers());
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body = response.text().await.unwrap();
    assert!(status < 500, "{method} {path}: {status} {body}");
    let shown = format!("{headers}{body}").to_lowercase();
    let is_echo = path.contains(MARK) || path.contains("xebra");
    assert!(is_echo || !shown.contains(MARK), "{method} {path}: {body}");
    (status, body.replace(&id, "ID"))
}

/// The method and path of every route of the description.
async fn routes(client: &Client) -> Vec<(String, String)> {
    let document = client.get("/openapi.json").await;
    let paths = document["paths"].as_object().unwrap().iter();
    let routes = paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(move |method| (method.to_uppercase(), path.clone()))
    });
    routes.collect()
}

/// Every route with objects of its own, of the marked workspace, and with names that nothing has.
async fn check_routes(client: &Client, own: &SyncRun, marked: &SyncRun) {
    let (own, marked) = (own.id.to_string(), marked.id.to_string());
    for (method, path) in routes(client).await {
        if path == "/v1/stream" {
            continue;
        }
        let is_closed = path.split('/').any(|part| CLOSED.contains(&part));
        let case = format!("{method} {path}");
        let (status, body) = ask(client, &method, &filled(&path, "other", "own", &own)).await;
        assert_eq!(status == 403, is_closed, "{case}: {status} {body}");
        assert_ne!(status, 401, "{case}");
        if !path.contains('{') || path.contains("{key}") {
            continue;
        }
        let (status, body) = ask(client, &method, &filled(&path, MARK, MARK, &marked)).await;
        let (missing, other) = ask(client, &method, &filled(&path, "xebra", "xebra", "987")).await;
        assert_eq!(status, if is_closed { 403 } else { 404 }, "{case}: {body}");
        let body = body.replace(MARK, "xebra").replace(&format!("`{marked}`"), "`987`");
        assert_eq!((missing, other), (status, body), "{case}");
    }
}

/// The targets of the links of a page.
fn links(html: &str) -> Vec<String> {
    let targets = html.split("href=\"/").skip(1).filter_map(|rest| rest.split('"').next());
    targets
        .map(|target| format!("/{}", target.replace("&#38;", "&").replace("&amp;", "&")))
        .collect()
}

/// Every page that the pages of the workspace link, from the overview on.
async fn check_pages(client: &Client) {
    let (mut next, mut seen) = (vec!["/".to_owned()], Vec::new());
    while let Some(path) = next.pop() {
        if seen.contains(&path) {
            continue;
        }
        let (status, html) = ask(client, "GET", &path).await;
        assert_eq!(status, 200, "{path}");
        if !path.starts_with("/assets/") {
            assert!(html.contains("<span id=\"workspace\">other</span>"), "{path}: {html}");
            next.extend(links(&html));
        }
        seen.push(path);
    }
    for page in ["/audiences/other:ownbuyers", "/activation/syncs/other:ownsync", "/alerts"] {
        assert!(seen.iter().any(|path| path == page), "{page} is not linked: {seen:?}");
    }
    for page in ["/budgets", "/budgets/report", "/decide", "/access"] {
        assert_eq!(ask(client, "GET", page).await.0, 403, "{page}");
    }
    let hidden = [format!("/audiences/{MARK}:{MARK}buyers"), format!("/audiences/{MARK}all")];
    for page in hidden {
        let (status, html) = ask(client, "GET", &page).await;
        assert_eq!(status, 404, "{page}");
        assert!(html.contains("<span id=\"workspace\">other</span>"), "{html}");
    }
}

/// Events come at intervals, whatever happens in other workspaces.
async fn check_stream(client: &Client) {
    let mut response = client.request("GET", "/v1/stream").send().await.unwrap();
    let chunk = response.chunk().await.unwrap().unwrap();
    let events = String::from_utf8_lossy(&chunk);
    assert!(events.starts_with("data: audiences\n\n"), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_of_a_workspace_sees_nothing_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(&dir.path().canonicalize().unwrap()).await;
    let [marked, own] = delivered(&node).await;
    raise_alerts(&node).await;
    let (admin, client) = (Client::of(&node), limited(&node, "other").await);
    let history = format!("/v1/why/audience/{MARK}:{MARK}buyers");
    // It is recorded after the version is served and may be delivered.
    until("the publication is in the history", async || {
        let entries = admin.get(&history).await["history"].clone();
        entries.as_array().unwrap().iter().any(|entry| entry["what"] == "published")
    })
    .await;
    let before = admin.get(&history).await;
    until("three audiences are served", async || {
        let user = admin.get("/v1/users/c1/audiences").await;
        user["audiences"].as_array().is_some_and(|audiences| audiences.len() == 3)
    })
    .await;
    let user = client.get("/v1/users/c1/audiences").await;
    assert_eq!(user["audiences"], json!(["other:ownbuyers"]));
    check_routes(&client, &own, &marked).await;
    check_pages(&client).await;
    check_stream(&client).await;
    assert_eq!(admin.get(&history).await, before, "nothing of the other workspace has changed");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_of_a_workspace_works_with_its_objects_by_their_local_names() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(&dir.path().canonicalize().unwrap()).await;
    delivered(&node).await;
    raise_alerts(&node).await;
    let (admin, client) = (Client::of(&node), limited(&node, MARK).await);
    let qualified = format!("{MARK}:{MARK}buyers");
    let path = format!("/v1/audiences/{MARK}buyers");
    assert_eq!(client.get(&path).await["name"], json!(qualified));
    assert_eq!(client.post(&format!("{path}/pause"), &json!({})).await.0, 200);
    assert_eq!(client.post(&format!("/v1/audiences/{qualified}/resume"), &json!({})).await.0, 200);
    let history = client.get(&format!("/v1/why/audience/{MARK}buyers")).await;
    let entries = history["history"].as_array().unwrap();
    let by = |what: &str| {
        let found = entries.iter().find(|entry| entry["what"] == what);
        found.map(|entry| entry["actor"].clone())
    };
    let actor = Some(json!(format!("{MARK}-token")));
    assert_eq!((by("paused"), by("resumed")), (actor.clone(), actor));
    let alerts = client.get("/v1/alerts").await;
    assert_eq!((&alerts["open"], &alerts["total"]), (&json!(3), &json!(3)), "{alerts}");
    assert_eq!(alerts["receivers"], json!([]));

    // Records go to the part of the lake of the workspace.
    let request = client.request("POST", &format!("/v1/ingest/{MARK}visits"));
    let request = request.header("content-type", "text/csv");
    let rows = "email,seen\na@example.com,2026-11-25\nb@example.com,2026-11-25\n";
    let response = request.body(rows).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let report: Value = response.json().await.unwrap();
    assert_eq!(report["accepted"], json!(2), "{report}");
    // The same batch by an operator, who names the workspace.
    let path = format!("/v1/ingest/{MARK}visits?workspace={MARK}");
    let request = admin.request("POST", &path).header("content-type", "text/csv");
    let again: Value = request.body(rows).send().await.unwrap().json().await.unwrap();
    assert_eq!((&again["repeated"], &again["batch"]), (&json!(true), &report["batch"]), "{again}");
    let path = format!("/v1/ingest/{MARK}visits");
    let request = admin.request("POST", &path).header("content-type", "text/csv");
    assert_eq!(request.body(rows).send().await.unwrap().status(), 404, "of no workspace");
    let rows_of = |list: &Value, source: &str| {
        let sources = list["sources"].as_array().unwrap();
        let found = sources.iter().find(|of| of["name"] == source);
        found.map(|of| of["tables"][0]["rows"].clone())
    };
    let own = client.get("/v1/sources").await;
    assert_eq!(rows_of(&own, &format!("{MARK}:lake")), Some(json!(2)), "{own}");
    assert_eq!(rows_of(&own, "other:lake"), None);
    let all = admin.get("/v1/sources").await;
    assert!(rows_of(&all, "other:lake").is_some_and(|rows| rows != json!(2)), "{all}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_workspace_is_limited_when_it_is_created() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(&dir.path().canonicalize().unwrap()).await;
    let admin = Client::of(&node);
    for scope in ["events", "feed", "metrics", "admin"] {
        let wanted = json!({ "name": "a", "scopes": ["read", scope], "workspace": "other" });
        let (status, error) = admin.post("/v1/tokens", &wanted).await;
        assert_eq!(status, 400, "{scope}");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.ends_with(&format!("the scopes {scope}")), "{message}");
    }
    for name in ["others", "", "Other", "other:shop"] {
        let wanted = json!({ "name": "a", "scopes": ["read"], "workspace": name });
        let (status, error) = admin.post("/v1/tokens", &wanted).await;
        assert_eq!(status, 400, "{name}");
        assert_eq!(error["error"]["help"], json!("the workspaces are other, zebra"), "{name}");
    }
    let client = limited(&node, "other").await;
    let listed = admin.get("/v1/tokens").await;
    let tokens = listed["tokens"].as_array().unwrap();
    let row = tokens.iter().find(|token| token["name"] == "other-token").unwrap();
    assert_eq!(row["workspace"], json!("other"));
    assert_eq!(client.post("/v1/tokens", &json!({})).await.0, 403);
    node.shutdown().await;
}

/// The syncs that a list has on all pages.
async fn syncs_of(client: &Client, path: &str, rows: &str) -> Vec<Value> {
    all_pages(client, path, rows, "sync").await.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_a_workspace_have_its_rows_only_on_every_page() {
    const ROWS: usize = 210;
    let deployment = Deployment::new();
    let source = "sources: [{ name: shop, path: data }]";
    deployment.declare(&format!(
        "workspaces:\n  - {{ name: acme, {source} }}\n  - {{ name: other, {source} }}\n"
    ));
    let node = deployment.node("api", &[Role::Api]).await;
    let name = |workspace: &str, number: usize| format!("{workspace}:sync-{number:04}");
    for number in 0..ROWS {
        // Two of three rows are of the other workspace, or of none.
        plan(&node, &name("acme", number)).await;
        plan(&node, &name("other", number)).await;
        plan(&node, &format!("sync-{number:04}")).await;
    }
    let (admin, client) = (Client::of(&node), limited(&node, "acme").await);
    let sorted: Vec<String> = (0..ROWS).map(|number| name("acme", number)).collect();
    let newest: Vec<&String> = sorted.iter().rev().collect();
    for (client, filter) in
        [(&client, ""), (&client, "&workspace=acme"), (&admin, "&workspace=acme")]
    {
        for rows in ["runs", "tasks"] {
            let path = format!("/v1/{rows}?limit=100&sort=-id{filter}");
            assert_eq!(json!(syncs_of(client, &path, rows).await), json!(newest), "{path}");
            let path = format!("/v1/{rows}?limit=100&sort=sync{filter}");
            assert_eq!(json!(syncs_of(client, &path, rows).await), json!(sorted), "{path}");
            let path = format!("/v1/{rows}?search=sync-01&limit=1000{filter}");
            assert_eq!(syncs_of(client, &path, rows).await.len(), 100, "{path}");
        }
        // The order in which open tasks come first, and their number.
        let tasks = client.get(&format!("/v1/tasks?limit=1000{filter}")).await;
        assert_eq!(column(&tasks, "tasks", "sync").len(), ROWS);
        let queued = json!(["queued", ROWS]);
        assert!(tasks["counts"].as_array().unwrap().contains(&queued), "{}", tasks["counts"]);
    }
    let first = client.get("/v1/runs?limit=100").await;
    let next = first["next_cursor"].as_str().unwrap();
    let second = client.get(&format!("/v1/runs?limit=100&cursor={next}")).await;
    let previous = second["previous_cursor"].as_str().unwrap();
    let back = client.get(&format!("/v1/runs?limit=100&cursor={previous}")).await;
    assert_eq!(back["runs"], first["runs"]);
    assert_eq!(syncs_of(&admin, "/v1/runs?limit=1000&sort=id", "runs").await.len(), 3 * ROWS);

    for path in ["audiences", "syncs", "runs", "tasks", "alerts"] {
        let path = format!("/v1/{path}?workspace=");
        let status = async |client: &Client, name: &str| {
            let request = client.request("GET", &format!("{path}{name}"));
            request.send().await.unwrap().status().as_u16()
        };
        // A workspace of others is as unknown as one that does not exist.
        for (name, expected) in [("acme", 200), ("other", 404), ("nobody", 404), ("A:b", 400)] {
            assert_eq!(status(&client, name).await, expected, "{path}{name}");
        }
        assert_eq!(status(&admin, "nobody").await, 200, "{path}");
    }
    node.shutdown().await;
}
