//! What differs between the databases in the text of statements; everything else is the same text.

use std::borrow::Cow;

/// Rows of one statement: with up to 14 columns, below the limits of 32,766 values in SQLite and of 65,535
/// in PostgreSQL's protocol.
pub const ROWS_PER_STATEMENT: usize = 1_000;

/// The SQL of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

impl Dialect {
    /// Appended to the inner SELECT of a claim, so that two concurrent claims lock two different rows
    /// and neither waits. Without it both would wait for the same row, and the second would claim
    /// nothing. SQLite has one writer at a time and needs nothing.
    pub fn lock_rows(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE SKIP LOCKED",
        }
    }

    /// The function that finds the place of a text in another, from 1; 0 if it is not there.
    pub fn place_function(self) -> &'static str {
        match self {
            Self::Sqlite => "instr",
            Self::Postgres => "strpos",
        }
    }

    /// A query of the texts in a JSON array: what is before and after the array. An array is one value, however many
    /// texts it has.
    pub fn texts_of_json(self) -> (&'static str, &'static str) {
        match self {
            Self::Sqlite => ("SELECT value FROM json_each(", ")"),
            Self::Postgres => ("SELECT json_array_elements_text(CAST(", " AS json))"),
        }
    }

    /// The place of a value, from 1, in a statement with many values. SQLite takes numbers too, but
    /// compares each of them with all earlier ones when it parses the statement.
    pub fn placeholder(self, number: usize) -> Cow<'static, str> {
        match self {
            Self::Sqlite => "?".into(),
            Self::Postgres => format!("${number}").into(),
        }
    }
}
