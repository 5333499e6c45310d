//! Operations on all objects that match a filter: they are counted first, and changed when that is confirmed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use throng_model::{count, counted};
use utoipa::ToSchema;

use crate::lists::ListQuery;

/// The maximum number of objects of one request. Further ones are those of its `next_cursor`.
pub const BULK_ROWS: u32 = 200;
/// The maximum number of reasons in a text for people. The field `refused` has all of them.
const SHOWN_REFUSALS: usize = 10;
/// The question and the result if no object matches.
const NOTHING: &str = "nothing matches";

/// An operation on all objects that wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkOperation {
    /// Queues failed tasks again.
    RequeueTasks,
    /// Approves held runs.
    ApproveRuns,
    /// Publishes held snapshots.
    ApproveSnapshots,
    /// Rejects held snapshots.
    RejectSnapshots,
}

impl BulkOperation {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::RequeueTasks, Self::ApproveRuns, Self::ApproveSnapshots, Self::RejectSnapshots];

    /// The name, as in the path of the request.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequeueTasks => "requeue-tasks",
            Self::ApproveRuns => "approve-runs",
            Self::ApproveSnapshots => "approve-snapshots",
            Self::RejectSnapshots => "reject-snapshots",
        }
    }

    /// The path of the request.
    pub fn path(self) -> String {
        format!("/v1/bulk/{}", self.as_str())
    }

    /// The state, as in the lists, of the objects that it acts on.
    pub const fn state(self) -> &'static str {
        match self {
            Self::RequeueTasks => "failed",
            Self::ApproveRuns | Self::ApproveSnapshots | Self::RejectSnapshots => "held",
        }
    }

    /// What a number of its objects is, such as `1 failed task`.
    pub fn objects(self, number: u64) -> String {
        match self {
            Self::RequeueTasks => counted(number, "failed task"),
            Self::ApproveRuns => counted(number, "held run"),
            Self::ApproveSnapshots | Self::RejectSnapshots => counted(number, "held snapshot"),
        }
    }

    /// What is done to an object, in the past tense.
    const fn done(self) -> &'static str {
        match self {
            Self::RequeueTasks => "queued again",
            Self::ApproveRuns => "approved",
            Self::ApproveSnapshots => "published",
            Self::RejectSnapshots => "rejected",
        }
    }
}

/// Which objects an operation acts on, and what a person has confirmed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "search": "meta", "expected": 12, "digest": "5f3c0a4d8be17726" }))]
pub struct BulkRequest {
    /// Only objects whose names contain this text, as in the list of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    /// Only objects of this workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// `next_cursor` of another answer with the same search and workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// `matched` of the answer that was confirmed. Without it nothing is changed: the answer says what would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<u64>,
    /// `digest` of that answer: with it exactly those objects are changed, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

impl BulkRequest {
    /// The request for the objects of a filtered list. An empty filter, as of a form, is none.
    pub fn of_list(query: &ListQuery) -> Self {
        let set = |text: Option<&str>| text.filter(|text| !is_blank(text)).map(str::to_owned);
        let (search, workspace) = (set(query.search.as_deref()), set(query.workspace.as_deref()));
        Self { search, workspace, ..Self::default() }
    }

    /// Whether it has a filter that is empty, as of a variable of a script that is not set: all objects would match.
    pub fn has_empty_filter(&self) -> bool {
        [&self.search, &self.workspace].into_iter().flatten().any(|text| is_blank(text))
    }

    /// The same request, with what an answer to it has counted as confirmed.
    #[must_use]
    pub fn confirmed(&self, counted: &BulkAnswer) -> Self {
        let digest = Some(counted.digest.clone());
        Self { expected: Some(counted.matched), digest, ..self.clone() }
    }

    /// The request as JSON.
    pub fn to_json(&self) -> String {
        // Texts and a number can be written as JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What matches, and what was done to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "matched": 12, "totals": { "batches_left": 30 }, "digest": "5f3c0a4d8be17726", "done": 11,
    "refused": [{ "name": "task 52 of buyers-on-meta", "error": "sync `buyers-on-meta` is paused" }],
    "message": "11 of 12 are queued again"
}))]
pub struct BulkAnswer {
    /// The number of objects that match, at most 200; further ones are those of `next_cursor`.
    pub matched: u64,
    /// Sums over them. Tasks: `batches_left`. Runs: rows in `adds` and `removes`; `lists_replaced`, and their rows in
    /// `rows_of_lists`. Snapshots: `members`, and `members_served` of the versions that are served.
    pub totals: BTreeMap<String, u64>,
    /// Stands for exactly these objects, as they are.
    pub digest: String,
    /// The cursor of further objects; left out if no more match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// The number of objects that were changed; 0 without `expected`.
    pub done: u64,
    /// The objects that were not changed, each with the reason.
    pub refused: Vec<BulkRefusal>,
    /// What is not complete yet although the objects were changed; left out if all is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// The question to confirm, or what was done, for people.
    pub message: String,
}

/// An object that was not changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BulkRefusal {
    /// The object.
    pub name: String,
    /// Why it was not changed.
    pub error: String,
}

impl BulkAnswer {
    /// Adds to one of the totals.
    pub fn count(&mut self, total: &str, number: u64) {
        let sum = self.totals.entry(total.to_owned()).or_default();
        *sum = sum.saturating_add(number);
    }

    /// Adds the numbers and refusals of the answer for further objects.
    pub fn add(&mut self, other: Self) {
        self.matched = self.matched.saturating_add(other.matched);
        self.done = self.done.saturating_add(other.done);
        for (total, number) in &other.totals {
            self.count(total, *number);
        }
        self.refused.extend(other.refused);
        self.warning = self.warning.take().or(other.warning);
    }

    /// How many of the objects that match were not changed; `None` if all were.
    pub fn incomplete(&self) -> Option<String> {
        let left = self.matched.saturating_sub(self.done);
        (left > 0).then(|| format!("not done: {} of {}", count(left), count(self.matched)))
    }

    /// The question that a person confirms, with the numbers.
    pub fn question(&self, operation: BulkOperation) -> String {
        if self.matched == 0 {
            return NOTHING.to_owned();
        }
        let total = |name: &str| self.totals.get(name).copied().unwrap_or_default();
        let objects = operation.objects(self.matched);
        let (members, served) =
            (counted(total("members"), "member"), count(total("members_served")));
        let mut text = match operation {
            BulkOperation::RequeueTasks => format!(
                "Queue {objects} again? Left to send: {}; the backoff of their accounts ends.",
                batches(total("batches_left"))
            ),
            BulkOperation::ApproveRuns => format!(
                "Approve {objects}? Rows of users to add: {}, to remove: {}.",
                count(total("adds")),
                count(total("removes"))
            ),
            BulkOperation::ApproveSnapshots => {
                format!("Publish {objects}, with {members} instead of {served}?")
            }
            BulkOperation::RejectSnapshots => {
                format!("Reject {objects}, with {members}? What is served stays: {served}.")
            }
        };
        let (lists, rows) = (total("lists_replaced"), count(total("rows_of_lists")));
        if lists > 0 {
            let lists = counted(lists, "list");
            text.push_str(&format!(
                " Replaced on the platforms: {lists}, by {rows} rows of users."
            ));
        }
        if self.next_cursor.is_some() {
            text.push_str(" More match, and are left for another request.");
        }
        text
    }

    /// What was done, and what was not, with the first reasons.
    pub fn result(&self, operation: BulkOperation) -> String {
        if self.matched == 0 {
            return NOTHING.to_owned();
        }
        let (done, matched) = (count(self.done), count(self.matched));
        let mut text = format!("{done} of {matched} are {}", operation.done());
        for BulkRefusal { name, error } in self.refused.iter().take(SHOWN_REFUSALS) {
            text.push_str(&format!("\n{name}: {error}"));
        }
        if self.refused.len() > SHOWN_REFUSALS {
            text.push_str(&format!("\nand {} more", self.refused.len() - SHOWN_REFUSALS));
        }
        if let Some(warning) = &self.warning {
            text.push_str(&format!("\n{warning}"));
        }
        text
    }
}

/// The sum of the answers of several requests, as a command prints it: without their digests and cursors, each of which is
/// for one request.
#[derive(Debug, Serialize)]
pub struct BulkReport<'a> {
    matched: u64,
    totals: &'a BTreeMap<String, u64>,
    done: u64,
    refused: &'a [BulkRefusal],
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'a str>,
    message: &'a str,
}

impl<'a> BulkReport<'a> {
    /// The hint if [`BulkAnswer::incomplete`] says that not all is done.
    pub const HELP: &'static str =
        "the reason of each is printed; what is done stays done if the command is run again";

    /// The report of a sum.
    pub fn of(answer: &'a BulkAnswer) -> Self {
        Self {
            matched: answer.matched,
            totals: &answer.totals,
            done: answer.done,
            refused: &answer.refused,
            warning: answer.warning.as_deref(),
            message: &answer.message,
        }
    }
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// `1 batch`, `2 batches`.
fn batches(number: u64) -> String {
    if number == 1 { "1 batch".to_owned() } else { format!("{} batches", count(number)) }
}

/// An operation on all objects of a filtered list, for a page to offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkOffer {
    /// The operation.
    pub operation: BulkOperation,
    /// The request that does what the question says.
    pub request: BulkRequest,
    /// The question, with the numbers.
    pub question: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(matched: u64, totals: &[(&str, u64)]) -> BulkAnswer {
        let mut answer = BulkAnswer { matched, ..BulkAnswer::default() };
        for (total, number) in totals {
            answer.count(total, *number);
        }
        answer
    }

    #[test]
    fn the_question_has_the_numbers() {
        let question = |operation, answer: &BulkAnswer| answer.question(operation);
        let mut tasks = answer(1_200, &[("batches_left", 3_000), ("batches_left", 1)]);
        assert_eq!(
            question(BulkOperation::RequeueTasks, &tasks),
            "Queue 1,200 failed tasks again? Left to send: 3,001 batches; the backoff of their accounts ends."
        );
        tasks.next_cursor = Some("0a".to_owned());
        assert!(question(BulkOperation::RequeueTasks, &tasks).ends_with("for another request."));
        let runs = answer(1, &[("adds", 10), ("removes", 4_000)]);
        let text = "Approve 1 held run? Rows of users to add: 10, to remove: 4,000.";
        assert_eq!(question(BulkOperation::ApproveRuns, &runs), text);
        let replacing = answer(2, &[("lists_replaced", 2), ("rows_of_lists", 70)]);
        let text = question(BulkOperation::ApproveRuns, &replacing);
        assert!(
            text.ends_with("Replaced on the platforms: 2 lists, by 70 rows of users."),
            "{text}"
        );
        let snapshots = answer(2, &[("members", 5), ("members_served", 1_000)]);
        let text = "Publish 2 held snapshots, with 5 members instead of 1,000?";
        assert_eq!(question(BulkOperation::ApproveSnapshots, &snapshots), text);
        let text = "Reject 2 held snapshots, with 5 members? What is served stays: 1,000.";
        assert_eq!(question(BulkOperation::RejectSnapshots, &snapshots), text);
    }

    #[test]
    fn the_result_names_what_was_not_done_and_why() {
        let refusal = |number: usize| BulkRefusal {
            name: format!("task {number}"),
            error: "its sync is paused".to_owned(),
        };
        let mut all = BulkAnswer { matched: 3, done: 2, ..BulkAnswer::default() };
        assert_eq!(all.result(BulkOperation::RequeueTasks), "2 of 3 are queued again");
        all.add(BulkAnswer {
            matched: 12,
            refused: (1..=12).map(refusal).collect(),
            ..all.clone()
        });
        let text = all.result(BulkOperation::RequeueTasks);
        assert!(
            text.starts_with("4 of 15 are queued again\ntask 1: its sync is paused\n"),
            "{text}"
        );
        assert!(text.ends_with("task 10: its sync is paused\nand 2 more"), "{text}");
        let late = BulkAnswer { warning: Some("it is late".to_owned()), ..BulkAnswer::default() };
        all.add(late);
        all.add(BulkAnswer::default());
        let text = all.result(BulkOperation::RequeueTasks);
        assert!(text.ends_with("and 2 more\nit is late"), "{text}");
    }

    #[test]
    fn an_operation_that_was_refused_for_an_object_is_incomplete() {
        let of = |matched: u64, done: u64| BulkAnswer { matched, done, ..BulkAnswer::default() };
        assert_eq!(of(0, 0).incomplete(), None);
        assert_eq!(of(3, 3).incomplete(), None);
        assert_eq!(of(3, 2).incomplete().unwrap(), "not done: 1 of 3");
        assert_eq!(of(1_200, 0).incomplete().unwrap(), "not done: 1,200 of 1,200");
    }

    #[test]
    fn the_report_of_several_answers_has_no_digest() {
        let refused = BulkRefusal { name: "task 7".to_owned(), error: "it is paused".to_owned() };
        let mut all = BulkAnswer { matched: 2, done: 1, ..BulkAnswer::default() };
        all.refused.push(refused);
        all.message = all.result(BulkOperation::RequeueTasks);
        let expected = serde_json::json!({
            "matched": 2, "totals": {}, "done": 1,
            "refused": [{ "name": "task 7", "error": "it is paused" }],
            "message": "1 of 2 are queued again\ntask 7: it is paused",
        });
        assert_eq!(serde_json::to_value(BulkReport::of(&all)).unwrap(), expected);
    }

    #[test]
    fn a_confirmed_request_has_the_numbers_of_the_answer() {
        let query = ListQuery {
            search: Some("a\"b".to_owned()),
            state: Some("failed".to_owned()),
            cursor: Some("0a".to_owned()),
            ..ListQuery::default()
        };
        let counted = BulkAnswer { matched: 7, digest: "1f".to_owned(), ..BulkAnswer::default() };
        let request = BulkRequest::of_list(&query).confirmed(&counted);
        assert_eq!(request.to_json(), r#"{"search":"a\"b","expected":7,"digest":"1f"}"#);
        assert_eq!(BulkRequest::default().to_json(), "{}");
        assert!(!request.has_empty_filter() && !BulkRequest::default().has_empty_filter());
    }

    #[test]
    fn an_empty_filter_is_none_in_a_form_and_found_in_a_request() {
        for empty in ["", " "] {
            let text = || Some(empty.to_owned());
            let query = ListQuery { search: text(), workspace: text(), ..ListQuery::default() };
            assert_eq!(BulkRequest::of_list(&query), BulkRequest::default());
            assert!(BulkRequest { search: text(), ..BulkRequest::default() }.has_empty_filter());
            let of_workspace = BulkRequest { workspace: text(), ..BulkRequest::default() };
            assert!(of_workspace.has_empty_filter());
        }
    }
}
