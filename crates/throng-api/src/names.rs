//! The names of states and kinds in JSON, for programs that print them.

use crate::{
    ActivationMode, ActivationOperation, ActivationRunState, ActivationTaskState,
    ActivationVerdict, AlertDeliveryState, AlertEventName, AlertSeverity, AudienceRefreshState,
    AudienceSnapshotState, StoreWriteState, SyncRemovalRule,
};

/// Gives enums their names as text. A test compares these with the JSON.
macro_rules! names {
    ($($type:ident { $($variant:ident = $name:literal),+ $(,)? })+) => {
        $(
            impl $type {
                /// The name, as in JSON.
                pub const fn as_str(self) -> &'static str {
                    match self {
                        $(Self::$variant => $name,)+
                    }
                }
            }

            impl std::fmt::Display for $type {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str(self.as_str())
                }
            }
        )+

        #[cfg(test)]
        fn all() -> Vec<(serde_json::Value, &'static str)> {
            vec![$($((serde_json::to_value($type::$variant).unwrap(), $name),)+)+]
        }
    };
}

names! {
    ActivationMode { Mirror = "mirror", Add = "add", Replace = "replace" }
    ActivationOperation { Add = "add", Remove = "remove", Replace = "replace" }
    ActivationRunState {
        Active = "active", Completed = "completed", Failed = "failed", Held = "held",
    }
    ActivationTaskState {
        Queued = "queued", Running = "running", Done = "done", Failed = "failed", Held = "held",
    }
    ActivationVerdict { Passed = "passed", Suspect = "suspect", Failed = "failed" }
    AlertDeliveryState { Delivered = "delivered", Expired = "expired", Refused = "refused" }
    AlertEventName { Raised = "raised", Resolved = "resolved" }
    AlertSeverity { Warning = "warning", Critical = "critical" }
    AudienceRefreshState {
        Scheduled = "scheduled", Processing = "processing", Halted = "halted",
        Completed = "completed", Failed = "failed", Held = "held",
    }
    AudienceSnapshotState { Held = "held", Published = "published", Rejected = "rejected" }
    StoreWriteState { Open = "open", Done = "done", Replaced = "replaced" }
    SyncRemovalRule { Empty = "empty", Delete = "delete" }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_is_the_one_of_the_json() {
        for (json, name) in super::all() {
            assert_eq!(json, name);
        }
    }
}
