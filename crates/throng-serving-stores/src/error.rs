//! Why a write or a check of a serving store failed.

use throng_google::TokenError;
use throng_membership::MembershipError;
use throng_model::Retry;
use throng_refresh::RefreshError;
use throng_spec::SecretError;
use throng_store::LedgerError;

/// Why a store did not do what was asked. Contains no value of the data and no secret. All are tried again: an
/// operator can fix each of them without Throng.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection, or no answer in time.
    #[error(
        "the store cannot be reached ({0}); check its `url` or `endpoint`, that it runs, and the network"
    )]
    Unreachable(String),
    /// The password or the key file cannot be read.
    #[error("the secret of the store cannot be read")]
    Secret(#[from] SecretError),
    /// There is no access token.
    #[error("there is no access token for the store; check `credentials` or `metadata_url`")]
    Token(#[from] TokenError),
    /// The access token is not valid, or its account may not do this.
    #[error(
        "Bigtable refuses the access token ({0}); check `credentials` or `metadata_url`, and that the account has the \
         role Bigtable User (roles/bigtable.user) on the table"
    )]
    TokenRefused(String),
    /// There is no such instance, table, column family or application profile.
    #[error(
        "Bigtable has no such table, column family or application profile; create it, or check `project`, `instance`, \
         `table`, `family` and `app_profile`"
    )]
    NoTable,
    /// The server takes no more requests.
    #[error(
        "Bigtable takes no more requests (RESOURCE_EXHAUSTED); add nodes, or lower `max_writes_per_second`"
    )]
    Overloaded,
    /// The user or the password is wrong, or the user may not do this.
    #[error(
        "the store refuses the user or the password ({0}); check `username` and `password`, and that the user may \
         run SADD, SREM, SISMEMBER and SELECT on the keys of the prefix"
    )]
    AccessDenied(String),
    /// The server is a replica.
    #[error("the store is a read-only replica; write the url of its primary")]
    ReadOnly,
    /// The server has reached its limit of memory.
    #[error("the store has no memory left; raise its maxmemory, or write fewer audiences to it")]
    OutOfMemory,
    /// The server cannot serve at this time.
    #[error("the store is not ready ({0})")]
    NotReady(String),
    /// The server is a node of a cluster, and another node has the key.
    #[error(
        "the store is a node of a Redis Cluster ({0}), which is not supported; use a server without cluster mode"
    )]
    Cluster(String),
    /// A key has a value of another type.
    #[error(
        "a key of the prefix has a value that is not a set; use a prefix that nothing else uses"
    )]
    OtherType,
    /// Anything else.
    #[error("the store returned an error ({0})")]
    Other(String),
}

impl StoreError {
    /// Whether other requests fail too.
    pub(crate) fn concerns_the_store(&self) -> bool {
        !matches!(self, Self::OtherType | Self::Other(_))
    }
}

/// Why a write or a check was not completed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ledger, or the lease was lost to another process.
    #[error("the ledger returned an error")]
    Ledger(#[from] LedgerError),
    /// A snapshot or the dictionary cannot be read.
    #[error("a snapshot or the dictionary cannot be read")]
    Members(#[from] RefreshError),
    /// A snapshot was deleted.
    #[error("version {0} is no longer kept")]
    NoSnapshot(u64),
}

impl From<MembershipError> for WriteError {
    fn from(error: MembershipError) -> Self {
        Self::Members(error.into())
    }
}

impl WriteError {
    /// Whether a snapshot of the write is lost, so that no try of the same write can succeed.
    pub(crate) fn lost_snapshot(&self) -> bool {
        match self {
            Self::NoSnapshot(_) => true,
            Self::Members(error) => error.retry() == Retry::Never,
            Self::Store(_) | Self::Ledger(_) => false,
        }
    }

    /// Whether other audiences of the store cannot be written either.
    pub(crate) fn concerns_the_store(&self) -> bool {
        matches!(self, Self::Store(error) if error.concerns_the_store())
    }

    /// Whether another process has the write.
    pub(crate) fn lost_lease(&self) -> bool {
        matches!(self, Self::Ledger(LedgerError::LeaseLost { .. }))
    }
}
