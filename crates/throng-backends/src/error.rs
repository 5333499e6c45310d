//! Why a backend cannot be used.

use std::path::PathBuf;

use throng_aggregator::BudgetsError;
use throng_log::LogError;
use throng_membership::MembershipError;
use throng_model::Retry;
use throng_objects::ObjectsError;
use throng_spec::SecretError;
use throng_store::LedgerError;

/// Why the backends of a node cannot be opened or checked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
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
    /// The password of the ledger would be sent over the network unencrypted.
    #[error(
        "the URL of node.ledger_url would send the password to another machine unencrypted: add ?sslmode=verify-full (or require) to it, or set node.ledger_insecure: true if the network is trusted"
    )]
    UnencryptedLedger,
    /// The settings of Kafka need OpenSSL, which is not in this build.
    #[error(
        "node.kafka.{field}: this binary was built without TLS and SCRAM for Kafka (`--no-default-features`, as `cargo demo` does): build it with the cargo feature `kafka-tls`, which is a default one"
    )]
    KafkaTlsNotBuilt {
        /// The setting.
        field: &'static str,
    },
    /// A secret of the node settings is missing.
    #[error("cannot read the secret node.{field}")]
    Secret {
        /// The setting.
        field: &'static str,
        /// Why.
        #[source]
        source: SecretError,
    },
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
    /// The topic of the feed has fewer partitions than the topic of events: frames of the others have no place.
    #[error(
        "the topic of events has {events} partitions, and the topic of the feed has {feed}: add partitions to the \
         topic of the feed until it has as many"
    )]
    FeedPartitions {
        /// Those of events.
        events: u32,
        /// Those of the feed.
        feed: u32,
    },
    /// The topics of the prefix belong to another deployment.
    #[error(
        "the Kafka topics {prefix}.events, {prefix}.feed, {prefix}.tasks and all others with this prefix belong to \
         another deployment than the ledger: its events would be counted here, and its tasks processed. Set \
         node.kafka.prefix to a prefix of this deployment's own; or, if no node of the other deployment is running, \
         start once with --accept-mismatch to take the topics over"
    )]
    ForeignTopics {
        /// The prefix.
        prefix: String,
    },
    /// Snapshots, parts, checkpoints.
    #[error("cannot use the object storage")]
    Objects(#[from] ObjectsError),
    /// A ledger in SQLite needs a data directory.
    #[error("the ledger is a file of the data directory: name the directory with --dir")]
    NoDirectory,
    /// A checkpoint whose offset is compared with the event log.
    #[error("cannot read a checkpoint")]
    Budgets(#[from] BudgetsError),
    /// A manifest of the dictionary, which the ledger has, and whose files are compared with the bucket.
    #[error("cannot read the manifest of the dictionary")]
    Membership(#[from] MembershipError),
}

impl BackendError {
    /// Whether a retry can succeed without a fix by anybody.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Ledger(error) => error.retry(),
            Self::Log(error) => error.retry(),
            Self::Objects(error) => error.retry(),
            _ => Retry::Never,
        }
    }

    pub(crate) fn io(
        doing: &'static str,
        what: impl ToString,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.to_string();
        move |source| Self::Io { doing, what, source }
    }
}

/// Why the stores of a data directory are not used together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StampError {
    /// A store belongs to another data directory.
    #[error(
        "the {store} belongs to another data directory than the ledger: restore both from one backup \
         with `throng restore`, or start once with --accept-mismatch to use what exists"
    )]
    Foreign {
        /// The store.
        store: &'static str,
    },
    /// A store is older than the ledger.
    #[error(
        "the {store} is older than the ledger (stamp {found}, the ledger's is {ledger}): they are \
         copies of different moments. Restore both from one backup with `throng restore`, or start \
         once with --accept-mismatch to use what exists: what the {store} lacks is lost"
    )]
    Older {
        /// The store.
        store: &'static str,
        /// Its sequence number; 0 if it has no stamp.
        found: u64,
        /// The ledger's.
        ledger: u64,
    },
    /// The ledger is older than a store.
    #[error(
        "the ledger is older than the {store} (stamp {ledger}, the {store}'s is {found}): they are \
         copies of different moments. Restore both from one backup with `throng restore`, or start \
         once with --accept-mismatch to use what exists: what the ledger lacks is lost, and \
         batches may be sent to platforms again"
    )]
    LedgerOlder {
        /// The store.
        store: &'static str,
        /// The store's sequence number.
        found: u64,
        /// The ledger's; 0 if it has no stamp.
        ledger: u64,
    },
    /// The file of a stamp cannot be read as one.
    #[error(
        "{} is damaged: restore a backup with `throng restore`, or start once with \
         --accept-mismatch to write a new one",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
    },
}
