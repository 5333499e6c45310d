//! Rows of a ledger for unit tests.

use throng_model::{AudienceName, RefreshId, Timestamp};
use throng_store::{AudienceRow, Refresh, RefreshState, RefreshTrigger};

/// An audience whose newest refresh has this state, and has made this version. No version is served.
pub(crate) fn audience_row(state: RefreshState, snapshot_version: Option<u64>) -> AudienceRow {
    let name: AudienceName = "a".parse().unwrap();
    let refresh = Refresh {
        id: RefreshId(1),
        audience: name.clone(),
        state,
        trigger: RefreshTrigger::Manual,
        scheduled_at: Timestamp(0),
        started_at: None,
        finished_at: None,
        not_before: Timestamp(0),
        failures: 0,
        crashes: 0,
        holder: None,
        lease_until: None,
        rows_read: 0,
        null_keys: 0,
        rows_expected: None,
        reason: Some("because".into()),
        snapshot_version,
        forced: false,
        unchanged: false,
    };
    let refresh = Some(refresh);
    AudienceRow {
        name,
        current: None,
        refresh,
        refreshed_at: None,
        last_fired: None,
        paused_at: None,
        pinned_at: None,
        source_state: None,
    }
}
