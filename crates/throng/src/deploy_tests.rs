//! Files beside the code: `deploy/compose.yaml` starts this program with valid arguments and settings,
//! `deploy/prometheus-rules.yaml` uses metrics that exist, and `ARCHITECTURE.md` names files that exist.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Parser;
use serde::Deserialize;
use throng_spec::{Role, SecretRef};

use crate::args::{Arguments, Command};

#[derive(Deserialize)]
struct Compose {
    services: BTreeMap<String, Service>,
    volumes: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Service {
    image: String,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    volumes: Vec<String>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    depends_on: BTreeMap<String, serde_json::Value>,
}

fn deploy() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("../../deploy")
}

/// The paths from the root of the repository that a document names in backticks.
fn paths_in(text: &str) -> impl Iterator<Item = &str> {
    const FOLDERS: [&str; 5] = ["crates/", "deploy/", "docs/", "examples/", "xtask/"];
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder)))
}

#[test]
fn the_architecture_names_files_that_exist() {
    let root = deploy().join("..");
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let named: Vec<&str> = paths_in(&text).collect();
    assert!(named.len() > 40, "{named:?}");
    let missing: Vec<&str> = named.into_iter().filter(|path| !root.join(path).exists()).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names what does not exist: {missing:?}");
}

fn compose() -> Compose {
    let text = std::fs::read_to_string(deploy().join("compose.yaml")).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

#[test]
fn images_are_pinned_and_names_refer_to_something() {
    let compose = compose();
    for (name, service) in &compose.services {
        let (_, tag) = service.image.rsplit_once(':').expect("a tag");
        assert!(tag.starts_with(|c: char| c.is_ascii_digit() || c == 'v'), "{name}: {tag}");
        for needed in service.depends_on.keys() {
            assert!(compose.services.contains_key(needed), "{name} depends on {needed}");
        }
        for volume in &service.volumes {
            let from = volume.split(':').next().unwrap_or_default();
            let known = match from.starts_with('.') {
                true => deploy().join(from).exists(),
                false => compose.volumes.contains_key(from),
            };
            assert!(known, "{name} mounts {from}");
        }
    }
}

#[test]
fn every_role_runs_and_every_secret_is_set() {
    let spec = throng_spec::load(&deploy().join("spec")).unwrap();
    assert!(spec.node.is_shared());
    // Without TLS, so ports are published on the loopback address only.
    assert!(spec.node.insecure);
    let compose = compose();
    let mut roles = Vec::new();
    for (name, service) in compose.services.iter().filter(|(_, s)| s.image.starts_with("throng:")) {
        let words = ["throng"].into_iter().chain(service.command.iter().map(String::as_str));
        let arguments = Arguments::try_parse_from(words).unwrap_or_else(|e| panic!("{name}: {e}"));
        let Command::Up(up) = arguments.command else { panic!("{name} starts no node") };
        assert_eq!(up.spec.as_deref(), Some(Path::new("/etc/throng")), "{name}");
        // One of them applies the spec, all others join.
        assert_eq!(up.join, name != "api", "{name}");
        roles.extend(up.roles.expect("roles"));
        for port in &service.ports {
            assert!(port.starts_with("127.0.0.1:"), "{name} is open to others: {port}");
        }
        let given = |reference: &SecretRef| match reference {
            SecretRef::Env(variable) => service.environment.contains_key(variable),
            SecretRef::File(_) => false,
        };
        assert!(given(spec.node.token.as_ref().expect("a token")), "{name}");
        for variable in ["THRONG_LEDGER_URL", "THRONG_S3_ACCESS_KEY", "THRONG_S3_SECRET_KEY"] {
            assert!(service.environment.contains_key(variable), "{name} lacks {variable}");
        }
        // The hosts of the settings are services.
        for host in ["postgres", "kafka", "s3"] {
            assert!(compose.services.contains_key(host));
        }
    }
    assert!(Role::ALL.iter().all(|role| roles.contains(role)), "{roles:?}");
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<RuleGroup>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleGroup {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(default, rename = "for")]
    lasts: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// The names of metrics in an expression.
fn metrics_in(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("throng_"))
}

#[test]
fn prometheus_rules_use_metrics_that_exist() {
    let text = std::fs::read_to_string(deploy().join("prometheus-rules.yaml")).unwrap();
    let rules: Rules = serde_saphyr::from_str(&text).unwrap();
    let mut names = std::collections::BTreeSet::new();
    for group in &rules.groups {
        assert!(!group.name.is_empty());
        for rule in &group.rules {
            assert!(names.insert(&rule.alert), "{} is there twice", rule.alert);
            let count = |c| rule.expr.matches(c).count();
            assert_eq!((count('('), count('{')), (count(')'), count('}')), "{}", rule.expr);
            assert!(["warning", "critical"].contains(&rule.labels["severity"].as_str()));
            assert!(!rule.annotations["summary"].is_empty());
            let minutes = rule.lasts.as_deref().map(|lasts| lasts.strip_suffix('m'));
            assert!(minutes.is_none_or(|m| m.is_some_and(|m| m.parse::<u32>().is_ok())));
            for metric in metrics_in(&rule.expr) {
                let known = throng_server::metric_names().any(|name| name == metric);
                assert!(known, "{}: there is no metric {metric}", rule.alert);
            }
        }
    }
    assert!(names.len() >= 10);
}

/// With the chart the job of Prometheus would be the name of a service, and the rule for a node that is down would find
/// no node.
#[test]
fn the_job_of_the_rules_is_that_of_the_chart() {
    let read = |path: &str| std::fs::read_to_string(deploy().join(path)).unwrap();
    assert!(read("prometheus-rules.yaml").contains(r#"up{job="throng"}"#));
    let label = "app.kubernetes.io/name";
    let monitor = read("helm/throng/templates/servicemonitor.yaml");
    assert!(monitor.contains(&format!("  jobLabel: {label}\n")));
    let helpers = read("helm/throng/templates/_helpers.tpl");
    assert!(helpers.contains(&format!("{label}: {{{{ include \"throng.name\" . }}}}")));
    assert!(read("helm/throng/Chart.yaml").contains("name: throng\n"));
}
