//! Rows for the unit tests of other crates.

#![expect(clippy::unwrap_used, reason = "for tests: a panic is how a test fails")]

use throng_model::{RefreshId, Timestamp};

use crate::{AudienceRow, Refresh, RefreshState, RefreshTrigger};

/// A refresh of the audience `a` that a person has queued at a time, in this state, without failures and results.
pub fn refresh(state: RefreshState, at: Timestamp) -> Refresh {
    Refresh {
        id: RefreshId(1),
        audience: "a".parse().unwrap(),
        state,
        trigger: RefreshTrigger::Manual,
        scheduled_at: at,
        started_at: None,
        finished_at: None,
        not_before: at,
        failures: 0,
        crashes: 0,
        holder: None,
        lease_until: None,
        rows_read: 0,
        null_keys: 0,
        rows_expected: None,
        reason: None,
        snapshot_version: None,
        forced: false,
        unchanged: false,
    }
}

/// The audience of this newest refresh. No version of it is served.
pub fn audience_row(newest: Refresh) -> AudienceRow {
    AudienceRow {
        name: newest.audience.clone(),
        current: None,
        refresh: Some(newest),
        waiting_refresh: None,
        refreshed_at: None,
        last_fired: None,
        paused_at: None,
        pinned_at: None,
        source_state: None,
    }
}
