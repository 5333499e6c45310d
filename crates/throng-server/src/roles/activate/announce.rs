//! Puts what is due on the queues, again and again until somebody does it: a message that is lost,
//! late or doubled harms nobody.

use std::time::Duration;

use throng_log::{LogError, Message, Queue};
use throng_model::{TaskId, Timestamp};
use throng_store::LedgerError;

use super::notice::Notice;
use crate::NodeContext;

/// A due task that nobody took is announced again after this.
const AGAIN: Duration = Duration::from_secs(30);
/// A check that came to no verdict is announced again after this: platforms fill audiences slowly.
const CHECK_AGAIN: Duration = Duration::from_secs(2);
/// Due tasks of one account that are on the queue at a time, the most urgent ones: a task of a high
/// priority has little before it, whichever process takes it.
const PER_ACCOUNT: u32 = 200;
/// Announced in one go.
const AT_ONCE: u32 = 1_000;

/// Why something was not announced. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnnounceError {
    #[error("the ledger failed")]
    Ledger(#[from] LedgerError),
    #[error("the queue failed")]
    Queue(#[from] LogError),
    #[error("a task cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// Announces tasks that are due and were not announced since `before`. Returns how many.
pub(crate) async fn tasks_since(
    ctx: &NodeContext,
    before: Timestamp,
) -> Result<u64, AnnounceError> {
    let mut announced = 0;
    loop {
        let now = ctx.clock.now();
        let due = ctx.ledger.unannounced_tasks(before, now, PER_ACCOUNT, AT_ONCE).await?;
        let ids: Vec<TaskId> = due.iter().map(|task| task.id).collect();
        put(&*ctx.queues.tasks, &due).await?;
        // A crash before this puts them twice.
        ctx.ledger.announced_tasks(&ids, now.max(before)).await?;
        announced += ids.len() as u64;
        if ids.len() < AT_ONCE as usize {
            return Ok(announced);
        }
    }
}

async fn put(queue: &dyn Queue, tasks: &[throng_store::Task]) -> Result<(), AnnounceError> {
    let messages: Vec<Message> = tasks.iter().map(Notice::message).collect::<Result<_, _>>()?;
    if !messages.is_empty() {
        queue.put(messages).await?;
    }
    Ok(())
}

/// Announces tasks and checks that are due. Whether there were any. `first`: of this process, which
/// does not know what one before had put into its own memory.
pub(super) async fn round(ctx: &NodeContext, first: bool) -> Result<bool, AnnounceError> {
    let now = ctx.clock.now();
    let tasks = tasks_since(ctx, if first { now } else { now.minus(AGAIN) }).await?;
    let checks = ctx.ledger.unannounced_checks(now.minus(CHECK_AGAIN), AT_ONCE).await?;
    let ids: Vec<TaskId> = checks.iter().map(|task| task.id).collect();
    put(&*ctx.queues.checks, &checks).await?;
    if !ids.is_empty() {
        ctx.ledger.announced_checks(&ids, now).await?;
    }
    Ok(tasks > 0 || !ids.is_empty())
}
