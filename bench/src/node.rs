//! A node in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// `USER_HZ`, which is 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running `throng up`; ended when dropped.
pub(crate) struct Node {
    child: Child,
    pub(crate) url: String,
    /// Its admin token; empty for a version without one.
    pub(crate) token: String,
}

impl Node {
    /// Starts a node and waits until it listens.
    pub(crate) fn start(throng: &Path, dir: &Path, spec: &Path) -> Result<Self> {
        Self::start_with(throng, dir, spec, &[], &[])
    }

    /// Starts a node with more arguments and variables, and waits until it listens.
    pub(crate) fn start_with(
        throng: &Path,
        dir: &Path,
        spec: &Path,
        arguments: &[&str],
        variables: &[(&str, String)],
    ) -> Result<Self> {
        let mut child = Command::new(throng)
            .args(["up", "--json", "--log", "warn", "--listen", "127.0.0.1:0", "--dir"])
            .arg(dir)
            .arg("--spec")
            .arg(spec)
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", throng.display()))?;
        let stdout = child.stdout.take().context("the node's output is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let said: Value = serde_json::from_str(&line).context("the node did not start")?;
        let url = said["url"].as_str().context("the node's first line has its url")?.to_owned();
        let token = std::fs::read_to_string(dir.join("admin.token")).unwrap_or_default();
        Ok(Self { child, url, token: token.trim().to_owned() })
    }

    /// A client with the node's token. The nodes of a deployment know each other's.
    pub(crate) fn http(&self) -> Result<reqwest::Client> {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("authorization", format!("Bearer {}", self.token).parse()?);
        Ok(reqwest::Client::builder().default_headers(headers).build()?)
    }

    /// The most memory that the node has had, in KiB.
    pub(crate) fn peak_kib(&self) -> Result<u64> {
        peak_kib(self.child.id())
    }

    /// What the node has in use now.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let folder = Path::new("/proc").join(self.child.id().to_string());
        let count =
            |name: &str| -> Result<usize> { Ok(std::fs::read_dir(folder.join(name))?.count()) };
        Ok(Usage {
            anonymous_kib: status_kib(self.child.id(), "RssAnon:")?,
            threads: count("task")?,
            handles: count("fd")?,
            maps: std::fs::read_to_string(folder.join("maps"))?.lines().count(),
        })
    }

    /// Processor time that the node has used, in seconds: user and system, of all its threads.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // Fields 14 and 15, counted after the name, which may hold spaces: `proc(5)`.
        let rest = stat.rsplit_once(')').context("the kernel tells the name")?.1;
        let ticks = |place: usize| -> Result<f64> {
            Ok(rest.split_whitespace().nth(place).context("the kernel tells times")?.parse()?)
        };
        Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
    }
}

impl Node {
    /// `kill -9`.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has in use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Memory that is no file's, in KiB.
    pub(crate) anonymous_kib: u64,
    pub(crate) threads: usize,
    pub(crate) handles: usize,
    /// Mapped ranges of its address space.
    pub(crate) maps: usize,
}

/// The most memory that a process has had, in KiB: `VmHWM` of Linux.
pub(crate) fn peak_kib(process: u32) -> Result<u64> {
    status_kib(process, "VmHWM:")
}

fn status_kib(process: u32, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with(field));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.with_context(|| format!("the kernel tells {field}"))?.parse()?)
}

/// Bytes of all files below a folder, in KiB.
pub(crate) fn disk_kib(folder: &Path) -> Result<u64> {
    let (mut bytes, mut folders) = (0, vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            // Files come and go while the node works.
            let Ok(facts) = entry.metadata() else { continue };
            match facts.is_dir() {
                true => folders.push(entry.path()),
                false => bytes += facts.len(),
            }
        }
    }
    Ok(bytes >> 10)
}

/// GET as JSON.
pub(crate) async fn get(http: &reqwest::Client, url: &str) -> Result<Value> {
    let response = http.get(url).send().await?;
    if !response.status().is_success() {
        bail!("{url}: {}", response.status());
    }
    Ok(response.json().await?)
}

/// A runtime for the client's side.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
