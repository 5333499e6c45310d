//! How enums are stored, in any database: as the names of their variants.

use throng_model::SyncMode;

use crate::{
    AlertEventKind, AlertKind, BatchState, DeliveryState, HoldCause, Operation, PartKind,
    PartState, RefreshState, RefreshTrigger, RemovalRule, RunState, SnapshotState, StoreWriteState,
    TaskState, Verdict,
};

/// An enum that is stored as the name of its variant. A stored name never changes: rows of earlier versions
/// have it.
pub trait StoredEnum: Sized + Copy + 'static {
    /// Every variant with its stored name.
    const VARIANTS: &'static [(Self, &'static str)];

    /// The stored name of a variant.
    fn stored_name(self) -> &'static str;

    /// The variant with a stored name; `None` if this version has no such variant.
    fn of_stored_name(name: &str) -> Option<Self> {
        Self::VARIANTS.iter().find(|(_, known)| *known == name).map(|(variant, _)| *variant)
    }
}

macro_rules! stored_enums {
    ($($type:ident { $($value:ident = $name:literal),+ $(,)? })+) => {$(
        impl StoredEnum for $type {
            const VARIANTS: &'static [(Self, &'static str)] = &[$(($type::$value, $name)),+];

            fn stored_name(self) -> &'static str {
                match self { $($type::$value => $name),+ }
            }
        }
    )+};
}

stored_enums! {
    RefreshState {
        Scheduled = "scheduled", Processing = "processing", Halted = "halted",
        Completed = "completed", Failed = "failed", Held = "held",
    }
    RefreshTrigger {
        Schedule = "schedule", Manual = "manual", Apply = "apply",
        SourceChanged = "source_changed",
    }
    PartKind { Scan = "scan", Shards = "shards" }
    PartState { Pending = "pending", Done = "done" }
    SnapshotState { Held = "held", Published = "published", Rejected = "rejected" }
    SyncMode { Mirror = "mirror", Add = "add", Replace = "replace" }
    Operation { Add = "add", Remove = "remove", Replace = "replace" }
    RunState { Active = "active", Completed = "completed", Failed = "failed", Held = "held" }
    HoldCause { Guard = "guard", Adoption = "adoption", Account = "account" }
    TaskState {
        Queued = "queued", Running = "running", Done = "done", Failed = "failed", Held = "held",
    }
    BatchState { Pending = "pending", Done = "done" }
    Verdict { Passed = "passed", Suspect = "suspect", Failed = "failed" }
    RemovalRule { Empty = "empty", Delete = "delete" }
    StoreWriteState { Open = "open", Done = "done", Replaced = "replaced" }
    AlertEventKind { Raised = "raised", Resolved = "resolved" }
    DeliveryState { Delivered = "delivered", Expired = "expired", Refused = "refused" }
}

/// A kind of alert is stored by the name that APIs and metrics use.
impl StoredEnum for AlertKind {
    const VARIANTS: &'static [(Self, &'static str)] = &alert_kinds();

    fn stored_name(self) -> &'static str {
        self.name()
    }
}

const fn alert_kinds() -> [(AlertKind, &'static str); AlertKind::ALL.len()] {
    let mut kinds = [(AlertKind::ALL[0], ""); AlertKind::ALL.len()];
    let mut n = 0;
    while n < kinds.len() {
        kinds[n] = (AlertKind::ALL[n], AlertKind::ALL[n].name());
        n += 1;
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_names_are_read_back() {
        for (state, name) in RefreshState::VARIANTS {
            assert_eq!(
                (state.stored_name(), RefreshState::of_stored_name(name)),
                (*name, Some(*state))
            );
        }
        for kind in AlertKind::ALL {
            assert_eq!(AlertKind::of_stored_name(kind.name()), Some(kind));
        }
        assert_eq!(RunState::of_stored_name("Held"), None);
    }
}
