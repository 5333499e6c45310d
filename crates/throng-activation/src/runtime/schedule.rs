//! When rounds run: on a signal, and on a timer.

use std::time::Duration;

use throng_model::{POLL_INTERVAL, RETRY_DELAY};
use tokio_util::sync::CancellationToken;

use super::context::Activation;
use super::errors::EnqueueError;

/// Waits for a signal or the timer. `false` at shutdown.
pub(super) async fn wait(
    ctx: &Activation,
    shutdown: &CancellationToken,
    at_most: Duration,
) -> bool {
    tokio::select! {
        () = shutdown.cancelled() => false,
        () = ctx.node.wake().notified() => true,
        () = tokio::time::sleep(ctx.node.poll_delay(at_most)) => true,
    }
}

/// Repeats `round` until `shutdown`. A round returns whether it changed anything. `failure` is the log message of an
/// error.
pub(super) async fn repeat<F, R>(
    ctx: &Activation,
    shutdown: &CancellationToken,
    failure: &'static str,
    round: F,
) where
    F: Fn() -> R,
    R: Future<Output = Result<bool, EnqueueError>>,
{
    loop {
        let pause = tokio::select! {
            () = shutdown.cancelled() => return,
            done = round() => match done {
                Ok(changed) => {
                    if changed {
                        ctx.node.publish_change();
                        ctx.node.wake().notify_waiters();
                    }
                    POLL_INTERVAL
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "{failure}");
                    RETRY_DELAY
                }
            },
        };
        if !wait(ctx, shutdown, pause).await {
            return;
        }
    }
}
