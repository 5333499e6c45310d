//! Why an operation was not carried out.

use std::error::Error;

use throng_store::LedgerError;

/// The result of an operation.
pub(crate) type Result<T, E = OperationError> = std::result::Result<T, E>;

/// Why an operation was not carried out, or not completely.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// A parameter is invalid.
    #[error("{message}")]
    Invalid {
        /// Which parameter, and why.
        message: String,
        /// What to send instead.
        help: Option<String>,
    },
    /// The object does not exist.
    #[error("{message}")]
    NotFound {
        /// Which object.
        message: String,
        /// Where to find its name.
        help: Option<String>,
    },
    /// The state of the object does not allow the operation.
    #[error("{message}")]
    WrongState {
        /// The object and its state.
        message: String,
        /// How to change the state.
        help: Option<String>,
    },
    /// A file or the object storage is unavailable; a retry may succeed.
    #[error("{message}")]
    Unavailable {
        /// What is unavailable.
        message: String,
    },
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Another component.
    #[error("a component failed during the operation")]
    Component(#[source] Box<dyn Error + Send + Sync>),
}

impl OperationError {
    /// A parameter is invalid.
    pub(crate) fn invalid(message: String) -> Self {
        Self::Invalid { message, help: None }
    }

    /// The object does not exist.
    pub(crate) fn not_found(message: String) -> Self {
        Self::NotFound { message, help: None }
    }

    /// The state of the object does not allow the operation.
    pub(crate) fn wrong_state(message: String) -> Self {
        Self::WrongState { message, help: None }
    }

    /// Adds a hint how to fix the error, if the class of the error has one.
    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        if let Self::Invalid { help, .. }
        | Self::NotFound { help, .. }
        | Self::WrongState { help, .. } = &mut self
        {
            *help = Some(text.into());
        }
        self
    }
}
