//! Refreshes of audiences whose source has changed (`on: source_changed`). The leader polls the files
//! of their tables, and queues a refresh once a change has stayed the same over two polls, so that files
//! which are being written start none. The files of the identifiers of its syncs are among them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use throng_lake::{InputQuery, InputState, Inputs};
use throng_model::{AudienceName, Timestamp};
use throng_spec::{Audience, SourceTrigger};
use throng_store::{AudienceRow, LedgerError, RefreshState};
use tokio_util::sync::CancellationToken;

use super::identifier_inputs::IdentifierQueries;
use crate::{MAX_WALL_INTERVAL, RefreshContext};

/// Audiences whose files are inspected by one request: its time limit is for all of them.
const MAX_INSPECTED: usize = 500;

/// What the last inspection found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Inspection {
    at: Timestamp,
    /// `None`: the files were incomplete, or could not be read.
    fingerprint: Option<String>,
    /// Why there is no fingerprint.
    why: Option<String>,
}

type Inspections = HashMap<AudienceName, Inspection>;

/// An audience whose files are to be inspected.
type Due<'a> = (&'a Audience, &'a SourceTrigger);

/// What follows from an inspection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// The files may still be changing, or a refresh is open.
    Wait,
    /// They have had their refresh.
    Nothing,
    /// The served version was made of them: they need no refresh.
    Record,
    /// They need a refresh.
    Refresh,
}

/// Decides by the fingerprints of this inspection, of the one before, of the served version, and of the
/// newest one that needs no other refresh, and by the state of the newest refresh.
fn decide(
    now: &str,
    before: Option<&str>,
    served: Option<&str>,
    handled: Option<&str>,
    newest: Option<RefreshState>,
) -> Decision {
    if before != Some(now) {
        Decision::Wait
    } else if handled == Some(now) {
        // Also if that refresh has failed, or its snapshot is held: the same files would lead to the
        // same end.
        Decision::Nothing
    } else if served == Some(now) {
        use RefreshState::{Completed, Failed, Halted, Held, Processing, Scheduled};
        match newest {
            // Of other files, which are replaced: a refresh ends as `unchanged`, and the alert is resolved.
            Some(Failed) => Decision::Refresh,
            // It may fail.
            Some(Scheduled | Processing | Halted) => Decision::Wait,
            // Recorded, so that an earlier state which comes back later gets its refresh again.
            Some(Completed | Held) | None => Decision::Record,
        }
    } else {
        Decision::Refresh
    }
}

/// Polls sources while this process is the leader, until `shutdown`.
pub(super) async fn run(ctx: &RefreshContext, shutdown: &CancellationToken) {
    let mut inspections = Inspections::new();
    loop {
        let polled = tokio::select! {
            // Listing a large source takes longer than a process has to end.
            () = shutdown.cancelled() => return,
            polled = poll(ctx, &mut inspections) => polled,
        };
        let next = match polled {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "failed to poll sources");
                None
            }
        };
        let until = next.map_or(MAX_WALL_INTERVAL, |at| at.since(ctx.clock.now()));
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(ctx.poll_delay(until).min(MAX_WALL_INTERVAL)) => {}
        }
    }
}

/// Inspects the sources of the audiences that are due. Returns when the next one is due.
async fn poll(
    ctx: &RefreshContext,
    inspections: &mut Inspections,
) -> Result<Option<Timestamp>, LedgerError> {
    let spec = ctx.spec.load_full();
    let triggers = || {
        let audiences = spec.audiences.iter();
        audiences.filter_map(|audience| Some((audience, audience.source_trigger.as_ref()?)))
    };
    let names: HashSet<&AudienceName> = triggers().map(|(audience, _)| &audience.name).collect();
    inspections.retain(|name, _| names.contains(name));
    if triggers().next().is_none() {
        return Ok(None);
    }
    // Two leaders at a time do no harm: the ledger records each state once.
    if !ctx.ledger.acquire_leadership().await? {
        inspections.clear();
        return Ok(None);
    }
    let now = ctx.clock.now();
    let mut due: Vec<_> = triggers()
        .filter(|(audience, trigger)| {
            inspections.get(&audience.name).is_none_or(|last| is_due(last, trigger, now))
        })
        .collect();
    due.sort_by(|a, b| a.0.name.workspace().cmp(&b.0.name.workspace()));
    for due in requests(&due) {
        inspect(ctx, due, inspections).await?;
    }
    let next = triggers().filter_map(|(audience, trigger)| {
        inspections.get(&audience.name).map(|last| next_inspection(last, trigger))
    });
    Ok(next.min())
}

/// The audiences of each request: of one workspace, whose names are those of other tables in another one. The audiences
/// of a workspace are neighbours.
fn requests<'d, 'a>(due: &'d [Due<'a>]) -> Vec<&'d [Due<'a>]> {
    let of_workspace = due.chunk_by(|a, b| a.0.name.workspace() == b.0.name.workspace());
    of_workspace.flat_map(|due| due.chunks(MAX_INSPECTED)).collect()
}

fn next_inspection(last: &Inspection, trigger: &SourceTrigger) -> Timestamp {
    last.at.plus(Duration::from_secs(u64::from(trigger.poll_secs)))
}

/// Whether the files are inspected again. After an inspection that is in the future the clock has stepped back: otherwise
/// changes would not be seen for as long as the step.
fn is_due(last: &Inspection, trigger: &SourceTrigger, now: Timestamp) -> bool {
    next_inspection(last, trigger) <= now || last.at > now
}

/// Inspects the files of some audiences of one workspace, and queues the refreshes that follow.
async fn inspect(
    ctx: &RefreshContext,
    due: &[Due<'_>],
    inspections: &mut Inspections,
) -> Result<(), LedgerError> {
    let query = |(audience, trigger): &Due<'_>| InputQuery {
        sql: audience.sql.clone(),
        refuses_time: false,
        success_file: trigger.success_file.clone(),
    };
    let Some((first, _)) = due.first() else { return Ok(()) };
    let identifiers =
        IdentifierQueries::of(&ctx.spec.load(), due.iter().map(|(audience, _)| *audience));
    let asked = identifiers.distinct();
    let mut queries: Vec<InputQuery> = due.iter().map(query).collect();
    queries.extend(asked.iter().cloned());
    let mut states = match ctx.lake_of(&first.name).input_states(&queries).await {
        Ok(states) => states,
        // Of all of them, such as a worker that exceeded its time.
        Err(error) => {
            let why = throng_model::with_causes(&error);
            queries.iter().map(|_| InputState::Refused(why.clone())).collect()
        }
    };
    let asked = asked.into_iter().map(|query| query.sql);
    let of_identifiers = asked.zip(states.split_off(due.len().min(states.len()))).collect();
    // After the request, which may have taken long.
    let at = ctx.clock.now();
    let mut rows: HashMap<AudienceName, AudienceRow> =
        ctx.ledger.audiences().await?.into_iter().map(|row| (row.name.clone(), row)).collect();
    let mut queued = false;
    for ((audience, _), state) in due.iter().zip(states) {
        let name = &audience.name;
        let before = inspections.remove(name);
        let (fingerprint, why) = match state {
            InputState::Ready(model) => {
                (Some(identifiers.fingerprint(name, &model, &of_identifiers).text), None)
            }
            InputState::Incomplete(why) => (None, Some(why)),
            InputState::Refused(why) => {
                if before.as_ref().and_then(|last| last.why.as_ref()) != Some(&why) {
                    tracing::warn!(audience = %name, reason = %why, "cannot inspect the files of an audience");
                }
                (None, Some(why))
            }
        };
        if let (Some(now), Some(row)) = (&fingerprint, rows.remove(name)) {
            let before = before.and_then(|last| last.fingerprint);
            queued |= follow(ctx, &row, now, before.as_deref()).await?;
        }
        inspections.insert(name.clone(), Inspection { at, fingerprint, why });
    }
    if queued {
        ctx.wake.notify_waiters();
        ctx.observer.audiences_changed();
    }
    Ok(())
}

/// Carries out what follows from an inspection. Returns whether a refresh was queued.
async fn follow(
    ctx: &RefreshContext,
    row: &AudienceRow,
    now: &str,
    before: Option<&str>,
) -> Result<bool, LedgerError> {
    let served = row.current.as_ref().and_then(|current| inputs_of(current.inputs.as_deref()));
    let served = served.map(|inputs| inputs.fingerprint);
    let newest = row.refresh.as_ref().map(|refresh| refresh.state);
    let decision = decide(now, before, served.as_deref(), row.source_state.as_deref(), newest);
    let refresh = match decision {
        Decision::Wait | Decision::Nothing => return Ok(false),
        Decision::Record => false,
        Decision::Refresh => true,
    };
    let recorded = ctx.ledger.record_source_state(&row.name, now, refresh, ctx.clock.now()).await?;
    Ok(recorded && refresh)
}

/// What a snapshot was made of, if that is recorded. What another version has recorded in another form
/// is as good as nothing: the snapshot is made again.
pub(super) fn inputs_of(recorded: Option<&str>) -> Option<Inputs> {
    serde_json::from_str(recorded?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [`decide`] where `a` is served, and the newest refresh has this state.
    fn decide_beside(now: &str, before: &str, handled: &str, newest: RefreshState) -> Decision {
        decide(now, Some(before), Some("a"), Some(handled), Some(newest))
    }

    #[test]
    fn a_change_must_stay_the_same_over_two_polls() {
        let done = RefreshState::Completed;
        assert_eq!(decide("b", None, Some("a"), Some("a"), Some(done)), Decision::Wait);
        assert_eq!(decide_beside("b", "a", "a", done), Decision::Wait);
        assert_eq!(decide_beside("b", "b", "a", done), Decision::Refresh);
    }

    #[test]
    fn a_state_has_one_refresh_until_another_one_was_served() {
        let done = RefreshState::Completed;
        assert_eq!(decide_beside("b", "b", "b", RefreshState::Failed), Decision::Nothing);
        // Back to what is served, and to the state that had its refresh before.
        assert_eq!(decide_beside("a", "a", "b", done), Decision::Record);
        assert_eq!(decide_beside("a", "a", "a", done), Decision::Nothing);
        assert_eq!(decide_beside("b", "b", "a", done), Decision::Refresh);
    }

    #[test]
    fn files_that_are_those_of_the_served_version_again_end_the_failure_of_others() {
        use RefreshState::{Failed, Halted, Held, Processing, Scheduled};
        assert_eq!(decide_beside("a", "b", "b", Failed), Decision::Wait);
        assert_eq!(decide_beside("a", "a", "b", Failed), Decision::Refresh);
        // That refresh was queued: if it fails too, the files are not the cause.
        assert_eq!(decide_beside("a", "a", "a", Failed), Decision::Nothing);
        // A snapshot that is held waits for a person.
        assert_eq!(decide_beside("a", "a", "b", Held), Decision::Record);
        for open in [Scheduled, Processing, Halted] {
            assert_eq!(decide_beside("a", "a", "b", open), Decision::Wait);
        }
    }

    #[test]
    fn files_are_inspected_after_the_interval_and_after_a_step_back_of_the_clock() {
        let trigger = SourceTrigger { poll_secs: 60, success_file: None };
        let at = |seconds: u64| Timestamp(0).plus(Duration::from_secs(seconds));
        let last = Inspection { at: at(7_200), fingerprint: None, why: None };
        let is_due = |seconds| is_due(&last, &trigger, at(seconds));
        assert!(!is_due(7_200) && !is_due(7_259) && is_due(7_260));
        assert!(is_due(7_199) && is_due(3_600));
    }

    #[test]
    fn audiences_of_two_workspaces_are_never_in_one_request() {
        let audience = |name: &str| -> Audience {
            let text = format!(
                r#"{{"name": "{name}", "description": null, "sql": "SELECT 1", "key": null, "schedule": null,
                    "guard": {{"max_shrink_percent": 50, "max_growth_percent": null, "min_members": 1}},
                    "keep_snapshots": 10, "sql_at": {{"file": "throng.yaml", "line": 1}}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let trigger = SourceTrigger { poll_secs: 60, success_file: None };
        let audiences = ["a", "b", "acme:a", "acme:b", "globex:a"].map(audience);
        let due: Vec<Due<'_>> = audiences.iter().map(|audience| (audience, &trigger)).collect();
        let names = |group: &[Due<'_>]| -> Vec<String> {
            group.iter().map(|(audience, _)| audience.name.to_string()).collect()
        };
        let found: Vec<Vec<String>> = requests(&due).into_iter().map(names).collect();
        assert_eq!(found, [vec!["a", "b"], vec!["acme:a", "acme:b"], vec!["globex:a"]]);
        let many = vec![due[2]; MAX_INSPECTED + 1];
        assert_eq!(requests(&many).len(), 2);
    }

    #[test]
    fn a_snapshot_of_an_earlier_version_is_made_again() {
        assert_eq!(inputs_of(None), None);
        assert_eq!(inputs_of(Some("[]")), None);
        assert_eq!(decide("a", Some("a"), None, None, None), Decision::Refresh);
    }
}
