//! What has changed: pages, waiting callers and roles read it again.

use std::sync::Arc;

use tokio::sync::{Notify, broadcast};

use crate::applier::SpecObserver;

/// The kind of state that changed. Pages and waiting callers read it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// An audience, a refresh or a snapshot.
    Audiences,
    /// A run, a task, a check or an alert.
    Activation,
    /// Budget states.
    Budgets,
    /// The applied spec.
    Spec,
}

/// Publishes a change to pages and waiting callers. Never waits.
pub fn publish(changes: &broadcast::Sender<Change>, change: Change) {
    // It fails if no page is open, which is fine.
    let _ = changes.send(change);
}

/// Wakes the roles and the pages after another spec was applied.
#[derive(Debug)]
pub struct SpecChanges {
    /// Wakes builders.
    pub wake_build: Arc<Notify>,
    /// Wakes workers of syncs.
    pub wake_activate: Arc<Notify>,
    /// Publishes the change.
    pub changes: broadcast::Sender<Change>,
}

impl SpecObserver for SpecChanges {
    fn spec_switched(&self) {
        self.wake_build.notify_waiters();
        self.wake_activate.notify_waiters();
        publish(&self.changes, Change::Spec);
    }
}
