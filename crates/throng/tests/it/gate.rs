//! `throng gate`: a process beside an ad server, killed and started again, and its errors.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::process::{NodeProcess, get, http, output, throng, wait_for};

const SPEC: &str = r#"version: 1
sources:
  - { name: shop, path: lake }
audiences:
  - { name: buyers, sql: "SELECT customer FROM shop.visits" }
advertisers:
  - { name: shop, currency: USD, time_zone: UTC }
campaigns:
  - { name: autumn, advertiser: shop }
ad_groups:
  - { name: shoes, campaign: autumn, per: impression, price: "0.10", daily_budget: "9", impression_rate: 0.5, include: [buyers] }
"#;

/// A gate in a process of its own; killed with -9 when dropped.
struct GateProcess(Child);

impl GateProcess {
    /// Starts a gate that listens at a socket and an address, and returns its first line.
    fn start(node: &str, dir: &Path) -> (Self, Value) {
        let mut child = throng()
            .args(["gate", "--json", "--node", node, "--listen", "127.0.0.1:0", "--token-file"])
            .arg(dir.join("node/admin.token"))
            .arg("--socket")
            .arg(dir.join("gate.sock"))
            .arg("--cache-dir")
            .arg(dir.join("cache"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("throng starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("its first line");
        let started = serde_json::from_str(&line).expect("it starts");
        (Self(child), started)
    }

    /// SIGTERM, and waits for a clean end.
    fn terminate(mut self) -> bool {
        let status = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
        self.0.wait().expect("ended").success()
    }
}

impl Drop for GateProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shop() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary folder");
    std::fs::create_dir(dir.path().join("lake")).expect("folder");
    std::fs::write(dir.path().join("lake/visits.csv"), "customer\nc1\nc2\n").expect("written");
    std::fs::write(dir.path().join("throng.yaml"), SPEC).expect("written");
    dir
}

/// Asks over the socket; an error while nobody listens or the gate is not complete.
async fn decide(socket: PathBuf, user: &str) -> Result<Value, String> {
    let mut stream =
        tokio::net::UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
    let body = json!({ "user": user, "ad_groups": ["shoes"] }).to_string();
    let request = format!(
        "POST /v1/decide HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut answer = String::new();
    let exchanged = async {
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_string(&mut answer).await
    };
    exchanged.await.map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no head")?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(answer);
    }
    serde_json::from_str(body).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_answers_beside_an_ad_server_and_starts_again_after_a_kill() {
    let dir = shop();
    let root = dir.path();
    let node = NodeProcess::start(&root.join("node"), &root.join("throng.yaml"), &root.join("log"));
    let (gate, started) = GateProcess::start(&node.url, root);
    let socket = root.join("gate.sock");
    assert_eq!(started["socket"], socket.display().to_string());
    let url = started["url"].as_str().expect("a URL").to_owned();
    let http = http();
    let allowed = async || {
        wait_for("c1 may see shoes", || async {
            let answer = decide(socket.clone(), "c1").await?;
            match answer["allowed"] == json!(["shoes"]) {
                true => Ok(()),
                false => Err(answer.to_string()),
            }
        })
        .await;
    };
    allowed().await;
    let answer = decide(socket.clone(), "c3").await.expect("an answer");
    assert_eq!(answer["refused"][0]["code"], "not_in_audience");
    let readiness = get(&http, format!("{url}/readyz")).await.expect("ready");
    assert_eq!(readiness["ready"], true);
    let id = started["id"].as_str().expect("an id").to_owned();
    wait_for("the gate is listed", || async {
        let listed = get(&http, format!("{}/v1/gates", node.url)).await?;
        match listed.to_string().contains(&id) {
            true => Ok(()),
            false => Err(listed.to_string()),
        }
    })
    .await;

    // A second one on the same folder or socket says what is in use.
    let token_file = root.join("node/admin.token");
    let token_file = token_file.to_str().expect("UTF-8");
    let second = |cache: &str| {
        let (cache, socket) = (root.join(cache), root.join("gate.sock"));
        let paths = [cache.to_str().expect("UTF-8"), socket.to_str().expect("UTF-8")];
        let second = output(&[
            "gate",
            "--node",
            &node.url,
            "--token-file",
            token_file,
            "--cache-dir",
            paths[0],
            "--socket",
            paths[1],
        ]);
        assert_eq!(second.status.code(), Some(1));
        String::from_utf8_lossy(&second.stderr).into_owned()
    };
    let error = second("cache");
    assert!(error.contains("is in use by process") && error.contains("help: "), "{error}");
    let error = second("other");
    assert!(error.contains("another process answers at the socket"), "{error}");

    // Killed, it leaves a socket that the next one replaces, under the same id.
    drop(gate);
    assert!(socket.exists());
    let (gate, started) = GateProcess::start(&node.url, root);
    assert_eq!(started["id"], id);
    allowed().await;
    assert!(gate.terminate());
    assert!(!socket.exists());
    assert!(node.terminate());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_and_wrong_arguments_end_the_start_with_a_hint() {
    let dir = shop();
    let root = dir.path();
    let node = NodeProcess::start(&root.join("node"), &root.join("throng.yaml"), &root.join("log"));
    let token_file = root.join("token");
    std::fs::write(&token_file, "throng_wrong").expect("written");
    let (token_file, cache) = (token_file.display().to_string(), root.join("cache"));
    let cache = cache.display().to_string();
    let run = |more: &[&str]| {
        let mut arguments = vec!["gate", "--node", &node.url, "--cache-dir", &cache];
        arguments.extend(["--token-file", &token_file]);
        arguments.extend(more);
        let ended = output(&arguments);
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    let (code, error) = run(&["--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("does not accept the token"), "{error}");
    assert!(error.contains("throng token create"), "{error}");
    let (code, error) = run(&["--listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("--client-token-file"), "{error}");
    let (code, error) = run(&["--listen", "127.0.0.1:0", "--feed", "http://192.0.2.1:7077"]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("--insecure") && !error.contains("throng_wrong"), "{error}");
    let mut both = vec!["gate", "--node", &node.url, "--cache-dir", &cache];
    both.extend(["--listen", "127.0.0.1:0", "--token-file", "-", "--client-token-file", "-"]);
    let ended = output(&both);
    let error = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{error}");
    assert!(error.contains("standard input"), "{error}");
    let (code, error) = run(&[]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("--listen"), "{error}");
    assert!(node.terminate());
}
