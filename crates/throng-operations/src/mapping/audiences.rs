//! Audiences, refreshes, snapshots and history entries.

use throng_api::{
    AudienceRefresh, AudienceRefreshProgress, AudienceRefreshState, AudienceRefreshTrigger,
    AudienceSnapshot, AudienceSnapshotState, AudienceSummary, HistoryItem,
};
use throng_model::{AudienceName, Timestamp};
use throng_store::{
    AudienceRow, HistoryEntry, Refresh, RefreshState, RefreshTrigger, Snapshot, SnapshotState,
};

/// An audience of the applied spec, and its row if it has one.
pub fn summary(name: AudienceName, row: Option<AudienceRow>, now: Timestamp) -> AudienceSummary {
    let Some(row) = row else {
        return AudienceSummary {
            name,
            current: None,
            refresh: None,
            waiting_refresh: None,
            refreshed_at: None,
            last_fired: None,
            paused_at: None,
            pinned_at: None,
        };
    };
    AudienceSummary {
        name,
        current: row.current.map(snapshot),
        refresh: row.refresh.map(|row| {
            let refresh = refresh(row);
            let eta_seconds = refresh.remaining_time(now).map(|left| left.as_secs());
            AudienceRefreshProgress { refresh, eta_seconds }
        }),
        waiting_refresh: row.waiting_refresh,
        refreshed_at: row.refreshed_at,
        last_fired: row.last_fired,
        paused_at: row.paused_at,
        pinned_at: row.pinned_at,
    }
}

/// A refresh.
pub fn refresh(row: Refresh) -> AudienceRefresh {
    AudienceRefresh {
        id: row.id,
        audience: row.audience,
        state: match row.state {
            RefreshState::Scheduled => AudienceRefreshState::Scheduled,
            RefreshState::Processing => AudienceRefreshState::Processing,
            RefreshState::Halted => AudienceRefreshState::Halted,
            RefreshState::Completed => AudienceRefreshState::Completed,
            RefreshState::Failed => AudienceRefreshState::Failed,
            RefreshState::Held => AudienceRefreshState::Held,
        },
        trigger: match row.trigger {
            RefreshTrigger::Schedule => AudienceRefreshTrigger::Schedule,
            RefreshTrigger::Manual => AudienceRefreshTrigger::Manual,
            RefreshTrigger::Apply => AudienceRefreshTrigger::Apply,
            RefreshTrigger::SourceChanged => AudienceRefreshTrigger::SourceChanged,
        },
        scheduled_at: row.scheduled_at,
        started_at: row.started_at,
        finished_at: row.finished_at,
        not_before: row.not_before,
        failures: row.failures,
        crashes: row.crashes,
        holder: row.holder,
        lease_until: row.lease_until,
        rows_read: row.rows_read,
        null_keys: row.null_keys,
        rows_expected: row.rows_expected,
        reason: match row.state {
            // Of an earlier try: nothing is known of this one yet.
            RefreshState::Processing | RefreshState::Halted => {
                row.reason.map(|reason| format!("last try: {reason}"))
            }
            _ => row.reason,
        },
        snapshot_version: row.snapshot_version,
        forced: row.forced,
        unchanged: row.unchanged,
    }
}

/// One version of an audience.
pub fn snapshot(row: Snapshot) -> AudienceSnapshot {
    AudienceSnapshot {
        audience: row.audience,
        version: row.version,
        state: match row.state {
            SnapshotState::Held => AudienceSnapshotState::Held,
            SnapshotState::Published => AudienceSnapshotState::Published,
            SnapshotState::Rejected => AudienceSnapshotState::Rejected,
        },
        path: row.path,
        members: row.members,
        rows_read: row.rows_read,
        null_keys: row.null_keys,
        bytes: row.bytes,
        checksum: row.checksum,
        tables: row.tables,
        model_fingerprint: row.model_fingerprint,
        refresh: row.refresh,
        created_at: row.created_at,
    }
}

/// An entry of the history.
pub fn history_item(entry: HistoryEntry) -> HistoryItem {
    HistoryItem {
        subject_kind: entry.subject_kind.into(),
        subject: entry.subject,
        what: entry.what.into(),
        why: entry.why,
        at: entry.at,
        actor: entry.actor,
    }
}

#[cfg(test)]
mod tests {
    use throng_model::RefreshId;

    use super::*;

    #[test]
    fn the_reason_of_an_earlier_try_is_shown_as_that() {
        let reason = |state| {
            let row = Refresh {
                id: RefreshId(1),
                audience: "buyers".parse().unwrap(),
                state,
                trigger: RefreshTrigger::Manual,
                scheduled_at: Timestamp(0),
                started_at: None,
                finished_at: None,
                not_before: Timestamp(0),
                failures: 1,
                crashes: 0,
                holder: None,
                lease_until: None,
                rows_read: 0,
                null_keys: 0,
                rows_expected: None,
                reason: Some("disk full".to_owned()),
                snapshot_version: None,
                forced: false,
                unchanged: false,
            };
            refresh(row).reason.unwrap()
        };
        for open in [RefreshState::Processing, RefreshState::Halted] {
            assert_eq!(reason(open), "last try: disk full");
        }
        for other in [RefreshState::Scheduled, RefreshState::Failed, RefreshState::Held] {
            assert_eq!(reason(other), "disk full");
        }
    }
}
