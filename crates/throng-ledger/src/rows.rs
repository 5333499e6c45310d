//! How values are written to and read from columns, the same in every database: integers are
//! BIGINT, enums their names, maps and lists JSON text.

use std::fmt::Display;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::{ColumnIndex, Database, Decode, Row, Type};
use throng_model::{SyncMode, Timestamp};

use crate::{
    AlertEventKind, AlertKind, BatchState, DeliveryState, HoldCause, LedgerError, Operation,
    PartKind, PartState, RefreshState, RefreshTrigger, RemovalRule, Result, RunState,
    SnapshotState, TaskState, Verdict,
};

/// An enum that is stored as the name of its variant.
pub(crate) trait SqlEnum: Sized + Copy + 'static {
    /// Every variant with its name in the database.
    const VARIANTS: &'static [(Self, &'static str)];

    /// The name of a variant in the database.
    fn sql_name(self) -> &'static str;
}

macro_rules! sql_enums {
    ($($type:ident { $($value:ident = $name:literal),+ $(,)? })+) => {$(
        impl SqlEnum for $type {
            const VARIANTS: &'static [(Self, &'static str)] = &[$(($type::$value, $name)),+];

            fn sql_name(self) -> &'static str {
                match self { $($type::$value => $name),+ }
            }
        }
    )+};
}

sql_enums! {
    RefreshState {
        Scheduled = "scheduled", Processing = "processing", Halted = "halted",
        Completed = "completed", Failed = "failed", Held = "held",
    }
    RefreshTrigger { Schedule = "schedule", Manual = "manual", Apply = "apply" }
    PartKind { Scan = "scan", Shards = "shards" }
    PartState { Pending = "pending", Done = "done" }
    SnapshotState { Held = "held", Published = "published", Rejected = "rejected" }
    SyncMode { Mirror = "mirror", Add = "add", Replace = "replace" }
    Operation { Add = "add", Remove = "remove", Replace = "replace" }
    RunState { Active = "active", Completed = "completed", Failed = "failed", Held = "held" }
    HoldCause { Guard = "guard", Adoption = "adoption", Account = "account" }
    TaskState {
        Queued = "queued", Running = "running", Done = "done", Failed = "failed", Held = "held",
    }
    BatchState { Pending = "pending", Done = "done" }
    Verdict { Passed = "passed", Suspect = "suspect", Failed = "failed" }
    RemovalRule { Empty = "empty", Delete = "delete" }
    AlertEventKind { Raised = "raised", Resolved = "resolved" }
    DeliveryState { Delivered = "delivered", Expired = "expired", Refused = "refused" }
}

/// A kind of alert is stored by the name that APIs and metrics use.
impl SqlEnum for AlertKind {
    const VARIANTS: &'static [(Self, &'static str)] = &alert_kinds();

    fn sql_name(self) -> &'static str {
        self.name()
    }
}

const fn alert_kinds() -> [(AlertKind, &'static str); AlertKind::ALL.len()] {
    let mut kinds = [(AlertKind::ALL[0], ""); AlertKind::ALL.len()];
    let mut n = 0;
    while n < kinds.len() {
        kinds[n] = (AlertKind::ALL[n], AlertKind::ALL[n].name());
        n += 1;
    }
    kinds
}

/// A count as a column value. Counts beyond 2^63 do not occur; one would be clamped and then
/// violate a CHECK constraint.
pub(crate) fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A value as JSON text.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| LedgerError::Refused {
        what: "value",
        why: format!("it cannot be written as JSON: {e}"),
    })
}

/// Reads the cells of one row. A cell that cannot be decoded is [`LedgerError::Unreadable`].
pub(crate) struct Cells<'r, R> {
    row: &'r R,
    what: &'static str,
}

impl<'r, R> Cells<'r, R>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    /// `what` is the kind of row, for errors.
    pub(crate) fn new(row: &'r R, what: &'static str) -> Self {
        Self { row, what }
    }

    fn unreadable(&self, column: &str, why: impl Display) -> LedgerError {
        LedgerError::Unreadable { what: self.what, why: format!("column {column}: {why}") }
    }

    fn raw<T>(&self, column: &'static str) -> Result<T>
    where
        T: Decode<'r, R::Database> + Type<R::Database>,
        R::Database: Database,
    {
        self.row.try_get(column).map_err(|e| self.unreadable(column, e))
    }

    pub(crate) fn int(&self, column: &'static str) -> Result<i64> {
        self.raw(column)
    }

    pub(crate) fn maybe_int(&self, column: &'static str) -> Result<Option<i64>> {
        self.raw(column)
    }

    /// An integer of a narrower type.
    pub(crate) fn number<N: TryFrom<i64>>(&self, column: &'static str) -> Result<N>
    where
        N::Error: Display,
    {
        N::try_from(self.int(column)?).map_err(|e| self.unreadable(column, e))
    }

    pub(crate) fn maybe_number<N: TryFrom<i64>>(&self, column: &'static str) -> Result<Option<N>>
    where
        N::Error: Display,
    {
        self.maybe_int(column)?
            .map(|n| N::try_from(n).map_err(|e| self.unreadable(column, e)))
            .transpose()
    }

    pub(crate) fn time(&self, column: &'static str) -> Result<Timestamp> {
        self.int(column).map(Timestamp)
    }

    pub(crate) fn maybe_time(&self, column: &'static str) -> Result<Option<Timestamp>> {
        Ok(self.maybe_int(column)?.map(Timestamp))
    }

    pub(crate) fn text(&self, column: &'static str) -> Result<String> {
        self.raw(column)
    }

    pub(crate) fn maybe_text(&self, column: &'static str) -> Result<Option<String>> {
        self.raw(column)
    }

    /// A name: text that its type validates.
    pub(crate) fn name<N: FromStr>(&self, column: &'static str) -> Result<N>
    where
        N::Err: Display,
    {
        self.text(column)?.parse().map_err(|e| self.unreadable(column, e))
    }

    /// A variant of an enum.
    pub(crate) fn variant<E: SqlEnum>(&self, column: &'static str) -> Result<E> {
        let text = self.text(column)?;
        E::VARIANTS
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(value, _)| *value)
            .ok_or_else(|| self.unreadable(column, format_args!("`{text}` is not known")))
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T> {
        serde_json::from_str(&self.text(column)?).map_err(|e| self.unreadable(column, e))
    }

    pub(crate) fn maybe_json<T: DeserializeOwned>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>> {
        self.maybe_text(column)?
            .map(|text| serde_json::from_str(&text).map_err(|e| self.unreadable(column, e)))
            .transpose()
    }
}
