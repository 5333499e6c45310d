//! The binary as a child process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

/// Held by tests that keep the whole machine busy, so that one of them runs at a time: the demos run
/// through an hour in a minute, and an overloaded machine cannot keep up.
pub(crate) static HEAVY: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Held by the demos too, and by the test that runs beside others of [`HEAVY`] but not beside a demo. It is taken first: who
/// waits for it keeps no other test from [`HEAVY`].
pub(crate) static TIMED: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The `throng` binary.
pub(crate) fn throng() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_throng"));
    for variable in
        ["THRONG_URL", "THRONG_TOKEN", "THRONG_DIR", "THRONG_SIM_TOKEN", "THRONG_GATE_TOKEN"]
    {
        command.env_remove(variable);
    }
    // Nodes are registered here instead of in the user's own folder.
    command.env("XDG_STATE_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/state"));
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub(crate) fn output(arguments: &[&str]) -> Output {
    throng().args(arguments).output().expect("throng starts")
}

/// A node in a process of its own; killed with -9 when dropped.
pub(crate) struct NodeProcess {
    child: Child,
    pub(crate) url: String,
}

impl NodeProcess {
    /// Starts a node and waits until it listens.
    pub(crate) fn start(dir: &Path, spec: &Path, log: &Path) -> Self {
        Self::with(dir, spec, log, &[], &[])
    }

    /// Starts a node with more arguments and variables, and waits until it listens.
    pub(crate) fn with(
        dir: &Path,
        spec: &Path,
        log: &Path,
        arguments: &[&str],
        variables: &[(&str, String)],
    ) -> Self {
        Self::try_with(dir, spec, log, arguments, variables).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Starts a node, or returns the end of the log of a node that did not start.
    pub(crate) fn try_with(
        dir: &Path,
        spec: &Path,
        log: &Path,
        arguments: &[&str],
        variables: &[(&str, String)],
    ) -> Result<Self, String> {
        let log_path = log;
        let log = std::fs::File::options().create(true).append(true).open(log).expect("log file");
        let mut child = throng()
            .args(["up", "--json", "--log", "info", "--listen", "127.0.0.1:0", "--dir"])
            .arg(dir)
            .arg("--spec")
            .arg(spec)
            .args(arguments)
            .env("THRONG_META_TOKEN", "simulator")
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(log.try_clone().expect("second handle"))
            .spawn()
            .expect("throng starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("the node's first line");
        let Ok(started) = serde_json::from_str::<Value>(&line) else {
            let status = child.wait().expect("ended");
            let log = std::fs::read_to_string(log_path).unwrap_or_default();
            let end = log.lines().rev().take(20).collect::<Vec<_>>();
            return Err(format!(
                "the node did not start ({status}); its log ends, backwards: {end:#?}"
            ));
        };
        let url = started["url"].as_str().expect("url").to_owned();
        remember_token(&url, dir);
        Ok(Self { child, url })
    }

    /// The number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// Waits until the process has ended, and so no longer holds its data directory.
    pub(crate) fn wait(&mut self) {
        self.child.wait().expect("ended");
    }

    /// Sends a signal, such as `STOP` or `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(status.expect("kill runs").success(), "{name}");
    }

    /// SIGTERM, and waits for a clean end.
    pub(crate) fn terminate(mut self) -> bool {
        self.signal("TERM");
        self.child.wait().expect("ended").success()
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The time limit of a condition. It is long because other work may keep the machine busy.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(900);

/// Waits for a condition; after [`TIMEOUT`] it panics with the last reason.
pub(crate) async fn wait_for<T, F>(what: &str, mut poll: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let mut last = String::new();
    let polling = async {
        loop {
            match poll().await {
                Ok(answer) => return answer,
                Err(why) => last = why,
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    match tokio::time::timeout(TIMEOUT, polling).await {
        Ok(answer) => answer,
        Err(_) => panic!("timed out: {what}; last: {last}"),
    }
}

/// An HTTP client. Its timeout is that of a process which gets no CPU for a while, and longer than the node's own for
/// a request. It never uses a connection again that the node may be closing, which it does after 75 idle seconds.
pub(crate) fn http() -> reqwest::Client {
    // Another test of this process may have installed the provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().timeout(Duration::from_secs(120));
    builder.pool_idle_timeout(Duration::from_secs(30)).build().expect("client")
}

/// The admin tokens of nodes, by their URLs.
static TOKENS: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// Remembers the admin token of a node, which has it in its data directory.
pub(crate) fn remember_token(url: &str, dir: &Path) {
    let token = std::fs::read_to_string(dir.join("admin.token")).expect("an admin token");
    let mut tokens = TOKENS.lock();
    tokens.insert(url.to_owned(), token.trim().to_owned());
}

/// Adds the token of the node at a URL, if it is known.
fn with_token(request: reqwest::RequestBuilder, url: &str) -> reqwest::RequestBuilder {
    let origin: String = url.split('/').take(3).collect::<Vec<_>>().join("/");
    let tokens = TOKENS.lock();
    match tokens.get(&origin) {
        Some(token) => request.bearer_auth(token),
        None => request,
    }
}

/// A GET of a node, with its token.
pub(crate) fn get_text(http: &reqwest::Client, url: String) -> reqwest::RequestBuilder {
    with_token(http.get(&url), &url)
}

/// A POST to a node, with its token.
pub(crate) fn post(http: &reqwest::Client, url: String) -> reqwest::RequestBuilder {
    with_token(http.post(&url), &url)
}

/// GET as JSON.
pub(crate) async fn get(http: &reqwest::Client, url: String) -> Result<Value, String> {
    let request = with_token(http.get(&url), &url);
    let response = request.send().await.map_err(|e| format!("{url}: {e}"))?;
    let status = response.status();
    let body = response.text().await.map_err(|e| format!("{url}: {e}"))?;
    if !status.is_success() {
        return Err(format!("{url}: {status} {body}"));
    }
    serde_json::from_str(&body).map_err(|e| format!("{url}: {e}: {body}"))
}
