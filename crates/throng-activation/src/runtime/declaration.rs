//! Declarations of syncs in a spec.

use throng_model::SyncName;
use throng_spec::{Destination, Spec, Sync};

/// A sync of a spec and its destination.
///
/// # Errors
/// The name of what is missing.
pub(super) fn find_declaration(
    spec: &Spec,
    sync: &SyncName,
) -> Result<(Sync, Destination), String> {
    let declared =
        spec.syncs.iter().find(|s| s.name == *sync).ok_or_else(|| format!("sync {sync}"))?;
    let destination = spec.destinations.iter().find(|d| d.name == declared.destination);
    let destination = destination.ok_or_else(|| format!("destination {}", declared.destination))?;
    Ok((declared.clone(), destination.clone()))
}

/// The platform's keys of a sync's identifier columns.
pub(super) fn keys_of(sync: &Sync) -> Vec<String> {
    sync.identifiers.columns.iter().map(|(_, key)| key.clone()).collect()
}
