//! Reports suspended accounts as problems of this node, and resumes them: a person resumes an account on any
//! process, and the other processes read that from the ledger.

use throng_model::{DestinationName, POLL_INTERVAL, Timestamp};
use throng_telemetry::ProblemClass;
use tokio_util::sync::CancellationToken;

use super::context::Activation;
use super::schedule::wait;
use crate::Quotas;

/// Resumes the accounts of this process that a person has resumed, until `shutdown`. Reads the ledger only
/// while an account is suspended.
pub(super) async fn run(ctx: &Activation, quotas: &Quotas, shutdown: &CancellationToken) {
    while wait(ctx, shutdown, POLL_INTERVAL).await {
        let suspended = quotas.suspended(ctx.clock.now());
        let problem = |(name, until): &(DestinationName, Timestamp)| {
            let why = "a failure of the whole account. Fix it, then `throng sync requeue` the task";
            (name.to_string(), format!("no task of the account starts until {until}: {why}"))
        };
        ctx.health.replace(ProblemClass::Account, suspended.iter().map(problem).collect());
        if suspended.is_empty() {
            continue;
        }
        match ctx.ledger.ended_backoffs().await {
            Ok(ended) => {
                for (destination, at) in ended {
                    if quotas.resume(&destination, at) {
                        tracing::info!(%destination, "account resumed");
                    }
                }
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "failed to read resumed accounts");
            }
        }
    }
}
