//! The suite that every backend passes: each promise in the traits' documentation has a case.
//!
//! Each case opens its own ledgers by name, so cases can run concurrently on one database server.

#![expect(clippy::unwrap_used, reason = "a test suite: a panic is how a case fails")]

mod access;
mod alerts;
mod audiences;
mod claims;
mod conservation;
mod history;
mod lists;
mod maintenance;
mod pauses;
mod planning;
mod refresh_groups;
mod removals;
mod sizes;
mod snapshots;
mod spec;
mod store_writes;
mod sync;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{FutureExt as _, LocalBoxFuture};
use futures::stream::{self, StreamExt as _};
use throng_model::{AudienceName, DestinationName, RefreshId, SyncMode, SyncName, Timestamp};

use crate::{
    ClaimFilter, Ledger, LedgerError, NewRun, Operation, Part, ReasonCounts, Refresh,
    RefreshTrigger, Snapshot, SnapshotState, Task,
};

/// A backend under test.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Opens the ledger of this name: a new one at first, later the same one again, also while
    /// earlier handles are still open (as a second process would).
    async fn open(&self, name: &str) -> Arc<dyn Ledger>;
}

/// How many cases run at the same time: a server takes longer to create the database of a case than to run it.
const CONCURRENT_CASES: usize = 4;

type Case = for<'a> fn(&'a dyn Backend) -> LocalBoxFuture<'a, ()>;

macro_rules! cases {
    ($($module:ident { $($case:ident),+ $(,)? })+) => {
        const CASES: &[Case] = &[$($(|backend| {
            let case = async move {
                let ledger = backend.open(stringify!($case)).await;
                $module::$case(&*ledger).await;
            };
            case.boxed_local()
        }),+),+];

        /// Runs every case on a backend.
        ///
        /// # Panics
        /// If a promise is not kept; the message and the location say which.
        pub async fn suite(backend: &dyn Backend) {
            let cases = stream::iter(CASES);
            cases.for_each_concurrent(CONCURRENT_CASES, |case| case(backend)).await;
            reopened(backend).await;
            claims::processes_share_one_queue(backend).await;
            claims::no_account_has_more_running_tasks_than_allowed(backend).await;
        }
    };
}

cases! {
    access {
        tokens_are_valid_until_they_expire_or_are_revoked,
        a_name_is_in_use_while_its_token_is_valid,
        a_data_directory_keeps_one_token,
        the_last_use_of_a_token_never_decreases,
        sessions_are_found_by_hash_and_end,
        a_sign_in_code_is_redeemed_once,
    }
    audiences {
        unknown_objects_are_not_found,
        refreshes_of_one_audience_do_not_run_concurrently,
        a_request_while_a_refresh_runs_is_another_refresh,
        a_refresh_that_waits_for_one_without_parts_is_kept,
        a_waiting_refresh_follows_every_end,
        a_schedule_fires_exactly_once,
        a_state_of_the_source_queues_one_refresh,
        the_last_success_outlives_later_refreshes,
        refreshes_are_claimed_when_due_and_oldest_first,
        tries_that_end_without_a_result_are_counted,
        a_cancelled_refresh_has_ended_for_its_holder,
        a_lost_refresh_lease_is_reported,
        the_refresh_of_one_audience_is_claimed,
        progress_is_recorded,
        parts_survive_a_halt_and_a_retry,
        a_part_is_claimed_by_one_builder_and_scans_come_first,
        refreshes_and_parts_of_some_audiences_are_claimed,
        parts_are_recorded_once,
        a_refresh_is_planned_again_by_its_holder,
        the_next_refresh_can_start_after_a_failed_one,
        the_dictionary_is_swapped_only_from_the_expected_version,
    }
    snapshots {
        publishing_is_one_step,
        an_unchanged_refresh_confirms_the_served_version,
        a_forced_refresh_is_not_confirmed,
        served_versions_follow_what_is_published,
        a_stale_builder_publishes_nothing,
        contradictions_are_refused,
        a_held_snapshot_waits_for_approval,
        a_rejected_snapshot_never_becomes_current,
        rolling_back_takes_published_snapshots_only,
        deleting_snapshots_keeps_the_current_one_and_the_sizes,
    }
    refresh_groups {
        snapshots_of_a_group_are_recorded_as_one_by_one,
        unchanged_refreshes_of_a_group_are_confirmed_as_one_by_one,
        refreshes_of_a_group_are_queued_as_one_by_one,
        refreshes_of_a_group_are_claimed_renewed_and_halted,
        snapshots_of_a_group_are_listed_and_deleted,
        a_group_is_as_large_as_a_template,
    }
    sync {
        a_sync_has_one_open_run,
        what_was_delivered_is_recorded_with_its_runs,
        what_was_delivered_is_forgotten,
        what_an_account_held_is_planned_again,
        a_sync_is_incomplete_until_its_newest_run_completes,
        batches_are_ranked_per_operation,
        hundreds_of_batches_are_planned,
        a_held_run_waits_for_approval,
        tasks_are_claimed_by_priority_then_age,
        one_task_is_claimed_by_its_number,
        due_tasks_are_enqueued_again_after_a_while,
        each_destination_has_few_tasks_enqueued_the_urgent_ones,
        checks_are_enqueued,
        an_accounts_queue_is_held_and_approved,
        a_task_with_an_expired_lease_can_be_claimed,
        failures_are_counted_and_reset,
        a_failed_task_fails_its_run_and_can_be_requeued,
        a_replaced_run_is_not_requeued,
        a_task_completes_only_when_every_batch_is_done,
        a_released_task_is_due_immediately,
        tasks_are_listed_and_counted_by_state,
        receipts_are_listed_in_order,
        checks_replace_each_other,
        a_platform_audience_keeps_its_first_id,
        foreign_audiences_are_recorded_until_the_sync_has_its_own,
    }
    planning {
        held_runs_to_versions_that_are_no_longer_served_are_discarded,
        a_run_is_recorded_only_if_its_base_is_current,
        of_two_runs_from_one_base_one_is_recorded,
    }
    conservation {
        finishing_a_batch_twice_counts_once,
        outcomes_that_do_not_add_up_are_refused,
        no_sequence_of_calls_loses_a_user,
    }
    claims {
        each_task_is_claimed_by_one_of_many,
        expired_leases_release_the_work,
        each_refresh_is_claimed_by_one_of_many,
        filtered_refreshes_are_claimed_by_one_of_many,
        each_part_is_claimed_by_one_of_many,
        many_firings_queue_one_refresh,
        abandoned_calls_leave_the_ledger_usable,
    }
    alerts {
        an_open_alert_is_raised_once,
        open_alerts_come_first,
        an_alert_counts_how_often_it_was_raised,
        alerts_of_each_kind_are_separate,
        several_alerts_are_resolved_together,
        several_alerts_are_raised_together,
        events_are_recorded_once_in_order_of_time,
        receivers_are_independent,
        a_new_receiver_gets_the_open_alerts,
        old_events_are_deleted,
    }
    lists {
        pages_of_runs_and_tasks_are_the_sorted_list_despite_inserts,
        pages_of_alerts_are_the_sorted_list_despite_inserts,
        lists_are_filtered_by_state_and_search,
        lists_are_limited_to_a_workspace,
        failed_tasks_of_newest_runs_can_be_queued_again,
    }
    history {
        history_is_read_newest_first,
        nodes_are_listed_and_deleted,
    }
    maintenance {
        the_newest_stamp_counts,
        a_probe_changes_nothing,
        objects_are_referenced_as_long_as_they_are_needed,
    }
    pauses {
        a_paused_sync_plans_nothing_and_its_tasks_wait,
        resumed_tasks_are_enqueued_again,
        a_paused_audience_starts_no_refresh,
        a_pinned_version_stays_until_it_is_unpinned,
        the_last_end_of_a_backoff_counts,
    }
    removals {
        a_removal_is_recorded_with_the_spec_and_cancelled_by_another,
        an_approved_removal_is_carried_out_by_one_at_a_time,
        a_discarded_removal_keeps_the_delivered_state,
        a_finished_removal_leaves_nothing,
        every_audience_that_a_sync_had_stays_known,
    }
    sizes {
        sizes_are_kept_in_order_and_within_the_retention,
        a_size_is_due_some_time_after_it_was_read,
        sizes_that_are_read_often_are_thinned,
    }
    store_writes {
        a_write_is_begun_once_and_done_with_its_last_batch,
        a_write_has_one_holder,
        an_open_write_is_replaced,
        checks_and_old_writes,
    }
    spec {
        the_first_seed_is_kept,
        the_first_number_of_partitions_is_kept,
        an_equal_spec_changes_nothing,
        a_spec_replaces_only_the_version_that_it_was_made_for,
        the_only_process_is_the_leader,
        ad_group_numbers_are_stable,
        later_budget_figures_replace_earlier_ones,
        budget_days_are_read_by_day,
        budget_days_keep_their_currencies,
    }
}

/// Second number `n` after the suite's beginning of time.
fn at(n: u64) -> Timestamp {
    Timestamp(1_800_000_000_000_000).plus(Duration::from_secs(n))
}

fn audience(name: &str) -> AudienceName {
    AudienceName::new(name).unwrap()
}

fn sync_name(name: &str) -> SyncName {
    SyncName::new(name).unwrap()
}

fn destination(name: &str) -> DestinationName {
    DestinationName::new(name).unwrap()
}

/// A refresh of `name`, claimed by `holder` at second `n` for 60 seconds.
async fn building(ledger: &dyn Ledger, name: &str, holder: &str, n: u64) -> Refresh {
    let id = ledger.schedule_refresh(&audience(name), RefreshTrigger::Manual, at(n)).await.unwrap();
    let claimed = ledger
        .claim_refresh(holder, at(n), at(n + 60))
        .await
        .unwrap()
        .expect("a refresh that was just queued is due");
    assert_eq!(claimed.id, id, "no other refresh is open in this case");
    claimed
}

fn snapshot(name: &str, version: u64, refresh: RefreshId) -> Snapshot {
    Snapshot {
        audience: audience(name),
        version,
        state: SnapshotState::Published,
        path: format!("snapshots/{name}/{version}.throng"),
        members: 100 * version,
        rows_read: 110 * version,
        null_keys: 7,
        bytes: 4_096,
        checksum: Some("0123456789abcdef0123456789abcdef".to_owned()),
        tables: Some("[]".to_owned()),
        inputs: Some("{}".to_owned()),
        model_fingerprint: "f00d".to_owned(),
        refresh,
        created_at: at(1_000 + version),
    }
}

/// Builds and publishes the next version of `name`.
async fn published(ledger: &dyn Ledger, name: &str) -> Snapshot {
    let refresh = building(ledger, name, "builder", 0).await;
    let version = ledger.next_version(&audience(name)).await.unwrap();
    let snapshot = snapshot(name, version, refresh.id);
    ledger.publish(&snapshot, "builder", at(5)).await.unwrap();
    snapshot
}

/// A run of `name` to version `to`: one batch of adds per number.
fn new_run(name: &str, to: u64, adds: &[u64]) -> NewRun {
    NewRun {
        sync: sync_name(name),
        audience: audience("buyers"),
        destination: destination("shop"),
        mode: SyncMode::Mirror,
        from_version: None,
        to_version: to,
        adds: adds.iter().sum(),
        removes: 0,
        batches: adds.iter().map(|rows| (Operation::Add, *rows)).collect(),
        priority: 0,
        held: None,
        plan: None,
        normalised: ReasonCounts::new(),
        users_removed: 0,
    }
}

/// Plans a run at second 0 and claims its task at second 1 for 60 seconds.
async fn running(ledger: &dyn Ledger, run: &NewRun, holder: &str) -> Task {
    let id = ledger.plan_run(run, at(0)).await.unwrap().expect("planned");
    let task = claim(ledger, holder, 1).await.expect("a task is due");
    assert_eq!(task.run, id, "no other task is due in this case");
    task
}

/// Claims the most urgent task that is due at second `n` for 60 seconds, in the two steps of
/// production: due tasks are listed, and a worker claims one by its number.
async fn claim(ledger: &dyn Ledger, holder: &str, n: u64) -> Option<Task> {
    // Also tasks that were enqueued a moment ago.
    let before = at(1_000_000);
    let due = ledger.tasks_to_enqueue(before, at(n), u32::MAX, u32::MAX).await.unwrap();
    let first = due.first()?;
    ledger.claim_task(first.id, holder, u32::MAX, at(n), at(n + 60)).await.unwrap()
}

/// Claims the next part of a refresh, or of any one, at second `n` until second `until`.
async fn claim_part(
    ledger: &dyn Ledger,
    of: Option<RefreshId>,
    holder: &str,
    n: u64,
    until: u64,
) -> Option<(RefreshId, Part)> {
    let (now, until) = (at(n), at(until));
    match of {
        Some(id) => {
            let part = ledger.claim_part(id, holder, now, until).await.unwrap();
            part.map(|part| (id, part))
        }
        None => ledger.claim_filtered_part(ClaimFilter::All, holder, now, until).await.unwrap(),
    }
}

#[track_caller]
fn assert_not_found<T: std::fmt::Debug>(result: crate::Result<T>) {
    assert!(
        matches!(result, Err(LedgerError::NotFound { .. })),
        "expected NotFound, got {result:?}"
    );
}

#[track_caller]
fn assert_wrong_state<T: std::fmt::Debug>(result: crate::Result<T>) {
    assert!(
        matches!(result, Err(LedgerError::WrongState { .. })),
        "expected WrongState, got {result:?}"
    );
}

#[track_caller]
fn assert_lease_lost<T: std::fmt::Debug>(result: crate::Result<T>) {
    assert!(
        matches!(result, Err(LedgerError::LeaseLost { .. })),
        "expected LeaseLost, got {result:?}"
    );
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: crate::Result<T>) {
    assert!(matches!(result, Err(LedgerError::Refused { .. })), "expected Refused, got {result:?}");
}

/// Applies a spec without removals over version `base`, at second `n`. Returns its version; `None` if another
/// version is applied.
async fn apply_spec(
    ledger: &dyn Ledger,
    base: u64,
    spec: &serde_json::Value,
    n: u64,
) -> Option<u64> {
    let update = crate::SpecUpdate { base, spec, removals: &[], declared: &[] };
    ledger.apply_spec_update(update, at(n)).await.unwrap().map(|applied| applied.version)
}

/// What was written is still there after the ledger is closed and opened again.
async fn reopened(backend: &dyn Backend) {
    let ledger = backend.open("reopened").await;
    let snapshot = published(&*ledger, "buyers").await;
    let task = running(&*ledger, &new_run("ads", 1, &[10, 20]), "worker").await;
    let alert = crate::NewAlert {
        kind: crate::AlertKind::RunHeld,
        subject: "ads".to_owned(),
        message: "inspect the run".to_owned(),
    };
    ledger.raise_alert(&alert, at(3)).await.unwrap();
    let version = apply_spec(&*ledger, 0, &serde_json::json!({ "version": 1 }), 4).await;
    drop(ledger);

    let ledger = backend.open("reopened").await;
    let rows = ledger.audiences().await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].current.as_ref(), Some(&snapshot));
    assert_eq!(ledger.task(task.id).await.unwrap(), task);
    assert_eq!(ledger.batches(task.id).await.unwrap().len(), 2);
    assert_eq!(ledger.alerts(10).await.unwrap().len(), 1);
    let spec = ledger.applied_spec().await.unwrap().unwrap();
    assert_eq!((Some(spec.version), spec.applied_at), (version, at(4)));
}
