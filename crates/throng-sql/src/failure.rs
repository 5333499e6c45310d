//! Failures inside a backend, and their classes.

use sqlx::postgres::PgDatabaseError;
use sqlx::sqlite::SqliteError;
use throng_model::StorageProblem;
use throng_store::{DatabaseErrorClass, LedgerError};

/// A failure without its context: [`Failure::while_doing`] adds what was being done.
pub enum Failure {
    /// An error that has its context.
    Ledger(LedgerError),
    /// An error of the driver.
    Driver(sqlx::Error),
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(error)
    }
}

impl Failure {
    /// The error that a caller sees.
    pub fn while_doing(self, doing: &'static str) -> LedgerError {
        match self {
            Self::Ledger(error) => error,
            Self::Driver(error) => {
                LedgerError::Database { doing, class: error_class(&error), source: Box::new(error) }
            }
        }
    }

    /// Whether the storage failed. The state of the connection is unknown then, so it is not
    /// reused.
    pub(crate) fn is_storage_failure(&self) -> bool {
        match self {
            Self::Ledger(_) => false,
            Self::Driver(error) => storage_problem(error).is_some(),
        }
    }
}

/// The result of statements inside a call of the ledger.
pub type DbResult<T> = std::result::Result<T, Failure>;

/// The class of a driver's error, as callers of the store see it.
fn error_class(error: &sqlx::Error) -> DatabaseErrorClass {
    match storage_problem(error) {
        Some(problem) => DatabaseErrorClass::Storage(problem),
        None if is_access_denied(error) => DatabaseErrorClass::AccessDenied,
        None => DatabaseErrorClass::Other,
    }
}

/// Whether the server refuses this user: codes of class 28 of
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn is_access_denied(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code.starts_with("28"))
}

/// The class of a driver's error; `None` if the storage is not the cause.
pub(crate) fn storage_problem(error: &sqlx::Error) -> Option<StorageProblem> {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code()?;
            if error.try_downcast_ref::<SqliteError>().is_some() {
                sqlite_problem(code.parse().ok()?)
            } else if error.try_downcast_ref::<PgDatabaseError>().is_some() {
                postgres_problem(&code)
            } else {
                None
            }
        }
        sqlx::Error::Io(error) => {
            Some(StorageProblem::of_io(error).unwrap_or(StorageProblem::ConnectionLost))
        }
        // A pool that cannot connect keeps trying until its timeout.
        sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Protocol(_) => Some(StorageProblem::ConnectionLost),
        _ => None,
    }
}

/// By <https://sqlite.org/rescode.html>; the low byte of an extended code is the primary one.
fn sqlite_problem(code: i32) -> Option<StorageProblem> {
    Some(match code & 0xff {
        // SQLITE_BUSY, SQLITE_LOCKED
        5 | 6 => StorageProblem::Busy,
        // SQLITE_READONLY
        8 => StorageProblem::ReadOnly,
        // SQLITE_IOERR, SQLITE_CANTOPEN
        10 | 14 => StorageProblem::Io,
        // SQLITE_CORRUPT, SQLITE_NOTADB
        11 | 26 => StorageProblem::Damaged,
        // SQLITE_FULL
        13 => StorageProblem::DiskFull,
        _ => return None,
    })
}

/// By <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn postgres_problem(code: &str) -> Option<StorageProblem> {
    Some(match code {
        "25006" => StorageProblem::ReadOnly,
        "53100" => StorageProblem::DiskFull,
        "53300" => StorageProblem::TooManyConnections,
        // lock_not_available, serialization_failure, deadlock_detected, out_of_memory
        "55P03" | "40001" | "40P01" | "53200" => StorageProblem::Busy,
        // admin_shutdown, crash_shutdown, cannot_connect_now, database_dropped,
        // idle_session_timeout, idle_in_transaction_session_timeout, invalid_catalog_name: there is
        // no such database
        "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03" | "3D000" => {
            StorageProblem::ConnectionLost
        }
        "58030" => StorageProblem::Io,
        // data_corrupted, index_corrupted
        "XX001" | "XX002" => StorageProblem::Damaged,
        // The connection fails, or the server refuses this user.
        _ if code.starts_with("08") || code.starts_with("28") => StorageProblem::ConnectionLost,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_gets_the_class_of_an_error() {
        let error = Failure::from(sqlx::Error::PoolTimedOut).while_doing("reading a run");
        assert_eq!(error.problem(), Some(StorageProblem::ConnectionLost));
        let error = Failure::from(sqlx::Error::RowNotFound).while_doing("reading a run");
        assert!(
            matches!(error, LedgerError::Database { class: DatabaseErrorClass::Other, .. }),
            "{error:?}"
        );
    }

    #[test]
    fn codes_have_their_classes() {
        for (code, expected) in [
            (13, Some(StorageProblem::DiskFull)),
            // SQLITE_IOERR_WRITE, SQLITE_IOERR_FSYNC
            (778, Some(StorageProblem::Io)),
            (1034, Some(StorageProblem::Io)),
            // SQLITE_BUSY_SNAPSHOT
            (517, Some(StorageProblem::Busy)),
            // SQLITE_READONLY_DBMOVED
            (1032, Some(StorageProblem::ReadOnly)),
            (267, Some(StorageProblem::Damaged)),
            // SQLITE_CONSTRAINT_UNIQUE
            (2067, None),
        ] {
            assert_eq!(sqlite_problem(code), expected, "{code}");
        }
        for (code, expected) in [
            ("53100", Some(StorageProblem::DiskFull)),
            ("25006", Some(StorageProblem::ReadOnly)),
            ("53300", Some(StorageProblem::TooManyConnections)),
            ("57P03", Some(StorageProblem::ConnectionLost)),
            ("08006", Some(StorageProblem::ConnectionLost)),
            ("28P01", Some(StorageProblem::ConnectionLost)),
            ("3D000", Some(StorageProblem::ConnectionLost)),
            ("XX001", Some(StorageProblem::Damaged)),
            ("23505", None),
        ] {
            assert_eq!(postgres_problem(code), expected, "{code}");
        }
    }
}
