//! Faults of what is served, and which of them are reported.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use throng_store::Snapshot;

/// A snapshot or a dictionary that is not served as it was published.
#[derive(Debug, Clone)]
pub enum ServingFault {
    /// A dictionary cannot be used as the ledger has it.
    Dictionary {
        /// Its user shard.
        shard: u8,
        /// Why, and what follows from it.
        detail: String,
    },
    /// A snapshot cannot be used.
    Snapshot {
        /// What is published.
        published: Box<Snapshot>,
        /// Its file is damaged, not only unavailable.
        damaged: bool,
        /// Why, and what follows from it.
        detail: String,
    },
}

/// The problems that this process has reported and that are still open, by key.
#[derive(Debug, Default)]
pub(crate) struct OpenProblems(Mutex<BTreeSet<String>>);

impl OpenProblems {
    /// Stores the problems that are open now, and returns those that are no longer open.
    pub(super) fn replace(&self, open: BTreeSet<String>) -> Vec<String> {
        let mut reported = self.0.lock();
        let resolved = reported.difference(&open).cloned().collect();
        *reported = open;
        resolved
    }

    /// Whether the problem with this key is open.
    pub(super) fn contains(&self, key: &str) -> bool {
        self.0.lock().contains(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolved_problem_is_returned_once() {
        let reported = OpenProblems::default();
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
        assert!(reported.replace(keys(&["a", "b"])).is_empty());
        assert_eq!(reported.replace(keys(&["b"])), ["a"]);
        assert!(reported.contains("b") && !reported.contains("a"));
        assert_eq!(reported.replace(keys(&[])), ["b"]);
        assert!(reported.replace(keys(&[])).is_empty());
    }
}
