//! What operations need of this node, and what they report to it.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use throng_access::Caller;
use throng_operations::{Observer, Operations};
use tokio::sync::{Notify, broadcast};

use super::error::ApiError;
use crate::{Change, NodeContext};

/// What the operations of a request need, limited to the workspace of its caller. Handlers have no other way to it, so
/// that none can forget the limit.
pub(crate) struct OperationsOf(pub(crate) Operations);

impl FromRequestParts<Arc<NodeContext>> for OperationsOf {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        ctx: &Arc<NodeContext>,
    ) -> Result<Self, ApiError> {
        // The check of the request has put it there.
        let caller = parts.extensions.get::<Caller>().ok_or_else(ApiError::unauthorized)?;
        Ok(Self(operations(ctx).limited_to(caller.workspace(), &ctx.workspace_specs)))
    }
}

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

/// What the operations of one request need.
fn operations(ctx: &NodeContext) -> Operations {
    Operations {
        clock: Arc::clone(&ctx.clock),
        ledger: Arc::clone(&ctx.ledger),
        objects: Arc::clone(&ctx.objects),
        spec: ctx.spec.load_full(),
        workspace: None,
        refresh: Arc::clone(&ctx.refresh),
        tasks: Arc::clone(&ctx.queues.tasks),
        observer: Arc::new(OperationObserver {
            changes: ctx.changes.clone(),
            wake_build: Arc::clone(&ctx.wake_build),
            wake_activate: Arc::clone(&ctx.wake_activate),
        }),
    }
}
