//! Removals of syncs.

use serde_json::json;

use super::*;
use crate::{
    AlertKind, DeliveredRecord, ForeignAudience, NewAlert, NewRemoval, Removal, RemovalRule,
    RunState, SpecApplied, SpecUpdate, TaskState, removal_subject,
};

fn removal(name: &str, rule: RemovalRule) -> NewRemoval {
    NewRemoval {
        sync: sync_name(name),
        rule,
        definition: json!({ "sync": { "name": name } }),
        message: format!("approve {name}"),
    }
}

/// Applies spec number `n` over the previous one, at second `n`.
async fn apply(
    ledger: &dyn Ledger,
    n: u64,
    removals: &[NewRemoval],
    declared: &[SyncName],
) -> Option<SpecApplied> {
    let spec = json!({ "version": 1, "n": n });
    let update = SpecUpdate { base: n - 1, spec: &spec, removals, declared };
    ledger.apply_spec_update(update, at(n)).await.unwrap()
}

/// A sync with an audience on the platform.
async fn delivered(ledger: &dyn Ledger, name: &str) -> SyncName {
    let sync = sync_name(name);
    ledger.put_platform_audience(&sync, "77").await.unwrap();
    sync
}

fn record(sync: &SyncName) -> DeliveredRecord {
    DeliveredRecord {
        sync: sync.clone(),
        account: "meta/1".to_owned(),
        columns: "EMAIL".to_owned(),
        identifiers: "0a".to_owned(),
        state: Some("delivered/a".to_owned()),
        users: 3,
        run: throng_model::SyncRunId(0),
        due: 0,
        retry_at: None,
        tries: 0,
        replace: false,
        requested: false,
        tables: None,
    }
}

async fn open_alerts(ledger: &dyn Ledger) -> Vec<(AlertKind, String, String)> {
    let alerts = ledger.alerts(10).await.unwrap();
    let open = alerts.into_iter().filter(|alert| alert.resolved_at.is_none());
    open.map(|alert| (alert.kind, alert.subject, alert.message)).collect()
}

pub(super) async fn a_removal_is_recorded_with_the_spec_and_cancelled_by_another(
    ledger: &dyn Ledger,
) {
    let sync = delivered(ledger, "ads").await;
    let gone = [removal("ads", RemovalRule::Delete), removal("never", RemovalRule::Empty)];
    assert_eq!(apply(ledger, 7, &gone, &[]).await, None, "the base is not applied");
    assert_eq!(ledger.removals().await.unwrap(), []);
    let applied = apply(ledger, 1, &gone, &[]).await.unwrap();
    assert_eq!((applied.version, applied.recorded), (1, vec![sync.clone()]), "one has an audience");
    let known = Removal {
        sync: sync.clone(),
        rule: RemovalRule::Delete,
        definition: gone[0].definition.clone(),
        requested_at: at(1),
        approved_at: None,
        approved_by: None,
        tries: 0,
        retry_at: None,
        last_error: None,
    };
    assert_eq!(ledger.removals().await.unwrap(), std::slice::from_ref(&known));
    let alert = (AlertKind::RunHeld, removal_subject(&sync), "approve ads".to_owned());
    assert_eq!(open_alerts(ledger).await, [alert]);
    // The first rule stays, whatever is applied until the sync is declared again.
    let other = [removal("ads", RemovalRule::Empty)];
    let applied = apply(ledger, 2, &other, &[sync_name("other")]).await.unwrap();
    assert_eq!((applied.recorded, applied.cancelled), (vec![], vec![]));
    assert_eq!(ledger.removal(&sync).await.unwrap(), Some(known));
    assert!(!ledger.claim_removal(&sync, at(3), at(60)).await.unwrap(), "it is not approved");
    let applied = apply(ledger, 3, &[], std::slice::from_ref(&sync)).await.unwrap();
    assert_eq!((applied.version, applied.cancelled), (3, vec![sync.clone()]));
    assert_eq!(ledger.removal(&sync).await.unwrap(), None);
    assert_eq!(open_alerts(ledger).await, []);
    assert!(ledger.platform_audience(&sync).await.unwrap().is_some());
    // A run that is open may create an audience.
    ledger.plan_run(&new_run("new", 1, &[1]), at(4)).await.unwrap().unwrap();
    let applied = apply(ledger, 4, &[removal("new", RemovalRule::Empty)], &[]).await.unwrap();
    assert_eq!(applied.recorded, [sync_name("new")]);
}

pub(super) async fn an_approved_removal_is_carried_out_by_one_at_a_time(ledger: &dyn Ledger) {
    let sync = delivered(ledger, "ads").await;
    assert_not_found(ledger.approve_removal(&sync, "ann", at(1)).await);
    apply(ledger, 1, &[removal("ads", RemovalRule::Empty)], &[]).await.unwrap();
    let held = ledger.plan_run(&new_run("ads", 1, &[5]), at(1)).await.unwrap().unwrap();
    ledger.pause_sync(&sync, at(1)).await.unwrap();
    ledger.approve_removal(&sync, "ann", at(2)).await.unwrap();
    assert_wrong_state(ledger.approve_removal(&sync, "bob", at(3)).await);
    let known = ledger.removal(&sync).await.unwrap().unwrap();
    assert_eq!((known.approved_at, known.approved_by.as_deref()), (Some(at(2)), Some("ann")));
    assert!(!ledger.is_sync_paused(&sync).await.unwrap());
    assert_eq!(open_alerts(ledger).await, []);
    assert_eq!(ledger.run(held).await.unwrap().state, RunState::Failed);
    let task = ledger.task_of_run(held).await.unwrap();
    assert_eq!(task.state, TaskState::Failed);
    // It is no longer cancelled.
    let applied = apply(ledger, 2, &[], std::slice::from_ref(&sync)).await.unwrap();
    assert_eq!(applied.cancelled, []);

    assert!(ledger.claim_removal(&sync, at(10), at(70)).await.unwrap());
    assert!(!ledger.claim_removal(&sync, at(11), at(71)).await.unwrap(), "it is claimed");
    assert_wrong_state(ledger.discard_removal(&sync, at(11)).await);
    assert!(ledger.claim_removal(&sync, at(70), at(130)).await.unwrap(), "the lease has expired");
    ledger.fail_removal(&sync, "no", at(90), true).await.unwrap();
    let known = ledger.removal(&sync).await.unwrap().unwrap();
    assert_eq!(
        (known.tries, known.retry_at, known.last_error.as_deref()),
        (1, Some(at(90)), Some("no"))
    );
    assert!(!ledger.claim_removal(&sync, at(89), at(150)).await.unwrap(), "not yet");
    assert!(ledger.claim_removal(&sync, at(90), at(150)).await.unwrap());
    ledger.fail_removal(&sync, "no quota", at(200), false).await.unwrap();
    let known = ledger.removal(&sync).await.unwrap().unwrap();
    assert_eq!(
        (known.tries, known.retry_at, known.last_error.as_deref()),
        (1, Some(at(200)), Some("no quota"))
    );
    assert!(!ledger.claim_removal(&sync, at(199), at(250)).await.unwrap(), "not yet");
    assert!(ledger.claim_removal(&sync, at(200), at(250)).await.unwrap(), "it is released");
    ledger.fail_removal(&sync_name("other"), "no", at(90), true).await.unwrap();
}

pub(super) async fn a_discarded_removal_keeps_the_delivered_state(ledger: &dyn Ledger) {
    let sync = delivered(ledger, "ads").await;
    assert_not_found(ledger.discard_removal(&sync, at(1)).await);
    ledger.put_delivered_record(&record(&sync), &[]).await.unwrap();
    for (n, approved) in [(1, false), (2, true)] {
        apply(ledger, n, &[removal("ads", RemovalRule::Delete)], &[]).await.unwrap();
        if approved {
            ledger.approve_removal(&sync, "ann", at(n)).await.unwrap();
            let (kind, subject) = (AlertKind::TaskFailed, removal_subject(&sync));
            let alert = NewAlert { kind, subject, message: "no".to_owned() };
            ledger.raise_alert(&alert, at(n)).await.unwrap();
        }
        ledger.discard_removal(&sync, at(n)).await.unwrap();
        assert_eq!(ledger.removals().await.unwrap(), []);
        assert_eq!(open_alerts(ledger).await, []);
        assert!(ledger.platform_audience(&sync).await.unwrap().is_some());
        // Users may have been removed after an approval, so that there may be something to send.
        let known = ledger.delivered_records().await.unwrap().remove(0);
        assert_eq!((known.identifiers.is_empty(), known.users), (approved, 3));
        assert_eq!(known.requested, approved);
    }
    // Not while a worker runs a task of it.
    apply(ledger, 3, &[removal("ads", RemovalRule::Empty)], &[]).await.unwrap();
    ledger.approve_removal(&sync, "ann", at(3)).await.unwrap();
    let id = ledger.plan_run(&new_run("ads", 1, &[5]), at(4)).await.unwrap().unwrap();
    let task = claim(ledger, "w", 5).await.unwrap();
    assert_wrong_state(ledger.discard_removal(&sync, at(6)).await);
    ledger.release_task(task.id, "w", at(7)).await.unwrap();
    ledger.discard_removal(&sync, at(8)).await.unwrap();
    assert_eq!(ledger.run(id).await.unwrap().state, RunState::Failed);
}

pub(super) async fn a_finished_removal_leaves_nothing(ledger: &dyn Ledger) {
    let sync = delivered(ledger, "ads").await;
    let record = record(&sync);
    ledger.put_delivered_record(&record, &[]).await.unwrap();
    apply(ledger, 1, &[removal("ads", RemovalRule::Delete)], &[]).await.unwrap();
    assert_not_found(ledger.finish_removal(&sync, at(1)).await);
    ledger.approve_removal(&sync, "ann", at(2)).await.unwrap();
    for subject in ["ads".to_owned(), removal_subject(&sync)] {
        let (kind, message) = (AlertKind::TaskFailed, "no".to_owned());
        ledger.raise_alert(&NewAlert { kind, subject, message }, at(3)).await.unwrap();
    }
    ledger.finish_removal(&sync, at(4)).await.unwrap();
    assert_not_found(ledger.finish_removal(&sync, at(5)).await);
    assert_eq!(ledger.removals().await.unwrap(), []);
    assert_eq!(ledger.platform_audience(&sync).await.unwrap(), None);
    assert_eq!(ledger.delivered_records().await.unwrap(), []);
    assert_eq!(ledger.foreign_audiences().await.unwrap(), []);
    assert_eq!(open_alerts(ledger).await, []);
    assert!(ledger.referenced_objects().await.unwrap().objects.is_empty());
}

pub(super) async fn every_audience_that_a_sync_had_stays_known(ledger: &dyn Ledger) {
    let sync = delivered(ledger, "ads").await;
    let task = running(ledger, &new_run("ads", 1, &[5]), "w").await;
    let audience = |id: &str, found| ForeignAudience {
        sync: sync.clone(),
        platform_id: id.to_owned(),
        run: task.run,
        found,
    };
    ledger.forget_delivered(&sync, "moved", at(9)).await.unwrap();
    // Also while the sync has another one, and after it was taken from it too.
    ledger.put_platform_audience(&sync, "88").await.unwrap();
    assert_eq!(ledger.foreign_audiences().await.unwrap(), [audience("77", false)]);
    ledger.forget_delivered(&sync, "moved back", at(10)).await.unwrap();
    let both = [audience("77", false), audience("88", false)];
    assert_eq!(ledger.foreign_audiences().await.unwrap(), both);
    ledger.put_foreign_audience(&sync, "77", task.run).await.unwrap();
    let found = [audience("77", true), audience("88", false)];
    assert_eq!(ledger.foreign_audiences().await.unwrap(), found);
    // It is the sync's own one again once its list is replaced, and only that one ends with a removal.
    ledger.put_platform_audience(&sync, "77").await.unwrap();
    assert_eq!(ledger.foreign_audiences().await.unwrap(), [audience("88", false)]);
    apply(ledger, 1, &[removal("ads", RemovalRule::Empty)], &[]).await.unwrap();
    ledger.approve_removal(&sync, "ann", at(12)).await.unwrap();
    ledger.finish_removal(&sync, at(13)).await.unwrap();
    assert_eq!(ledger.foreign_audiences().await.unwrap(), [audience("88", false)]);
}
