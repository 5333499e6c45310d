//! Long lists in pages: 3,002 audiences of a spec, and 1,200 runs with their tasks, in API and pages.

use serde_json::{Value, json};
use throng_model::{Clock, SystemClock};
use throng_server::Node;
use throng_spec::Role;
use throng_store::{NewRun, Operation, ReasonCounts};

use crate::Client;
use crate::shared::Deployment;

const AUDIENCES: usize = 3_002;
const RUNS: usize = 1_200;

/// A node that builds and sends nothing, so that the lists do not change.
async fn with_audiences() -> (Deployment, Node) {
    let deployment = Deployment::new();
    let more: String = (0..AUDIENCES - 2)
        .map(|n| {
            let name = format!("from-{:04}", n * 7 % 3_000);
            let sql = format!("SELECT customer FROM shop.purchases WHERE amount >= {n}");
            format!("  - {{ name: {name}, sql: \"{sql}\" }}\n")
        })
        .collect();
    let file = deployment.path().join("throng.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("audiences:\n", &format!("audiences:\n{more}"))).unwrap();
    let node = deployment.node("api", &[Role::Api]).await;
    (deployment, node)
}

/// One field of all rows of a list.
pub(crate) fn column<'a>(list: &'a Value, rows: &str, field: &str) -> Vec<&'a Value> {
    list[rows].as_array().unwrap().iter().map(|row| &row[field]).collect()
}

/// One field of the rows of all pages, and the number of pages.
pub(crate) async fn all_pages(
    client: &Client,
    path: &str,
    rows: &str,
    field: &str,
) -> (Vec<Value>, usize) {
    let (mut all, mut pages, mut next) = (Vec::new(), 0, path.to_owned());
    loop {
        let page = client.get(&next).await;
        all.extend(column(&page, rows, field).into_iter().cloned());
        pages += 1;
        match page["next_cursor"].as_str() {
            Some(cursor) => next = format!("{path}&cursor={cursor}"),
            None => return (all, pages),
        }
    }
}

async fn html(client: &Client, path: &str) -> String {
    let response = client.request("GET", path).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response.text().await.unwrap()
}

/// The target of a link by its id.
fn link(html: &str, id: &str) -> Option<String> {
    let (_, rest) = html.split_once(&format!("id=\"{id}\""))?;
    let (_, rest) = rest.split_once("href=\"")?;
    let (target, _) = rest.split_once('"')?;
    Some(target.replace("&#38;", "&").replace("&amp;", "&"))
}

/// The names of the audiences on a page.
fn names(html: &str) -> Vec<String> {
    let rows = html.split("data-name=\"").skip(1);
    rows.map(|row| row.split('"').next().unwrap().to_owned()).collect()
}

async fn check_api(client: &Client) -> Vec<String> {
    let whole = client.get("/v1/audiences").await;
    assert_eq!(column(&whole, "audiences", "name").len(), AUDIENCES);
    assert!(whole.get("next_cursor").is_none(), "without parameters the list is whole");
    assert_eq!(whole["audiences"][1]["name"], "from-0007", "in the order of the spec");
    let mut sorted: Vec<String> = column(&whole, "audiences", "name")
        .into_iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    sorted.sort();

    let (pages, count) = all_pages(client, "/v1/audiences?limit=1000", "audiences", "name").await;
    assert_eq!((json!(pages), count), (json!(sorted), 4));
    let path = "/v1/audiences?limit=1000&sort=-name";
    let (pages, _) = all_pages(client, path, "audiences", "name").await;
    assert!(pages.iter().rev().eq(json!(sorted).as_array().unwrap()));

    let found = client.get("/v1/audiences?search=FROM-012").await;
    assert_eq!(column(&found, "audiences", "name").len(), 10, "{found}");
    let (status, paused) = client.post("/v1/audiences/big/pause", &json!({})).await;
    assert_eq!(status, 200, "{paused}");
    let found = client.get("/v1/audiences?state=paused&limit=5").await;
    assert_eq!(column(&found, "audiences", "name"), ["big"]);

    for query in ["state=x", "sort=size", "limit=0", "limit=1001", "cursor=00", "cursor=next"] {
        for path in ["audiences", "syncs", "runs", "tasks"] {
            let path = format!("/v1/{path}?{query}");
            let response = client.request("GET", &path).send().await.unwrap();
            assert_eq!(response.status(), 400, "{path}");
            let body: Value = response.json().await.unwrap();
            assert_eq!(body["error"]["code"], "bad_request", "{path}");
        }
    }
    for (method, path, name) in [
        ("GET", "audiences?worksapce=acme", "worksapce"),
        ("GET", "alerts?limit=1&limit=2", "limit"),
        ("GET", "alerts/deliveries?limit=ten", "limit"),
        ("GET", "budgets?advertiser=shop", "advertiser"),
        ("GET", "budgets/report?advertisers=shop", "advertisers"),
        ("GET", "budgets/report?format=xlsx", "format"),
        ("GET", "feed?formats=3", "formats"),
        ("GET", "feed?format=abc", "format"),
        ("POST", "audiences/big/refresh?force=yes", "force"),
        ("POST", "events?ad_group=shoes", "ad_group"),
        ("POST", "ingest/customers?batch=1&workspce=acme", "workspce"),
    ] {
        let request = client.request(method, &format!("/v1/{path}"));
        let request = match method {
            "GET" => request,
            _ if path.starts_with("ingest/") => request.header("content-type", "text/csv"),
            _ => request.json(&json!({})),
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 400, "{path}");
        let body: Value = response.json().await.unwrap();
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("`{name}`")), "{path}: {message}");
    }
    sorted
}

async fn check_page(client: &Client, sorted: &[String]) {
    let first = html(client, "/audiences").await;
    assert_eq!(names(&first), sorted[..100]);
    assert_eq!(link(&first, "previous"), None);
    let (mut seen, mut page) = (names(&first), first.clone());
    while let Some(next) = link(&page, "next") {
        page = html(client, &next).await;
        seen.extend(names(&page));
        if seen.len() == 200 {
            let back = html(client, &link(&page, "previous").unwrap()).await;
            assert_eq!(names(&back), names(&first));
        }
    }
    assert_eq!(seen, sorted);
    let found = html(client, "/audiences?search=from-2&sort=-name&state=").await;
    assert_eq!(names(&found)[0], "from-2999");
    assert!(link(&found, "next").unwrap().contains("search=from-2"), "{found}");
    let none = html(client, "/audiences?search=nothing").await;
    assert!(none.contains("Nothing matches."), "{none}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_audiences_are_listed_in_pages() {
    let (_deployment, node) = with_audiences().await;
    let client = Client::of(&node);
    let sorted = check_api(&client).await;
    check_page(&client, &sorted).await;
    node.shutdown().await;
}

/// Plans a run of a sync that the spec does not have.
pub(crate) async fn plan(node: &Node, sync: &str) {
    let run = NewRun {
        sync: sync.parse().unwrap(),
        audience: "buyers".parse().unwrap(),
        destination: "account".parse().unwrap(),
        mode: throng_model::SyncMode::Mirror,
        from_version: None,
        to_version: 1,
        adds: 1,
        removes: 0,
        batches: vec![(Operation::Add, 1)],
        priority: 0,
        held: None,
        plan: None,
        normalised: ReasonCounts::new(),
        users_removed: 0,
    };
    let planned = node.context().ledger.plan_run(&run, SystemClock.now()).await.unwrap();
    planned.expect("its sync has no open run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_and_tasks_are_listed_in_pages() {
    let deployment = Deployment::new();
    let node = deployment.node("api", &[Role::Api]).await;
    for number in 0..RUNS {
        plan(&node, &format!("sync-{number:04}")).await;
    }
    let client = Client::of(&node);
    let runs = client.get("/v1/runs").await;
    let first = column(&runs, "runs", "sync");
    assert_eq!((first.len(), first[0]), (500, &json!("sync-1199")), "newest first");
    let cursor = runs["next_cursor"].as_str().unwrap();
    let second = client.get(&format!("/v1/runs?cursor={cursor}")).await;
    assert_eq!(second["runs"][0]["sync"], "sync-0699");
    let previous = second["previous_cursor"].as_str().unwrap();
    let back = client.get(&format!("/v1/runs?cursor={previous}")).await;
    assert_eq!(back["runs"], runs["runs"]);

    let tasks = client.get("/v1/tasks").await;
    assert_eq!(column(&tasks, "tasks", "id").len(), 500);
    assert!(tasks.get("next_cursor").is_none(), "this order has no pages");
    let path = "/v1/tasks?sort=sync&state=queued&limit=1000";
    let (syncs, pages) = all_pages(&client, path, "tasks", "sync").await;
    let sorted: Vec<String> = (0..RUNS).map(|number| format!("sync-{number:04}")).collect();
    assert_eq!((json!(syncs), pages), (json!(sorted), 2));
    let found = client.get("/v1/tasks?search=sync-11&limit=1000").await;
    assert_eq!(column(&found, "tasks", "id").len(), 100);

    for (path, pages) in [("/activation/runs", 12), ("/activation/tasks", 12)] {
        let (mut next, mut seen) = (Some(path.to_owned()), 0);
        while let Some(path) = next {
            let page = html(&client, &path).await;
            assert_eq!(page.matches("href=\"/activation/tasks/").count(), 100, "{path}");
            next = link(&page, "next");
            seen += 1;
        }
        assert_eq!(seen, pages, "{path}");
    }
    assert!(html(&client, "/activation/syncs").await.contains("The list is empty."));
    node.shutdown().await;
}
