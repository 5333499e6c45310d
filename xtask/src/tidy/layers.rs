//! Who may depend on whom. Pure but for asking cargo.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, MetadataCommand};

/// Crates from the ground up. A crate may depend on crates of lower layers, and on its own layer's
/// crates that are listed before it. The layers are those of the design; a crate that does not exist yet
/// has its place already.
const LAYERS: &[&[&str]] = &[
    &["throng-model"],
    &["throng-spec", "throng-membership", "throng-feed", "throng-store", "throng-api"],
    &[
        "throng-gate",
        "throng-ledger",
        "throng-log",
        "throng-objects",
        "throng-lake",
        "throng-budget",
        "throng-delivered",
    ],
    &["throng-refresh", "throng-activation", "throng-aggregator"],
    &["throng-sim", "throng-destinations"],
    &["throng-page"],
    &["throng-server"],
    &["throng"],
    &["throng-bench"],
];

/// A heavy dependency and the only crates that may name it.
const OWNERS: &[(&str, &[&str])] = &[
    ("datafusion", &["throng-lake"]),
    ("sqlx", &["throng-ledger"]),
    ("rdkafka", &["throng-log"]),
    ("object_store", &["throng-objects"]),
    ("axum", &["throng-server", "throng-sim"]),
    ("clap", &["throng", "throng-bench", "xtask"]),
    ("throng-ledger", &["throng-server", "throng"]),
];

/// Dependencies that the layers allow and the design does not: the first crate must not name the second,
/// for the reason given. Those that exist are counted.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("throng-activation", "throng-ledger", "rows and traits are enough; SQL is for the assembly"),
    ("throng-destinations", "throng-ledger", "rows and traits are enough; SQL is for the assembly"),
    ("throng-refresh", "throng-ledger", "rows and traits are enough; SQL is for the assembly"),
    ("throng-aggregator", "throng-ledger", "rows and traits are enough; SQL is for the assembly"),
    ("throng-budget", "throng-gate", "who produces the feed does not depend on who consumes it"),
    (
        "throng-aggregator",
        "throng-gate",
        "who produces the feed does not depend on who consumes it",
    ),
    ("throng-activation", "throng-lake", "identifiers come through a trait"),
    ("throng-server", "throng-sim", "simulators are for tests, the demo and the command line"),
];

/// A crate and what it names, without dependencies of its tests.
#[derive(Debug)]
pub(super) struct Dependencies {
    name: String,
    names: BTreeSet<String>,
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
        let named = dependencies.filter(|d| d.kind != DependencyKind::Development);
        let names = named.map(|d| d.name.as_str().to_owned()).collect();
        Dependencies { name: package.name.as_str().to_owned(), names }
    });
    Ok(crates.collect())
}

/// Dependencies that point upwards, that somebody else owns, and crates without a layer.
pub(super) fn findings(crates: &[Dependencies]) -> Vec<String> {
    let order: Vec<&str> = LAYERS.iter().flat_map(|layer| layer.iter().copied()).collect();
    let place = |name: &str| order.iter().position(|other| *other == name);
    let mut findings = Vec::new();
    for Dependencies { name, names } in crates {
        if place(name).is_none() && name != "xtask" {
            findings.push(format!(
                "crate {name} has no layer: add it to LAYERS in xtask/src/tidy/layers.rs"
            ));
        }
        for dependency in names {
            if let (Some(mine), Some(theirs)) = (place(name), place(dependency))
                && theirs >= mine
            {
                findings
                    .push(format!("{name} depends on {dependency}, which is of a higher layer"));
            }
            if let Some((_, owners)) = OWNERS.iter().find(|(heavy, _)| heavy == dependency)
                && !owners.contains(&name.as_str())
            {
                findings.push(format!("{name} names {dependency}; only {owners:?} may"));
            }
        }
    }
    findings
}

/// Dependencies that the design forbids.
pub(super) fn forbidden(crates: &[Dependencies]) -> Vec<String> {
    let exists =
        |from: &str, to: &str| crates.iter().any(|one| one.name == from && one.names.contains(to));
    let found = FORBIDDEN.iter().filter(|(from, to, _)| exists(from, to));
    found.map(|(from, to, why)| format!("{from} depends on {to}: {why}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crates(all: &[(&str, &[&str])]) -> Vec<Dependencies> {
        all.iter()
            .map(|(name, names)| Dependencies {
                name: (*name).to_owned(),
                names: names.iter().map(|name| (*name).to_owned()).collect(),
            })
            .collect()
    }

    #[test]
    fn dependencies_point_downwards() {
        let fine = crates(&[
            ("throng-gate", &["throng-model", "throng-feed", "serde"]),
            ("throng-budget", &["throng-gate"]),
        ]);
        assert!(findings(&fine).is_empty());
        let upwards = crates(&[
            ("throng-model", &["throng-server"]),
            ("throng-spec", &["throng-membership"]),
            ("throng-spec", &["throng-spec"]),
        ]);
        assert_eq!(findings(&upwards).len(), 3);
    }

    #[test]
    fn heavy_dependencies_have_owners_and_crates_have_layers() {
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
