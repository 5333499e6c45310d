//! The lists of all syncs, runs and tasks: searched, filtered, sorted, in pages.

use std::collections::HashSet;

use askama::Template;
use throng_api::{
    ActivationMode, ActivationRun, ActivationRunState, ActivationTask, ActivationTaskState,
    BulkOffer, ListQuery, RUN_STATES, RunList, SYNC_STATES, SyncList, SyncSummary, TASK_STATES,
    TaskList,
};
use throng_model::{TaskId, Timestamp};

use crate::Rendered;
use crate::lists::Controls;
use crate::show::{self, Action, count};
use crate::syncs;

#[derive(Template)]
#[template(path = "work.html")]
struct List {
    /// The headline.
    title: &'static str,
    /// The id of the table.
    id: &'static str,
    controls: Controls,
    /// What a person can do with all objects that match the filter.
    bulk: Vec<Action>,
    columns: Vec<Column>,
    rows: Vec<Row>,
}

impl List {
    fn menu_path(&self) -> &'static str {
        "/activation"
    }
}

struct Column {
    name: &'static str,
    /// The field to sort by; empty if the list cannot be sorted by it.
    sort: &'static str,
    is_number: bool,
}

struct Row {
    cells: Vec<Cell>,
    /// What a person can do with the object.
    action: Option<Action>,
}

#[derive(Default)]
struct Cell {
    text: String,
    /// The page of the object; empty if there is none.
    link: String,
    /// The color class of a state; `None` if the text is not a state.
    tone: Option<&'static str>,
    /// A second line.
    note: String,
    /// The class of the cell in the style sheet: `n` of numbers, `short` and `name` of longer names, `text` of long texts,
    /// `time`; empty if it has none.
    class: &'static str,
}

/// The longest name, in characters, that needs no wider column.
const SHORT_NAME_CHARS: usize = 24;
/// The longest name, in characters, that may be broken at its hyphens: it has two lines at most.
const SHORTEST_NAME_CHARS: usize = 12;

fn plain(name: impl ToString) -> Cell {
    let text = name.to_string();
    // A name has ASCII characters only.
    let class = match text.len() {
        0..=SHORTEST_NAME_CHARS => "",
        length if length <= SHORT_NAME_CHARS => "short",
        _ => "name",
    };
    Cell { text, class, ..Cell::default() }
}

fn number(text: String) -> Cell {
    Cell { text, class: "n", ..Cell::default() }
}

/// A text of any length; its column is wide where it has one.
fn long(text: String) -> Cell {
    let class = if text.is_empty() { "" } else { "text" };
    Cell { text, class, ..Cell::default() }
}

/// A time, on one line.
fn time(text: String) -> Cell {
    Cell { text, class: "time", ..Cell::default() }
}

fn linked(name: impl ToString, link: String) -> Cell {
    Cell { link, ..plain(name) }
}

fn state((text, tone): (&'static str, &'static str), note: Option<String>) -> Cell {
    let note = note.unwrap_or_default();
    Cell { text: text.to_owned(), tone: Some(tone), note, ..Cell::default() }
}

/// The columns; a name that begins with `#` is one of numbers.
fn columns(all: &[(&'static str, &'static str)]) -> Vec<Column> {
    let column = |&(name, sort): &(&'static str, &'static str)| Column {
        name: name.trim_start_matches('#'),
        sort,
        is_number: name.starts_with('#'),
    };
    all.iter().map(column).collect()
}

/// The page of the syncs.
///
/// # Errors
/// [`RenderError`](crate::RenderError).
pub fn syncs(list: SyncList, query: ListQuery, now: Timestamp) -> Rendered {
    let row = |sync: &SyncSummary| {
        let shown = syncs::row(sync, now);
        let paused = if sync.paused_at.is_some() { ("paused", "warn") } else { ("active", "good") };
        Row {
            cells: vec![
                linked(&shown.name, format!("/activation/syncs/{}", shown.name)),
                plain(shown.audience),
                plain(shown.destination),
                state(paused, Some(shown.waiting.to_owned())),
                number(shown.delivered),
                Cell { text: shown.size, note: shown.read_at, ..Cell::default() },
                long(shown.due),
            ],
            action: None,
        }
    };
    let path = "/activation/syncs";
    let page = List {
        title: "Syncs",
        id: "syncs",
        bulk: Vec::new(),
        columns: columns(&[
            ("Sync", "name"),
            ("Audience", "audience"),
            ("Destination", "destination"),
            ("State", ""),
            ("#Delivered", "delivered_users"),
            ("On the platform", ""),
            ("Removals due", ""),
        ]),
        rows: list.syncs.iter().map(row).collect(),
        controls: Controls::new(path, query, SYNC_STATES, list.next_cursor, list.previous_cursor),
    };
    page.render()
}

/// The page of the runs. `tasks`: those of the runs. `offers`: the operations on all runs that match the query.
///
/// # Errors
/// [`RenderError`](crate::RenderError).
pub fn runs(
    list: RunList,
    tasks: &[ActivationTask],
    query: ListQuery,
    offers: &[BulkOffer],
) -> Rendered {
    let row = |run: &ActivationRun| {
        let task = tasks.iter().find(|task| task.run == run.id);
        let link = task.map_or_else(String::new, |task| format!("/activation/tasks/{}", task.id));
        let sum = |reasons: &std::collections::BTreeMap<String, u64>| reasons.values().sum::<u64>();
        Row {
            cells: vec![
                linked(run.id, link),
                plain(&run.sync),
                plain(format!("{} v{}", run.audience, run.to_version)),
                plain(&run.destination),
                state(show::run(run), run.reason.clone()),
                number(count(run.read)),
                number(count(run.sent)),
                number(count(sum(&run.skipped))),
                number(count(sum(&run.rejected))),
                number(count(run.pending)),
                time(show::when(run.created_at)),
            ],
            action: approve(run),
        }
    };
    let path = "/activation/runs";
    let page = List {
        title: "Sync runs",
        id: "runs",
        bulk: show::bulk(offers),
        columns: columns(&[
            ("Run", "id"),
            ("Sync", "sync"),
            ("Audience", "audience"),
            ("Destination", ""),
            ("State", ""),
            ("#Read", ""),
            ("#Sent", ""),
            ("#Skipped", ""),
            ("#Rejected", ""),
            ("#Pending", ""),
            ("Planned at", ""),
        ]),
        rows: list.runs.iter().map(row).collect(),
        controls: Controls::new(path, query, RUN_STATES, list.next_cursor, list.previous_cursor),
    };
    page.render()
}

/// The page of the tasks. `offers`: the operations on all tasks that match the query. `replaced`: the failed tasks that a
/// newer run of their sync replaces.
///
/// # Errors
/// [`RenderError`](crate::RenderError).
pub fn tasks(
    list: TaskList,
    query: ListQuery,
    offers: &[BulkOffer],
    replaced: &HashSet<TaskId>,
    now: Timestamp,
) -> Rendered {
    let row = |task: &ActivationTask| {
        let waits = task.state == ActivationTaskState::Queued && task.last_error.is_some();
        let note = waits.then(|| show::next_retry(task.not_before, now));
        Row {
            cells: vec![
                linked(task.id, format!("/activation/tasks/{}", task.id)),
                plain(&task.sync),
                plain(&task.audience),
                plain(&task.destination),
                state(show::task(task.state), note),
                number(format!("{} of {}", task.batches_done, task.batches)),
                number(task.failures.to_string()),
                long(task.last_error.clone().unwrap_or_default()),
            ],
            action: requeue(task, replaced.contains(&task.id)),
        }
    };
    let path = "/activation/tasks";
    let page = List {
        title: "Tasks",
        id: "tasks",
        bulk: show::bulk(offers),
        columns: columns(&[
            ("Task", "id"),
            ("Sync", "sync"),
            ("Audience", "audience"),
            ("Destination", ""),
            ("State", ""),
            ("#Batches done", ""),
            ("#Failures", ""),
            ("Last error", ""),
        ]),
        rows: list.tasks.iter().map(|of| row(&of.task)).collect(),
        controls: Controls::new(path, query, TASK_STATES, list.next_cursor, list.previous_cursor),
    };
    page.render()
}

/// Approves a held run.
pub(crate) fn approve(run: &ActivationRun) -> Option<Action> {
    let (id, sync, destination) = (run.id, &run.sync, &run.destination);
    // A run counts rows of identifiers, of which a user may have several.
    let adds = count(run.adds);
    let effect = match run.mode {
        // Whoever is not in the new list leaves, and the run has no removals for them.
        ActivationMode::Replace => {
            format!("It replaces the list on {destination} with {adds} rows of users.")
        }
        ActivationMode::Add | ActivationMode::Mirror => format!(
            "It adds {adds} rows of users to {destination} and removes {}.",
            count(run.removes)
        ),
    };
    let why = run.reason.as_ref().map_or_else(String::new, |why| format!(" Held because: {why}"));
    (run.state == ActivationRunState::Held).then(|| Action {
        label: "Approve",
        post: format!("/v1/runs/{id}/approve"),
        body: "{}".to_owned(),
        confirm: format!("Approve run {id} of {sync}? {effect}{why}"),
    })
}

/// Queues a failed task again. Not one that a newer run replaces: what it would send is outdated.
pub(crate) fn requeue(task: &ActivationTask, is_replaced: bool) -> Option<Action> {
    (task.state == ActivationTaskState::Failed && !is_replaced).then(|| Action {
        label: "Queue again",
        post: format!("/v1/tasks/{}/requeue", task.id),
        body: "{}".to_owned(),
        confirm: format!(
            "Queue task {} of {} again? Batches left to send: {} of {}; the backoff of {} ends.",
            task.id,
            task.sync,
            task.batches.saturating_sub(task.batches_done),
            task.batches,
            task.destination
        ),
    })
}

#[cfg(test)]
mod tests {
    use throng_api::{ActivationTaskProgress, BulkAnswer, BulkOperation, BulkRequest, ListQuery};
    use throng_model::SyncRunId;

    use super::*;

    fn task(id: i64, state: ActivationTaskState) -> ActivationTaskProgress {
        let task = ActivationTask {
            id: TaskId(id),
            run: SyncRunId(id),
            sync: "s".parse().unwrap(),
            audience: "a".parse().unwrap(),
            destination: "d".parse().unwrap(),
            state,
            priority: 0,
            failures: 3,
            not_before: Timestamp(0),
            holder: None,
            lease_until: None,
            batches: 4,
            batches_done: 1,
            last_error: Some("<b>".to_owned()),
            created_at: Timestamp(0),
            finished_at: None,
        };
        ActivationTaskProgress { task, progress: 0.25, eta_seconds: None }
    }

    #[test]
    fn a_list_of_tasks_has_links_and_confirmations_with_numbers() {
        let list = TaskList {
            tasks: vec![task(7, ActivationTaskState::Failed), task(8, ActivationTaskState::Done)],
            counts: Vec::new(),
            next_cursor: Some("0b".to_owned()),
            previous_cursor: None,
        };
        let search = Some("\"x".to_owned());
        let query = ListQuery { search, ..ListQuery::default() };
        let html = tasks(list, query, &[], &HashSet::new(), Timestamp(0)).unwrap();
        assert!(!html.contains("id=\"bulk\""), "{html}");
        assert!(html.contains("href=\"/activation/tasks/7\""), "{html}");
        assert!(html.contains("search=%22x") && html.contains("cursor=0b"), "{html}");
        assert!(html.contains("id=\"next\"") && !html.contains("id=\"previous\""), "{html}");
        assert_eq!(html.matches("data-post=\"/v1/tasks/7/requeue\"").count(), 1, "{html}");
        assert!(!html.contains("/v1/tasks/8/requeue"), "{html}");
        assert!(html.contains("Batches left to send: 3 of 4; the backoff of d ends."), "{html}");
        assert!(!html.contains("<b>") && !html.contains("value=\"\"x"), "escaped: {html}");
    }

    #[test]
    fn a_longer_name_has_a_wider_column() {
        let class = |name: &str| plain(name).class;
        assert_eq!(class("meta-outlet"), "");
        assert_eq!(class("group-4-meta-outlet"), "short");
        assert_eq!(class("everyone-who-has-bought-on-meta"), "name");
    }

    #[test]
    fn a_failed_task_that_a_newer_run_replaces_has_no_button() {
        let list = TaskList {
            tasks: vec![task(7, ActivationTaskState::Failed), task(8, ActivationTaskState::Failed)],
            counts: Vec::new(),
            next_cursor: None,
            previous_cursor: None,
        };
        let replaced = HashSet::from([TaskId(7)]);
        let html = tasks(list, ListQuery::default(), &[], &replaced, Timestamp(0)).unwrap();
        assert!(!html.contains("/v1/tasks/7/requeue"), "{html}");
        assert_eq!(html.matches("data-post=\"/v1/tasks/8/requeue\"").count(), 1, "{html}");
        assert!(html.contains("<td class=\"text\">&#60;b&#62;</td>"), "{html}");
    }

    #[test]
    fn a_filtered_list_has_a_button_for_all_that_match() {
        let counted = BulkAnswer { matched: 300, digest: "1f".to_owned(), ..BulkAnswer::default() };
        let query = ListQuery { search: Some("\"x".to_owned()), ..ListQuery::default() };
        let operation = BulkOperation::RequeueTasks;
        let offer = BulkOffer {
            operation,
            request: BulkRequest::of_list(&query).confirmed(&counted),
            question: counted.question(operation),
        };
        let list = TaskList {
            tasks: vec![task(7, ActivationTaskState::Failed)],
            counts: Vec::new(),
            next_cursor: None,
            previous_cursor: None,
        };
        let html = tasks(list, query, &[offer], &HashSet::new(), Timestamp(0)).unwrap();
        let (_, button) = html.split_once("id=\"bulk\"").unwrap();
        let (button, _) = button.split_once("</p>").unwrap();
        assert!(button.contains("data-post=\"/v1/bulk/requeue-tasks\""), "{button}");
        assert!(button.contains("Queue 300 failed tasks again?"), "{button}");
        assert!(button.contains("Queue all again</button>"), "{button}");
        // The body is escaped, so that it does not end the attribute.
        let (_, body) = button.split_once("data-body=\"").unwrap();
        let (body, _) = body.split_once('"').unwrap();
        let body = body.replace("&#34;", "\"").replace("&quot;", "\"");
        assert_eq!(body, r#"{"search":"\"x","expected":300,"digest":"1f"}"#);
    }

    fn held(mode: ActivationMode, adds: u64, removes: u64) -> ActivationRun {
        ActivationRun {
            id: SyncRunId(9),
            sync: "s".parse().unwrap(),
            audience: "a".parse().unwrap(),
            destination: "d".parse().unwrap(),
            mode,
            from_version: Some(1),
            to_version: 2,
            state: ActivationRunState::Held,
            adds,
            removes,
            read: adds + removes,
            sent: 0,
            skipped: Default::default(),
            rejected: Default::default(),
            pending: adds + removes,
            created_at: Timestamp(0),
            finished_at: None,
            reason: Some("40 users leave".to_owned()),
            normalised: Default::default(),
        }
    }

    #[test]
    fn the_confirmation_of_a_held_run_says_what_it_does() {
        let confirm = |run: &ActivationRun| approve(run).map(|action| action.confirm);
        let mirror = confirm(&held(ActivationMode::Mirror, 1_000, 40)).unwrap();
        assert_eq!(
            mirror,
            "Approve run 9 of s? It adds 1,000 rows of users to d and removes 40. Held because: 40 users leave"
        );
        // A replace run removes users without having removals.
        let replace = confirm(&held(ActivationMode::Replace, 1_000, 0)).unwrap();
        assert_eq!(
            replace,
            "Approve run 9 of s? It replaces the list on d with 1,000 rows of users. Held because: 40 users leave"
        );
        let active = ActivationRun {
            state: ActivationRunState::Active,
            ..held(ActivationMode::Mirror, 1, 0)
        };
        assert_eq!(confirm(&active), None);
    }

    #[test]
    fn a_completed_run_without_an_accepted_row_is_not_a_good_one() {
        let run = ActivationRun {
            state: ActivationRunState::Completed,
            rejected: std::collections::BTreeMap::from([("not_confirmed".to_owned(), 3)]),
            ..held(ActivationMode::Mirror, 3, 0)
        };
        assert_eq!(show::run(&run), ("completed", "bad"));
        assert_eq!(show::run(&ActivationRun { sent: 1, ..run }), ("completed", "good"));
    }

    #[test]
    fn an_empty_list_says_why() {
        let list = || RunList { runs: Vec::new(), next_cursor: None, previous_cursor: None };
        let html = runs(list(), &[], ListQuery::default(), &[]).unwrap();
        assert!(html.contains("The list is empty."), "{html}");
        let query = ListQuery { state: Some("held".to_owned()), ..ListQuery::default() };
        let html = runs(list(), &[], query, &[]).unwrap();
        assert!(html.contains("Nothing matches.") && html.contains("selected"), "{html}");
    }
}
