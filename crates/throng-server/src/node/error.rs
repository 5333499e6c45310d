//! Why a node does not start.

use std::net::SocketAddr;
use std::path::PathBuf;

use throng_lake::LakeError;
use throng_log::LogError;
use throng_model::Retry;
use throng_objects::ObjectsError;
use throng_spec::SecretError;
use throng_store::LedgerError;

use crate::access::AccessError;
use crate::limits::LimitsError;
use crate::roles::aggregate::BudgetsError;

use super::{StampError, TlsError};

/// Why a node did not start, or a spec was not applied.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Another node has the data directory.
    #[error(
        "{holder} uses the data directory {}: stop it, or give this node another directory",
        dir.display()
    )]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// Who has it: `process 123`, or `another process`.
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
    /// Tokens would go over the network unencrypted.
    #[error(
        "the node would listen on {listen}, which others can reach, without encryption: set node.tls in the spec, or node.insecure: true if the network is trusted or a proxy does the encryption, or listen on 127.0.0.1"
    )]
    Unencrypted {
        /// The address.
        listen: SocketAddr,
    },
    /// The password of the ledger would go over the network unencrypted.
    #[error(
        "the URL of node.ledger_url would send the password to another machine unencrypted: add ?sslmode=verify-full (or require) to it, or set node.ledger_insecure: true if the network is trusted"
    )]
    UnencryptedLedger,
    /// The certificate of node.tls.
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
    /// The ledger's file is gone, and what it describes is there.
    #[error(
        "there is no ledger at {}, but an event log or objects lie beside it: restore the ledger from \
         a backup with `throng restore`, or start once with --new-ledger to begin without its \
         audiences, runs and receipts",
        path.display()
    )]
    LedgerMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Ledger, log and objects do not belong together.
    #[error(transparent)]
    Stamp(#[from] StampError),
    /// Another node works with the ledger.
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
    /// An ad group's partition is made of its name and the number of partitions.
    #[error(
        "the event log has {found} partitions, and the ledger knows {stored}: with another number ad \
         groups lose their spend. Restore the event log and the ledger of one backup, or give the log \
         (the file log/partitions, or the topic) its number back"
    )]
    LogPartitions {
        /// What the log says.
        found: u32,
        /// What the ledger says.
        stored: u32,
    },
    /// Snapshots, parts, checkpoints.
    #[error("cannot use the object storage")]
    Objects(#[from] ObjectsError),
    /// The node wants others to share work with, but keeps something for itself.
    #[error(
        "a node can leave roles to others only if it shares ledger, log and objects with them: set \
         ledger: postgres, log: kafka and objects: s3 or gcs, or give the node every role"
    )]
    Alone,
    /// A ledger in SQLite is a file of a data directory.
    #[error("the ledger is a file of the data directory: name it with --dir")]
    NoDirectory,
    /// There is nothing to join.
    #[error("the ledger holds no applied spec yet: start one node without --join first")]
    NothingToJoin,
    /// Budget states.
    #[error("cannot restore the budgets")]
    Budgets(#[from] BudgetsError),
    /// Snapshots or dictionaries.
    #[error("cannot map the published audiences")]
    Membership(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What specs that arrive over HTTP may name.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// The spec in the ledger is not one that a check lets through.
    #[error("the applied spec in the ledger cannot be used: name a spec with --spec, or apply one")]
    StoredSpec(#[source] serde_json::Error),
    /// A newer version applied the spec.
    #[error(
        "the applied spec in the ledger has the version {found} of the spec language, which this version of \
         throng does not know: a newer one applied it. Upgrade throng"
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
    /// Whether it may go away by itself, without anybody fixing it.
    pub(super) fn may_pass(&self) -> bool {
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
