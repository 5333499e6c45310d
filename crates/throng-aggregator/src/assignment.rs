//! What an aggregator and a relay do where several processes share a log: lead the assigned partitions, and
//! follow the feed of all.

use std::sync::Arc;
use std::time::Duration;

use throng_feed::Frame;
use throng_log::{EventLog, LogError, PartitionAssignment};
use tokio_util::sync::CancellationToken;

use super::{AggregatorDeps, Budgets, Feed};

/// After a partition could not be opened, or the feed not be followed.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// How often to check whether another process has taken over a partition.
const FENCED_POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Records of the feed that are read before its end at a start: a keyframe is among them.
const STARTUP_RECORDS: u64 = 32;

/// Leads the partitions that the consumer group assigns to this process, until `shutdown`; then revokes
/// them.
pub async fn follow_assignment(
    budgets: Arc<Budgets>,
    mut assignment: PartitionAssignment,
    shutdown: CancellationToken,
) {
    loop {
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
                Some(RETRY_DELAY)
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = assignment.changed() => if !changed { break },
            () = sleep_or_never(retry_delay) => {}
            () = fenced(&budgets) => {}
        }
    }
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

/// Applies the frames of every partition, until `shutdown`.
pub async fn follow_feed(deps: AggregatorDeps, feed: Feed, shutdown: CancellationToken) {
    let keyframes = tokio::select! {
        () = shutdown.cancelled() => return,
        keyframes = feed.latest_keyframes() => keyframes,
    };
    match keyframes {
        Ok(frames) => {
            frames.iter().for_each(|frame| _ = deps.budgets.apply_frame(frame, &*deps.gate));
            deps.host.figures_changed();
        }
        // The log of frames has keyframes too: every tenth one of a partition that has a leader.
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "failed to read the latest keyframes"
        ),
    }
    let frames = feed.frames;
    let mut followers = tokio::task::JoinSet::new();
    for partition in 0..frames.partitions() {
        let (deps, frames, shutdown) = (deps.clone(), Arc::clone(&frames), shutdown.clone());
        followers.spawn(async move {
            while !shutdown.is_cancelled() {
                let followed = tokio::select! {
                    () = shutdown.cancelled() => return,
                    followed = follow_partition(&deps, &*frames, partition) => followed,
                };
                let Err(error) = followed;
                tracing::warn!(
                    partition,
                    error = &error as &dyn std::error::Error,
                    "failed to follow the feed"
                );
                tokio::time::sleep(RETRY_DELAY).await;
            }
        });
    }
    while followers.join_next().await.is_some() {}
}

async fn follow_partition(
    deps: &AggregatorDeps,
    frames: &dyn EventLog,
    partition: u32,
) -> Result<std::convert::Infallible, LogError> {
    let (start, end) = (frames.start(partition).await?, frames.end(partition).await?);
    let mut tail = frames.tail(partition, end.saturating_sub(STARTUP_RECORDS).max(start)).await?;
    loop {
        let mut changed = false;
        for record in tail.next().await? {
            match Frame::decode(&record.value) {
                Ok(frame) => changed |= deps.budgets.apply_frame(&frame, &*deps.gate),
                Err(error) => tracing::warn!(
                    partition,
                    offset = record.offset,
                    error = &error as &dyn std::error::Error,
                    "failed to decode a frame"
                ),
            }
        }
        if changed {
            deps.host.figures_changed();
        }
    }
}
