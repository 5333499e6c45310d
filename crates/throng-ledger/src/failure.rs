//! Failures inside a backend, and what both backends refuse alike.

use crate::LedgerError;

/// A failure before it is known what was being done.
pub(crate) enum Failure {
    Ledger(LedgerError),
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
    pub(crate) fn while_doing(self, doing: &'static str) -> LedgerError {
        match self {
            Self::Ledger(error) => error,
            Self::Driver(error) => LedgerError::Database { doing, source: Box::new(error) },
        }
    }
}

pub(crate) type Tried<T> = std::result::Result<T, Failure>;

/// Refuses a ledger that a newer version wrote: what it means is not known here.
pub(crate) fn check_schema(found: i64, migrations: &[(i64, &str)]) -> Tried<()> {
    let known = migrations.last().map_or(0, |(version, _)| *version);
    if found <= known {
        return Ok(());
    }
    Err(Failure::Ledger(LedgerError::Unreadable {
        what: "schema",
        why: format!(
            "a newer version of throng wrote it (schema {found}, this version knows up to \
             {known}); upgrade throng, or go back to a copy from before that upgrade"
        ),
    }))
}
