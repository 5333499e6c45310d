//! Errors of the runtime.

use throng_log::LogError;
use throng_model::Retry;
use throng_objects::ObjectsError;
use throng_store::LedgerError;

use crate::{SealedError, SendClass, SendError};

/// An error of reading or writing delivered state.
#[derive(Debug, thiserror::Error)]
pub enum DeliveredError {
    /// The ledger cannot be read or written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A plan or a delivered state cannot be downloaded or uploaded.
    #[error("cannot download or upload an object of identifiers")]
    Objects(#[from] ObjectsError),
    /// A plan or a delivered state cannot be decrypted or written.
    #[error(transparent)]
    Sealed(#[from] SealedError),
    /// The encryption key is not available. Says why.
    #[error("{0}")]
    Key(String),
    /// A blocking thread was cancelled or panicked.
    #[error("the work was interrupted")]
    Interrupted,
}

/// An error of enqueueing tasks. It is retried.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// The ledger cannot be read or written.
    #[error("cannot read or write the ledger")]
    Ledger(#[from] LedgerError),
    /// The queue cannot be read or written.
    #[error("cannot read or write the queue")]
    Queue(#[from] LogError),
    /// A task cannot be encoded.
    #[error("cannot encode a task as JSON")]
    Json(#[from] serde_json::Error),
}

/// An input of a run is not available. It may become available later.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("cannot download a snapshot")]
    Objects(#[from] ObjectsError),
    #[error(transparent)]
    Delivered(#[from] DeliveredError),
    /// An account or the identifiers are not available.
    #[error("{0}")]
    Unavailable(SendError),
}

// Not derived: a `SendError` is not a source, its message is complete.
impl From<SendError> for InputError {
    fn from(error: SendError) -> Self {
        Self::Unavailable(error)
    }
}

impl InputError {
    /// The error as a failure of the task or the check.
    ///
    /// # Errors
    /// An error of the ledger is not a failure of the task: it is returned as it is.
    pub(super) fn into_send_error(self) -> Result<SendError, LedgerError> {
        match self {
            Self::Ledger(error) | Self::Delivered(DeliveredError::Ledger(error)) => Err(error),
            Self::Objects(error) => {
                let message = format!("cannot download a snapshot: {error}");
                Ok(SendError::local(SendClass::Retry, message))
            }
            Self::Delivered(error) => Ok(plan_error(&error)),
            Self::Unavailable(error) => Ok(error),
        }
    }
}

fn plan_error(error: &DeliveredError) -> SendError {
    let class = match error {
        // Another node, of the version that wrote the file, may take the task next time.
        DeliveredError::Sealed(SealedError::Io { .. } | SealedError::Format { .. })
        | DeliveredError::Interrupted => SendClass::Retry,
        DeliveredError::Objects(error) if error.retry() != Retry::Never => SendClass::Retry,
        _ => SendClass::Stop,
    };
    let text = throng_model::with_causes(error);
    SendError::local(class, format!("the rows of the run cannot be read: {text}"))
}
