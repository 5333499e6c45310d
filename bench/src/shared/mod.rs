//! Deployments of several processes with the services that `cargo xtask services up` starts.

pub(crate) mod aggregate;
pub(crate) mod gates;
mod records;
pub(crate) mod syncs;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::node::Node;

fn setting(name: &str) -> Result<String> {
    std::env::var(name)
        .with_context(|| format!("{name} is not set: `eval \"$(cargo xtask services up)\"` first"))
}

/// A deployment: a folder, a spec, and a unique name for its topics, tables and objects.
pub(crate) struct Deployment {
    throng: PathBuf,
    dir: tempfile::TempDir,
    pub(crate) name: String,
    pub(crate) kafka: String,
}

impl Deployment {
    /// A new deployment. `spec`: the spec without node settings; `more`: additional lines of node settings.
    pub(crate) fn new(throng: PathBuf, spec: &str, more: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("throng-bench-").tempdir()?;
        let unique = dir.path().file_name().and_then(|n| n.to_str()).context("a folder's name")?;
        let name = unique.to_lowercase();
        let kafka = setting("THRONG_KAFKA")?;
        let deployment = Self { throng, dir, name, kafka };
        deployment.write_spec(spec, more)?;
        Ok(deployment)
    }

    /// Replaces the spec file.
    pub(crate) fn write_spec(&self, spec: &str, more: &str) -> Result<()> {
        let (kafka, s3, name) = (&self.kafka, setting("THRONG_S3")?, &self.name);
        let mut text = spec.to_owned();
        write!(
            text,
            "node:\n  ledger: postgres\n  ledger_url: env:LEDGER\n  log: kafka\n  kafka: {{ brokers: \"{kafka}\", prefix: \"{name}\" }}\n  objects: s3\n  bucket: {{ name: throng, prefix: \"{name}\", endpoint: \"{s3}\", access_key: \"env:THRONG_S3_ACCESS_KEY\", secret_key: \"env:THRONG_S3_SECRET_KEY\" }}\n{more}"
        )?;
        Ok(std::fs::write(self.spec(), text)?)
    }

    /// Sets a session timeout of two seconds instead of six. The brokers must allow it
    /// (`group.min.session.timeout.ms`), as those of `cargo xtask services up` do.
    pub(crate) fn shorten_sessions(&self) -> Result<()> {
        let text = std::fs::read_to_string(self.spec())?;
        let old = format!("prefix: \"{}\" }}\n  objects", self.name);
        let new = format!("prefix: \"{}\", session_ms: 2000 }}\n  objects", self.name);
        Ok(std::fs::write(self.spec(), text.replace(&old, &new))?)
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn spec(&self) -> PathBuf {
        self.path().join("throng.yaml")
    }

    /// Applies the spec file.
    pub(crate) fn apply(&self, node: &Node) -> Result<()> {
        let output = Command::new(&self.throng)
            .arg("apply")
            .arg(self.spec())
            .args(["--url", &node.url])
            .env("THRONG_TOKEN", &node.token)
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Starts a process of the deployment, in a folder of its own.
    pub(crate) fn start(&self, folder: &str, roles: &str, join: bool) -> Result<Node> {
        let mut arguments = vec!["--roles", roles];
        if join {
            arguments.push("--join");
        }
        let ledger = format!("{}/{}", setting("THRONG_POSTGRES")?, self.name.replace('-', "_"));
        let dir = self.path().join(folder);
        let variables = [("LEDGER", ledger), (syncs::TOKEN.0, syncs::TOKEN.1.to_owned())];
        Node::start_with(&self.throng, &dir, &self.spec(), &arguments, &variables)
    }
}

/// The part of a spec with advertiser, campaign and ad groups.
pub(crate) fn ad_groups(names: impl Iterator<Item = String>) -> String {
    let groups: String = names
        .map(|name| {
            format!(
                "  - {{ name: {name}, campaign: c, per: impression, price: \"0.130001\", daily_budget: \"1000000\", impression_rate: 0.8 }}\n"
            )
        })
        .collect();
    format!(
        "advertisers:\n  - {{ name: a, currency: USD, time_zone: UTC }}\ncampaigns:\n  - {{ name: c, advertiser: a }}\nad_groups:\n{groups}"
    )
}

/// The sum of a metric over its labels; 0 if there is none yet.
pub(crate) async fn metric(http: &reqwest::Client, url: &str, name: &str) -> Result<f64> {
    Ok(metric_values(http, url, name).await?.into_iter().sum())
}

/// The values of a metric, one for each set of labels.
pub(crate) async fn metric_values(
    http: &reqwest::Client,
    url: &str,
    name: &str,
) -> Result<Vec<f64>> {
    let text = http.get(format!("{url}/metrics")).send().await?.text().await?;
    let lines = text.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{'))
    });
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect())
}
