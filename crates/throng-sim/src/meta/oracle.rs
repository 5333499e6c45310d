//! The exact state of the platform, for tests: the members of each audience, and counts of calls.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use throng_model::to_hex;

use super::audience::Audience;

/// An audience as the oracle shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SimulatedAudience {
    /// The platform's id.
    pub id: String,
    /// The ad account, without `act_`.
    pub account: String,
    /// The name.
    pub name: String,
    /// The exact number of members.
    pub members: u64,
}

impl SimulatedAudience {
    pub(super) fn of(audience: &Audience) -> Self {
        Self {
            id: audience.id.to_string(),
            account: audience.account.clone(),
            name: audience.name.clone(),
            members: audience.members.len(),
        }
    }
}

/// A member: its match keys by name, as they were sent. Keys without a value are absent.
pub type MemberRow = BTreeMap<&'static str, String>;

/// The identity of a member: its `EXTERN_ID` if it has one, else the value of its only key, else `KEY=value`
/// for each key, separated by spaces.
pub fn member_identity(row: &MemberRow) -> String {
    if let Some(id) = row.get("EXTERN_ID") {
        return id.clone();
    }
    match row.len() {
        1 => row.values().cloned().collect(),
        _ => row.iter().map(|(key, text)| format!("{key}={text}")).collect::<Vec<_>>().join(" "),
    }
}

pub(super) fn rows_of(audience: &Audience) -> Vec<MemberRow> {
    let mut rows: Vec<MemberRow> =
        audience.members.iter().map(|row| row.texts().collect()).collect();
    rows.sort_unstable();
    rows
}

pub(super) fn identities_of(audience: &Audience) -> Vec<String> {
    let rows = audience.members.iter().map(|row| row.texts().collect());
    let mut identities: Vec<String> = rows.map(|row: MemberRow| member_identity(&row)).collect();
    identities.sort_unstable();
    identities
}

/// SHA-256 in hexadecimal of the sorted identities, each followed by a line feed.
pub fn digest_of(sorted_identities: &[String]) -> String {
    let mut hasher = Sha256::new();
    for identity in sorted_identities {
        hasher.update(identity.as_bytes());
        hasher.update(b"\n");
    }
    to_hex(&hasher.finalize())
}

/// The counts of one kind of call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CallCounts {
    /// All calls, including failed ones.
    pub requests: u64,
    /// Calls that took effect, including those without a response.
    pub applied: u64,
    /// Calls with a fault other than a delay.
    pub faults: u64,
    /// Rows of all calls.
    pub rows: u64,
    /// The largest number of rows of a call.
    pub max_rows: u64,
    /// Errors by `error.code`.
    pub errors: BTreeMap<i64, u64>,
}

/// All calls since the start or the last reset. Holds no row and no token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RequestCounts {
    /// By kind, such as `add_users`. Requests that are not a call are counted as `refused` (version, token,
    /// path), `url_too_long` or `body_too_large`.
    pub calls: BTreeMap<String, CallCounts>,
    /// Calls that took effect, by path without version and query.
    pub applied_by_path: BTreeMap<String, u64>,
    /// Cells that should be hashes and are not. Any value but 0 means that a client has sent personal data
    /// unhashed.
    pub unhashed_cells: u64,
}

/// One request, for the counts.
#[derive(Debug)]
pub(super) struct ServedRequest {
    kind: &'static str,
    path: Option<String>,
    rows: u64,
    applied: bool,
    fault: bool,
    error: Option<i64>,
}

impl ServedRequest {
    pub(super) fn call(kind: &'static str, path: &str, rows: u64) -> Self {
        let path = path.splitn(3, '/').nth(2).map(|rest| format!("/{rest}"));
        Self { kind, path, rows, applied: false, fault: false, error: None }
    }

    pub(super) fn rejected(kind: &'static str) -> Self {
        Self { kind, path: None, rows: 0, applied: false, fault: false, error: None }
    }

    pub(super) fn applied(mut self) -> Self {
        self.applied = true;
        self
    }

    pub(super) fn with_fault(mut self) -> Self {
        self.fault = true;
        self
    }

    pub(super) fn with_error(mut self, code: i64) -> Self {
        self.error = Some(code);
        self
    }
}

impl RequestCounts {
    pub(super) fn record(&mut self, served: ServedRequest) {
        let counts = self.calls.entry(served.kind.to_owned()).or_default();
        counts.requests += 1;
        counts.applied += u64::from(served.applied);
        counts.faults += u64::from(served.fault);
        counts.rows += served.rows;
        counts.max_rows = counts.max_rows.max(served.rows);
        if let Some(code) = served.error {
            *counts.errors.entry(code).or_default() += 1;
        }
        if let (true, Some(path)) = (served.applied, served.path) {
            *self.applied_by_path.entry(path).or_default() += 1;
        }
    }
}

/// `/sim/oracle/audiences/{id}/members`.
pub(super) fn members_json(audience: &Audience, with_rows: bool) -> Value {
    let identities = identities_of(audience);
    let mut members = serde_json::json!({
        "id": audience.id.to_string(),
        "name": audience.name,
        "count": audience.members.len(),
        "digest": digest_of(&identities),
    });
    if with_rows {
        members["rows"] = serde_json::json!(rows_of(audience));
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_as_short_as_possible() {
        let row = |cells: &[(&'static str, &str)]| -> MemberRow {
            cells.iter().map(|(key, text)| (*key, (*text).to_owned())).collect()
        };
        assert_eq!(member_identity(&row(&[("EXTERN_ID", "7"), ("EMAIL", "h")])), "7");
        assert_eq!(member_identity(&row(&[("EMAIL", "h")])), "h");
        assert_eq!(member_identity(&row(&[("PHONE", "p"), ("EMAIL", "h")])), "EMAIL=h PHONE=p");
    }

    #[test]
    fn the_digest_equals_that_of_sha256sum() {
        // printf 'a\nb\n' | sha256sum
        assert_eq!(
            digest_of(&["a".to_owned(), "b".to_owned()]),
            "911169ddaaf146aff539f58c26c489af3b892dff0fe283c1c264c65ae5aa59a2"
        );
    }
}
