//! Redis, for comparison, and the load generators redis-benchmark and wrk.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::node::{Node, peak_kib};

/// A Redis server on a free port. Drop kills it.
pub(crate) struct Redis {
    child: Child,
    port: String,
    _dir: tempfile::TempDir,
}

impl Redis {
    /// Starts it; `durable`: with an append-only file that is synced every second.
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

    /// Executes a file of commands.
    pub(crate) fn load(&self, commands: &Path) -> Result<()> {
        let file = std::fs::File::open(commands)?;
        output(Command::new("redis-cli").args(["-p", &self.port, "--pipe"]).stdin(file)).map(drop)
    }

    /// Commands per second, measured by redis-benchmark.
    pub(crate) fn benchmark(&self, options: &[&str], command: &[&str]) -> Result<f64> {
        let csv = output(
            Command::new("redis-benchmark")
                .args(["-p", &self.port, "--csv", "-c", "50"])
                .args(options)
                .args(command),
        )?;
        let line = csv.lines().last().context("redis-benchmark printed nothing")?;
        let rate = line.split("\",\"").nth(1).context("redis-benchmark printed no rate")?;
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

/// Requests per second, measured by wrk with a script on one thread.
pub(crate) fn wrk(node: &Node, connections: u32, script: &str) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("requests.lua");
    // In the script, because every user of the machine can read the arguments of a process.
    let token = format!("wrk.headers['Authorization'] = 'Bearer {}'\n", node.token);
    std::fs::write(&path, token + script)?;
    let printed = output(
        Command::new("wrk")
            .args(["-t1", "-d10s", &format!("-c{connections}"), "-s"])
            .arg(&path)
            .arg(&node.url),
    )?;
    if printed.contains("Non-2xx") {
        bail!("{printed}");
    }
    let line = printed.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    Ok(line.context("wrk printed no Requests/sec")?.trim().parse()?)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
