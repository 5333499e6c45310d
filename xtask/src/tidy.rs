//! Rules that no compiler checks: who may depend on whom, and how long a file may be.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand};

/// Crates from the ground up. A crate may depend on crates of lower floors, and on its own floor's
/// crates that stand before it.
const FLOORS: &[&[&str]] = &[
    &["throng-model"],
    &["throng-spec", "throng-membership", "throng-store", "throng-feed"],
    &["throng-gate"],
    &[
        "throng-ledger",
        "throng-lake",
        "throng-log",
        "throng-objects",
        "throng-activation",
        "throng-budget",
    ],
    &["throng-sim", "throng-destinations"],
    &["throng-server"],
    &["throng"],
    &["throng-bench"],
];

/// A dependency and the only crates that may name it, apart from their tests: what is heavy, and the
/// implementation of a trait that everybody else knows by the trait alone.
const OWNERS: &[(&str, &[&str])] = &[
    ("datafusion", &["throng-lake"]),
    ("sqlx", &["throng-ledger"]),
    ("throng-ledger", &["throng-server", "throng"]),
    ("rdkafka", &["throng-log"]),
    ("object_store", &["throng-objects"]),
    ("axum", &["throng-server", "throng-sim"]),
    ("clap", &["throng", "throng-bench", "xtask"]),
];

/// A file over this asks to be split.
const LONGEST_FILE_LINES: usize = 600;

/// Checks everything and reports all findings at once.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut findings = layering(root)?;
    for folder in ["crates", "bench", "xtask"] {
        for file in rust_files(&root.join(folder))? {
            findings.extend(file_findings(&file, root)?);
        }
    }
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    eprintln!("tidy: all well");
    Ok(())
}

fn layering(root: &Path) -> Result<Vec<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("cargo metadata")?;
    let order: Vec<&str> = FLOORS.iter().flat_map(|floor| floor.iter().copied()).collect();
    let place = |name: &str| order.iter().position(|other| *other == name);
    let mut findings = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        if place(name).is_none() && name != "xtask" {
            findings
                .push(format!("crate {name} has no floor: add it to FLOORS in xtask/src/tidy.rs"));
        }
        let plain: BTreeSet<&str> = package
            .dependencies
            .iter()
            .filter(|d| d.kind != DependencyKind::Development)
            .map(|d| d.name.as_str())
            .collect();
        for dependency in plain {
            if let (Some(mine), Some(theirs)) = (place(name), place(dependency))
                && theirs >= mine
            {
                findings.push(format!("{name} depends on {dependency}, which stands above it"));
            }
            if let Some((_, owners)) = OWNERS.iter().find(|(heavy, _)| *heavy == dependency)
                && !owners.contains(&name)
            {
                findings.push(format!("{name} names {dependency}; only {owners:?} may"));
            }
        }
    }
    Ok(findings)
}

fn file_findings(file: &Path, root: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file:?}"))?;
    let shown = file.strip_prefix(root).unwrap_or(file).display();
    let mut findings = Vec::new();
    let lines = text.lines().count();
    if lines > LONGEST_FILE_LINES {
        findings.push(format!("{shown} has {lines} lines; split it at {LONGEST_FILE_LINES}"));
    }
    if !text.starts_with("//!") && lines > 20 {
        findings.push(format!("{shown} does not say in its first line what it is for (//!)"));
    }
    if text.contains("#[ignore") && !shown.to_string().starts_with("xtask") {
        findings.push(format!("{shown} ignores a test"));
    }
    Ok(findings)
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {folder:?}"))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
