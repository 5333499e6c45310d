//! How values are written to and read from columns, the same in every database: integers are
//! BIGINT, enums their names, maps and lists JSON text.

use std::fmt::Display;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Postgres, Row as _, Sqlite, Type};
use throng_model::Timestamp;
use throng_store::{LedgerError, Result, StoredEnum};

/// A value as JSON text.
///
/// # Errors
/// [`LedgerError::Refused`] if it cannot be written as JSON.
pub fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|e| LedgerError::refused("value", format!("it cannot be written as JSON: {e}")))
}

/// A row of either database.
pub struct DbRow(Inner);

enum Inner {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// What a column has: BIGINT or TEXT, which may be NULL.
pub trait Cell:
    Type<Sqlite> + for<'r> Decode<'r, Sqlite> + Type<Postgres> + for<'r> Decode<'r, Postgres>
{
}

impl<T> Cell for T where
    T: Type<Sqlite> + for<'r> Decode<'r, Sqlite> + Type<Postgres> + for<'r> Decode<'r, Postgres>
{
}

impl DbRow {
    pub(crate) fn of_sqlite(row: SqliteRow) -> Self {
        Self(Inner::Sqlite(row))
    }

    pub(crate) fn of_postgres(row: PgRow) -> Self {
        Self(Inner::Postgres(row))
    }

    fn get<T: Cell>(&self, column: &str) -> sqlx::Result<T> {
        match &self.0 {
            Inner::Sqlite(row) => row.try_get(column),
            Inner::Postgres(row) => row.try_get(column),
        }
    }

    /// The first column.
    pub(crate) fn first<T: Cell>(&self) -> sqlx::Result<T> {
        match &self.0 {
            Inner::Sqlite(row) => row.try_get(0),
            Inner::Postgres(row) => row.try_get(0),
        }
    }
}

/// Reads the cells of one row, by the names of the columns. A cell that cannot be decoded is
/// [`LedgerError::Unreadable`].
pub struct Cells<'r> {
    row: &'r DbRow,
    what: &'static str,
}

impl<'r> Cells<'r> {
    /// `what` is the kind of row, for errors.
    pub fn new(row: &'r DbRow, what: &'static str) -> Self {
        Self { row, what }
    }

    fn unreadable(&self, column: &str, why: impl Display) -> LedgerError {
        LedgerError::Unreadable { what: self.what, why: format!("column {column}: {why}") }
    }

    fn raw<T: Cell>(&self, column: &'static str) -> Result<T> {
        self.row.get(column).map_err(|e| self.unreadable(column, e))
    }

    /// An integer.
    pub fn int(&self, column: &'static str) -> Result<i64> {
        self.raw(column)
    }

    /// An integer, or `None` for NULL.
    pub fn maybe_int(&self, column: &'static str) -> Result<Option<i64>> {
        self.raw(column)
    }

    /// An integer of a narrower type.
    pub fn number<N: TryFrom<i64>>(&self, column: &'static str) -> Result<N>
    where
        N::Error: Display,
    {
        N::try_from(self.int(column)?).map_err(|e| self.unreadable(column, e))
    }

    /// An integer of a narrower type, or `None` for NULL.
    pub fn maybe_number<N: TryFrom<i64>>(&self, column: &'static str) -> Result<Option<N>>
    where
        N::Error: Display,
    {
        self.maybe_int(column)?
            .map(|n| N::try_from(n).map_err(|e| self.unreadable(column, e)))
            .transpose()
    }

    /// A time.
    pub fn time(&self, column: &'static str) -> Result<Timestamp> {
        self.int(column).map(Timestamp)
    }

    /// A time, or `None` for NULL.
    pub fn maybe_time(&self, column: &'static str) -> Result<Option<Timestamp>> {
        Ok(self.maybe_int(column)?.map(Timestamp))
    }

    /// A text.
    pub fn text(&self, column: &'static str) -> Result<String> {
        self.raw(column)
    }

    /// A text, or `None` for NULL.
    pub fn maybe_text(&self, column: &'static str) -> Result<Option<String>> {
        self.raw(column)
    }

    /// A name: text that its type validates.
    pub fn name<N: FromStr>(&self, column: &'static str) -> Result<N>
    where
        N::Err: Display,
    {
        self.text(column)?.parse().map_err(|e| self.unreadable(column, e))
    }

    /// A variant of an enum.
    pub fn variant<E: StoredEnum>(&self, column: &'static str) -> Result<E> {
        let name = self.text(column)?;
        let variant = E::of_stored_name(&name);
        variant.ok_or_else(|| self.unreadable(column, format_args!("`{name}` is not known")))
    }

    /// A flag, which is stored as 0 or 1.
    pub fn flag(&self, column: &'static str) -> Result<bool> {
        Ok(self.int(column)? != 0)
    }

    /// A value that is stored as JSON.
    pub fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T> {
        serde_json::from_str(&self.text(column)?).map_err(|e| self.unreadable(column, e))
    }

    /// A value that is stored as JSON, or `None` for NULL.
    pub fn maybe_json<T: DeserializeOwned>(&self, column: &'static str) -> Result<Option<T>> {
        self.maybe_text(column)?
            .map(|text| serde_json::from_str(&text).map_err(|e| self.unreadable(column, e)))
            .transpose()
    }
}
