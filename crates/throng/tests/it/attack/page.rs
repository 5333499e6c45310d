//! A page on another port of the same machine, in a browser that is signed in to the node, sends requests
//! to every route: it reads nothing and changes nothing.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::Value;

use super::{Running, Target, answers, built};
use crate::browser::Browser;
use crate::process::wait_for;

/// What the page runs: `TARGETS` is a list of [method, url]. Every way in which a page can send a
/// request without asking first, and those for which the browser asks.
const SCRIPT: &str = r#"
const read = [];
let sent = 0;
async function attempt(method, url, options) {
  sent += 1;
  try {
    const answer = await fetch(url, { method, credentials: 'include', signal: AbortSignal.timeout(3000), ...options });
    if (answer.type !== 'opaque') read.push(method + ' ' + url + ' ' + answer.status);
  } catch (error) { }
}
function form(method, url, kind) {
  sent += 1;
  const frame = document.createElement('iframe');
  frame.name = 'f' + sent;
  document.body.append(frame);
  const form = document.createElement('form');
  Object.assign(form, { method, action: url, enctype: kind, target: frame.name });
  const field = document.createElement('input');
  Object.assign(field, { name: '{"version":1,"a":"', value: '"}' });
  form.append(field);
  document.body.append(form);
  form.submit();
}
function image(url) {
  sent += 1;
  return new Promise((done) => {
    const image = new Image();
    image.onload = () => { read.push('image ' + url); done(); };
    image.onerror = done;
    setTimeout(done, 3000);
    image.src = url;
  });
}
async function run() {
  for (const [method, url] of TARGETS) {
    const body = method === 'GET' ? undefined : '{}';
    const simple = ['GET', 'POST'].includes(method);
    if (simple) await attempt(method, url, { mode: 'no-cors', body, headers: { 'content-type': 'text/plain' } });
    await attempt(method, url, { mode: 'cors', body, headers: { 'content-type': 'application/json' } });
    await attempt(method, url, { mode: 'cors', body });
    if (method === 'POST') {
      form('post', url, 'text/plain');
      form('post', url, 'application/x-www-form-urlencoded');
      form('post', url, 'multipart/form-data');
    } else if (method === 'GET') {
      await image(url);
    }
  }
  const element = document.createElement('pre');
  element.id = 'result';
  element.textContent = JSON.stringify({ sent, read });
  document.body.append(element);
}
run();
"#;

/// Serves one page for every request, until the test ends. Each connection has a thread: a browser opens some in
/// advance, and sends nothing over them for a while.
fn serve(html: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            let html = html.clone();
            std::thread::spawn(move || {
                let mut head = [0; 8192];
                // The request does not matter: there is one page.
                let _ = connection.read(&mut head);
                let _ = write!(
                    connection,
                    "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{html}",
                    html.len()
                );
            });
        }
    });
    url
}

fn targets(description: &Value, url: &str) -> Value {
    let mut targets = Vec::new();
    for (template, methods) in description["paths"].as_object().expect("paths") {
        // A stream never ends, so the page would wait for it forever.
        if template.ends_with("/feed") || template.ends_with("/stream") {
            continue;
        }
        let path =
            template.replace("{id}", "1").replace("{kind}", "audience").replace("{version}", "1");
        let path: String = path
            .split('/')
            .map(|part| if part.starts_with('{') { "everybody" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        for method in methods.as_object().expect("methods").keys() {
            let method = method.to_uppercase();
            if ["GET", "POST", "PUT", "DELETE", "PATCH"].contains(&method.as_str()) {
                targets.push(serde_json::json!([method, format!("{url}{path}")]));
            }
        }
    }
    Value::Array(targets)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_on_another_port_reads_nothing_and_changes_nothing() {
    let Some(browser) = Browser::start().await else { return };
    let target = Target::new();
    let node = target.start();
    built(&node).await;
    let description = node.get("/openapi.json").await.expect("the description");
    let targets = targets(&description, &node.url);
    let changing = targets.as_array().expect("list").iter().filter(|t| t[0] != "GET").count();
    assert!(changing >= 15, "{changing} changing operations");

    // The browser is signed in: the worst case.
    browser.sign_in(&target.data_dir()).await;
    browser.open(&format!("{}/audiences", node.url)).await;
    assert!(browser.text("tr[data-name='everybody'] .members").await.is_ok(), "signed in");

    let before = answers(&node).await.expect("answers");
    let state_before = state(&node).await;
    let html = format!("<!doctype html><body><script>const TARGETS = {targets};{SCRIPT}</script>");
    browser.open(&serve(html)).await;
    let result = wait_for("the page's attempts", async || browser.text("#result").await).await;
    let result: Value = serde_json::from_str(&result).expect("JSON");
    assert_eq!(result["read"], serde_json::json!([]), "the page could read answers");
    assert!(result["sent"].as_u64() > Some(100), "{result}");
    assert_eq!(answers(&node).await.expect("answers"), before);
    for (before, after) in state_before.into_iter().zip(state(&node).await) {
        assert_eq!(before, after);
    }
    browser.client.clone().close().await.expect("closed");
}

/// Everything that a changing route could have changed.
async fn state(node: &Running) -> Vec<(&'static str, Value)> {
    let mut state = Vec::new();
    for path in [
        "/v1/audiences",
        "/v1/runs",
        "/v1/tasks",
        "/v1/alerts",
        "/v1/tokens",
        "/v1/why/audience/everybody",
    ] {
        let mut answer = node.get(path).await.expect("the state");
        if path == "/v1/tokens" {
            // This test itself uses the token.
            for token in answer["tokens"].as_array_mut().into_iter().flatten() {
                token["last_used_at"] = Value::Null;
            }
        }
        state.push((path, answer));
    }
    let spec = node.get("/v1/spec").await.expect("the spec");
    state.push(("/v1/spec", spec["version"].clone()));
    state
}
