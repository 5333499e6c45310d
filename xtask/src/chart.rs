//! `cargo xtask chart`: checks the Helm chart with Helm, and what it renders against the schemas of three
//! versions of Kubernetes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::needs;
use crate::services::cache;

const CHART: &str = "deploy/helm/throng";
/// Values of an example, besides those of the chart.
const EXAMPLE: &str = "examples/app/kubernetes/values.yaml";
const HELM: (&str, &str) = ("helm.sh/helm/v3/cmd/helm", "v3.22.0");
/// It contains the schemas.
const VALIDATOR: &str = "1.37.0";
/// The versions of Kubernetes.
const VERSIONS: [&str; 3] = ["1.33.0", "1.35.0", "1.37.0"];
/// Values that the chart refuses: misspelt ones, secrets as values, and settings that cannot work.
const REFUSED: [&str; 10] = [
    "imagee.tag=1",
    "components.api.replica=3",
    "secretEnv[0].value=secret",
    "node.kafka.password=secret",
    "node.ledger=sqlite",
    "node.listen=127.0.0.1:7077",
    "node.lake=/var/lib/throng/lake",
    "node.insecure=false",
    "node.kafka.brokers=",
    "serviceMonitor.enabled=true",
];

/// Checks the chart with each of its example values. Returns a folder with the node settings that it renders for
/// each, for a test that reads them as the program does.
pub(crate) fn check(root: &Path) -> Result<tempfile::TempDir> {
    let chart = Chart {
        folder: root.join(CHART),
        helm: cache::go_program("helm", HELM.0, HELM.1)?,
        python: validator()?,
        temporary: tempfile::Builder::new().prefix("throng-chart-").tempdir()?,
    };
    let mut examples = vec![root.join(EXAMPLE)];
    for entry in std::fs::read_dir(chart.folder.join("ci"))? {
        examples.push(entry?.path());
    }
    examples.sort();
    ensure!(examples.len() >= 4, "there are fewer than three examples in {CHART}/ci");
    let rendered = tempfile::Builder::new().prefix("throng-settings-").tempdir()?;
    for values in &examples {
        chart.lint(values)?;
        for version in VERSIONS {
            let manifests = chart.template(values, version, &[])?;
            chart.validate(&manifests, version)?;
            // The pods of other audiences continue if one audience fails.
            ensure!(
                !manifests.contains("completionMode: Indexed")
                    || manifests.contains("action: FailIndex"),
                "{}: an audience that fails ends the whole job",
                values.display()
            );
            let name = values.file_name().context("an example has no name")?;
            std::fs::write(rendered.path().join(name), node_settings(&manifests)?)?;
        }
    }
    chart.refuses()?;
    let (count, versions) = (examples.len(), VERSIONS.join(", "));
    eprintln!("chart: ok ({count} examples, Kubernetes {versions})");
    Ok(rendered)
}

/// The text of the first `node.yaml` of some manifests.
fn node_settings(manifests: &str) -> Result<String> {
    let mut lines = manifests.lines().skip_while(|line| *line != "  node.yaml: |");
    lines.next().context("no ConfigMap has a node.yaml")?;
    let settings = lines.map_while(|line| match line.strip_prefix("    ") {
        Some(text) => Some(text),
        None => line.trim().is_empty().then_some(""),
    });
    Ok(settings.map(|line| format!("{line}\n")).collect())
}

/// The Python of a virtual environment with the validator, in the cache.
fn validator() -> Result<PathBuf> {
    let folder = cache::provide(&format!("kubernetes-validate-{VALIDATOR}"), |temporary| {
        let python = match needs::which("python3") {
            Some(python) => python,
            None => {
                needs::install("python3-venv")?;
                needs::which("python3").context("python3 was installed, but is not on PATH")?
            }
        };
        let create = || {
            let mut create = Command::new(&python);
            create.args(["-m", "venv", "--clear"]).arg(temporary);
            crate::run(create.stdout(std::io::stderr()))
        };
        if create().is_err() {
            needs::install("python3-venv")?;
            create()?;
        }
        // `python -m`: the scripts of the environment name the folder in which it was made.
        let mut pip = Command::new(temporary.join("bin/python"));
        pip.args(["-m", "pip", "install", "-q", "--disable-pip-version-check"]);
        pip.arg(format!("kubernetes-validate=={VALIDATOR}"));
        crate::run(pip.stdout(std::io::stderr()))
    })?;
    Ok(folder.join("bin/python"))
}

/// The chart and the programs that check it.
struct Chart {
    folder: PathBuf,
    helm: PathBuf,
    python: PathBuf,
    temporary: tempfile::TempDir,
}

impl Chart {
    fn lint(&self, values: &Path) -> Result<()> {
        let mut lint = Command::new(&self.helm);
        lint.args(["lint", "--strict", "--quiet", "--kube-version", VERSIONS[0], "--values"]);
        output(lint.arg(values).arg(&self.folder)).map(|_| ())
    }

    /// The manifests for some values, with others that are set on top of them.
    fn template(&self, values: &Path, version: &str, set: &[&str]) -> Result<String> {
        let mut template = Command::new(&self.helm);
        template.args(["template", "throng"]).arg(&self.folder);
        template.args(["--namespace", "ads", "--kube-version", version, "--values"]).arg(values);
        for value in set {
            template.args(["--set", value]);
        }
        output(&mut template)
    }

    fn validate(&self, manifests: &str, version: &str) -> Result<()> {
        let file = self.temporary.path().join("manifests.yaml");
        std::fs::write(&file, manifests)?;
        let mut validate = Command::new(&self.python);
        validate.args(["-m", "kubernetes_validate", "--strict", "--quiet", "--no-warn"]);
        output(validate.args(["-k", version]).arg(&file)).map(|_| ())
    }

    /// Refuses a chart that accepts wrong values, and a validator that accepts wrong manifests.
    fn refuses(&self) -> Result<()> {
        let minimal = self.folder.join("ci/minimal-values.yaml");
        for wrong in REFUSED {
            if self.template(&minimal, VERSIONS[0], &[wrong]).is_ok() {
                bail!("the chart accepts {wrong}");
            }
        }
        let full = self.folder.join("ci/full-values.yaml");
        let manifests = self.template(&full, VERSIONS[0], &[])?;
        let wrong = manifests.replace("completionMode:", "completionModes:");
        ensure!(wrong != manifests, "{} has no job", full.display());
        if self.validate(&wrong, VERSIONS[0]).is_ok() {
            bail!("the validator accepts a field that does not exist");
        }
        Ok(())
    }
}

/// The standard output of a command; what it printed is in the error.
fn output(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !done.status.success() {
        let printed = [done.stdout, done.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        bail!("{command:?} ended with {}:\n{}", done.status, printed.trim());
    }
    String::from_utf8(done.stdout).context("the output is not UTF-8")
}
