//! The pages in a real browser: each loads, shows correct numbers, and is updated when something changes.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use crate::process::{HEAVY, NodeProcess, TIMED, get, http, post, remember_token, wait_for};

/// Chromium and its driver; both are killed when this is dropped.
pub(crate) struct Browser {
    driver: Child,
    pub(crate) client: Client,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub(crate) async fn start() -> Option<Self> {
        let chromium = crate::provided("THRONG_CHROMIUM", "Chromium")?;
        let driver_path = crate::provided("THRONG_CHROMEDRIVER", "Chromium's driver")?;
        let profile = tempfile::tempdir().expect("temporary folder");
        // The driver chooses a free port and prints it: another process could take a port that is chosen
        // here before the driver listens on it.
        let mut driver = Command::new(driver_path)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the driver starts");
        let stdout = driver.stdout.take().expect("piped");
        let port = first_line_with(stdout, "started successfully on port ");
        let port: u16 = port.trim_end_matches('.').parse().expect("a port");
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1280,1400",
        ];
        let mut arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        let wanted = json!({
            "goog:chromeOptions": { "binary": chromium, "args": arguments },
            // Milliseconds; of a machine that is busy with other tests.
            "timeouts": { "script": 300_000, "pageLoad": 900_000 }
        });
        let wanted = wanted.as_object().expect("an object").clone();
        let address = format!("http://127.0.0.1:{port}");
        let client = wait_for("the browser", async || {
            ClientBuilder::new(HttpConnector::new())
                .capabilities(wanted.clone())
                .connect(&address)
                .await
                .map_err(|e| e.to_string())
        })
        .await;
        Some(Self { driver, client, _profile: profile })
    }

    pub(crate) async fn open(&self, url: &str) {
        self.client.goto(url).await.expect("the page loads");
    }

    /// Opens a new sign-in link of the node in a data directory.
    pub(crate) async fn sign_in(&self, dir: &std::path::Path) {
        let dir = dir.to_string_lossy();
        let output = crate::process::output(&["sign-in", "--json", "--dir", &dir]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        self.open(answer["url"].as_str().expect("a link")).await;
    }

    /// The text of an element, read in one step: a page that is updated can replace its elements at any
    /// time.
    pub(crate) async fn text(&self, css: &str) -> Result<String, String> {
        let script = "const found = document.querySelector(arguments[0]); \
                      return found === null ? null : found.innerText;";
        let text = self.client.execute(script, vec![json!(css)]).await;
        let text = text.map_err(|e| format!("{css}: {e}"))?;
        text.as_str().map(|t| t.trim().to_owned()).ok_or_else(|| format!("{css} is not there"))
    }

    /// Submits the form of the page with this action by its button. Returns the text of the page that follows,
    /// whatever page it is.
    async fn submit(&self, action: &str) -> String {
        // The page that follows does not have this mark.
        let mark = "document.body.dataset.submitted = 'yes';";
        self.client.execute(mark, vec![]).await.expect("marked");
        self.click(&format!("form[action='{action}'] button")).await.expect("clicked");
        let script = "const follows = document.readyState === 'complete' \
                      && document.body.dataset.submitted === undefined; \
                      return follows ? document.body.innerText : null;";
        wait_for("the page after a form", async || {
            let text = self.client.execute(script, vec![]).await.map_err(|e| e.to_string())?;
            text.as_str().map(str::to_owned).ok_or_else(|| format!("{action} is not answered"))
        })
        .await
    }

    /// Clicks on an element that is found in the same step: a page that is updated can replace its elements
    /// between two.
    async fn click(&self, css: &str) -> Result<(), String> {
        let script = "const found = document.querySelector(arguments[0]); \
                      if (found !== null) found.click(); \
                      return found !== null;";
        let clicked = self.client.execute(script, vec![json!(css)]).await;
        let clicked = clicked.map_err(|e| format!("{css}: {e}"))?;
        if clicked == json!(true) { Ok(()) } else { Err(format!("{css} is not there")) }
    }

    async fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("THRONG_PICTURES") else { return };
        let png = self.client.screenshot().await.expect("a picture");
        std::fs::write(std::path::Path::new(&folder).join(name), png).expect("written");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// What follows these words in the first line that has them. The lines after it are read and dropped, so
/// that a full pipe never blocks the writer.
fn first_line_with(output: impl Read + Send + 'static, words: &'static str) -> String {
    let mut lines = BufReader::new(output).lines().map_while(Result::ok);
    let mut seen = Vec::new();
    let found = lines.by_ref().find_map(|line| {
        let rest = line.split_once(words).map(|(_, rest)| rest.trim().to_owned());
        seen.push(line);
        rest
    });
    std::thread::spawn(move || lines.for_each(drop));
    found.unwrap_or_else(|| panic!("no line with `{words}` in {seen:#?}"))
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Runs the demo, the first command of the README, with its page left up: checks its summary, and opens every page.
#[tokio::test(flavor = "multi_thread")]
async fn pages_show_the_numbers_of_the_demo_and_are_updated() {
    // Before the browser, which would take its memory while it waits.
    let (_timed, _turn) = (TIMED.lock().await, HEAVY.lock().await);
    let browser = Browser::start().await;
    let dir = tempfile::tempdir().expect("temporary folder");
    let demo = Demo::start(dir.path());
    let Some(browser) = browser else {
        // Its summary does not need a browser.
        return crate::demo::check(&demo.finish().await.summary);
    };
    let url = demo.url.clone();
    let http = http();

    // The overview, opened before the traffic begins or while it runs, is updated without a reload.
    wait_for("the demo's page", async || get(&http, format!("{url}/readyz")).await).await;
    remember_token(&url, &dir.path().join("node"));
    browser.sign_in(&dir.path().join("node")).await;
    let first = wait_for("spend", async || browser.text("#spend-today b").await).await;
    wait_for("an update of the overview", async || {
        let spend = browser.text("#spend-today b").await?;
        if spend == first || spend == "0.00 USD" { Err(spend) } else { Ok(()) }
    })
    .await;
    let demo = demo.finish().await;
    crate::demo::check(&demo.summary);

    browser.open(&format!("{url}/audiences")).await;
    let audiences = get(&http, format!("{url}/v1/audiences")).await.expect("audiences");
    for audience in audiences["audiences"].as_array().expect("list") {
        let name = audience["name"].as_str().expect("name");
        let shown = browser.text(&format!("tr[data-name='{name}'] .members")).await.expect("row");
        let members = audience["current"]["members"].as_u64().expect("members");
        assert_eq!(shown, grouped(members), "{name}");
    }
    browser.picture("audiences.png").await;
    browser.open(&format!("{url}/audiences/loyal")).await;
    assert!(browser.text("pre").await.expect("SQL").contains("count(*) >= 5"));
    browser.picture("audience.png").await;

    browser.open(&format!("{url}/activation")).await;
    for sync in demo.summary["syncs"].as_array().expect("syncs") {
        let name = sync["sync"].as_str().expect("name");
        let shown = browser.text(&format!("tr[data-sync='{name}'] .read")).await.expect("row");
        assert_eq!(shown, grouped(sync["read"].as_u64().expect("read")), "{name}");
    }
    browser.picture("activation.png").await;
    browser.click("#runs a").await.expect("a task's link");
    wait_for("the task's page", async || browser.text("#batches b").await).await;
    browser.picture("task.png").await;

    browser.open(&format!("{url}/budgets")).await;
    for budget in demo.summary["budgets"].as_array().expect("budgets").iter().take(20) {
        let name = budget["ad_group"].as_str().expect("name");
        let css = format!("tr[data-name='{name}'] .actual-value");
        let micros = budget["with_prediction"]["spend_micros"].as_i64().expect("micros");
        let cents = (micros + 5_000) / 10_000;
        let expected = format!("{}.{:02} USD", cents / 100, cents % 100);
        assert_eq!(browser.text(&css).await.expect("row"), expected, "{name}");
    }
    browser.picture("budgets.png").await;
    browser.open(&format!("{url}/budgets/men-item-01")).await;
    assert!(browser.client.find(Locator::Css("svg.chart polyline")).await.is_ok(), "a chart");
    browser.picture("ad-group.png").await;

    browser.open(&format!("{url}/decide?user=00002&ad_groups=all-item-06")).await;
    assert!(
        browser.text("#audiences-of-user").await.expect("audiences").contains("every-customer")
    );
    assert!(browser.text("#decision").await.expect("decision").contains("all-item-06"));
    browser.picture("decide.png").await;
    browser.open(&url).await;
    browser.picture("overview.png").await;
    browser.client.clone().close().await.expect("closed");
    drop(demo);
}

/// The page shows the snapshot of the ledger, and then that of a new refresh.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_shows_on_the_page_without_reloading() {
    let Some(browser) = Browser::start().await else { return };
    let dir = tempfile::tempdir().expect("temporary folder");
    std::fs::create_dir(dir.path().join("data")).expect("made");
    let table = dir.path().join("data/orders.csv");
    std::fs::write(&table, "customer\n001\n002\n").expect("written");
    let spec = dir.path().join("throng.yaml");
    std::fs::write(
        &spec,
        "version: 1\nsources:\n  - { name: shop, path: data }\naudiences:\n  - name: buyers\n    sql: SELECT customer FROM shop.orders\n",
    )
    .expect("written");
    let node = NodeProcess::start(&dir.path().join("node"), &spec, &dir.path().join("log"));
    browser.sign_in(&dir.path().join("node")).await;
    browser.open(&format!("{}/audiences", node.url)).await;
    let members = "tr[data-name='buyers'] .members";
    let shows = async |wanted: &str| {
        wait_for("the page's number", async || {
            let shown = browser.text(members).await?;
            if shown == wanted { Ok(()) } else { Err(shown) }
        })
        .await;
    };
    shows("2").await;
    let focus = "document.querySelector(\"tr[data-name='buyers'] a\").focus();";
    browser.client.execute(focus, vec![]).await.expect("focused");
    // By a rename, so that no refresh reads a part of it.
    let aside = dir.path().join("orders.new");
    std::fs::write(&aside, "customer\n001\n002\n003\n").expect("written");
    std::fs::rename(aside, &table).expect("moved");
    let refresh = format!("{}/v1/audiences/buyers/refresh", node.url);
    let answer = post(&http(), refresh).json(&json!({})).send().await.expect("queued");
    assert!(answer.status().is_success());
    shows("3").await;
    // An update replaces the content, and the reader keeps the place.
    let focused = "return document.activeElement.getAttribute('href');";
    let focused = browser.client.execute(focused, vec![]).await.expect("read");
    assert_eq!(focused, json!("/audiences/buyers"));
    browser.client.clone().close().await.expect("closed");
}

/// The forms are requests of the browser itself: it decides by the headers of their page which origin it sends.
#[tokio::test(flavor = "multi_thread")]
async fn the_forms_of_the_page_sign_in_and_out() {
    let Some(browser) = Browser::start().await else { return };
    let dir = tempfile::tempdir().expect("temporary folder");
    let spec = dir.path().join("throng.yaml");
    std::fs::write(&spec, "version: 1\n").expect("written");
    let node = NodeProcess::start(&dir.path().join("node"), &spec, &dir.path().join("log"));
    let token = std::fs::read_to_string(dir.path().join("node/admin.token")).expect("a token");
    let page = format!("{}/audiences", node.url);
    let enter = async |token: &str| {
        let field =
            browser.client.find(Locator::Css("input[name='token']")).await.expect("a field");
        field.send_keys(token).await.expect("entered");
        browser.submit("/sign-in").await
    };
    let sessions = async || {
        let listed = get(&http(), format!("{}/v1/sessions", node.url)).await.expect("sessions");
        listed["sessions"].as_array().expect("a list").len()
    };

    browser.open(&page).await;
    assert_eq!(browser.text("h1").await.as_deref(), Ok("Sign in"));
    let refused = enter("throng_wrong").await;
    assert!(refused.contains("This is not a valid token."), "{refused}");
    assert_eq!(sessions().await, 0);

    let signed_in = enter(token.trim()).await;
    assert_eq!(browser.text("h1").await.as_deref(), Ok("Audiences"), "{signed_in}");
    assert_eq!(browser.client.current_url().await.expect("a URL").as_str(), page);
    assert_eq!(sessions().await, 1);

    let signed_out = browser.submit("/sign-out").await;
    assert_eq!(browser.text("h1").await.as_deref(), Ok("Sign in"), "{signed_out}");
    assert_eq!(sessions().await, 0);
    browser.open(&page).await;
    assert_eq!(browser.text("h1").await.as_deref(), Ok("Sign in"));
    browser.client.clone().close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fields_and_the_button_of_a_form_are_on_one_line() {
    let Some(browser) = Browser::start().await else { return };
    let dir = tempfile::tempdir().expect("temporary folder");
    let spec = dir.path().join("throng.yaml");
    std::fs::write(&spec, "version: 1\n").expect("written");
    let node = NodeProcess::start(&dir.path().join("node"), &spec, &dir.path().join("log"));
    browser.sign_in(&dir.path().join("node")).await;
    // With a search the link that ends it is there too.
    let lists =
        ["/audiences", "/activation/syncs", "/activation/runs", "/activation/tasks", "/alerts"];
    let lists = lists.map(|list| format!("{list}?search=a"));
    let others = ["/decide", "/budgets/report"].map(str::to_owned);
    let script = "const parts = 'input:not([type=hidden]), select, button, form > a'; \
                  const row = document.querySelector('main form.row'); \
                  return [...row.querySelectorAll(parts)].map(part => { \
                      const at = part.getBoundingClientRect(); \
                      return [at.top, at.bottom]; \
                  });";
    for path in lists.iter().chain(&others) {
        browser.open(&format!("{}{path}", node.url)).await;
        let found = browser.client.execute(script, vec![]).await.expect("a form");
        let places: Vec<(f64, f64)> = serde_json::from_value(found).expect("numbers");
        assert!(places.len() > 2, "{path}: {places:?}");
        for (top, bottom) in &places {
            let is_aligned = (top - places[0].0).abs() < 0.5 && (bottom - places[0].1).abs() < 0.5;
            assert!(is_aligned, "{path}: {places:?}");
        }
    }
    browser.client.clone().close().await.expect("closed");
}

/// `throng demo` with its page left up.
struct Demo {
    child: DemoProcess,
    url: String,
}

/// Killed when dropped, so that a failed test leaves no demo running.
struct DemoProcess(Child);

impl Drop for DemoProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct FinishedDemo {
    _child: DemoProcess,
    summary: Value,
}

impl Demo {
    fn start(dir: &std::path::Path) -> Self {
        let mut child = crate::process::throng()
            .args(["demo", "--json", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the demo starts");
        let stderr = child.stderr.take().expect("piped");
        let link = first_line_with(stderr, "the page is at ");
        let url = link.split("/sign-in").next().expect("an address").to_owned();
        Self { child: DemoProcess(child), url }
    }

    /// Waits for the summary; the page stays up.
    async fn finish(mut self) -> FinishedDemo {
        let stdout = self.child.0.stdout.take().expect("piped");
        let reading = tokio::task::spawn_blocking(move || {
            let mut documents = serde_json::Deserializer::from_reader(stdout).into_iter::<Value>();
            documents.next()
        });
        let summary = tokio::time::timeout(Duration::from_secs(1_800), reading)
            .await
            .expect("the demo ends in time")
            .expect("read")
            .expect("a summary")
            .expect("JSON");
        FinishedDemo { _child: self.child, summary }
    }
}
