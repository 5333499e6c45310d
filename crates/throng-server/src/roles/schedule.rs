//! The schedule role: queues refreshes that are due by the clock, and those of audiences whose
//! snapshot does not come from their model.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use throng_model::{AudienceName, Timestamp};
use throng_spec::{Audience, Schedule};
use throng_store::{
    AudienceRow, HistoryEntry, LedgerError, RefreshState, RefreshTrigger, SnapshotState,
};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::build::model_of;
use crate::{Change, NodeContext};

/// How long to sleep at most; what changes in between wakes us.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The same on the machine's own timer: somebody may have moved the clock.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(2);

/// What this process remembers between two looks.
#[derive(Default)]
struct Memory {
    /// When an audience that never had a refresh was seen first.
    seen: HashMap<AudienceName, Timestamp>,
}

/// Runs until `shutdown`.
pub async fn run(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    let mut changes = ctx.changes.subscribe();
    let mut memory = Memory::default();
    loop {
        let looked = match ctx.ledger.lead().await {
            Ok(true) => look(&ctx, &mut memory).await.map(Some),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        };
        let next = match looked {
            Ok(Some(next)) => next,
            // Another process leads. It may die at any time.
            Ok(None) => {
                memory = Memory::default();
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(LOOK_AT_LEAST_EVERY) => {}
                }
                continue;
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "schedules could not be looked at"
                );
                None
            }
        };
        let until = next.map_or(LOOK_EVERY, |at| at.since(ctx.clock.now()).min(LOOK_EVERY));
        let pause = ctx.pause(until).min(LOOK_AT_LEAST_EVERY);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = spec_changed(&mut changes) => {}
        }
    }
}

async fn spec_changed(changes: &mut tokio::sync::broadcast::Receiver<Change>) {
    loop {
        match changes.recv().await {
            Ok(Change::Spec) | Err(RecvError::Lagged(_)) => return,
            Ok(_) => {}
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// Queues what is due. The time of the next firing, if there is one.
async fn look(
    ctx: &Arc<NodeContext>,
    memory: &mut Memory,
) -> Result<Option<Timestamp>, LedgerError> {
    let known: HashMap<AudienceName, AudienceRow> =
        ctx.ledger.audiences().await?.into_iter().map(|row| (row.name.clone(), row)).collect();
    let spec = ctx.spec.load_full();
    let now = ctx.clock.now();
    let (mut next, mut queued) = (None, false);
    for audience in &spec.audiences {
        let row = known.get(&audience.name);
        let stopped = row.and_then(AudienceRow::stopped);
        if stopped.is_none()
            && wants_refresh(audience, row, newest_fingerprint(ctx, row).await?.as_deref())
        {
            let apply = RefreshTrigger::Apply;
            ctx.ledger.schedule_refresh(&audience.name, apply, now).await?;
            queued = true;
        }
        let Some(schedule) = &audience.schedule else { continue };
        let first_seen = *memory.seen.entry(audience.name.clone()).or_insert(now);
        let since = row
            .and_then(|row| row.last_fired.or(row.refresh.as_ref().map(|r| r.scheduled_at)))
            .unwrap_or(first_seen);
        if let Some(fire_at) = latest_due(schedule, since, now) {
            match &stopped {
                Some(why) => skip(ctx, &audience.name, fire_at, why).await?,
                None => queued |= ctx.ledger.fire_schedule(&audience.name, fire_at, now).await?,
            }
        }
        let coming = schedule.next_after(now);
        next = match (next, coming) {
            (Some(a), Some(b)) => Some(std::cmp::min(a, b)),
            (a, b) => a.or(b),
        };
    }
    if queued {
        ctx.wake_build.notify_waiters();
        ctx.changed(Change::Audiences);
    }
    Ok(next)
}

/// The schedule of a stopped audience fires: nothing is queued. The history has the first such firing.
async fn skip(
    ctx: &NodeContext,
    name: &AudienceName,
    fire_at: Timestamp,
    why: &str,
) -> Result<(), LedgerError> {
    if !ctx.ledger.skip_schedule(name, fire_at).await? {
        return Ok(());
    }
    let why = format!(
        "the audience is {why}: the refresh of {fire_at} was not started, nor are those after it"
    );
    let entry = HistoryEntry {
        subject_kind: throng_store::SubjectKind::Audience,
        subject: name.to_string(),
        what: "skipped".to_owned(),
        why,
        at: ctx.clock.now(),
        actor: None,
    };
    ctx.ledger.record(&[entry]).await
}

/// After an audience was stopped: queues a refresh if what it serves was not made by its model, or if
/// it serves nothing. Whether one was queued.
///
/// # Errors
/// [`LedgerError`]; `WrongState` if it is stopped still.
pub(crate) async fn catch_up(ctx: &NodeContext, name: &AudienceName) -> Result<bool, LedgerError> {
    let spec = ctx.spec.load_full();
    let Some(audience) = spec.audiences.iter().find(|audience| audience.name == *name) else {
        return Ok(false);
    };
    let row = ctx.ledger.audience(name).await?;
    let model = model_of(audience).fingerprint();
    let settled = row.is_some_and(|row| {
        row.current.is_some_and(|current| current.model_fingerprint == model)
            || row.refresh.is_some_and(|refresh| refresh.state == RefreshState::Held)
    });
    if settled {
        return Ok(false);
    }
    ctx.ledger.schedule_refresh(name, RefreshTrigger::Apply, ctx.clock.now()).await?;
    ctx.wake_build.notify_waiters();
    Ok(true)
}

/// The fingerprint of the model that the newest refresh ran, if it made a snapshot that is kept.
async fn newest_fingerprint(
    ctx: &NodeContext,
    row: Option<&AudienceRow>,
) -> Result<Option<String>, LedgerError> {
    let Some(row) = row else { return Ok(None) };
    let Some(version) = row.refresh.as_ref().and_then(|refresh| refresh.snapshot_version) else {
        return Ok(None);
    };
    if let Some(current) = row.current.as_ref().filter(|current| current.version == version) {
        return Ok(Some(current.model_fingerprint.clone()));
    }
    match ctx.ledger.snapshot(&row.name, version).await {
        Ok(snapshot) if snapshot.state == SnapshotState::Published => {
            Ok(Some(snapshot.model_fingerprint))
        }
        Ok(_) | Err(LedgerError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an audience has to be built without being asked to. Compared with the newest snapshot
/// and not with the served one: a person may have gone back to an older version on purpose.
fn wants_refresh(
    audience: &Audience,
    row: Option<&AudienceRow>,
    newest_fingerprint: Option<&str>,
) -> bool {
    let Some(refresh) = row.and_then(|row| row.refresh.as_ref()) else { return true };
    // A failed one waits for a person, the schedule or a new spec: its alert says so.
    refresh.state == RefreshState::Completed
        && newest_fingerprint.is_some_and(|made_by| made_by != model_of(audience).fingerprint())
}

/// The last firing after `since` that is not in the future. However many were missed while the node
/// was down, one refresh makes up for them.
fn latest_due(schedule: &Schedule, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
    const HOUR: Duration = Duration::from_secs(3_600);
    // Short windows first, so that a busy schedule is not walked through from long ago.
    for window in [HOUR, HOUR * 24, HOUR * 24 * 32] {
        let from = now.minus(window);
        if from <= since {
            break;
        }
        if let Some(due) = last_between(schedule, from, now) {
            return Some(due);
        }
    }
    last_between(schedule, since, now)
}

fn last_between(schedule: &Schedule, from: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let mut last = None;
    let mut at = from;
    while let Some(next) = schedule.next_after(at).filter(|next| *next <= now && *next > at) {
        last = Some(next);
        at = next;
    }
    last
}

#[cfg(test)]
mod tests {
    use throng_model::RefreshId;
    use throng_spec::{Guard, Location};
    use throng_store::Refresh;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn schedule(cron: &str) -> Schedule {
        Schedule::new(cron, "America/New_York".parse().unwrap()).unwrap()
    }

    #[test]
    fn one_firing_makes_up_for_all_that_were_missed() {
        let every_minute = schedule("* * * * *");
        let now = at("2026-11-23T12:00:30Z");
        let due = latest_due(&every_minute, at("2020-01-01T00:00:00Z"), now);
        assert_eq!(due, Some(at("2026-11-23T12:00:00Z")));
        assert_eq!(latest_due(&every_minute, at("2026-11-23T12:00:00Z"), now), None);
    }

    #[test]
    fn schedules_run_in_their_time_zone() {
        // Three in the morning in New York is eight o'clock UTC in winter.
        let nightly = schedule("0 3 * * *");
        let since = at("2026-11-20T09:00:00Z");
        assert_eq!(
            latest_due(&nightly, since, at("2026-11-23T07:59:59Z")),
            Some(at("2026-11-22T08:00:00Z"))
        );
        assert_eq!(
            latest_due(&nightly, since, at("2026-11-23T08:00:00Z")),
            Some(at("2026-11-23T08:00:00Z"))
        );
        let yearly = schedule("0 0 1 1 *");
        assert_eq!(
            latest_due(&yearly, at("2024-06-01T00:00:00Z"), at("2026-11-23T00:00:00Z")),
            Some(at("2026-01-01T05:00:00Z"))
        );
    }

    fn audience(sql: &str) -> Audience {
        Audience {
            name: "a".parse().unwrap(),
            description: None,
            sql: sql.into(),
            key: None,
            schedule: None,
            guard: Guard::default(),
            keep_snapshots: 10,
            sql_at: Location { file: "throng.yaml".into(), line: 1 },
        }
    }

    fn row(state: RefreshState) -> AudienceRow {
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
            reason: None,
            snapshot_version: None,
        };
        let refresh = Some(refresh);
        let (current, last_fired, paused_at, pinned_at) = Default::default();
        AudienceRow { name, current, refresh, last_fired, paused_at, pinned_at }
    }

    #[test]
    fn a_changed_model_is_run_and_a_failed_one_is_left_alone() {
        let audience = audience("SELECT id FROM s.t");
        let same = model_of(&audience).fingerprint();
        assert!(wants_refresh(&audience, None, None));
        let completed = row(RefreshState::Completed);
        assert!(wants_refresh(&audience, Some(&completed), Some("other")));
        assert!(!wants_refresh(&audience, Some(&completed), Some(&same)));
        assert!(!wants_refresh(&audience, Some(&row(RefreshState::Failed)), None));
        assert!(!wants_refresh(&audience, Some(&row(RefreshState::Held)), Some("other")));
        assert!(!wants_refresh(&audience, Some(&row(RefreshState::Processing)), None));
    }
}
