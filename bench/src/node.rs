//! Starts nodes and measures their resources.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use throng_api::{AudienceRefresh, AudienceRefreshProgress, AudienceRefreshState, AudienceSummary};

/// `USER_HZ`, which is 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// The first line of `throng up --json`.
#[derive(Deserialize)]
struct Started {
    url: String,
}

/// A running `throng up`. Drop kills it.
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
        let Started { url } = serde_json::from_str(&line).context("the node did not start")?;
        let token = std::fs::read_to_string(dir.join("admin.token")).unwrap_or_default();
        Ok(Self { child, url, token: token.trim().to_owned() })
    }

    /// A client with the node's token. It is valid for all nodes of the deployment.
    pub(crate) fn http(&self) -> Result<reqwest::Client> {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("authorization", format!("Bearer {}", self.token).parse()?);
        Ok(reqwest::Client::builder().default_headers(headers).build()?)
    }

    /// The peak of the resident memory of the node, in KiB.
    pub(crate) fn peak_kib(&self) -> Result<u64> {
        peak_kib(self.child.id())
    }

    /// The peaks of the resident memory of the query workers that run now, added up, in KiB.
    pub(crate) fn workers_peak_kib(&self) -> Result<u64> {
        let workers = self.workers()?.into_iter();
        // It may have ended since.
        Ok(workers.map(|worker| peak_kib(worker).unwrap_or(0)).sum())
    }

    /// The query workers that run now, which are the child processes of the node.
    fn workers(&self) -> Result<Vec<u32>> {
        let mut workers = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(process) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // A process may end at any moment.
            let parent = status_number(process, "PPid:").ok();
            if parent == Some(u64::from(self.child.id())) {
                workers.push(process);
            }
        }
        Ok(workers)
    }

    /// The current resources of the node.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let folder = Path::new("/proc").join(self.child.id().to_string());
        let count =
            |name: &str| -> Result<usize> { Ok(std::fs::read_dir(folder.join(name))?.count()) };
        Ok(Usage {
            anonymous_kib: status_number(self.child.id(), "RssAnon:")?,
            threads: count("task")?,
            handles: count("fd")?,
            maps: std::fs::read_to_string(folder.join("maps"))?.lines().count(),
        })
    }

    /// The CPU time of the node in seconds: user and system, of all threads.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        Ok(self.cpu()?.seconds())
    }

    /// The CPU time of the node, of all threads, without its query workers.
    pub(crate) fn cpu(&self) -> Result<CpuTime> {
        Ok(process_cpu(self.child.id())?.own)
    }

    /// The CPU time of all query workers: of those that run now, and of those that have ended.
    pub(crate) fn workers_cpu(&self) -> Result<CpuTime> {
        let mut sum = process_cpu(self.child.id())?.ended_children;
        for worker in self.workers()? {
            // It may have ended since.
            if let Ok(cpu) = process_cpu(worker) {
                sum = sum.plus(cpu.own).plus(cpu.ended_children);
            }
        }
        Ok(sum)
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
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The resources of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Anonymous memory, in KiB.
    pub(crate) anonymous_kib: u64,
    pub(crate) threads: usize,
    /// Open file descriptors.
    pub(crate) handles: usize,
    /// Memory mappings.
    pub(crate) maps: usize,
}

/// The CPU time of a process in seconds, of all threads.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct CpuTime {
    /// In the programs.
    user: f64,
    /// In the system: files, network, memory.
    system: f64,
}

impl CpuTime {
    /// Both parts.
    pub(crate) fn seconds(self) -> f64 {
        self.user + self.system
    }

    /// Both times together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { user: self.user + other.user, system: self.system + other.system }
    }

    /// What was used after an earlier moment.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { user: self.user - earlier.user, system: self.system - earlier.system }
    }
}

/// The CPU times of a process.
struct ProcessCpu {
    own: CpuTime,
    /// Of its child processes that have ended, with those of theirs.
    ended_children: CpuTime,
}

/// The CPU time of this process.
pub(crate) fn own_cpu() -> Result<CpuTime> {
    Ok(process_cpu(std::process::id())?.own)
}

fn process_cpu(process: u32) -> Result<ProcessCpu> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // Fields 14 to 17 of proc_pid_stat(5). The second field, the name, may contain spaces and ends with the last `)`.
    let rest = stat.rsplit_once(')').context("/proc/PID/stat has no name")?.1;
    let seconds = |index: usize| -> Result<f64> {
        let field = rest.split_whitespace().nth(index);
        let ticks: f64 = field.context("/proc/PID/stat has no CPU times")?.parse()?;
        Ok(ticks / TICKS_PER_SECOND)
    };
    Ok(ProcessCpu {
        own: CpuTime { user: seconds(11)?, system: seconds(12)? },
        ended_children: CpuTime { user: seconds(13)?, system: seconds(14)? },
    })
}

/// The peak of the resident memory of a process, in KiB: `VmHWM`.
pub(crate) fn peak_kib(process: u32) -> Result<u64> {
    status_number(process, "VmHWM:")
}

/// The number of a field of `/proc/PID/status`, without its unit.
fn status_number(process: u32, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with(field));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.with_context(|| format!("/proc/{process}/status has no {field}"))?.parse()?)
}

/// The size of all files below a folder, in KiB.
pub(crate) fn disk_kib(folder: &Path) -> Result<u64> {
    let (mut bytes, mut folders) = (0, vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            // The node may delete files at the same time.
            let Ok(metadata) = entry.metadata() else { continue };
            match metadata.is_dir() {
                true => folders.push(entry.path()),
                false => bytes += metadata.len(),
            }
        }
    }
    Ok(bytes >> 10)
}

/// Sends a GET request and reads the JSON body.
pub(crate) async fn get<T: DeserializeOwned>(http: &reqwest::Client, url: &str) -> Result<T> {
    let response = http.get(url).send().await?;
    if !response.status().is_success() {
        bail!("{url}: {}", response.status());
    }
    Ok(response.json().await?)
}

/// The newest refresh of an audience if it is completed. A refresh that failed or is held is an error.
pub(crate) fn completed(audience: &AudienceSummary) -> Result<Option<&AudienceRefresh>> {
    let Some(AudienceRefreshProgress { refresh, .. }) = &audience.refresh else { return Ok(None) };
    match refresh.state {
        AudienceRefreshState::Completed => Ok(Some(refresh)),
        AudienceRefreshState::Failed | AudienceRefreshState::Held => {
            let reason = refresh.reason.as_deref().unwrap_or("no reason");
            bail!("the refresh of {} is {}: {reason}", audience.name, refresh.state)
        }
        AudienceRefreshState::Scheduled
        | AudienceRefreshState::Processing
        | AudienceRefreshState::Halted => Ok(None),
    }
}

/// The version of an audience that is served; 0 before the first one.
pub(crate) fn served_version(audience: &AudienceSummary) -> u64 {
    audience.current.as_ref().map_or(0, |snapshot| snapshot.version)
}

/// A Tokio runtime for the client.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
