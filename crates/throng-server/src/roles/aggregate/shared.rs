//! What an aggregator and a relay do where many processes share a log: take a share of the
//! partitions, and hear of the others.

use std::sync::Arc;
use std::time::Duration;

use throng_feed::Frame;
use throng_log::{EventLog, LogError, PartitionAssignment};
use tokio_util::sync::CancellationToken;

use super::Feed;
use crate::{Change, NodeContext};

/// After a partition could not be taken over, or the feed not be followed.
const AFTER_TROUBLE: Duration = Duration::from_millis(500);
/// How often to look whether a partition was taken over elsewhere.
const FENCED_LOOK: Duration = Duration::from_secs(2);
/// Records of the feed that are read before its end at a start: a keyframe is among them.
const LOOK_BACK: u64 = 32;

/// Owns what the group gives this process, until `shutdown`; then gives it up.
pub async fn share(ctx: Arc<NodeContext>, mut share: PartitionAssignment, shutdown: CancellationToken) {
    loop {
        let wanted = share.partitions();
        let owned = ctx.budgets.own(&wanted).await;
        tracing::info!(partitions = ?ctx.budgets.owned(), "these partitions are aggregated here");
        let pause = match owned {
            Ok(()) => None,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a partition could not be taken over; it is tried again"
                );
                Some(AFTER_TROUBLE)
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = share.changed() => if !changed { break },
            () = sleep_or_never(pause) => {}
            () = fenced(&ctx) => {}
        }
    }
    if let Err(error) = ctx.budgets.own(&[]).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "partitions were not given up");
    }
}

async fn sleep_or_never(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// Waits until another process has taken over what is this one's, as one that was paused may do for a
/// moment when it wakes up.
async fn fenced(ctx: &NodeContext) {
    loop {
        tokio::time::sleep(FENCED_LOOK).await;
        if ctx.budgets.is_fenced() {
            return;
        }
    }
}

/// Hears of every partition by the feed, until `shutdown`.
pub async fn follow_feed(ctx: Arc<NodeContext>, feed: Feed, shutdown: CancellationToken) {
    let newest = tokio::select! {
        () = shutdown.cancelled() => return,
        newest = feed.newest() => newest,
    };
    match newest {
        Ok(frames) => {
            frames.iter().for_each(|frame| _ = ctx.budgets.take_in(frame, &ctx.gate));
            ctx.changed(Change::Budgets);
        }
        // The feed has keyframes too, and they come soon where anybody tells anything.
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the newest keyframes are not known"
        ),
    }
    let frames = feed.frames;
    let mut followers = tokio::task::JoinSet::new();
    for partition in 0..frames.partitions() {
        let (ctx, feed, shutdown) = (Arc::clone(&ctx), Arc::clone(&frames), shutdown.clone());
        followers.spawn(async move {
            while !shutdown.is_cancelled() {
                let followed = tokio::select! {
                    () = shutdown.cancelled() => return,
                    followed = follow(&ctx, &*feed, partition) => followed,
                };
                let Err(error) = followed;
                tracing::warn!(
                    partition,
                    error = &error as &dyn std::error::Error,
                    "the feed is followed again in a moment"
                );
                tokio::time::sleep(AFTER_TROUBLE).await;
            }
        });
    }
    while followers.join_next().await.is_some() {}
}

async fn follow(
    ctx: &NodeContext,
    feed: &dyn EventLog,
    partition: u32,
) -> Result<std::convert::Infallible, LogError> {
    let (start, end) = (feed.start(partition).await?, feed.end(partition).await?);
    let mut tail = feed.tail(partition, end.saturating_sub(LOOK_BACK).max(start)).await?;
    loop {
        let mut news = false;
        for record in tail.next().await? {
            match Frame::decode(&record.value) {
                Ok(frame) => news |= ctx.budgets.take_in(&frame, &ctx.gate),
                Err(error) => tracing::warn!(
                    partition,
                    offset = record.offset,
                    error = &error as &dyn std::error::Error,
                    "a record of the feed is no frame"
                ),
            }
        }
        if news {
            ctx.changed(Change::Budgets);
        }
    }
}
