//! Why a call of the store failed.

use std::error::Error;
use std::path::PathBuf;

use throng_model::{Fault, Retry, StorageProblem};

/// Which class of failure the error of a database or its driver is. The implementation of the store
/// decides it, because it knows the driver's codes; callers act on the class alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseErrorClass {
    /// The storage or the connection fails: no space, a lock, a lost server, damage.
    Storage(StorageProblem),
    /// The server refuses this user or its password.
    AccessDenied,
    /// None of these: an error in the statement or in the call.
    Other,
}

/// Why a ledger call failed. It changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The object does not exist.
    #[error("no {what} `{name}` in the ledger")]
    NotFound {
        /// The kind of object: `audience`, `snapshot`, `task`, …
        what: &'static str,
        /// Its name or number.
        name: String,
    },
    /// The object is in a state that does not allow this.
    #[error("{what} `{name}` is {state}, so it cannot be {wanted}")]
    WrongState {
        /// The kind of object.
        what: &'static str,
        /// Its name or number.
        name: String,
        /// The state it is in.
        state: String,
        /// The requested change, as a participle: `approved`, `finished`.
        wanted: &'static str,
    },
    /// The caller's lease has expired and another process has claimed the work. The caller must
    /// stop working on it: what it writes from then on could overwrite the work of the new holder.
    #[error("the lease on {what} `{name}` is lost: another process holds it")]
    LeaseLost {
        /// The kind of object.
        what: &'static str,
        /// Its name or number.
        name: String,
    },
    /// The value to be stored contradicts itself or the ledger: a bug of the caller.
    #[error("the ledger refuses this {what}: {why}")]
    Refused {
        /// The kind of object.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A row of the ledger cannot be decoded: it was written by a newer version, or is damaged.
    #[error("the ledger holds a {what} that this version cannot read: {why}")]
    Unreadable {
        /// The kind of row.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The ledger's file has changed since a node closed it.
    #[error(
        "the ledger {} is damaged: {why}. Restore a backup with `throng restore` \
         (docs/operate/backup.md)",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The database itself failed.
    #[error("the ledger's database failed while {doing}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// Which class of failure it is.
        class: DatabaseErrorClass,
        /// The driver's error.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl LedgerError {
    /// There is no object of this kind and name.
    pub fn not_found(what: &'static str, name: impl ToString) -> Self {
        Self::NotFound { what, name: name.to_string() }
    }

    /// An object is in a state that does not allow the change that was requested, a participle.
    pub fn wrong_state(
        what: &'static str,
        name: impl ToString,
        state: impl Into<String>,
        wanted: &'static str,
    ) -> Self {
        Self::WrongState { what, name: name.to_string(), state: state.into(), wanted }
    }

    /// Another process has the lease on an object.
    pub fn lease_lost(what: &'static str, name: impl ToString) -> Self {
        Self::LeaseLost { what, name: name.to_string() }
    }

    /// A value contradicts itself or the ledger.
    pub fn refused(what: &'static str, why: impl Into<String>) -> Self {
        Self::Refused { what, why: why.into() }
    }

    /// A failure of the file or of the thread that a database needs, which is not an error of its
    /// driver. Its class is that of the first error of the operating system among its causes.
    pub fn of_system(doing: &'static str, error: impl Error + Send + Sync + 'static) -> Self {
        let class = StorageProblem::in_causes(&error)
            .map_or(DatabaseErrorClass::Other, DatabaseErrorClass::Storage);
        Self::Database { doing, class, source: Box::new(error) }
    }

    /// Whether the object was in a state that does not allow the call.
    pub fn is_wrong_state(&self) -> bool {
        matches!(self, Self::WrongState { .. })
    }

    /// Whether the ledger works and has refused this call: the same call for another object may succeed.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NotFound { .. }
            | Self::WrongState { .. }
            | Self::LeaseLost { .. }
            | Self::Refused { .. } => true,
            Self::Unreadable { .. } | Self::Damaged { .. } | Self::Database { .. } => false,
        }
    }

    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::NotFound { .. } | Self::WrongState { .. } => Fault::User,
            Self::LeaseLost { .. } | Self::Database { .. } | Self::Damaged { .. } => {
                Fault::External
            }
            Self::Unreadable { .. } | Self::Refused { .. } => Fault::Internal,
        }
    }

    /// Whether the same call can succeed later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Database { class: DatabaseErrorClass::AccessDenied, .. } => Retry::Never,
            Self::Database { .. } => Retry::Backoff,
            _ => Retry::Never,
        }
    }

    /// The class of the problem, if the database or its disk has one.
    pub fn problem(&self) -> Option<StorageProblem> {
        match self {
            Self::Database { class: DatabaseErrorClass::Storage(problem), .. } => Some(*problem),
            Self::Damaged { .. } => Some(StorageProblem::Damaged),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_class(class: DatabaseErrorClass) -> LedgerError {
        LedgerError::Database { doing: "reading a run", class, source: "closed".into() }
    }

    #[test]
    fn a_lost_database_is_retried_and_a_refused_user_is_not() {
        let lost = of_class(DatabaseErrorClass::Storage(StorageProblem::ConnectionLost));
        assert_eq!(lost.retry(), Retry::Backoff);
        assert_eq!(lost.problem(), Some(StorageProblem::ConnectionLost));
        let denied = of_class(DatabaseErrorClass::AccessDenied);
        assert_eq!((denied.retry(), denied.problem()), (Retry::Never, None));
        let other = of_class(DatabaseErrorClass::Other);
        assert_eq!((other.retry(), other.problem()), (Retry::Backoff, None));
        assert!(![lost, denied, other].iter().any(LedgerError::is_refusal));
        assert!(LedgerError::lease_lost("refresh", 1).is_refusal());
    }

    #[test]
    fn an_error_of_a_file_has_the_class_of_its_cause() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = LedgerError::of_system("copying the ledger", full);
        assert_eq!(error.problem(), Some(StorageProblem::DiskFull));
        assert_eq!(error.to_string(), "the ledger's database failed while copying the ledger");
        let unknown = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert_eq!(LedgerError::of_system("copying the ledger", unknown).problem(), None);
    }
}
