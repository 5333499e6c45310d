//! Why a node does not start.

use std::net::SocketAddr;

use throng_access::{AccessError, LimitsError};
use throng_aggregator::BudgetsError;
use throng_apply::ApplyError;
use throng_backends::BackendError;
use throng_http::TlsError;
use throng_model::Retry;
use throng_store::LedgerError;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The operating system refused something.
    #[error("cannot {doing} {what}")]
    Io {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// With which file, folder or address.
        what: String,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// Tokens would be sent over the network unencrypted.
    #[error(
        "the node would listen on {listen}, which others can reach, without encryption: set node.tls in the spec, or node.insecure: true if the network is trusted or a proxy terminates TLS, or listen on 127.0.0.1"
    )]
    Unencrypted {
        /// The address.
        listen: SocketAddr,
    },
    /// A backend, or the data directory.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The certificate of node.tls cannot be used.
    #[error("cannot serve HTTPS")]
    Tls(#[from] TlsError),
    /// Tokens and sessions.
    #[error("cannot set up access to the node")]
    Access(#[from] AccessError),
    /// The ledger.
    #[error("cannot use the ledger")]
    Ledger(#[from] LedgerError),
    /// The node does not run every role, and a backend is not shared with other nodes.
    #[error(
        "a node can leave roles to other nodes only if they share ledger, log and objects: set \
         ledger: postgres, log: kafka and objects: s3 or gcs, or give the node every role"
    )]
    RolesNeedSharedBackends,
    /// The ledger has no spec to join.
    #[error("the ledger has no applied spec yet: start one node without --join first")]
    NothingToJoin,
    /// The budget states cannot be restored.
    #[error("cannot restore the budgets")]
    Budgets(#[from] BudgetsError),
    /// Snapshots or dictionaries cannot be mapped.
    #[error("cannot map the published audiences")]
    Membership(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The limits of specs that arrive over HTTP are invalid.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// The spec cannot be stored or loaded, or its sources cannot be opened.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl NodeError {
    /// Whether a retry can succeed without a fix by anybody.
    pub(super) fn is_retryable(&self) -> bool {
        let retry = match self {
            Self::Backend(error) => error.retry(),
            Self::Apply(error) => error.retry(),
            Self::Ledger(error) | Self::Access(AccessError::Ledger(error)) => error.retry(),
            Self::Budgets(BudgetsError::Log(error)) => error.retry(),
            Self::Membership(error) => {
                error.downcast_ref().map_or(Retry::Never, throng_refresh::RefreshError::retry)
            }
            _ => Retry::Never,
        };
        retry != Retry::Never
    }

    pub(super) fn io(
        doing: &'static str,
        what: impl ToString,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.to_string();
        move |source| Self::Io { doing, what, source }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_ledger_that_is_unavailable_is_retried_whoever_reads_it() {
        let lost = || {
            let source = io::Error::from(io::ErrorKind::ConnectionReset);
            LedgerError::of_system("reading the tokens", source)
        };
        assert!(NodeError::Ledger(lost()).is_retryable());
        assert!(NodeError::Access(AccessError::Ledger(lost())).is_retryable());
        assert!(NodeError::Apply(ApplyError::Ledger(lost())).is_retryable());
        assert!(!NodeError::Access(AccessError::NoAdmin).is_retryable());
    }
}
