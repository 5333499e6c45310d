//! The allowed dependencies between crates. Pure, except for `cargo metadata`.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, MetadataCommand};

/// The layers, the lowest first. A crate may depend on crates of lower layers, and on crates of its own
/// layer that are listed before it. Planned crates are listed too.
const LAYERS: &[&[&str]] = &[
    &["throng-model"],
    &[
        "throng-fs",
        "throng-telemetry",
        "throng-schema",
        "throng-spec-schema",
        "throng-spec-types",
        "throng-spec",
        "throng-membership",
        "throng-feed",
        "throng-rates",
        "throng-events",
        "throng-store",
        "throng-api",
        "throng-report",
        "throng-http",
        "throng-google",
    ],
    &[
        "throng-gate",
        "throng-sql",
        "throng-ledger",
        "throng-log",
        "throng-objects",
        "throng-files",
        "throng-source-copies",
        "throng-worker",
        "throng-query",
        "throng-part-files",
        "throng-tables",
        "throng-lake",
        "throng-ballista",
        "throng-templates",
        "throng-budget",
        "throng-delivered",
        "throng-access",
    ],
    &[
        "throng-refresh",
        "throng-activation",
        "throng-aggregator",
        "throng-alerts",
        "throng-backup",
        // Below the simulators: their ad servers follow a node with its code.
        "throng-sidecar",
        "throng-serving-stores",
    ],
    &[
        "throng-sim",
        "throng-sim-bigquery",
        "throng-demo",
        "throng-destinations",
        "throng-warehouse",
    ],
    &[
        "throng-ingest",
        "throng-operations",
        "throng-page",
        "throng-platforms",
        "throng-apply",
        "throng-backends",
    ],
    &["throng-server"],
    &["throng"],
    &["throng-bench"],
];

/// Restricted dependencies, each with the only crates that may depend on it. `throng-ledger`: others need rows and
/// traits only, and SQL belongs to the assembly. Tests of any crate may use all of them.
const RESTRICTED: &[(&str, &[&str])] = &[
    ("datafusion", &["throng-tables", "throng-lake", "throng-ballista"]),
    ("datafusion-proto", &["throng-ballista"]),
    ("ballista-core", &["throng-ballista"]),
    ("ballista-scheduler", &["throng-ballista"]),
    ("ballista-executor", &["throng-ballista"]),
    ("arrow-flight", &["throng-ballista"]),
    // The columns and files of ingested rows, without a query engine. DataFusion has the same two.
    ("arrow", &["throng-ingest"]),
    ("parquet", &["throng-ingest"]),
    // throng-warehouse reads tables of others: the same driver, which is compiled in any case.
    ("sqlx", &["throng-sql", "throng-warehouse"]),
    ("throng-sql", &["throng-ledger"]),
    ("rdkafka", &["throng-log"]),
    ("object_store", &["throng-objects"]),
    // A sidecar is a server of its own, without the roles and stores of throng-server.
    (
        "axum",
        &["throng-http", "throng-server", "throng-sidecar", "throng-sim", "throng-sim-bigquery"],
    ),
    ("redis", &["throng-serving-stores"]),
    ("tonic", &["throng-serving-stores", "throng-ballista"]),
    ("tonic-prost", &["throng-serving-stores"]),
    ("askama", &["throng-page"]),
    // The processes of a cluster confine themselves before they start: they have a command line of their own.
    ("clap", &["throng", "throng-ballista", "throng-bench", "xtask"]),
    ("throng-ledger", &["throng-backends", "throng"]),
    ("metrics", &["throng-telemetry"]),
];

/// Dependencies that the layers allow and the design does not: the first crate must not depend on the second
/// one, for the given reason. Existing ones are counted.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("throng-budget", "throng-gate", "the producer of the feed does not depend on its consumer"),
    (
        "throng-aggregator",
        "throng-gate",
        "the producer of the feed does not depend on its consumer",
    ),
    ("throng-activation", "throng-lake", "identifiers come through a trait"),
    ("throng-page", "throng-store", "pages are rendered from types of the API"),
    ("throng-page", "throng-operations", "pages are rendered from types of the API"),
    (
        "throng-sidecar",
        "throng-store",
        "a gate reads from a node over HTTP, and not from its stores",
    ),
    ("throng-server", "throng-sidecar", "a node does not depend on those that follow it"),
    ("throng-server", "throng-sim", "simulators are for tests, the demo and the command line"),
    (
        "throng-server",
        "throng-sim-bigquery",
        "simulators are for tests, the demo and the command line",
    ),
];

/// A crate and its dependencies, without dev-dependencies.
#[derive(Debug)]
pub(super) struct Dependencies {
    name: String,
    dependencies: BTreeSet<String>,
}

/// The crates of the workspace.
///
/// # Errors
/// If cargo fails.
pub(super) fn read(root: &Path) -> Result<Vec<Dependencies>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("cargo metadata")?;
    let crates = metadata.packages.iter().map(|package| {
        let dependencies = package.dependencies.iter();
        let dependencies = dependencies.filter(|d| d.kind != DependencyKind::Development);
        let dependencies = dependencies.map(|d| d.name.as_str().to_owned()).collect();
        Dependencies { name: package.name.as_str().to_owned(), dependencies }
    });
    Ok(crates.collect())
}

/// Dependencies on higher layers, restricted dependencies of other crates, and crates without a layer.
pub(super) fn findings(crates: &[Dependencies]) -> Vec<String> {
    let order: Vec<&str> = LAYERS.iter().flat_map(|layer| layer.iter().copied()).collect();
    let rank = |name: &str| order.iter().position(|other| *other == name);
    let mut findings = Vec::new();
    for Dependencies { name, dependencies } in crates {
        if rank(name).is_none() && name != "xtask" {
            findings.push(format!(
                "crate {name} has no layer: add it to LAYERS in xtask/src/tidy/layers.rs"
            ));
        }
        for dependency in dependencies {
            if let (Some(own), Some(other)) = (rank(name), rank(dependency))
                && other >= own
            {
                findings
                    .push(format!("{name} depends on {dependency}, which is in a higher layer"));
            }
            if let Some((_, allowed)) =
                RESTRICTED.iter().find(|(restricted, _)| restricted == dependency)
                && !allowed.contains(&name.as_str())
            {
                findings.push(format!("{name} depends on {dependency}; only {allowed:?} may"));
            }
        }
    }
    findings
}

/// Dependencies that the design forbids.
pub(super) fn forbidden(crates: &[Dependencies]) -> Vec<String> {
    let exists = |from: &str, to: &str| {
        crates.iter().any(|one| one.name == from && one.dependencies.contains(to))
    };
    let found = FORBIDDEN.iter().filter(|(from, to, _)| exists(from, to));
    found.map(|(from, to, why)| format!("{from} depends on {to}: {why}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crates(all: &[(&str, &[&str])]) -> Vec<Dependencies> {
        all.iter()
            .map(|(name, dependencies)| Dependencies {
                name: (*name).to_owned(),
                dependencies: dependencies.iter().map(|name| (*name).to_owned()).collect(),
            })
            .collect()
    }

    #[test]
    fn dependencies_point_downwards() {
        let allowed = crates(&[
            ("throng-gate", &["throng-model", "throng-feed", "serde"]),
            ("throng-budget", &["throng-gate"]),
        ]);
        assert!(findings(&allowed).is_empty());
        let upwards = crates(&[
            ("throng-model", &["throng-server"]),
            ("throng-spec", &["throng-membership"]),
            ("throng-spec", &["throng-spec"]),
        ]);
        assert_eq!(findings(&upwards).len(), 3);
    }

    #[test]
    fn restricted_dependencies_and_crates_without_a_layer_are_found() {
        let found = findings(&crates(&[
            ("throng-log", &["rdkafka", "sqlx"]),
            ("throng-new", &[]),
            ("xtask", &["clap"]),
        ]));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("sqlx") && found[1].contains("throng-new"));
    }

    #[test]
    fn forbidden_dependencies_are_found() {
        let found = forbidden(&crates(&[
            ("throng-budget", &["throng-gate", "throng-feed"]),
            ("throng-server", &["throng-ledger"]),
        ]));
        assert!(found.len() == 1 && found[0].starts_with("throng-budget depends"), "{found:?}");
    }
}
