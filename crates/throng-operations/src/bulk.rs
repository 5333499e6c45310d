//! Operations on all objects that match a filter. They are counted first; with what was counted as confirmed, each of
//! them is changed as by the operation on one, with an entry of its own in the history.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use throng_api::{
    ActivationMode, AudienceSummary, BULK_ROWS, BulkAnswer, BulkOffer, BulkOperation, BulkRefusal,
    BulkRequest, ListQuery,
};
use throng_model::{AudienceName, SyncRunId, TaskId, with_causes};
use throng_store::{LedgerError, Snapshot, SnapshotState};

use crate::error::{OperationError, Result};
use crate::{Operations, audiences, lists, runs};

/// Why the rest is refused after two thirds of the time of a request.
const NO_TIME: &str = "the request has no time left for it: send it again";
/// Why an object and the rest are refused after an error that is not about the object.
const FAILED: &str = "the node cannot do it now, nor the rest: try again later";
/// The warning if snapshots are published that this node could not load.
const NOT_SERVED: &str =
    "they are published; this node serves the versions before them until it can load these";

/// An object that waits for an operation.
enum Target {
    Task(TaskId),
    Run(SyncRunId),
    Snapshot(AudienceName, u64),
}

/// The objects of one request, with their names for people, and what is counted of them.
struct Matching {
    targets: Vec<(String, Target)>,
    answer: BulkAnswer,
}

impl Matching {
    fn add(&mut self, name: String, target: Target) {
        self.targets.push((name, target));
    }
}

/// Counts the objects that match, at most [`BULK_ROWS`]. If the request has what was counted as confirmed, and the same
/// objects still match, the operation is carried out on each; those that are refused do not stop the others. `name`: the
/// name of a [`BulkOperation`].
///
/// # Errors
/// [`OperationError`]; `WrongState` if other objects match than were confirmed. Nothing is changed then.
pub async fn act(
    operations: &Operations,
    name: &str,
    request: &BulkRequest,
    actor: &str,
) -> Result<BulkAnswer> {
    let Some(operation) = BulkOperation::ALL.into_iter().find(|known| known.as_str() == name)
    else {
        let names = BulkOperation::ALL.map(BulkOperation::as_str).join(", ");
        let message = "there is no such operation on many objects".to_owned();
        return Err(OperationError::not_found(message).help(format!("the operations are {names}")));
    };
    if request.has_empty_filter() {
        let message = "`search` or `workspace` is empty".to_owned();
        return Err(OperationError::invalid(message).help("leave it out for all of them"));
    }
    let begun = operations.clock.now();
    let Matching { targets, mut answer } = matching(operations, operation, request).await?;
    answer.message = answer.question(operation);
    let Some(expected) = request.expected else { return Ok(answer) };
    refuse_others(operation, &answer, expected, request.digest.as_deref())?;
    let timeout = Duration::from_secs(u64::from(operations.spec.node.request_timeout_secs));
    let mut stopped = None;
    for (at, (name, target)) in targets.into_iter().enumerate() {
        if at > 0 && stopped.is_none() && is_late(operations.clock.now().since(begun), timeout) {
            stopped = Some(NO_TIME);
        }
        let refused = match stopped {
            Some(why) => why.to_owned(),
            None => match change(operations, operation, &target, actor).await.map_err(refusal) {
                Ok(()) => {
                    answer.done += 1;
                    continue;
                }
                Err(Ok(why)) => why,
                Err(Err(error)) if answer.done == 0 => return Err(error),
                // The others would fail too. What is done has to be known all the same.
                Err(Err(_)) => {
                    stopped = Some(FAILED);
                    FAILED.to_owned()
                }
            },
        };
        answer.refused.push(BulkRefusal { name, error: refused });
    }
    if operation == BulkOperation::ApproveSnapshots && answer.done > 0 {
        // No error of the request: nobody would learn what was published. The node tries again with its next poll.
        let served = audiences::serve_current(operations).await;
        answer.warning = served.err().map(|error| not_served(&error));
    }
    answer.message = answer.result(operation);
    Ok(answer)
}

/// The operations to offer above a filtered list, with the numbers of what they would do; none unless the list is
/// filtered by the state that they act on. `all`: operations on the same objects.
///
/// # Errors
/// [`OperationError`].
pub async fn offers(
    operations: &Operations,
    all: &[BulkOperation],
    query: &ListQuery,
) -> Result<Vec<BulkOffer>> {
    let state = query.state.as_deref().map(str::trim);
    let first = all.first().copied().filter(|operation| state == Some(operation.state()));
    let Some(first) = first else { return Ok(Vec::new()) };
    let request = BulkRequest::of_list(query);
    let Matching { answer, .. } = matching(operations, first, &request).await?;
    if answer.matched == 0 {
        return Ok(Vec::new());
    }
    let request = request.confirmed(&answer);
    let offer = |operation: &BulkOperation| BulkOffer {
        operation: *operation,
        request: request.clone(),
        question: answer.question(*operation),
    };
    Ok(all.iter().map(offer).collect())
}

/// The objects that match a request, in the order of the lists.
async fn matching(
    operations: &Operations,
    operation: BulkOperation,
    request: &BulkRequest,
) -> Result<Matching> {
    let mut found = Matching { targets: Vec::new(), answer: BulkAnswer::default() };
    let query = |sort: &str| ListQuery {
        search: request.search.clone(),
        state: Some(operation.state().to_owned()),
        sort: Some(sort.to_owned()),
        limit: Some(BULK_ROWS),
        cursor: request.cursor.clone(),
        workspace: request.workspace.clone(),
    };
    match operation {
        BulkOperation::RequeueTasks => {
            let (tasks, next) = lists::requeueable_tasks(operations, &query("-id")).await?;
            found.answer.next_cursor = next;
            for task in tasks {
                let left = task.batches.saturating_sub(task.batches_done);
                found.answer.count("batches_left", u64::from(left));
                found.add(format!("task {} of {}", task.id, task.sync), Target::Task(task.id));
            }
        }
        BulkOperation::ApproveRuns => {
            let list = lists::runs(operations, &query("-id")).await?;
            found.answer.next_cursor = list.next_cursor;
            for run in list.runs {
                match run.mode {
                    // Whoever is not in the new list leaves, and the run has no removals for them.
                    ActivationMode::Replace => {
                        found.answer.count("lists_replaced", 1);
                        found.answer.count("rows_of_lists", run.adds);
                    }
                    ActivationMode::Add | ActivationMode::Mirror => {
                        found.answer.count("adds", run.adds);
                        found.answer.count("removes", run.removes);
                    }
                }
                found.add(format!("run {} of {}", run.id, run.sync), Target::Run(run.id));
            }
        }
        BulkOperation::ApproveSnapshots | BulkOperation::RejectSnapshots => {
            let list = lists::audiences(operations, &query("name")).await?;
            found.answer.next_cursor = list.next_cursor;
            for audience in list.audiences {
                let Some(held) = held_snapshot(operations, &audience).await? else { continue };
                let served = audience.current.as_ref().map_or(0, |current| current.members);
                found.answer.count("members", held.members);
                found.answer.count("members_served", served);
                let name = format!("version {} of {}", held.version, held.audience);
                found.add(name, Target::Snapshot(held.audience, held.version));
            }
        }
    }
    found.answer.matched = found.targets.len() as u64;
    found.answer.digest = digest(&found);
    Ok(found)
}

/// The held snapshot of the newest refresh of an audience.
async fn held_snapshot(
    operations: &Operations,
    audience: &AudienceSummary,
) -> Result<Option<Snapshot>> {
    let newest = audience.refresh.as_ref().map(|newest| &newest.refresh);
    let Some(version) = newest.and_then(|newest| newest.snapshot_version) else {
        return Ok(None);
    };
    match operations.ledger.snapshot(&audience.name, version).await {
        Ok(snapshot) => Ok(Some(snapshot).filter(|held| held.state == SnapshotState::Held)),
        // A person has rejected it meanwhile, and it was deleted.
        Err(LedgerError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Differs if other objects match, or if what is counted of them differs.
fn digest(found: &Matching) -> String {
    let mut hasher = DefaultHasher::new();
    for (name, _) in &found.targets {
        name.hash(&mut hasher);
    }
    found.answer.totals.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Refuses a request if other objects match than those that were confirmed.
fn refuse_others(
    operation: BulkOperation,
    answer: &BulkAnswer,
    expected: u64,
    digest: Option<&str>,
) -> Result<()> {
    let why = if answer.matched != expected {
        format!("matching now: {}, not {expected}", operation.objects(answer.matched))
    } else if digest.is_some_and(|digest| digest != answer.digest) {
        "other objects match now than those that were confirmed".to_owned()
    } else {
        return Ok(());
    };
    Err(OperationError::wrong_state(format!("{why}; nothing was changed"))
        .help("send the request without `expected` to count again"))
}

/// Whether no other object is changed in a request that has taken so long: at its timeout nobody would learn what was done.
fn is_late(taken: Duration, timeout: Duration) -> bool {
    taken > timeout * 2 / 3
}

/// Carries an operation out on one object.
async fn change(
    operations: &Operations,
    operation: BulkOperation,
    target: &Target,
    actor: &str,
) -> Result<()> {
    match target {
        Target::Task(id) => {
            runs::requeue(operations, *id, actor).await?;
        }
        Target::Run(id) => {
            runs::approve(operations, *id, actor).await?;
        }
        Target::Snapshot(name, version) if operation == BulkOperation::RejectSnapshots => {
            audiences::reject(operations, name, *version, actor).await?;
        }
        Target::Snapshot(name, version) => {
            audiences::publish_held(operations, name, *version, actor).await?;
        }
    }
    Ok(())
}

/// The warning that this node could not load what was published, with the causes.
fn not_served(error: &OperationError) -> String {
    format!("{NOT_SERVED}: {}", with_causes(error))
}

/// Why an object is refused. The error, if it is not about this object.
fn refusal(error: OperationError) -> Result<String> {
    match error {
        OperationError::Invalid { message, help }
        | OperationError::NotFound { message, help }
        | OperationError::WrongState { message, help } => Ok(match help {
            Some(help) => format!("{message}; {help}"),
            None => message,
        }),
        OperationError::Ledger(
            error @ (LedgerError::NotFound { .. } | LedgerError::WrongState { .. }),
        ) => Ok(error.to_string()),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(names: &[&str], batches_left: u64) -> Matching {
        let mut found = Matching { targets: Vec::new(), answer: BulkAnswer::default() };
        for name in names {
            found.add((*name).to_owned(), Target::Task(TaskId(1)));
        }
        found.answer.count("batches_left", batches_left);
        found.answer.matched = names.len() as u64;
        found.answer.digest = digest(&found);
        found
    }

    #[test]
    fn only_what_was_confirmed_is_changed() {
        let counted = matching(&["task 1", "task 2"], 7).answer;
        let refused = |found: Matching, digest: bool| {
            let digest = digest.then_some(counted.digest.as_str());
            let result =
                refuse_others(BulkOperation::RequeueTasks, &found.answer, counted.matched, digest);
            result.err().map(|error| error.to_string())
        };
        assert_eq!(refused(matching(&["task 1", "task 2"], 7), true), None);
        let fewer = refused(matching(&["task 1"], 7), false).unwrap();
        assert_eq!(fewer, "matching now: 1 failed task, not 2; nothing was changed");
        // As many others, and the same ones with other numbers.
        for other in [["task 1", "task 3"], ["task 1", "task 2"]] {
            let left = if other[1] == "task 2" { 8 } else { 7 };
            assert!(refused(matching(&other, left), true).is_some(), "{other:?}");
            assert_eq!(refused(matching(&other, left), false), None, "the number is the same");
        }
    }

    #[test]
    fn the_rest_is_left_before_the_timeout_of_the_request() {
        let late = |taken| is_late(Duration::from_secs(taken), Duration::from_secs(30));
        assert_eq!([0, 20, 21, 31].map(late), [false, false, true, true]);
    }

    #[test]
    fn the_warning_says_why_what_is_published_is_not_served() {
        let full = std::io::Error::other("no space left on device");
        let warning = not_served(&OperationError::Component(Box::new(full)));
        assert!(warning.starts_with("they are published; this node serves"), "{warning}");
        assert!(warning.ends_with(": no space left on device"), "{warning}");
    }

    #[test]
    fn an_error_that_is_not_about_the_object_is_no_refusal() {
        let paused = OperationError::wrong_state("it is paused".to_owned()).help("resume it");
        assert_eq!(refusal(paused).unwrap(), "it is paused; resume it");
        let failed = LedgerError::wrong_state("task", 7, "queued", "requeued");
        let text = "task `7` is queued, so it cannot be requeued";
        assert_eq!(refusal(failed.into()).unwrap(), text);
        let bucket = OperationError::Unavailable { message: "no answer".to_owned() };
        assert!(refusal(bucket).is_err());
    }
}
