//! The spec that a process starts with, where another one was applied last.

use std::sync::Arc;

use throng_spec::{Action, Change, ObjectKind, Plan};

use crate::applier::SpecApplier;
use crate::error::ApplyError;
use crate::stored::WrittenSpec;

/// How many objects a line of the log names of those that are added, changed or removed.
const MAX_NAMED: usize = 20;

impl SpecApplier {
    /// As [`Self::queue_refreshes`], for the spec with which this process was started: if another one was applied last,
    /// also over HTTP, this one replaces it, which is allowed and logged as a warning.
    ///
    /// # Errors
    /// [`ApplyError::Ledger`].
    pub async fn queue_refreshes_at_start(&self, applied: &WrittenSpec) -> Result<(), ApplyError> {
        if let Some(plan) = replaced_objects(applied) {
            let [added, changed, removed] = named(&plan);
            tracing::warn!(
                version = applied.version,
                added,
                changed,
                removed,
                "the spec of this start replaces the one that was applied last"
            );
            self.running.replaced.store(Some(Arc::new(plan)));
        }
        self.queue_refreshes(applied, None).await
    }

    /// What the spec with which this process was started has changed of the spec that was applied before it: the objects,
    /// without node settings, and the warnings. `None` if nothing, if there was none, and after the first call.
    pub fn take_replaced(&self) -> Option<Arc<Plan>> {
        self.running.replaced.swap(None)
    }
}

/// Without node settings: a process takes them from its own spec at each start, and nobody expects those of an applied
/// one.
fn replaced_objects(applied: &WrittenSpec) -> Option<Plan> {
    applied.previous?;
    let objects = applied.plan.changes.iter().filter(|change| change.kind != ObjectKind::Node);
    let changes: Vec<Change> = objects.cloned().collect();
    (!changes.is_empty()).then(|| Plan { changes, warnings: applied.plan.warnings.clone() })
}

/// The objects that are added, changed and removed, such as `ad group shoes, audience buyers`.
fn named(plan: &Plan) -> [String; 3] {
    let actions: [fn(&Action) -> bool; 3] = [
        |action| matches!(action, Action::Added),
        |action| matches!(action, Action::Changed(_)),
        |action| matches!(action, Action::Removed),
    ];
    actions.map(|is_wanted| {
        let mut objects = plan.changes.iter().filter(|change| is_wanted(&change.action));
        let first = objects.by_ref().take(MAX_NAMED);
        let names: Vec<String> = first.map(|of| format!("{} {}", of.kind, of.name)).collect();
        match objects.count() {
            0 => names.join(", "),
            more => format!("{} and {more} more", names.join(", ")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: ObjectKind, name: &str, action: Action) -> Change {
        let (currency, currency_before, template) = (None, None, None);
        Change { kind, name: name.to_owned(), currency, currency_before, template, action }
    }

    fn written(previous: Option<u64>, changes: Vec<Change>) -> WrittenSpec {
        WrittenSpec {
            version: 4,
            previous,
            plan: Plan { changes, warnings: Vec::new() },
            indexes: Vec::new(),
            removed: Vec::new(),
            cancelled: Vec::new(),
        }
    }

    #[test]
    fn a_start_names_the_objects_of_the_spec_that_it_replaces() {
        let changes = vec![
            change(ObjectKind::Audience, "buyers", Action::Added),
            change(ObjectKind::AdGroup, "hats", Action::Removed),
            change(ObjectKind::AdGroup, "shoes", Action::Changed(Vec::new())),
            change(ObjectKind::Node, "node", Action::Changed(Vec::new())),
        ];
        let plan = replaced_objects(&written(Some(3), changes.clone())).unwrap();
        assert_eq!(named(&plan), ["audience buyers", "ad group shoes", "ad group hats"]);
        assert!(replaced_objects(&written(None, changes.clone())).is_none(), "a first start");
        let node = changes.into_iter().filter(|change| change.kind == ObjectKind::Node).collect();
        assert!(replaced_objects(&written(Some(3), node)).is_none());
    }

    #[test]
    fn a_line_of_the_log_does_not_name_every_object() {
        let of = |n| change(ObjectKind::AdGroup, &format!("a{n}"), Action::Removed);
        let plan = Plan { changes: (0..23).map(of).collect(), warnings: Vec::new() };
        let [added, changed, removed] = named(&plan);
        assert_eq!((added.as_str(), changed.as_str()), ("", ""));
        assert!(removed.ends_with("ad group a19 and 3 more"), "{removed}");
    }
}
