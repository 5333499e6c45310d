//! Parameters of lists: search, state, order, and pages by cursor.

use serde::{Deserialize, Serialize};

/// The maximum number of rows that a request can ask for.
pub const MAX_LIST_ROWS: u32 = 1_000;

/// The states by which audiences can be filtered: of the newest refresh (`waiting`: there was none), or `paused`, or
/// `pinned`.
pub const AUDIENCE_STATES: &[&str] = &[
    "waiting",
    "scheduled",
    "processing",
    "halted",
    "completed",
    "unchanged",
    "failed",
    "held",
    "paused",
    "pinned",
];
/// The fields by which audiences can be sorted.
pub const AUDIENCE_SORTS: &[&str] = &["name", "members", "built_at"];
/// The states by which syncs can be filtered.
pub const SYNC_STATES: &[&str] = &["active", "paused"];
/// The fields by which syncs can be sorted.
pub const SYNC_SORTS: &[&str] = &["name", "audience", "destination", "delivered_users"];
/// The filter of runs for completed ones of which rows were rejected and none was accepted.
pub const REJECTED_RUNS: &str = "rejected";
/// The states by which runs can be filtered, and [`REJECTED_RUNS`].
pub const RUN_STATES: &[&str] = &["active", "completed", "failed", "held", REJECTED_RUNS];
/// The states by which tasks can be filtered.
pub const TASK_STATES: &[&str] = &["queued", "running", "done", "failed", "held"];
/// The fields by which runs and tasks can be sorted.
pub const WORK_SORTS: &[&str] = &["id", "sync", "audience"];
/// The states by which alerts can be filtered.
pub const ALERT_STATES: &[&str] = &["open", "resolved"];
/// The fields by which alerts can be sorted.
pub const ALERT_SORTS: &[&str] = &["id", "last_at"];

/// The query of a list. An empty text counts as not set, because an empty field of a form is sent as one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListQuery {
    /// Only rows whose names contain this text.
    pub search: Option<String>,
    /// Only rows in this state.
    pub state: Option<String>,
    /// The field to sort by; with `-` in front in descending order.
    pub sort: Option<String>,
    /// The maximum number of rows.
    pub limit: Option<u32>,
    /// The cursor of another page, from its answer.
    pub cursor: Option<String>,
    /// Only objects of this workspace.
    pub workspace: Option<String>,
}

impl ListQuery {
    /// Whether it has neither a search, a state, an order nor a cursor. A workspace leaves the default order.
    pub fn is_unfiltered(&self) -> bool {
        [&self.search, &self.state, &self.sort, &self.cursor]
            .into_iter()
            .all(|text| text.as_deref().is_none_or(|text| text.trim().is_empty()))
    }

    /// The query as part of a URL, such as `?search=buyers&limit=50`; empty if nothing is set.
    pub fn to_url(&self) -> String {
        let limit = self.limit.map(|limit| limit.to_string());
        let fields = [
            ("search", &self.search),
            ("state", &self.state),
            ("sort", &self.sort),
            ("limit", &limit),
            ("cursor", &self.cursor),
            ("workspace", &self.workspace),
        ];
        let mut url = String::new();
        for (name, value) in fields {
            let Some(value) = value.as_deref().filter(|value| !value.is_empty()) else { continue };
            url.push(if url.is_empty() { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            push_escaped(&mut url, value);
        }
        url
    }
}

/// A segment of a path or a value of a query, as [`push_escaped`] appends it.
#[must_use]
pub fn escaped(value: &str) -> String {
    let mut url = String::with_capacity(value.len());
    push_escaped(&mut url, value);
    url
}

/// Appends a segment of a path or a value of a query, with all bytes escaped that have a meaning in URLs.
pub fn push_escaped(url: &mut String, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                url.push(char::from(byte));
            }
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
}

/// Whether a path of the API, which may have a query, has an empty name: none of the paths has.
#[must_use]
pub fn has_empty_name(path: &str) -> bool {
    let path = path.split('?').next().unwrap_or(path);
    path.contains("//") || path.ends_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_name_in_a_path_is_found() {
        for path in ["/v1/audiences/", "/v1/syncs//run", "/v1/why/audience/?limit=1"] {
            assert!(has_empty_name(path), "{path}");
        }
        for path in ["/v1/audiences", "/v1/audiences/a", "/v1/runs?search=a//b/", "/v1/x/%2F/y"] {
            assert!(!has_empty_name(path), "{path}");
        }
    }

    #[test]
    fn a_query_is_escaped_in_a_url() {
        assert_eq!(ListQuery::default().to_url(), "");
        let query = ListQuery {
            search: Some("a b&c=ü".to_owned()),
            state: Some(String::new()),
            sort: Some("-id".to_owned()),
            limit: Some(50),
            cursor: None,
            workspace: Some("acme".to_owned()),
        };
        let url = "?search=a%20b%26c%3D%C3%BC&sort=-id&limit=50&workspace=acme";
        assert_eq!(query.to_url(), url);
    }

    #[test]
    fn empty_fields_of_a_form_do_not_count() {
        let empty = || Some(" ".to_owned());
        let query = ListQuery { search: empty(), state: empty(), ..ListQuery::default() };
        assert!(query.is_unfiltered());
        assert!(!ListQuery { sort: Some("id".to_owned()), ..query }.is_unfiltered());
    }
}
