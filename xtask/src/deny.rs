//! `cargo xtask deny`: no dependency with an open advisory, a license that is not allowed, or a source
//! other than crates.io. The rules are in `deny.toml`, in the format of cargo-deny. cargo-deny itself checks
//! the same and more, but takes longer to build than all other checks together.

mod advisories;
mod licenses;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cargo_metadata::{Metadata, MetadataCommand, Package};
use serde::Deserialize;

use advisories::{Advisory, Kind};

/// The only allowed registry.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The parts of `deny.toml` that are used here.
#[derive(Deserialize)]
struct Rules {
    advisories: AdvisoryRules,
    licenses: LicenseRules,
}

#[derive(Deserialize)]
struct AdvisoryRules {
    /// Open advisories that do not affect this project, each with a reason.
    #[serde(default)]
    ignore: Vec<Ignored>,
}

#[derive(Deserialize)]
struct Ignored {
    id: String,
    reason: String,
}

#[derive(Deserialize)]
struct LicenseRules {
    /// SPDX names.
    allow: Vec<String>,
}

/// Checks every dependency of the lock file. With `update` it replaces the offline copy of the advisories,
/// which needs the network.
pub(crate) fn check(root: &Path, update: bool) -> Result<()> {
    let text = std::fs::read_to_string(root.join("deny.toml")).context("cannot read deny.toml")?;
    let rules: Rules = toml::from_str(&text).context("deny.toml is invalid")?;
    let database = advisories::load(root, &target(root), update)?;
    eprintln!("{database}");
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .other_options(["--locked".to_owned(), "--all-features".to_owned()])
        .exec()?;
    let mut errors = vulnerable(&metadata, &database.advisories, &rules.advisories.ignore);
    errors.extend(from_other_sources(&metadata));
    errors.extend(unlicensed(&metadata, &rules.licenses.allow));
    errors.extend(wildcards(&metadata));
    for error in &errors {
        eprintln!("error: {error}");
    }
    ensure!(errors.is_empty(), "{} dependencies break the rules", errors.len());
    eprintln!("{} packages: advisories, licenses and sources are ok", metadata.packages.len());
    Ok(())
}

fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from)
}

/// Advisories that affect a package and are not ignored, and ignored ones that affect none.
fn vulnerable(metadata: &Metadata, known: &[Advisory], ignored: &[Ignored]) -> Vec<String> {
    let mut errors = Vec::new();
    let mut used = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        for advisory in known.iter().filter(|a| a.package == name && a.affects(&package.version)) {
            let Advisory { id, kind, .. } = advisory;
            let finding = format!(
                "{name} {}: {id} ({}), see https://rustsec.org/advisories/{id}",
                package.version,
                kind.name()
            );
            if let Some(ignored) = ignored.iter().find(|ignored| ignored.id == *id) {
                used.push(id.as_str());
                eprintln!("ignored: {finding}: {}", ignored.reason);
            } else if *kind == Kind::Note {
                eprintln!("warning: {finding}");
            } else {
                errors.push(format!("{finding}: {}", advisory.help()));
            }
        }
    }
    for Ignored { id, reason } in ignored {
        if reason.trim().is_empty() {
            errors.push(format!("deny.toml ignores {id} without a reason"));
        }
        if !used.contains(&id.as_str()) {
            errors.push(format!("deny.toml ignores {id}, which affects no package: remove it"));
        }
    }
    errors
}

fn from_other_sources(metadata: &Metadata) -> Vec<String> {
    let is_other =
        |package: &&Package| package.source.as_ref().is_some_and(|source| source.repr != REGISTRY);
    metadata
        .packages
        .iter()
        .filter(is_other)
        .map(|package| format!("{} {} is not from crates.io", package.name, package.version))
        .collect()
}

fn unlicensed(metadata: &Metadata, allowed: &[String]) -> Vec<String> {
    let mut errors = Vec::new();
    for package in metadata.packages.iter().filter(|package| package.source.is_some()) {
        let is_allowed = package.license.as_deref().map(|text| licenses::allows(text, allowed));
        let why = match is_allowed {
            Some(Some(true)) => continue,
            Some(Some(false)) => "is not allowed by deny.toml",
            Some(None) => "is not an SPDX expression",
            None => "is missing",
        };
        let license = package.license.as_deref().unwrap_or("its license");
        errors.push(format!("{} {}: {license} {why}", package.name, package.version));
    }
    errors
}

/// Dependencies of the workspace without a version requirement.
fn wildcards(metadata: &Metadata) -> Vec<String> {
    let mut errors = Vec::new();
    for package in metadata.workspace_packages() {
        for dependency in &package.dependencies {
            if dependency.req == semver::VersionReq::STAR && dependency.path.is_none() {
                errors.push(format!("{} accepts any version of {}", package.name, dependency.name));
            }
        }
    }
    errors
}
