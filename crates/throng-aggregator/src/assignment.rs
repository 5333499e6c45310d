//! Leads the partitions that are assigned to this process, and follows the feed of all.

use std::sync::Arc;
use std::time::Duration;

use throng_log::{LogError, PartitionAssignment};
use tokio_util::sync::CancellationToken;

use super::{AggregatorDeps, Budgets};

/// After a partition could not be opened, or the feed not be followed.
const FOLLOW_RETRY_DELAY: Duration = Duration::from_millis(500);
/// How often to probe partitions whose log refused events.
const REFUSING_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How often to check whether another process has taken over a partition.
const FENCED_POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Leads the partitions that the consumer group assigns to this process, until `shutdown`; then revokes
/// them.
pub async fn follow_assignment(
    budgets: Arc<Budgets>,
    mut assignment: PartitionAssignment,
    shutdown: CancellationToken,
) {
    loop {
        // The newest assignment, whatever ended the wait: an older one could open a partition again
        // that was revoked meanwhile, and fence its leader.
        let wanted = assignment.partitions();
        let result = budgets.set_assignment(&wanted).await;
        tracing::info!(partitions = ?budgets.led_partitions(), "leading partitions");
        let retry_delay = match result {
            Ok(()) => None,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "failed to open an assigned partition"
                );
                Some(FOLLOW_RETRY_DELAY)
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = assignment.changed() => if !changed { break },
            () = sleep_or_never(retry_delay) => {}
            () = fenced(&budgets) => {}
        }
    }
    // At a shutdown too: the last checkpoints save the next leaders a replay.
    if let Err(error) = budgets.set_assignment(&[]).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "failed to revoke partitions");
    }
}

async fn sleep_or_never(delay: Option<Duration>) {
    match delay {
        Some(delay) => tokio::time::sleep(delay).await,
        None => std::future::pending().await,
    }
}

/// Waits until another process has fenced a partition that is assigned to this one. A process that was
/// paused can do that for a moment when it continues, before it learns that its assignment was revoked; the
/// group assigns nothing new then, so without this check nobody would lead the partition.
async fn fenced(budgets: &Budgets) {
    loop {
        tokio::time::sleep(FENCED_POLL_INTERVAL).await;
        if budgets.has_fenced() {
            return;
        }
    }
}

/// Applies the frames of every partition, and probes partitions whose log refused events, until `shutdown`.
pub async fn follow_feed(deps: AggregatorDeps, shutdown: CancellationToken) {
    let keyframes = tokio::select! {
        () = shutdown.cancelled() => return,
        keyframes = deps.budgets.feed.latest_keyframes() => keyframes,
    };
    match keyframes {
        Ok(frames) => {
            // First, because a partition without a leader publishes nothing: its last figures may
            // be only here.
            frames.iter().for_each(|frame| _ = deps.budgets.apply_frame(frame, &*deps.gate));
            deps.host.figures_changed();
        }
        // The partitions have keyframes too: every tenth frame of one that has a leader.
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "failed to read the latest keyframes"
        ),
    }
    let mut followers = tokio::task::JoinSet::new();
    followers.spawn(probe_refusing(Arc::clone(&deps.budgets), shutdown.clone()));
    for partition in 0..deps.budgets.partitions() {
        let (deps, shutdown) = (deps.clone(), shutdown.clone());
        // A task for each partition: an error or a slow read of one must not delay the frames of
        // others.
        followers.spawn(async move {
            while !shutdown.is_cancelled() {
                let followed = tokio::select! {
                    () = shutdown.cancelled() => return,
                    followed = follow_partition(&deps, partition) => followed,
                };
                let Err(error) = followed;
                tracing::warn!(
                    partition,
                    error = &error as &dyn std::error::Error,
                    "failed to follow the feed"
                );
                tokio::time::sleep(FOLLOW_RETRY_DELAY).await;
            }
        });
    }
    while let Some(ended) = followers.join_next().await {
        if ended.is_err() {
            // It panicked: the caller starts all of them again.
            return;
        }
    }
}

/// Clears the problems of a log that accepts events again. Here and not beside the checkpoints: a process that does not
/// aggregate accepts events too, and one that is not ready gets none by which it would notice.
async fn probe_refusing(budgets: Arc<Budgets>, shutdown: CancellationToken) {
    loop {
        let probe = async {
            tokio::time::sleep(REFUSING_POLL_INTERVAL).await;
            budgets.probe_refusing().await;
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = probe => {}
        }
    }
}

async fn follow_partition(
    deps: &AggregatorDeps,
    partition: u32,
) -> Result<std::convert::Infallible, LogError> {
    let mut frames = deps.budgets.feed.follow(partition).await?;
    loop {
        let mut changed = false;
        for frame in frames.next().await? {
            changed |= deps.budgets.apply_frame(&frame, &*deps.gate);
        }
        // Once for all frames that were read: whoever shows figures reads all of them again at each
        // call.
        if changed {
            deps.host.figures_changed();
        }
    }
}
