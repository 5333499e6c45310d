//! What the history of an object says, and of which objects there is one.

use serde::{Deserialize, Serialize};

/// Defines an enum whose values are names in the ledger: each value once, with its name, so that a value cannot be
/// written under a name that is not read.
macro_rules! named_values {
    (
        $(#[$kind_doc:meta])* $kind:ident,
        $($(#[$doc:meta])* $value:ident = $name:literal,)+
    ) => {
        $(#[$kind_doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum $kind {
            $($(#[$doc])* $value,)+
            /// A value that another version has written, by its name: nodes of two versions share a ledger
            /// during an upgrade, and an entry that one of them cannot name must not fail the whole history.
            Other(String),
        }

        impl $kind {
            /// Every value that this version writes.
            #[cfg(test)]
            const KNOWN: &[Self] = &[$(Self::$value),+];

            /// Its name in the ledger, in the API and on the page.
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$value => $name,)+
                    Self::Other(name) => name,
                }
            }
        }

        impl From<String> for $kind {
            fn from(name: String) -> Self {
                match name.as_str() {
                    $($name => Self::$value,)+
                    _ => Self::Other(name),
                }
            }
        }

        impl From<$kind> for String {
            fn from(value: $kind) -> Self {
                match value {
                    $kind::Other(name) => name,
                    known => known.name().to_owned(),
                }
            }
        }
    };
}

named_values! {
    /// The kind of the object of a history entry.
    SubjectKind,
    /// An audience.
    Audience = "audience",
    /// A sync.
    Sync = "sync",
    /// A destination.
    Destination = "destination",
    /// An ad group.
    AdGroup = "ad_group",
    /// The applied spec.
    Spec = "spec",
    /// An access token.
    Token = "token",
}

named_values! {
    /// What happened to an object.
    HistoryEvent,
    /// The spec was applied.
    Applied = "applied",
    /// A held snapshot or run, or the held runs of a destination, were approved.
    Approved = "approved",
    /// A refresh was cancelled, or a held run to a version that is no longer served.
    Cancelled = "cancelled",
    /// A check of a delivery failed.
    CheckFailed = "check_failed",
    /// A check of a delivery passed.
    CheckPassed = "check_passed",
    /// A check of a delivery found a size that is not certain.
    CheckSuspect = "check_suspect",
    /// An ad group was closed.
    Closed = "closed",
    /// A token was created.
    Created = "created",
    /// A file of an audience is damaged.
    Damaged = "damaged",
    /// A version of an audience was delivered.
    Delivered = "delivered",
    /// A refresh or a task failed.
    Failed = "failed",
    /// A refresh was given up, because its model has changed.
    GivenUp = "given up",
    /// A snapshot, a run or an account waits for approval.
    Held = "held",
    /// A sync has moved to another account.
    Moved = "moved",
    /// An ad group was opened.
    Opened = "opened",
    /// An audience or a sync was paused.
    Paused = "paused",
    /// A run of a sync was planned.
    Planned = "planned",
    /// A snapshot was published.
    Published = "published",
    /// A sync was detached from its audience on the platform.
    Recreated = "recreated",
    /// A refresh was requested.
    RefreshRequested = "refresh requested",
    /// A refresh whose connection or process was lost goes on behind the pages that it has read.
    RefreshResumed = "refresh resumed",
    /// A held snapshot was rejected.
    Rejected = "rejected",
    /// The pin of an audience was ended.
    Released = "released",
    /// The removal of an audience from a platform was approved.
    RemovalApproved = "removal_approved",
    /// The spec has a removed sync again.
    RemovalCancelled = "removal_cancelled",
    /// The removal of an audience from a platform was discarded.
    RemovalDiscarded = "removal_discarded",
    /// An audience was removed from a platform.
    RemovalDone = "removal_done",
    /// The spec no longer has a sync.
    Removed = "removed",
    /// A failed task was queued again.
    Requeued = "requeued",
    /// A paused audience or sync was resumed.
    Resumed = "resumed",
    /// A token was revoked.
    Revoked = "revoked",
    /// An earlier snapshot was made current again.
    RolledBack = "rolled back",
    /// A run of a sync was requested.
    RunRequested = "run",
    /// A scheduled refresh was not started.
    Skipped = "skipped",
    /// The removal of an audience from a serving store was requested.
    StoreRemovalRequested = "store removal requested",
    /// An audience is to be written again to a serving store.
    StoreRewriteRequested = "store rewrite requested",
    /// A try of a task failed.
    TryFailed = "try_failed",
    /// A refresh found its inputs unchanged, and made no snapshot.
    Unchanged = "unchanged",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_one_name_everywhere() {
        let other = SubjectKind::Other("cluster".to_owned());
        for kind in SubjectKind::KNOWN.iter().cloned().chain([other]) {
            let name = kind.name().to_owned();
            assert_eq!(String::from(kind.clone()), name);
            assert_eq!(SubjectKind::from(name), kind);
        }
    }

    #[test]
    fn an_event_has_one_name_everywhere() {
        let other = HistoryEvent::Other("archived".to_owned());
        for event in HistoryEvent::KNOWN.iter().cloned().chain([other]) {
            let name = event.name().to_owned();
            assert_eq!(String::from(event.clone()), name);
            assert_eq!(HistoryEvent::from(name), event);
        }
    }
}
