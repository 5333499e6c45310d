//! `--on kafka,postgres,s3`: the demo as many processes on shared engines. The demo's own process is a node
//! with the role api; the other roles run in processes of the same binary.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use throng_demo::example::TOKEN;
use throng_model::{Entropy, SystemEntropy};
use throng_spec::NodeSettings;

use crate::commands::up::ReadyNode;

/// The role of each process. With the demo's own node there are thirteen.
const PROCESSES: [&str; 12] = [
    "schedule",
    "schedule",
    "build",
    "build",
    "build",
    "activate",
    "activate",
    "activate",
    "aggregate",
    "aggregate",
    "relay",
    "lookup",
];

/// The variables that `cargo xtask services up` prints and the demo needs.
const VARIABLES: [&str; 5] = [
    "THRONG_POSTGRES",
    "THRONG_KAFKA",
    "THRONG_S3",
    "THRONG_S3_ACCESS_KEY",
    "THRONG_S3_SECRET_KEY",
];

/// The addresses of the services, and the name of this demo's database, topics and objects on them.
pub(super) struct Engines {
    name: String,
    values: Vec<(&'static str, String)>,
}

impl Engines {
    /// Reads the addresses from the environment.
    pub(super) fn find() -> Result<Self> {
        let mut values = Vec::new();
        for name in VARIABLES {
            match std::env::var(name) {
                Ok(value) => values.push((name, value)),
                Err(_) => bail!(
                    "{name} is not set: `eval \"$(cargo xtask services up)\"` starts the services \
                     and sets it"
                ),
            }
        }
        let name = format!("demo-{:08x}", SystemEntropy.next_u64() >> 32);
        values.push(("THRONG_DEMO_LEDGER", format!("{}/{name}", values[0].1)));
        let secret = throng_model::new_secret("").context("no random bytes for a key")?;
        let key = throng_model::HashedIdentifier::of_normalised(secret.expose()).to_hex();
        values.push(("THRONG_DEMO_KEY", key));
        Ok(Self { name, values })
    }

    /// A secret of the node settings.
    pub(super) fn secret(&self, name: &str) -> Option<String> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }

    /// Writes the node settings to a file, which all processes read, and parses them.
    pub(super) fn settings(&self, folder: &Path) -> Result<NodeSettings> {
        std::fs::create_dir_all(folder)?;
        let (kafka, s3, name) = (&self.values[1].1, &self.values[2].1, &self.name);
        let text = format!(
            "version: 1\nnode:\n  ledger: postgres\n  ledger_url: env:THRONG_DEMO_LEDGER\n  \
             identifiers_key: env:THRONG_DEMO_KEY\n  log: kafka\n  kafka: {{ brokers: \"{kafka}\", prefix: \"{name}\" }}\n  objects: s3\n  \
             bucket: {{ name: throng, prefix: \"{name}\", endpoint: \"{s3}\", \
             access_key: env:THRONG_S3_ACCESS_KEY, secret_key: env:THRONG_S3_SECRET_KEY }}\n"
        );
        std::fs::write(folder.join("throng.yaml"), text)?;
        let spec = throng_spec::load(folder).map_err(|problems| {
            let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("the node settings of the demo are wrong:\n{}", text.join("\n"))
        })?;
        Ok(spec.node)
    }

    /// Starts the other processes of the deployment. They read their settings from `folder`, their clock
    /// from `clock`, and everything else from the ledger.
    pub(super) fn start(&self, root: &Path, folder: &Path, clock: &Path) -> Result<Processes> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut processes = Processes { all: Vec::new(), relay: String::new() };
        let mut starting = Vec::new();
        for (number, roles) in PROCESSES.iter().enumerate() {
            let data_dir = root.join(format!("process-{number}-{roles}"));
            std::fs::create_dir_all(&data_dir)?;
            let log = std::fs::File::create(data_dir.join("log"))?;
            let mut child = Command::new(&program)
                .args(["up", "--json", "--log", "info", "--listen", "127.0.0.1:0", "--join"])
                .args(["--roles", roles, "--dir"])
                .arg(&data_dir)
                .arg("--spec")
                .arg(folder)
                .arg("--clock")
                .arg(clock)
                .env("THRONG_META_TOKEN", TOKEN)
                .envs(self.values.iter().map(|(name, value)| (name, value)))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(log)
                .spawn()
                .with_context(|| format!("cannot start a process with the role {roles}"))?;
            let out = child.stdout.take().context("the process has no output")?;
            processes.all.push(child);
            starting.push((roles, data_dir, out));
        }
        for (roles, data_dir, out) in starting {
            let mut line = String::new();
            BufReader::new(out).read_line(&mut line)?;
            let node: ReadyNode = serde_json::from_str(&line).with_context(|| {
                format!("a process did not start: see {}", data_dir.join("log").display())
            })?;
            if *roles == "relay" {
                processes.relay = node.url;
            }
        }
        Ok(processes)
    }
}

/// The other processes. They are killed when this is dropped.
pub(super) struct Processes {
    all: Vec<Child>,
    /// The URL from which ad servers read the feed.
    pub(super) relay: String,
}

impl Processes {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.all {
            // Their state is removed with the demo, so nothing has to be halted or checkpointed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
