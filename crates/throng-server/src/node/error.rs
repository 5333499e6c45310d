//! Why a node does not start.

use std::net::SocketAddr;
use std::path::PathBuf;

use throng_aggregator::BudgetsError;
use throng_http::TlsError;
use throng_lake::LakeError;
use throng_log::LogError;
use throng_model::Retry;
use throng_objects::ObjectsError;
use throng_spec::SecretError;
use throng_store::LedgerError;

use crate::access::AccessError;
use crate::limits::LimitsError;

use super::StampError;

/// Why a node did not start, or a spec was not applied.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Another node uses the data directory.
    #[error(
        "{holder} uses the data directory {}: stop it, or give this node another directory",
        dir.display()
    )]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// Who uses it: `process 123`, or `another process`.
        holder: String,
    },
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
    /// The password of the ledger would be sent over the network unencrypted.
    #[error(
        "the URL of node.ledger_url would send the password to another machine unencrypted: add ?sslmode=verify-full (or require) to it, or set node.ledger_insecure: true if the network is trusted"
    )]
    UnencryptedLedger,
    /// The certificate of node.tls cannot be used.
    #[error("cannot serve HTTPS")]
    Tls(#[from] TlsError),
    /// A secret of the node settings is missing.
    #[error("cannot read the secret node.{field}")]
    Secret {
        /// The setting.
        field: &'static str,
        /// Why.
        #[source]
        source: SecretError,
    },
    /// Tokens and sessions.
    #[error("cannot set up access to the node")]
    Access(#[from] AccessError),
    /// The ledger.
    #[error("cannot use the ledger")]
    Ledger(#[from] LedgerError),
    /// The ledger's file is missing, but a log or objects exist.
    #[error(
        "there is no ledger at {}, but there is an event log, or there are objects: restore the \
         ledger from a backup with `throng restore`, or start once with --new-ledger to continue \
         without its audiences, runs and receipts",
        path.display()
    )]
    LedgerMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Ledger, log and objects do not belong together. See [`StampError`].
    #[error(transparent)]
    Stamp(#[from] StampError),
    /// Another node uses the ledger, and not all backends are shared.
    #[error(
        "another node uses the ledger of node.ledger_url: stop it, or give this node another one"
    )]
    LedgerInUse,
    /// The sources.
    #[error("cannot open the sources")]
    Lake(#[from] LakeError),
    /// The event log.
    #[error("cannot use the event log")]
    Log(#[from] LogError),
    /// The number of partitions has changed. It decides about the partition of every ad group.
    #[error(
        "the event log has {found} partitions, and the ledger expects {stored}: with another number ad \
         groups lose their spend. Restore the event log and the ledger from one backup, or set the \
         number of the log (the file log/partitions, or the topic) back"
    )]
    LogPartitions {
        /// The number that the log has.
        found: u32,
        /// The number that the ledger expects.
        stored: u32,
    },
    /// Snapshots, parts, checkpoints.
    #[error("cannot use the object storage")]
    Objects(#[from] ObjectsError),
    /// The node does not run every role, and a backend is not shared with other nodes.
    #[error(
        "a node can leave roles to other nodes only if they share ledger, log and objects: set \
         ledger: postgres, log: kafka and objects: s3 or gcs, or give the node every role"
    )]
    RolesNeedSharedBackends,
    /// A ledger in SQLite needs a data directory.
    #[error("the ledger is a file of the data directory: name the directory with --dir")]
    NoDirectory,
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
    /// The spec in the ledger does not pass the checks.
    #[error("the applied spec in the ledger cannot be used: name a spec with --spec, or apply one")]
    StoredSpec(#[source] serde_json::Error),
    /// A newer version applied the spec.
    #[error(
        "the applied spec in the ledger has version {found} of the spec language, which this version of \
         throng does not support: a newer one applied it. Upgrade throng"
    )]
    NewerSpec {
        /// Its version.
        found: u64,
    },
    /// The spec cannot be written as JSON.
    #[error("cannot write the spec as JSON")]
    Spec(#[from] serde_json::Error),
}

impl NodeError {
    /// Whether a retry can succeed without a fix by anybody.
    pub(super) fn is_retryable(&self) -> bool {
        let retry = match self {
            Self::Ledger(error) => error.retry(),
            Self::Log(error) => error.retry(),
            Self::Objects(error) => error.retry(),
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
