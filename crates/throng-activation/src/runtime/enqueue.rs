//! Puts due tasks on the queues, repeatedly until they are done: a lost, late or duplicate message is harmless.

use std::time::Duration;

use throng_log::{Message, Queue};
use throng_model::{Clock, TaskId, Timestamp};
use throng_store::{Ledger, Task};

use super::context::Activation;
use super::errors::EnqueueError;
use super::task_message::TaskMessage;

/// A due task that no worker has claimed is enqueued again after this.
const REDELIVERY_INTERVAL: Duration = Duration::from_secs(30);
/// A check without a verdict is enqueued again after this: platforms fill audiences slowly.
const CHECK_REDELIVERY_INTERVAL: Duration = Duration::from_secs(2);
/// Due tasks of one account that are on the queue at the same time, those of the highest priority: only few
/// tasks are ahead of a new task of a high priority, whichever process takes it.
const MAX_TASKS_OF_ACCOUNT: u32 = 200;
/// Tasks that are enqueued in one batch.
const BATCH_TASKS: u32 = 1_000;

/// Enqueues tasks that are due and were not enqueued since `before`. Returns their number.
///
/// # Errors
/// [`EnqueueError`]; some of the tasks may be enqueued.
pub async fn enqueue_due_tasks(
    ledger: &dyn Ledger,
    clock: &dyn Clock,
    queue: &dyn Queue,
    before: Timestamp,
) -> Result<u64, EnqueueError> {
    let mut enqueued = 0;
    loop {
        let now = clock.now();
        let due = ledger.tasks_to_enqueue(before, now, MAX_TASKS_OF_ACCOUNT, BATCH_TASKS).await?;
        let ids: Vec<TaskId> = due.iter().map(|task| task.id).collect();
        put(queue, &due).await?;
        // Only after the messages are written: a crash in between enqueues the tasks twice, the other order
        // would lose them until the redelivery interval is over.
        ledger.mark_tasks_enqueued(&ids, now.max(before)).await?;
        enqueued += ids.len() as u64;
        if ids.len() < BATCH_TASKS as usize {
            return Ok(enqueued);
        }
    }
}

async fn put(queue: &dyn Queue, tasks: &[Task]) -> Result<(), EnqueueError> {
    let messages: Vec<Message> =
        tasks.iter().map(TaskMessage::message).collect::<Result<_, _>>()?;
    if !messages.is_empty() {
        queue.put(messages).await?;
    }
    Ok(())
}

/// Enqueues due tasks and checks. Returns whether there were any. `first`: the first call since this process
/// leads. It enqueues all due tasks, because the previous leader may have had a queue in memory.
pub(super) async fn enqueue_due(ctx: &Activation, first: bool) -> Result<bool, EnqueueError> {
    let now = ctx.clock.now();
    let before = if first { now } else { now.minus(REDELIVERY_INTERVAL) };
    let tasks = enqueue_due_tasks(&*ctx.ledger, &*ctx.clock, &*ctx.queues.tasks, before).await?;
    let checks =
        ctx.ledger.checks_to_enqueue(now.minus(CHECK_REDELIVERY_INTERVAL), BATCH_TASKS).await?;
    let ids: Vec<TaskId> = checks.iter().map(|task| task.id).collect();
    put(&*ctx.queues.checks, &checks).await?;
    if !ids.is_empty() {
        ctx.ledger.mark_checks_enqueued(&ids, now).await?;
    }
    Ok(tasks > 0 || !ids.is_empty())
}
