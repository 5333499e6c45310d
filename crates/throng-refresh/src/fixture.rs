//! Rows of a ledger for unit tests.

use throng_model::Timestamp;
use throng_store::{AudienceRow, Refresh, RefreshState, fixture};

/// An audience whose newest refresh has this state, and has made this version. No version is served.
pub(crate) fn audience_row(state: RefreshState, snapshot_version: Option<u64>) -> AudienceRow {
    fixture::audience_row(Refresh {
        reason: Some("because".into()),
        snapshot_version,
        ..fixture::refresh(state, Timestamp(0))
    })
}
