//! A person ends the rest of an account on whichever process; this one hears of it from the ledger.

use std::sync::Arc;

use throng_activation::Quotas;
use tokio_util::sync::CancellationToken;

use super::{LOOK_EVERY, wait};
use crate::NodeContext;

/// Ends the rests of this process's accounts that a person has ended, until `shutdown`. The ledger is
/// asked only while an account rests.
pub(super) async fn work(ctx: &Arc<NodeContext>, quotas: &Quotas, shutdown: &CancellationToken) {
    while wait(ctx, shutdown, LOOK_EVERY).await {
        if !quotas.any_rests(ctx.clock.now()) {
            continue;
        }
        match ctx.ledger.ended_rests().await {
            Ok(ended) => {
                for (destination, at) in ended {
                    if quotas.end_rest(&destination, at) {
                        tracing::info!(%destination, "the rest of the account was ended by a person");
                    }
                }
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "it is not known which rests were ended");
            }
        }
    }
}
