//! Building certain audiences to their end, for jobs: a share of them for each pod.

use std::sync::Arc;

use futures::StreamExt;
use throng_model::{AudienceName, RefreshId};
use throng_store::{LedgerError, RefreshState, RefreshTrigger};
use tokio_util::sync::CancellationToken;

use super::{AFTER_TROUBLE, LEASE, LOOK_EVERY, Worker};
use crate::NodeContext;

/// How the refresh of an audience ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The audience.
    pub audience: AudienceName,
    /// `Completed`, `Held` or `Failed`; `Halted` or earlier if this process was told to stop.
    pub state: RefreshState,
    /// Why it failed or is held.
    pub reason: Option<String>,
    /// Members of the new snapshot, if there is one.
    pub members: Option<u64>,
}

/// Queues a refresh of each audience and works on them until all have ended, `node.build_workers` at
/// a time; `ended` hears of each. One that is stopped counts as failed. A refresh that another process has in hand is waited for. When
/// `shutdown` is told, what is in hand is halted, and goes on wherever it is claimed next.
///
/// # Errors
/// [`LedgerError`] if the refreshes cannot be queued.
pub async fn build_these(
    ctx: &Arc<NodeContext>,
    audiences: &[AudienceName],
    shutdown: &CancellationToken,
    ended: impl Fn(&Built),
) -> Result<Vec<Built>, LedgerError> {
    let (mut queued, mut built) = (Vec::new(), Vec::new());
    for (number, name) in audiences.iter().enumerate() {
        let now = ctx.clock.now();
        match ctx.ledger.schedule_refresh(name, RefreshTrigger::Manual, now).await {
            Ok(id) => queued.push((number, name.clone(), id)),
            Err(error) if error.is_wrong_state() => {
                let (state, reason) = (RefreshState::Failed, Some(error.to_string()));
                let refused = Built { audience: name.clone(), state, reason, members: None };
                ended(&refused);
                built.push(refused);
            }
            Err(error) => return Err(error),
        }
    }
    let at_once = ctx.spec.load().node.build_workers.max(1) as usize;
    let ended = &ended;
    let builds = futures::stream::iter(queued).map(|(number, name, id)| async move {
        let worker = Worker {
            ctx: Arc::clone(ctx),
            holder: format!("{}/job-{number}", ctx.holder),
            shutdown: shutdown.clone(),
        };
        let built = worker.build_this(name, id).await;
        ended(&built);
        built
    });
    let worked: Vec<Built> = builds.buffer_unordered(at_once).collect().await;
    built.extend(worked);
    Ok(built)
}

impl Worker {
    /// Claims and works until this refresh has ended, or the process is to stop.
    async fn build_this(&self, audience: AudienceName, id: RefreshId) -> Built {
        loop {
            let pause = match self.try_this(&audience, id).await {
                Ok(Some(built)) => return built,
                Ok(None) => LOOK_EVERY,
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the ledger failed a builder"
                    );
                    AFTER_TROUBLE
                }
            };
            tokio::select! {
                () = self.shutdown.cancelled() => {
                    let reason = Some("the process was told to stop".to_owned());
                    let state = RefreshState::Halted;
                    return Built { audience, state, reason, members: None };
                }
                () = tokio::time::sleep(self.ctx.pause(pause)) => {}
            }
        }
    }

    async fn try_this(
        &self,
        audience: &AudienceName,
        id: RefreshId,
    ) -> Result<Option<Built>, LedgerError> {
        let ctx = &self.ctx;
        // After the signal nothing is claimed; a claim that it overtook is halted by `process`.
        if !self.shutdown.is_cancelled() {
            let now = ctx.clock.now();
            let until = now.plus(LEASE);
            let claimed = ctx.ledger.claim_refresh_of(audience, &self.holder, now, until).await?;
            if let Some(refresh) = claimed {
                self.process(refresh).await?;
            }
        }
        let refresh = ctx.ledger.refresh(id).await?;
        let over = matches!(
            refresh.state,
            RefreshState::Completed | RefreshState::Failed | RefreshState::Held
        );
        if !over {
            return Ok(None);
        }
        let members = match refresh.snapshot_version {
            Some(version) => {
                ctx.ledger.snapshot(audience, version).await.ok().map(|snapshot| snapshot.members)
            }
            None => None,
        };
        let (state, reason) = (refresh.state, refresh.reason);
        Ok(Some(Built { audience: audience.clone(), state, reason, members }))
    }
}
