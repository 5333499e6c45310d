//! Specs in the ledger: reading the applied one, and writing another one over it.

use std::collections::HashSet;

use throng_activation::{RemovedSync, moved_syncs, removed_syncs};
use throng_model::{AdGroupIndex, AdGroupName, SyncName, Timestamp};
use throng_spec::{Plan, Role, Spec};
use throng_store::{AppliedSpec, Ledger, LedgerError, SpecApplied, SpecUpdate};

use crate::error::ApplyError;

/// The newest version of the spec language that this program supports.
const SUPPORTED_SPEC_VERSION: u64 = 1;

/// A spec that was written to the ledger, compared with the previous one.
#[derive(Debug)]
pub struct WrittenSpec {
    /// The spec's version in the ledger.
    pub version: u64,
    /// The version that it was compared with; `None` if there was none that can be used.
    pub(crate) previous: Option<u64>,
    /// The differences from the previous spec.
    pub(crate) plan: Plan,
    /// The feed's indexes of all its ad groups.
    pub indexes: Vec<(AdGroupName, AdGroupIndex)>,
    /// Syncs that it no longer has, and what happens to their audiences on the platforms.
    pub(crate) removed: Vec<(SyncName, String)>,
    /// Syncs that it has again, and whose removal was cancelled because of that.
    pub(crate) cancelled: Vec<SyncName>,
}

/// A spec of the ledger with its version, and the feed's indexes of its ad groups.
#[derive(Debug)]
pub struct LoadedSpec {
    /// The spec.
    pub spec: Spec,
    /// Its version.
    pub version: u64,
    /// The indexes of all its ad groups.
    pub indexes: Vec<(AdGroupName, AdGroupIndex)>,
}

/// Reads the applied spec and its version. Reading it runs the checks again.
///
/// # Errors
/// [`ApplyError::Stored`] if this version cannot read it, or it does not pass the checks.
async fn read_applied_spec(ledger: &dyn Ledger) -> Result<Option<(Spec, u64)>, ApplyError> {
    let Some(applied) = ledger.applied_spec().await? else { return Ok(None) };
    check_language(&applied.spec)?;
    let spec = serde_json::from_value(applied.spec).map_err(ApplyError::Stored)?;
    Ok(Some((spec, applied.version)))
}

/// Reads the applied spec and its version before another one replaces it. A spec that cannot be
/// used counts as none, so that a new one can always be applied; everything in it is new then.
pub(crate) async fn read_usable_spec(
    ledger: &dyn Ledger,
) -> Result<Option<(Spec, u64)>, ApplyError> {
    let Some(applied) = ledger.applied_spec().await? else { return Ok(None) };
    Ok(parse_usable(applied.spec)?.map(|spec| (spec, applied.version)))
}

/// Refuses a spec of a newer language version, before anything else of it is read.
fn check_language(spec: &serde_json::Value) -> Result<(), ApplyError> {
    match spec.get("version").and_then(serde_json::Value::as_u64) {
        Some(found) if found > SUPPORTED_SPEC_VERSION => Err(ApplyError::Newer { found }),
        _ => Ok(()),
    }
}

/// Parses the JSON form of a spec; `None` if it cannot be used.
///
/// # Errors
/// [`ApplyError::Newer`]: this version would drop the fields that it does not know, so it must
/// not replace such a spec.
fn parse_usable(spec: serde_json::Value) -> Result<Option<Spec>, ApplyError> {
    check_language(&spec)?;
    Ok(serde_json::from_value(spec)
        .inspect_err(|error| {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "applied spec in the ledger cannot be used, replacing it"
            );
        })
        .ok())
}

async fn indexes(
    ledger: &dyn Ledger,
    spec: &Spec,
) -> Result<Vec<(AdGroupName, AdGroupIndex)>, ApplyError> {
    let names: Vec<AdGroupName> = spec.ad_groups.iter().map(|a| a.name.clone()).collect();
    Ok(ledger.ad_group_indexes(&names).await?)
}

/// Loads the applied spec, to run it; `None` if there is none.
///
/// # Errors
/// [`ApplyError::Stored`] if this version cannot use it.
pub async fn load_applied(ledger: &dyn Ledger) -> Result<Option<LoadedSpec>, ApplyError> {
    with_indexes(ledger, read_applied_spec(ledger).await?).await
}

/// Loads the applied spec, before another one replaces it; `None` if there is none that can be used.
///
/// # Errors
/// [`ApplyError::Newer`] if a newer version of Throng applied it.
pub async fn load_previous(ledger: &dyn Ledger) -> Result<Option<LoadedSpec>, ApplyError> {
    with_indexes(ledger, read_usable_spec(ledger).await?).await
}

/// Whether a later spec than that of `version` is applied and has one of these ad groups: a process that does not have
/// them is about to switch to it. Reads the spec only if there is a later one.
///
/// # Errors
/// [`LedgerError`].
pub async fn is_declared_later(
    ledger: &dyn Ledger,
    version: u64,
    ad_groups: &HashSet<AdGroupName>,
) -> Result<bool, LedgerError> {
    if ledger.applied_version().await?.unwrap_or(0) <= version {
        return Ok(false);
    }
    let applied = ledger.applied_spec().await?;
    Ok(applied.is_some_and(|applied| declares_any(&applied.spec, ad_groups)))
}

/// By names alone: this process may not be able to read the spec, and never switch to it.
fn declares_any(spec: &serde_json::Value, ad_groups: &HashSet<AdGroupName>) -> bool {
    let wanted: HashSet<&str> = ad_groups.iter().map(AdGroupName::as_str).collect();
    let declared = spec.get("ad_groups").and_then(serde_json::Value::as_array);
    let mut names = declared.into_iter().flatten().filter_map(|of| of.get("name")?.as_str());
    names.any(|name| wanted.contains(name))
}

async fn with_indexes(
    ledger: &dyn Ledger,
    stored: Option<(Spec, u64)>,
) -> Result<Option<LoadedSpec>, ApplyError> {
    let Some((spec, version)) = stored else { return Ok(None) };
    let indexes = indexes(ledger, &spec).await?;
    Ok(Some(LoadedSpec { spec, version, indexes }))
}

/// The spec in the form that the ledger stores: with every role. The processes of a cluster
/// start with specs that differ in their roles only; without this they would replace each other's
/// specs.
fn as_stored(spec: &Spec) -> Spec {
    let mut stored = spec.clone();
    stored.node.roles = Role::ALL.to_vec();
    stored
}

/// Writes a spec to the ledger; with a `base`, only if that is the applied version.
pub(crate) async fn write(
    ledger: &dyn Ledger,
    spec: &Spec,
    base: Option<u64>,
    now: Timestamp,
) -> Result<Option<WrittenSpec>, ApplyError> {
    loop {
        let applied = ledger.applied_spec().await?;
        let at = applied.as_ref().map_or(0, |applied| applied.version);
        if base.is_some_and(|base| base != at) {
            return Ok(None);
        }
        // Otherwise another node applied a spec since it was read, and the removed syncs may be others
        // now: compare again.
        if let Some(written) = write_over(ledger, spec, applied, now).await? {
            return Ok(Some(written));
        }
    }
}

/// Writes the spec with which a node was started to the ledger.
///
/// # Errors
/// [`ApplyError`].
pub async fn store(
    ledger: &dyn Ledger,
    spec: &Spec,
    now: Timestamp,
) -> Result<WrittenSpec, ApplyError> {
    loop {
        let applied = ledger.applied_spec().await?;
        if let Some(written) = write_over(ledger, spec, applied, now).await? {
            return Ok(written);
        }
    }
}

/// Writes a spec over the applied one; `None` if that is no longer the applied one. The removals of
/// syncs that it no longer has are recorded in the same step: a crash in between would leave their
/// audiences on the platforms without anybody who removes them.
async fn write_over(
    ledger: &dyn Ledger,
    spec: &Spec,
    applied: Option<AppliedSpec>,
    now: Timestamp,
) -> Result<Option<WrittenSpec>, ApplyError> {
    let stored = as_stored(spec);
    let value = serde_json::to_value(&stored)?;
    let declared: Vec<SyncName> = stored.syncs.iter().map(|sync| sync.name.clone()).collect();
    let base = applied.as_ref().map_or(0, |applied| applied.version);
    let before = match applied {
        Some(applied) => parse_usable(applied.spec)?,
        None => None,
    };
    let previous = before.is_some().then_some(base);
    let (plan, gone) = compare(ledger, before.as_ref(), &stored).await?;
    let mut removals = Vec::new();
    for gone in &gone {
        removals.extend(gone.to_record()?);
    }
    // Before the update: after it the spec is applied, and an error here would say that it is not.
    let indexes = indexes(ledger, spec).await?;
    let update = SpecUpdate { base, spec: &value, removals: &removals, declared: &declared };
    let Some(applied) = ledger.apply_spec_update(update, now).await? else { return Ok(None) };
    let removed = gone.iter().map(|gone| (gone.sync().clone(), gone.description())).collect();
    let SpecApplied { version, cancelled, .. } = applied;
    Ok(Some(WrittenSpec { version, previous, plan, indexes, removed, cancelled }))
}

/// What changes from one spec to another one in the form that the ledger stores, with the syncs that
/// are gone.
async fn compare(
    ledger: &dyn Ledger,
    before: Option<&Spec>,
    stored: &Spec,
) -> Result<(Plan, Vec<RemovedSync>), ApplyError> {
    let mut plan = throng_spec::plan(before, stored);
    let gone = removed_syncs(ledger, before, stored).await?;
    plan.warnings.extend(gone.iter().map(RemovedSync::warning));
    plan.warnings.extend(moved_syncs(ledger, before, stored).await?);
    Ok((plan, gone))
}

/// What would change if a spec was written to the ledger now, and the version that is applied now; 0
/// if there is none.
pub(crate) async fn plan(ledger: &dyn Ledger, spec: &Spec) -> Result<(Plan, u64), ApplyError> {
    let before = read_usable_spec(ledger).await?;
    let version = match &before {
        Some((_, version)) => *version,
        None => ledger.applied_version().await?.unwrap_or(0),
    };
    let before = before.map(|(spec, _)| spec);
    let (plan, _) = compare(ledger, before.as_ref(), &as_stored(spec)).await?;
    Ok((plan, version))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_ad_groups_of_a_spec_are_found_by_their_names() {
        let spec = json!({ "version": 1, "ad_groups": [{ "name": "shoes" }, { "name": "hats" }] });
        let of = |names: &[&str]| {
            let names = names.iter().map(|name| name.parse().unwrap()).collect();
            declares_any(&spec, &names)
        };
        assert!(of(&["gloves", "hats"]) && of(&["shoes"]));
        assert!(!of(&["boots"]) && !of(&[]));
        assert!(!declares_any(
            &json!({ "version": 1 }),
            &HashSet::from(["shoes".parse().unwrap()])
        ));
    }

    #[test]
    fn a_spec_of_a_newer_version_is_not_replaced() {
        let newer = parse_usable(json!({ "version": 2, "audiences": "of another type" }));
        assert!(matches!(newer, Err(ApplyError::Newer { found: 2 })), "{newer:?}");
        // A spec that an older version stored without a check is replaced.
        assert!(parse_usable(json!({ "version": 1, "audiences": [] })).unwrap().is_none());
    }
}
