//! Requests for the rows of users, and what their answers mean. Pure.
//!
//! The key of a row is the user's hash in 16 hexadecimal digits, so that rows are spread evenly. An audience is a
//! column, and a member has one cell in it. Its timestamp is always 0, so that a cell that is written twice is one
//! cell.

use std::collections::HashSet;

use throng_google::TokenError;
use throng_model::{AudienceName, UserHash};
use throng_spec::BigtableSettings;
use tonic::Code;

use super::messages::{
    CellChunk, ColumnRange, DeleteFromColumn, FilterChain, MutateRowsRequest, MutatedRow, Mutation,
    ReadRowsRequest, RowFilter, RowSet, SetCell,
};
use crate::{Change, StoreError};

/// The value of a member's cell.
const VALUE: &[u8] = b"1";

/// Why a call or a row failed. Has no text of the server, which may contain the key of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The connection failed or was closed, for this reason.
    Connection(String),
    /// There is no access token.
    Token(TokenError),
    /// The server's answer.
    Code(Code),
}

impl Failure {
    /// Whether another try may succeed soon.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Connection(_) => true,
            // Its request was tried several times.
            Self::Token(_) => false,
            Self::Code(code) => matches!(
                code,
                Code::Unavailable
                    | Code::DeadlineExceeded
                    | Code::Aborted
                    | Code::ResourceExhausted
            ),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        let code = match failure {
            Failure::Connection(reason) => return Self::Unreachable(reason),
            Failure::Token(error) => return error.into(),
            Failure::Code(code) => code,
        };
        match code {
            Code::Unauthenticated | Code::PermissionDenied => Self::TokenRefused(name(code)),
            Code::NotFound => Self::NoTable,
            Code::ResourceExhausted => Self::Overloaded,
            Code::Unavailable | Code::DeadlineExceeded | Code::Aborted => {
                Self::NotReady(name(code))
            }
            code => Self::Other(name(code)),
        }
    }
}

/// The name of a code as gRPC writes it, such as `NOT_FOUND`.
fn name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// The key of a user's row.
pub(crate) fn row_key(user: UserHash) -> Vec<u8> {
    format!("{:016x}", user.0).into_bytes()
}

/// A request that writes changes, a row for each.
pub(crate) fn write(
    table: &BigtableSettings,
    audience: &AudienceName,
    changes: &[Change],
) -> MutateRowsRequest {
    let (family_name, column_qualifier) = (&table.family, audience.as_str().as_bytes());
    let mutation = |added: bool| {
        let (family_name, column_qualifier) = (family_name.clone(), column_qualifier.to_vec());
        if added {
            let cell = SetCell { family_name, column_qualifier, value: VALUE.to_vec() };
            Mutation { set_cell: Some(cell), delete_from_column: None }
        } else {
            let column = DeleteFromColumn { family_name, column_qualifier };
            Mutation { set_cell: None, delete_from_column: Some(column) }
        }
    };
    let entries = changes.iter().map(|change| MutatedRow {
        row_key: row_key(change.user),
        mutations: vec![mutation(change.added)],
    });
    MutateRowsRequest {
        table_name: table.table_name(),
        entries: entries.collect(),
        app_profile_id: table.app_profile.clone().unwrap_or_default(),
    }
}

/// A request for those of these users' rows that have a cell of an audience. There must be a user: without one, it
/// would ask for all rows.
pub(crate) fn read(
    table: &BigtableSettings,
    audience: &AudienceName,
    users: &[UserHash],
) -> ReadRowsRequest {
    let qualifier = || audience.as_str().as_bytes().to_vec();
    let column = ColumnRange {
        family_name: table.family.clone(),
        start_qualifier_closed: qualifier(),
        end_qualifier_closed: qualifier(),
    };
    let filters = vec![
        RowFilter { column_range_filter: Some(column), ..RowFilter::default() },
        RowFilter { cells_per_column_limit_filter: Some(1), ..RowFilter::default() },
        RowFilter { strip_value_transformer: Some(true), ..RowFilter::default() },
    ];
    ReadRowsRequest {
        table_name: table.table_name(),
        rows: Some(RowSet { row_keys: users.iter().map(|user| row_key(*user)).collect() }),
        filter: Some(RowFilter { chain: Some(FilterChain { filters }), ..RowFilter::default() }),
        app_profile_id: table.app_profile.clone().unwrap_or_default(),
    }
}

/// What an answer says about the rows of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Places of rows in the request, each with its code.
    pub(crate) rows: Vec<(i64, Code)>,
    /// Why the answer is not complete.
    pub(crate) failure: Option<Failure>,
}

/// The changes that are not written yet, and why. `Ok(None)` if all are written.
///
/// # Errors
/// [`Failure`] of a row or of the whole request that another try would not change.
pub(crate) fn unwritten(
    changes: &[Change],
    written: Written,
) -> Result<Option<(Vec<Change>, Failure)>, Failure> {
    let mut done = vec![false; changes.len()];
    let mut failure = None;
    for (index, code) in written.rows {
        let row = usize::try_from(index).ok().and_then(|index| done.get_mut(index));
        match (row, code) {
            // An answer about a row that was not sent.
            (None, _) => return Err(Failure::Code(Code::Internal)),
            (Some(row), Code::Ok) => *row = true,
            (Some(_), code) => {
                let of_row = Failure::Code(code);
                if !of_row.is_temporary() {
                    return Err(of_row);
                }
                failure = Some(of_row);
            }
        }
    }
    let left = changes.iter().zip(&done).filter(|(_, done)| !**done);
    let left: Vec<Change> = left.map(|(change, _)| *change).collect();
    if left.is_empty() {
        return Ok(None);
    }
    match written.failure {
        Some(whole) if !whole.is_temporary() => Err(whole),
        Some(whole) => Ok(Some((left, whole))),
        // An answer that lacks rows without an error is tried again as well.
        None => Ok(Some((left, failure.unwrap_or(Failure::Code(Code::Unavailable))))),
    }
}

/// The keys of rows that are complete.
pub(crate) fn complete_rows(chunks: Vec<CellChunk>) -> HashSet<Vec<u8>> {
    let mut rows = HashSet::new();
    let mut current = Vec::new();
    for chunk in chunks {
        if !chunk.row_key.is_empty() {
            current = chunk.row_key;
        }
        if chunk.reset_row {
            current.clear();
        } else if chunk.commit_row && !current.is_empty() {
            rows.insert(std::mem::take(&mut current));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn changes(users: std::ops::Range<u64>) -> Vec<Change> {
        users.map(|n| Change { user: UserHash(n), added: n % 2 == 0 }).collect()
    }

    fn table() -> BigtableSettings {
        BigtableSettings {
            project: "p".to_owned(),
            instance: "i".to_owned(),
            table: "t".to_owned(),
            family: "f".to_owned(),
            app_profile: None,
            credentials: None,
            token_url: None,
            metadata_url: None,
            endpoint: None,
            insecure: false,
        }
    }

    #[test]
    fn a_member_is_one_cell_in_the_row_of_the_hash() {
        let audience = "buyers".parse().unwrap();
        let users = [
            Change { user: UserHash(0x2a), added: true },
            Change { user: UserHash(1), added: false },
        ];
        let request = write(&table(), &audience, &users);
        assert_eq!(request.table_name, "projects/p/instances/i/tables/t");
        let [added, removed] = request.entries.as_slice() else { panic!() };
        assert_eq!(added.row_key, b"000000000000002a");
        let cell = added.mutations[0].set_cell.as_ref().unwrap();
        assert_eq!((cell.family_name.as_str(), &cell.column_qualifier[..]), ("f", &b"buyers"[..]));
        assert_eq!(
            (removed.row_key.as_slice(), removed.mutations.len()),
            (&b"0000000000000001"[..], 1)
        );
        let column = removed.mutations[0].delete_from_column.as_ref().unwrap();
        assert_eq!(
            (column.family_name.as_str(), &column.column_qualifier[..]),
            ("f", &b"buyers"[..])
        );
        // One byte for the tag and one for the length of each field; the timestamp is the default, 0.
        assert_eq!(cell.encoded_len(), (2 + 1) + (2 + 6) + (2 + 1));
    }

    fn outcome(rows: &[(i64, Code)], failure: Option<Code>) -> Result<Option<Vec<u64>>, Failure> {
        let failure = failure.map(Failure::Code);
        let left = unwritten(&changes(0..3), Written { rows: rows.to_vec(), failure })?;
        Ok(left.map(|(left, _)| left.iter().map(|change| change.user.0).collect()))
    }

    #[test]
    fn rows_that_failed_for_now_are_left() {
        use Code::{Aborted, DeadlineExceeded, Ok as Done, ResourceExhausted, Unavailable};
        assert_eq!(outcome(&[(0, Done), (1, Done), (2, Done)], None), Ok(None));
        let some = [(2, Unavailable), (0, Done), (1, Aborted)];
        assert_eq!(outcome(&some, None), Ok(Some(vec![1, 2])));
        // An answer that breaks off, and one that lacks a row.
        assert_eq!(outcome(&[(1, Done)], Some(DeadlineExceeded)), Ok(Some(vec![0, 2])));
        assert_eq!(outcome(&[(0, Done), (2, Done)], None), Ok(Some(vec![1])));
        assert_eq!(outcome(&[], Some(ResourceExhausted)), Ok(Some(vec![0, 1, 2])));
        // All rows are written, whatever comes after them.
        let all = [(0, Done), (1, Done), (2, Done)];
        assert_eq!(outcome(&all, Some(Code::Internal)), Ok(None));
    }

    #[test]
    fn other_failures_end_the_write() {
        let failure = |code| Err(Failure::Code(code));
        let row = [(0, Code::Ok), (1, Code::Unavailable), (2, Code::NotFound)];
        assert_eq!(outcome(&row, None), failure(Code::NotFound));
        assert_eq!(outcome(&[], Some(Code::PermissionDenied)), failure(Code::PermissionDenied));
        for index in [3, -1] {
            assert_eq!(outcome(&[(index, Code::Ok)], None), failure(Code::Internal));
        }
    }

    #[test]
    fn codes_have_the_names_of_grpc() {
        let codes = [Code::Unavailable, Code::NotFound, Code::ResourceExhausted];
        assert_eq!(codes.map(name), ["UNAVAILABLE", "NOT_FOUND", "RESOURCE_EXHAUSTED"]);
    }

    #[test]
    fn a_row_counts_once_it_is_complete() {
        let chunk = |key: &str, reset_row, commit_row| CellChunk {
            row_key: key.as_bytes().to_vec(),
            reset_row,
            commit_row,
        };
        let chunks = vec![
            chunk("a", false, true),
            // In two chunks.
            chunk("b", false, false),
            chunk("", false, true),
            // Sent again from its start.
            chunk("c", false, false),
            chunk("", true, false),
            chunk("c", false, true),
            chunk("d", false, false),
            chunk("", true, false),
            chunk("", false, true),
            // Cut off.
            chunk("e", false, false),
        ];
        let expected = ["a", "b", "c"].map(|key| key.as_bytes().to_vec());
        assert_eq!(complete_rows(chunks), HashSet::from(expected));
    }
}
