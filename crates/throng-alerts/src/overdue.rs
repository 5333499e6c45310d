//! Audiences that have not been refreshed in time: decided from when their last refresh succeeded, and from their
//! schedule or `max_age_hours`. The leader raises and resolves their alerts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use throng_model::{AudienceName, Timestamp};
use throng_spec::{Audience, Spec};
use throng_store::{AlertKind, AudienceRow, Ledger, LedgerError, Refresh, RefreshState};
use throng_telemetry::metrics;
use tokio_util::sync::CancellationToken;

use crate::deps::AlertsDeps;
use crate::reconcile::{Cause, open_alerts, reconcile};

const HOUR: Duration = Duration::from_secs(3_600);
/// The interval in which audiences are polled.
const POLL_INTERVAL: Duration = Duration::from_secs(60);
/// By its schedule an audience is not overdue sooner after a refresh, however often it is refreshed.
const MIN_AGE: Duration = Duration::from_secs(1_800);
/// After this time without success a refresh is late, also where the schedule has its next time in a month.
const MAX_DELAY: Duration = Duration::from_secs(24 * 3_600);
/// How long an audience is overdue before that raises an alert: after a start, and after a new spec, the schedule
/// needs a moment to start the refreshes that are due.
const MIN_DURATION: Duration = Duration::from_secs(600);
/// The most alerts that are open at a time: a warehouse that is down makes all of its audiences late.
const MAX_ALERTS: usize = 100;
/// The alerts that are read: its own, and those of audiences that wait for a person anyway.
const KINDS: [AlertKind; 2] = [AlertKind::Overdue, AlertKind::SnapshotHeld];

/// Raises and resolves alerts of overdue audiences until `shutdown`, while this process is the leader.
pub(crate) async fn raise_overdue_alerts(deps: AlertsDeps, shutdown: CancellationToken) {
    let mut watch = OverdueWatch::default();
    loop {
        let (spec, now) = (deps.spec.load_full(), deps.clock.now());
        if let Err(error) = round(&*deps.ledger, &spec, &mut watch, now).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to write alerts of overdue audiences, retrying"
            );
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(deps.poll_delay(POLL_INTERVAL)) => {}
        }
    }
}

async fn round(
    ledger: &dyn Ledger,
    spec: &Spec,
    watch: &mut OverdueWatch,
    now: Timestamp,
) -> Result<(), LedgerError> {
    if !ledger.acquire_leadership().await? {
        // What another process watches meanwhile is not known here.
        *watch = OverdueWatch::default();
        metrics::gauge!(metrics::AUDIENCES_OVERDUE).set(0.0);
        return Ok(());
    }
    let mut open = open_alerts(ledger, &KINDS).await?;
    let can_be_overdue =
        |audience: &Audience| audience.schedule.is_some() || audience.max_age_hours.is_some();
    let rows = match spec.audiences.iter().any(can_be_overdue) {
        true => ledger.audiences().await?,
        false => Vec::new(),
    };
    let overdue = watch.observe(spec, &rows, &open, now);
    metrics::gauge!(metrics::AUDIENCES_OVERDUE).set(overdue.len() as f64);
    open.retain(|(kind, _), _| *kind == AlertKind::Overdue);
    let wanted = alerts_of(overdue, &open);
    reconcile(ledger, &open, wanted, now).await
}

/// The alerts that should be open, with their messages, at most [`MAX_ALERTS`]: those that are open come first.
fn alerts_of(
    overdue: Vec<(Cause, String)>,
    open: &BTreeMap<Cause, Timestamp>,
) -> BTreeMap<Cause, String> {
    let (known, new): (Vec<_>, Vec<_>) =
        overdue.into_iter().partition(|(cause, _)| open.contains_key(cause));
    known.into_iter().chain(new).take(MAX_ALERTS).collect()
}

/// What is remembered from poll to poll.
#[derive(Debug, Default)]
struct OverdueWatch {
    /// The audiences whose time had passed at the last poll.
    late: HashMap<AudienceName, Late>,
    /// The last polls that found an audience paused or pinned, of those that had no success since.
    stopped: HashMap<AudienceName, Timestamp>,
}

/// An audience whose time has passed.
#[derive(Debug, Clone, Copy)]
struct Late {
    /// The time of the first poll that found it.
    since: Timestamp,
    /// Until when the first refresh may take that was open meanwhile. Later ones get no time of their own: an
    /// audience whose refreshes fail one after the other would never be overdue.
    allowed_until: Option<Timestamp>,
    /// Whether it is overdue, and stays so until a refresh succeeds.
    is_overdue: bool,
}

impl Late {
    /// Decides by what a poll has read.
    fn observe(&mut self, audience: &Audience, newest: Option<&Refresh>, now: Timestamp) {
        let open = newest.filter(|newest| is_open(newest));
        let has_time = open.is_some_and(|open| {
            now < *self.allowed_until.get_or_insert_with(|| allowed_until(audience, open))
        });
        self.is_overdue |= !has_time && now.since(self.since) >= MIN_DURATION;
    }
}

impl OverdueWatch {
    /// Records what one poll has read. Returns the overdue audiences in the order of the spec, with the messages of
    /// their alerts. `open`: the open alerts of [`KINDS`].
    fn observe(
        &mut self,
        spec: &Spec,
        rows: &[AudienceRow],
        open: &BTreeMap<Cause, Timestamp>,
        now: Timestamp,
    ) -> Vec<(Cause, String)> {
        let subjects = |of: AlertKind| -> HashSet<&str> {
            let of_kind = open.keys().filter(|(kind, _)| *kind == of);
            of_kind.map(|(_, subject)| subject.as_str()).collect()
        };
        let (raised, held) = (subjects(AlertKind::Overdue), subjects(AlertKind::SnapshotHeld));
        let rows: HashMap<&AudienceName, &AudienceRow> =
            rows.iter().map(|row| (&row.name, row)).collect();
        let (mut all, mut all_stopped) = (HashMap::new(), HashMap::new());
        let mut overdue = Vec::new();
        for audience in &spec.audiences {
            let name = &audience.name;
            let Some(row) = rows.get(name) else { continue };
            let stopped_at = match is_stopped(row) {
                true => Some(now),
                false => self.stopped.get(name).copied(),
            };
            let stopped_at = stopped_at.filter(|at| row.refreshed_at.is_none_or(|last| last < *at));
            all_stopped.extend(stopped_at.map(|at| (name.clone(), at)));
            let is_held = held.contains(name.as_str());
            if is_held || overdue_from(audience, row, stopped_at).is_none_or(|at| now < at) {
                continue;
            }
            let is_overdue = raised.contains(name.as_str());
            let new = Late { since: now, allowed_until: None, is_overdue };
            let mut late = self.late.get(name).copied().unwrap_or(new);
            late.observe(audience, row.refresh.as_ref(), now);
            if late.is_overdue {
                overdue.push(((AlertKind::Overdue, name.to_string()), message(audience, row)));
            }
            all.insert(name.clone(), late);
        }
        (self.late, self.stopped) = (all, all_stopped);
        overdue
    }
}

fn is_open(refresh: &Refresh) -> bool {
    use RefreshState::{Halted, Processing, Scheduled};
    matches!(refresh.state, Scheduled | Processing | Halted)
}

/// Whether an audience is paused or pinned.
fn is_stopped(row: &AudienceRow) -> bool {
    row.paused_at.is_some() || row.pinned_at.is_some()
}

/// From when on an audience is overdue unless a refresh succeeds. `None`: never, because it had no refresh yet,
/// nothing says when it is refreshed, or it waits for a person. `stopped_at`: when it was known to be paused or pinned
/// last.
fn overdue_from(
    audience: &Audience,
    row: &AudienceRow,
    stopped_at: Option<Timestamp>,
) -> Option<Timestamp> {
    let newest = row.refresh.as_ref()?;
    if is_stopped(row) || newest.state == RefreshState::Held {
        return None;
    }
    // If none has succeeded: since the newest was queued.
    let last = row.refreshed_at.unwrap_or(newest.scheduled_at);
    // The ledger does not say until when it was stopped, but whether the schedule has skipped a time.
    let last = [skipped(row, newest), stopped_at].into_iter().flatten().fold(last, Timestamp::max);
    match audience.max_age_hours {
        Some(hours) => Some(last.plus(HOUR * hours)),
        None => second_time(audience, last),
    }
}

/// The last time of the schedule that started no refresh, because the audience was paused or pinned: what was due
/// then is not late.
fn skipped(row: &AudienceRow, newest: &Refresh) -> Option<Timestamp> {
    let ended = newest.finished_at?.max(newest.scheduled_at);
    row.last_fired.filter(|fired| *fired > ended)
}

/// Until when an open refresh may take although the time of its audience has passed: a node that was down starts the
/// refresh when it can.
fn allowed_until(audience: &Audience, open: &Refresh) -> Timestamp {
    let queued = open.scheduled_at;
    match audience.max_age_hours {
        Some(_) => queued.plus(HOUR),
        None => second_time(audience, queued).map_or(queued, |at| at.min(queued.plus(MAX_DELAY))),
    }
}

/// The second time of the schedule after `from`, or a day after the first if that is earlier.
fn second_time(audience: &Audience, from: Timestamp) -> Option<Timestamp> {
    let schedule = audience.schedule.as_ref()?;
    let first = schedule.next_after(from)?;
    let latest = first.plus(MAX_DELAY);
    let second = schedule.next_after(first).map_or(latest, |second| second.min(latest));
    Some(second.max(from.plus(MIN_AGE)))
}

/// The message of the alert of an overdue audience.
fn message(audience: &Audience, row: &AudienceRow) -> String {
    let to_second = |at: Timestamp| Timestamp(at.0 - at.0.rem_euclid(1_000_000));
    let last = match row.refreshed_at {
        Some(at) => format!("the last refresh that succeeded was completed at {}", to_second(at)),
        None => "no refresh has succeeded yet".to_owned(),
    };
    let allowed = match audience.max_age_hours {
        Some(hours) => format!("`max_age_hours` is {hours}"),
        None => "two times of its schedule, or a day after one, have passed since".to_owned(),
    };
    let newest = row.refresh.as_ref().map_or_else(String::new, |newest| {
        let queued = to_second(newest.scheduled_at);
        match newest.state {
            RefreshState::Failed => format!(". The newest one, of {queued}, failed"),
            _ if is_open(newest) => format!(
                ". One that was queued at {queued} is not completed: check the nodes with the role `build`"
            ),
            _ => ". None was started since".to_owned(),
        }
    });
    let name = &audience.name;
    format!(
        "{last}, and {allowed}{newest}. `throng why audience {name}` has its history, and \
         `throng audience refresh {name}` starts a refresh"
    )
}

#[cfg(test)]
mod tests;
