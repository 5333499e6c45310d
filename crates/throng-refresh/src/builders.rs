//! What the builders of a process share about templates.

use std::collections::HashMap;

use parking_lot::Mutex;
use throng_model::Timestamp;
use tokio::sync::MutexGuard;

/// Shared by the builders of a process.
#[derive(Debug, Default)]
pub(crate) struct Builders {
    /// Held while refreshes are claimed. Without it two builders would divide a template, and each would scan.
    claiming: tokio::sync::Mutex<()>,
    /// Models without their parameters that are built alone until a time.
    alone: Mutex<HashMap<String, Timestamp>>,
}

impl Builders {
    /// Lets one builder claim at a time.
    pub(super) async fn claiming(&self) -> MutexGuard<'_, ()> {
        self.claiming.lock().await
    }

    /// Whether the audiences of a template are built alone.
    pub(super) fn is_alone(&self, model: &str, now: Timestamp) -> bool {
        self.alone.lock().get(model).is_some_and(|until| now < *until)
    }

    /// Builds the audiences of a template alone until a time.
    pub(super) fn build_alone(&self, model: String, until: Timestamp) {
        self.alone.lock().insert(model, until);
    }
}
