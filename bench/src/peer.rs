//! Redis, the usual store of such things, and the tools that load it and the node.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::node::{Node, peak_kib};

/// A Redis of our own on a free port; ended when dropped.
pub(crate) struct Redis {
    child: Child,
    port: String,
    _dir: tempfile::TempDir,
}

impl Redis {
    /// Starts it; `durable` keeps an append-only file that is synced every second.
    pub(crate) fn start(durable: bool) -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let dir = tempfile::tempdir()?;
        let child = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly"])
            .arg(if durable { "yes" } else { "no" })
            .arg("--dir")
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .context("redis-server is missing: install redis-server and redis-tools")?;
        let redis = Self { child, port, _dir: dir };
        while redis.cli(&["PING"]).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Ok(redis)
    }

    fn cli(&self, arguments: &[&str]) -> Result<String> {
        output(Command::new("redis-cli").args(["-p", &self.port]).args(arguments))
    }

    /// Loads a file of commands.
    pub(crate) fn load(&self, commands: &Path) -> Result<()> {
        let file = std::fs::File::open(commands)?;
        output(Command::new("redis-cli").args(["-p", &self.port, "--pipe"]).stdin(file)).map(drop)
    }

    /// Commands a second of `redis-benchmark`.
    pub(crate) fn benchmark(&self, options: &[&str], command: &[&str]) -> Result<f64> {
        let csv = output(
            Command::new("redis-benchmark")
                .args(["-p", &self.port, "--csv", "-c", "50"])
                .args(options)
                .args(command),
        )?;
        let line = csv.lines().last().context("redis-benchmark says a line")?;
        let rate = line.split("\",\"").nth(1).context("its second field is the rate")?;
        Ok(rate.trim_matches('"').parse()?)
    }

    pub(crate) fn peak_kib(&self) -> Result<u64> {
        peak_kib(self.child.id())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Requests a second of `wrk`, with a script, on one thread.
pub(crate) fn wrk(node: &Node, connections: u32, script: &str) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("requests.lua");
    // In the script, not among the arguments, which every user of the machine can read.
    let token = format!("wrk.headers['Authorization'] = 'Bearer {}'\n", node.token);
    std::fs::write(&path, token + script)?;
    let said = output(
        Command::new("wrk")
            .args(["-t1", "-d10s", &format!("-c{connections}"), "-s"])
            .arg(&path)
            .arg(&node.url),
    )?;
    if said.contains("Non-2xx") {
        bail!("{said}");
    }
    let line = said.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    Ok(line.context("wrk says Requests/sec")?.trim().parse()?)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
