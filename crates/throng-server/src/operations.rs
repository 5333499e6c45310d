//! What operations need of this node, and what they report to it.

use std::sync::Arc;

use throng_operations::{Observer, Operations};
use tokio::sync::{Notify, broadcast};

use crate::{Change, NodeContext};

/// Gives what operations report to the roles and to the pages.
struct OperationObserver {
    changes: broadcast::Sender<Change>,
    wake_build: Arc<Notify>,
    wake_activate: Arc<Notify>,
}

impl Observer for OperationObserver {
    fn refresh_queued(&self) {
        self.wake_build.notify_waiters();
    }

    fn wake_activation(&self) {
        self.wake_activate.notify_waiters();
    }

    fn audiences_changed(&self) {
        // Without an open page there is no receiver.
        let _ = self.changes.send(Change::Audiences);
    }

    fn activation_changed(&self) {
        let _ = self.changes.send(Change::Activation);
    }
}

impl NodeContext {
    /// What the operations of one request need.
    pub(crate) fn operations(&self) -> Operations {
        Operations {
            clock: Arc::clone(&self.clock),
            ledger: Arc::clone(&self.ledger),
            objects: Arc::clone(&self.objects),
            spec: self.spec.load_full(),
            refresh: Arc::clone(&self.refresh),
            tasks: Arc::clone(&self.queues.tasks),
            observer: Arc::new(OperationObserver {
                changes: self.changes.clone(),
                wake_build: Arc::clone(&self.wake_build),
                wake_activate: Arc::clone(&self.wake_activate),
            }),
        }
    }
}
