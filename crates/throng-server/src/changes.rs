//! What has changed: pages, waiting callers and roles read it again.

use tokio::sync::broadcast;

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
pub(crate) fn publish(changes: &broadcast::Sender<Change>, change: Change) {
    // It fails if no page is open, which is fine.
    let _ = changes.send(change);
}
