//! Schedules: queues refreshes that are due by their schedule, and those of audiences whose snapshot
//! was not made by their model.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use throng_model::{AudienceName, Timestamp};
use throng_spec::Audience;
use throng_store::{
    AudienceRow, HistoryEvent, LedgerError, RefreshState, RefreshTrigger, SnapshotState,
};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::{MAX_WALL_INTERVAL, RefreshContext, declared, history, model_of, source_changes};

/// The longest time between two polls, on the node's clock. A change of the spec or of an audience ends it.
const SCHEDULE_POLL_INTERVAL: Duration = Duration::from_secs(30);

/// When each audience was read first by this process. The schedule of one that never had a refresh
/// counts from then.
type FirstSeen = HashMap<AudienceName, Timestamp>;

/// The last poll.
#[derive(Debug, Clone, Copy)]
struct LastPoll {
    at: Timestamp,
    /// The next firing of a schedule.
    next: Option<Timestamp>,
    /// An audience has changed since.
    has_changes: bool,
}

impl LastPoll {
    /// Whether there may be something to do by now. Reading thousands of audiences every two seconds would keep an idle
    /// node busy. A poll that is in the future is from before the clock stepped back.
    fn is_outdated(&self, now: Timestamp) -> bool {
        self.has_changes
            || self.next.is_some_and(|next| next <= now)
            || now < self.at
            || now >= self.at.plus(SCHEDULE_POLL_INTERVAL)
    }
}

/// Queues what is due, or whose source has changed, while this process is the leader, until
/// `shutdown`. `changes`: what has changed in the node. Of its `kinds` the first is another spec, which
/// starts a poll at once, and the second an audience, which starts one within two seconds.
pub async fn run_schedules<C: Clone + PartialEq + Send>(
    ctx: Arc<RefreshContext>,
    changes: Receiver<C>,
    kinds: [C; 2],
    shutdown: CancellationToken,
) {
    // Beside each other: listing a large source takes long, and no schedule may wait for it.
    tokio::join!(
        poll_until(&ctx, changes, &kinds, &shutdown),
        source_changes::run(&ctx, &shutdown)
    );
}

async fn poll_until<C: Clone + PartialEq + Send>(
    ctx: &RefreshContext,
    mut changes: Receiver<C>,
    kinds: &[C; 2],
    shutdown: &CancellationToken,
) {
    let mut first_seen = FirstSeen::default();
    let mut last = None::<LastPoll>;
    loop {
        let now = ctx.clock.now();
        // Before each poll, as the leadership ends with the connection. Two leaders at a time do no
        // harm: the ledger records each firing once, and has one open refresh of an audience.
        let polled = match ctx.ledger.acquire_leadership().await {
            Ok(true) => match last.filter(|last| !last.is_outdated(now)) {
                Some(last) => Ok(Some(last)),
                None => poll_schedules(ctx, &mut first_seen)
                    .await
                    .map(|next| Some(LastPoll { at: now, next, has_changes: false })),
            },
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        };
        last = match polled {
            Ok(Some(polled)) => Some(polled),
            // Another process is the leader, and may die at any time. What this process has stored
            // may be old by then: the leader has fired schedules meanwhile.
            Ok(None) => {
                (first_seen, last) = (FirstSeen::default(), None);
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(MAX_WALL_INTERVAL) => {}
                }
                continue;
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "failed to poll schedules"
                );
                None
            }
        };
        let next = last.and_then(|last| last.next);
        let until = next.map_or(SCHEDULE_POLL_INTERVAL, |at| {
            at.since(ctx.clock.now()).min(SCHEDULE_POLL_INTERVAL)
        });
        let pause = ctx.poll_delay(until).min(MAX_WALL_INTERVAL);
        let mut has_changes = false;
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = spec_changed(&mut changes, kinds, &mut has_changes) => {}
        }
        last = last.map(|last| LastPoll { has_changes, ..last });
    }
}

/// Waits for another spec. `has_changes` is set then, and when an audience has changed before.
async fn spec_changed<C: Clone + PartialEq + Send>(
    changes: &mut Receiver<C>,
    [spec, audience]: &[C; 2],
    has_changes: &mut bool,
) {
    loop {
        match changes.recv().await {
            Ok(change) if change == *audience => *has_changes = true,
            Ok(change) if change != *spec => {}
            // A new spec may be among what was missed: a poll too many is cheap.
            Ok(_) | Err(RecvError::Lagged(_)) => {
                *has_changes = true;
                return;
            }
            // Never ready: returning would start polls without a pause. The timer still does.
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// Queues what is due. Returns the time of the next firing, if there is one.
async fn poll_schedules(
    ctx: &RefreshContext,
    first_seen: &mut FirstSeen,
) -> Result<Option<Timestamp>, LedgerError> {
    let rows: HashMap<AudienceName, AudienceRow> =
        ctx.ledger.audiences().await?.into_iter().map(|row| (row.name.clone(), row)).collect();
    let spec = ctx.spec.load_full();
    let now = ctx.clock.now();
    // Together, so that a builder finds all audiences of a template due and builds them in one scan.
    let (mut next, mut wanted, mut firings, mut failed) = (None, Vec::new(), Vec::new(), None);
    for audience in &spec.audiences {
        let row = rows.get(&audience.name);
        let first = |_| *first_seen.entry(audience.name.clone()).or_insert(now);
        let seen_at = audience.schedule.as_ref().map_or(now, first);
        match due(ctx, audience, row, seen_at, now).await {
            Ok((needs_refresh, fire_at)) => {
                wanted.extend(needs_refresh.then(|| audience.name.clone()));
                firings.extend(fire_at.map(|at| (audience.name.clone(), at)));
            }
            // Each of the others would wait for the database too.
            Err(error) if error.problem().is_some() => return Err(error),
            Err(error) => failed = failed.or(Some(error)),
        }
        let following = audience.schedule.as_ref().and_then(|schedule| schedule.next_after(now));
        next = match (next, following) {
            (Some(a), Some(b)) => Some(std::cmp::min(a, b)),
            (a, b) => a.or(b),
        };
    }
    let queued = ctx.ledger.schedule_refreshes(&wanted, RefreshTrigger::Apply, now).await?;
    if queued + ctx.ledger.fire_schedules(&firings, now).await? > 0 {
        ctx.wake.notify_waiters();
        ctx.observer.audiences_changed();
    }
    failed.map_or(Ok(next), Err)
}

/// Whether an audience needs a refresh because of its model, and for which time its schedule fires.
async fn due(
    ctx: &RefreshContext,
    audience: &Audience,
    row: Option<&AudienceRow>,
    seen_at: Timestamp,
    now: Timestamp,
) -> Result<(bool, Option<Timestamp>), LedgerError> {
    let stopped = row.and_then(AudienceRow::stopped);
    let needs_refresh = stopped.is_none()
        && needs_refresh(audience, row, newest_fingerprint(ctx, row).await?.as_deref());
    let since = row
        .and_then(|row| row.last_fired.or(row.refresh.as_ref().map(|r| r.scheduled_at)))
        .unwrap_or(seen_at);
    // Many may have been missed while the node was down; one refresh replaces all of them.
    let schedule = audience.schedule.as_ref();
    let fire_at = schedule.and_then(|schedule| schedule.latest_between(since, now));
    if let (Some(why), Some(fire_at)) = (stopped, fire_at) {
        skip(ctx, &audience.name, fire_at, &why).await?;
        return Ok((false, None));
    }
    Ok((needs_refresh, fire_at))
}

/// The schedule of a paused or pinned audience has fired: nothing is queued. The history has the
/// first such firing.
async fn skip(
    ctx: &RefreshContext,
    name: &AudienceName,
    fire_at: Timestamp,
    why: &str,
) -> Result<(), LedgerError> {
    if !ctx.ledger.skip_schedule(name, fire_at).await? {
        return Ok(());
    }
    let why = format!(
        "the audience is {why}: the refresh of {fire_at} was not started, and later ones are not \
         started either"
    );
    history::record(ctx, name, HistoryEvent::Skipped, why).await
}

/// After an audience was resumed or released: queues a refresh if the version that it serves was
/// not made by its model, or if it serves none. Returns whether one was queued.
///
/// # Errors
/// [`LedgerError`]; `WrongState` if it is still paused or pinned.
pub async fn refresh_if_stale(
    ctx: &RefreshContext,
    name: &AudienceName,
) -> Result<bool, LedgerError> {
    let spec = ctx.spec.load_full();
    let Some(audience) = declared(&spec, name) else { return Ok(false) };
    let row = ctx.ledger.audience(name).await?;
    let model = model_of(audience).fingerprint();
    let is_current = row.is_some_and(|row| {
        row.current.is_some_and(|current| current.model_fingerprint == model)
            // A held snapshot waits for a person; another refresh would most likely be held for the
            // same reason.
            || row.refresh.is_some_and(|refresh| refresh.state == RefreshState::Held)
    });
    if is_current {
        return Ok(false);
    }
    ctx.ledger.schedule_refresh(name, RefreshTrigger::Apply, ctx.clock.now()).await?;
    ctx.wake.notify_waiters();
    Ok(true)
}

/// The fingerprint of the model that the newest refresh ran, if its snapshot still exists.
async fn newest_fingerprint(
    ctx: &RefreshContext,
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
        // Held, rejected or deleted: nothing says that the model has changed, so no refresh is
        // queued for that.
        Ok(_) | Err(LedgerError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an audience has to be refreshed although no schedule is due. Compares with the newest
/// snapshot and not with the served one: a person may have rolled back to an older version, and a
/// refresh would undo that.
fn needs_refresh(
    audience: &Audience,
    row: Option<&AudienceRow>,
    newest_fingerprint: Option<&str>,
) -> bool {
    let Some(refresh) = row.and_then(|row| row.refresh.as_ref()) else { return true };
    // A failed one waits for a person, the schedule or a new spec: it has an alert.
    refresh.state == RefreshState::Completed
        && newest_fingerprint.is_some_and(|made_by| made_by != model_of(audience).fingerprint())
}

#[cfg(test)]
mod tests {
    use throng_spec::{Guard, Location};

    use super::*;
    use crate::fixture::audience_row;

    fn audience(sql: &str) -> Audience {
        Audience {
            name: "a".parse().unwrap(),
            description: None,
            source: None,
            sql: sql.into(),
            key: None,
            schedule: None,
            source_trigger: None,
            max_age_hours: None,
            guard: Guard::default(),
            keep_snapshots: 10,
            made_from: None,
            sql_at: Location { file: "throng.yaml".into(), line: 1 },
        }
    }

    fn row(state: RefreshState) -> AudienceRow {
        audience_row(state, None)
    }

    #[test]
    fn audiences_are_read_again_when_one_has_changed_or_something_is_due() {
        let at = |seconds: u64| Timestamp(0).plus(Duration::from_secs(seconds));
        let last = LastPoll { at: at(100), next: None, has_changes: false };
        assert!(!last.is_outdated(at(100)) && !last.is_outdated(at(129)));
        assert!(last.is_outdated(at(130)) && last.is_outdated(at(99)));
        let fires = LastPoll { next: Some(at(110)), ..last };
        assert!(!fires.is_outdated(at(109)) && fires.is_outdated(at(110)));
        assert!(LastPoll { has_changes: true, ..last }.is_outdated(at(100)));
    }

    #[tokio::test]
    async fn a_new_spec_ends_the_wait_and_a_changed_audience_is_remembered() {
        const SPEC: char = 's';
        const AUDIENCE: char = 'a';
        const OTHER: char = 'o';
        let (sender, mut changes) = tokio::sync::broadcast::channel(8);
        for (sent, ends, expected) in [
            (vec![OTHER], false, false),
            (vec![OTHER, AUDIENCE], false, true),
            (vec![AUDIENCE, OTHER, SPEC], true, true),
            (vec![SPEC], true, true),
        ] {
            for change in sent {
                sender.send(change).unwrap();
            }
            let mut has_changes = false;
            let ended = tokio::select! {
                biased;
                () = spec_changed(&mut changes, &[SPEC, AUDIENCE], &mut has_changes) => true,
                () = std::future::ready(()) => false,
            };
            assert_eq!((ended, has_changes), (ends, expected));
        }
    }

    #[test]
    fn a_changed_model_is_refreshed_and_a_failed_refresh_is_not_repeated() {
        let audience = audience("SELECT id FROM s.t");
        let same = model_of(&audience).fingerprint();
        assert!(needs_refresh(&audience, None, None));
        let completed = row(RefreshState::Completed);
        assert!(needs_refresh(&audience, Some(&completed), Some("other")));
        assert!(!needs_refresh(&audience, Some(&completed), Some(&same)));
        assert!(!needs_refresh(&audience, Some(&row(RefreshState::Failed)), None));
        assert!(!needs_refresh(&audience, Some(&row(RefreshState::Held)), Some("other")));
        assert!(!needs_refresh(&audience, Some(&row(RefreshState::Processing)), None));
    }
}
