//! The alerts of refreshes.

use throng_model::AudienceName;
use throng_store::{AlertKind, NewAlert};

/// The alert of a held snapshot.
pub(super) fn held_alert(name: &AudienceName, version: u64, reason: &str) -> NewAlert {
    let message = format!(
        "version {version} is held: {reason}. Check the source, then \
         `throng audience approve {name}`, or refresh it again"
    );
    NewAlert { kind: AlertKind::SnapshotHeld, subject: name.to_string(), message }
}

/// The alert of a refresh that has failed for good.
pub(super) fn failed_alert(name: &AudienceName, reason: &str) -> NewAlert {
    let message = format!("the refresh failed: {reason}. Then `throng audience refresh {name}`");
    NewAlert { kind: AlertKind::RefreshFailed, subject: name.to_string(), message }
}
