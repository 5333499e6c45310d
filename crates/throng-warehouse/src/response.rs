//! Answers of BigQuery: what an error means, and what results contain. Pure.

use serde::Deserialize;
use throng_lake::{KeyKind, is_padded};
use throng_model::{HashSeed, Timestamp, UserHash, is_missing_value};

use crate::columns::{Schema, hash_of};

/// What to do about an answer that is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Try again after a backoff.
    Retry,
    /// A quota of the day is used up: a retry soon fails as well.
    Quota,
    /// The access token is not valid, or no longer.
    Token,
    /// There is a job with this id.
    Exists,
    /// There is no such job, table or result.
    NotFound,
    /// A retry fails in the same way.
    Refused,
}

/// The class of an answer with this status and reason.
pub(crate) fn class_of(status: u16, reason: Option<&str>) -> Class {
    match (status, reason) {
        (401, _) => Class::Token,
        (404, _) => Class::NotFound,
        (409, _) => Class::Exists,
        (_, Some("quotaExceeded")) => Class::Quota,
        (_, Some(reason)) if is_temporary(reason) => Class::Retry,
        (408 | 429 | 500 | 502 | 503 | 504, _) => Class::Retry,
        _ => Class::Refused,
    }
}

fn is_temporary(reason: &str) -> bool {
    matches!(
        reason,
        "backendError"
            | "internalError"
            | "jobBackendError"
            | "jobInternalError"
            | "jobRateLimitExceeded"
            | "rateLimitExceeded"
            | "tableUnavailable"
            | "userRateLimitExceeded"
    )
}

/// Whether another job may succeed after one has failed for this reason. An id is used once, so
/// another try needs another job.
pub(crate) fn is_job_lost(reason: &str) -> bool {
    // `timeout`: the job did not end within BigQuery's limit.
    reason == "timeout" || is_temporary(reason)
}

/// The hint for a reason.
pub(crate) fn help_of(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "accessDenied" => {
            "give the service account `BigQuery Job User` on the project and `BigQuery Data \
             Viewer` on the datasets"
        }
        "bytesBilledLimitExceeded" => {
            "the job would read more than `maximum_bytes_billed` of the source: read fewer columns \
             or partitions, or raise it"
        }
        "invalidQuery" => "correct the SQL: it is in BigQuery's dialect",
        "notFound" => {
            "the table may be late: then the next refresh finds it; otherwise check the names of project, dataset and \
             table, and that `location` is that of the dataset"
        }
        "responseTooLarge" => "let the SELECT return fewer columns and rows",
        "stopped" => "the job was cancelled in BigQuery: refresh the audience again",
        _ => return None,
    })
}

/// The body of an error.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ErrorBody {
    #[serde(default)]
    error: ErrorDetail,
}

#[derive(Debug, Default, Deserialize)]
struct ErrorDetail {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<ErrorItem>,
}

/// One cause of an error.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ErrorItem {
    #[serde(default)]
    pub(crate) reason: String,
}

impl ErrorBody {
    /// The first reason.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.error.errors.iter().map(|item| item.reason.as_str()).find(|reason| !reason.is_empty())
    }

    /// The message without control characters, at most 400 characters of it.
    pub(crate) fn message(&self) -> String {
        self.error.message.chars().filter(|c| !c.is_control()).take(400).collect()
    }
}

/// A job.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Job {
    #[serde(default)]
    pub(crate) status: JobStatus,
    #[serde(default)]
    pub(crate) statistics: JobStatistics,
}

/// The state of a job.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobStatus {
    #[serde(default)]
    pub(crate) state: String,
    pub(crate) error_result: Option<ErrorItem>,
}

/// What is known about a job.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobStatistics {
    end_time: Option<String>,
    total_bytes_processed: Option<String>,
    query: Option<QueryStatistics>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct QueryStatistics {
    schema: Option<Schema>,
}

impl JobStatistics {
    /// When the job ended.
    pub(crate) fn ended(&self) -> Option<Timestamp> {
        let millis: i64 = self.end_time.as_deref()?.parse().ok()?;
        Some(Timestamp(millis.checked_mul(1_000)?))
    }

    /// The bytes that it reads.
    pub(crate) fn bytes_processed(&self) -> Option<u64> {
        self.total_bytes_processed.as_deref()?.parse().ok()
    }

    /// The columns of its result, of a dry run only.
    pub(crate) fn schema(self) -> Option<Schema> {
        self.query?.schema
    }
}

/// A page of a result without its rows.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PageHead {
    #[serde(default)]
    pub(crate) job_complete: bool,
    pub(crate) schema: Option<Schema>,
    total_rows: Option<String>,
    page_token: Option<String>,
}

impl PageHead {
    pub(crate) fn total_rows(&self) -> Option<u64> {
        self.total_rows.as_deref()?.parse().ok()
    }

    /// The token of the next page.
    pub(crate) fn next(self) -> Option<String> {
        self.page_token.filter(|token| !token.is_empty())
    }
}

#[derive(Debug, Deserialize)]
struct PageRows {
    #[serde(default)]
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    f: Vec<Cell>,
}

#[derive(Debug, Deserialize)]
struct Cell {
    v: Option<String>,
}

/// The keys of a page.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PageKeys {
    pub(crate) hashes: Vec<UserHash>,
    pub(crate) rows: u64,
    pub(crate) null_keys: u64,
    /// Keys with white space around them.
    pub(crate) padded_keys: u64,
}

/// Whether a cell is not a key: it is empty, or a text that stands for a missing value.
fn is_missing_key(cell: &str, kind: KeyKind) -> bool {
    match kind {
        KeyKind::Integer => false,
        KeyKind::Text => is_missing_value(cell.as_bytes()),
        KeyKind::Uuid | KeyKind::Binary => cell.is_empty(),
    }
}

/// Reads the keys of a page whose columns are known to be flat. `None` if the body is not such a
/// page, or a key is not a value of its type: nothing of it may be used then.
pub(crate) fn keys_of(
    body: &[u8],
    key: crate::columns::KeyColumn,
    seed: HashSeed,
) -> Option<PageKeys> {
    let page: PageRows = serde_json::from_slice(body).ok()?;
    let mut keys = PageKeys { hashes: Vec::with_capacity(page.rows.len()), ..PageKeys::default() };
    for row in page.rows {
        keys.rows += 1;
        match &row.f.get(key.at)?.v {
            // As in tables of files.
            Some(cell) if is_missing_key(cell, key.kind) => keys.null_keys += 1,
            Some(cell) => {
                let is_text = key.kind == KeyKind::Text;
                keys.padded_keys += u64::from(is_text && is_padded(cell.as_bytes()));
                keys.hashes.push(hash_of(cell, key.kind, seed)?);
            }
            None => keys.null_keys += 1,
        }
    }
    Some(keys)
}

#[cfg(test)]
mod tests {
    use throng_model::UserKey;

    use super::*;
    use crate::columns::KeyColumn;

    #[test]
    fn errors_have_the_class_that_their_status_and_reason_say() {
        for (status, reason, class) in [
            (401, Some("authError"), Class::Token),
            (403, Some("rateLimitExceeded"), Class::Retry),
            (403, Some("quotaExceeded"), Class::Quota),
            (403, Some("accessDenied"), Class::Refused),
            (400, Some("invalidQuery"), Class::Refused),
            (400, Some("backendError"), Class::Retry),
            (404, Some("notFound"), Class::NotFound),
            (409, Some("duplicate"), Class::Exists),
            (429, None, Class::Retry),
            (500, Some("internalError"), Class::Retry),
            (503, None, Class::Retry),
            (302, None, Class::Refused),
        ] {
            assert_eq!(class_of(status, reason), class, "{status} {reason:?}");
        }
        assert!(is_job_lost("jobBackendError") && is_job_lost("rateLimitExceeded"));
        assert!(!is_job_lost("quotaExceeded") && !is_job_lost("invalidQuery"));
    }

    #[test]
    fn a_page_is_read_whole_or_not_at_all() {
        let key = KeyColumn { at: 1, kind: KeyKind::Integer };
        let read = |body: &str| keys_of(body.as_bytes(), key, HashSeed(7));
        let page = r#"{"rows":[{"f":[{"v":"a"},{"v":"1"}]},{"f":[{"v":null},{"v":null}]}]}"#;
        let hashes = vec![UserKey::integer(1).hash(HashSeed(7))];
        let found = PageKeys { hashes, rows: 2, null_keys: 1, padded_keys: 0 };
        assert_eq!(read(page), Some(found));
        let empty = r#"{"rows":[{"f":[{"v":"a"},{"v":""}]}]}"#;
        assert_eq!(read(empty), None);
        let text = KeyColumn { at: 1, kind: KeyKind::Text };
        let none = PageKeys { rows: 1, null_keys: 1, ..PageKeys::default() };
        assert_eq!(keys_of(empty.as_bytes(), text, HashSeed(7)), Some(none));
        let marked = r#"{"rows":[{"f":[{"v":"a"},{"v":"NULL"}]},{"f":[{"v":"a"},{"v":"\\N"}]}]}"#;
        let none = PageKeys { rows: 2, null_keys: 2, ..PageKeys::default() };
        assert_eq!(keys_of(marked.as_bytes(), text, HashSeed(7)), Some(none));
        assert_eq!(read(marked), None, "not an integer");
        assert_eq!(read("{}"), Some(PageKeys::default()));
        assert_eq!(read(r#"{"rows":[{"f":[{"v":"a"}]}]}"#), None);
        assert_eq!(read(r#"{"rows":[{"f":[{"v":"a"},{"v":"x"}]}]}"#), None);
        assert_eq!(read(r#"{"rows":[{"f":[{"v":"a"},{"v":"1"}]}"#), None);
    }

    #[test]
    fn keys_with_white_space_around_them_are_counted() {
        let key = KeyColumn { at: 0, kind: KeyKind::Text };
        let page = r#"{"rows":[{"f":[{"v":"42 "}]},{"f":[{"v":"4 2"}]},{"f":[{"v":"\u00a042"}]},{"f":[{"v":" "}]}]}"#;
        let found = keys_of(page.as_bytes(), key, HashSeed(7)).unwrap();
        assert_eq!((found.rows, found.null_keys, found.padded_keys), (4, 0, 3));
        assert_eq!(found.hashes[0], UserKey::text("42 ").hash(HashSeed(7)), "it stays as it is");
    }
}
