//! The build role: workers that claim refreshes, do their parts, and publish. Crash-safe at every
//! step: parts are idempotent, their outputs appear whole, and one ledger update publishes.

mod bits;
mod cancel;
mod damage;
mod dictionaries;
mod error;
mod files;
mod finish;
mod guard;
mod members;
mod membership;
mod once;
mod parts;
mod pool;
mod retention;
mod snapshots;
mod sweep;
mod work;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use throng_lake::Model;
use throng_model::{AudienceName, Backoff, Retry, Timestamp};
use throng_spec::{Audience, Spec};
use throng_store::{LedgerError, Refresh, RefreshTrigger};
use throng_telemetry::{metrics, spans};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{Change, NodeContext};

pub use cancel::cancel;
pub(crate) use damage::{Reported, inspect_files, report as report_faults};
pub(crate) use dictionaries::Dictionaries;
pub use error::BuildError;
pub use membership::reload_membership;
pub(crate) use membership::{declared as declared_audiences, load_membership};
pub use once::{Built, build_these};
pub(crate) use snapshots::open_snapshot;
pub use sweep::take_over;

/// How long a builder may be silent.
const LEASE: Duration = Duration::from_secs(20);
/// How often it says that it is at work, and how far; a refresh that was cancelled elsewhere ends
/// within this time.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How often to look for a refresh without a signal.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After the ledger has failed.
const AFTER_TROUBLE: Duration = Duration::from_secs(5);
/// How often halting a refresh is tried when the process ends, and how long between two tries: well
/// within the time that a process has to end.
const HALT_TRIES: u32 = 5;
const HALT_RETRY_DELAY: Duration = Duration::from_millis(500);
/// Tries of a refresh.
const TRIES: u32 = 3;
const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(300) };

/// Runs until `shutdown`. A refresh in hand is halted then, and goes on after the parts that it has
/// done.
pub async fn run(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..ctx.spec.load().node.build_workers.max(1) {
        let worker = Worker {
            ctx: Arc::clone(&ctx),
            // Leases are told apart by their holder, so each worker is one.
            holder: format!("{}/build-{number}", ctx.holder),
            shutdown: shutdown.clone(),
        };
        workers.spawn(async move { worker.run().await });
    }
    while workers.join_next().await.is_some() {}
}

struct Worker {
    ctx: Arc<NodeContext>,
    holder: String,
    shutdown: CancellationToken,
}

impl Worker {
    async fn run(&self) {
        while !self.shutdown.is_cancelled() {
            let pause = match self.work_once().await {
                Ok(true) => continue,
                Ok(false) => LOOK_EVERY,
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the ledger failed a builder"
                    );
                    AFTER_TROUBLE
                }
            };
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = self.ctx.wake_build.notified() => {}
                () = tokio::time::sleep(self.ctx.pause(pause)) => {}
            }
        }
    }

    /// Claims a refresh and does what can be done for it; if none is due, helps with one. `false`
    /// if there is nothing to do.
    async fn work_once(&self) -> Result<bool, LedgerError> {
        let ctx = &self.ctx;
        let now = ctx.clock.now();
        match ctx.ledger.claim_refresh(&self.holder, now, now.plus(LEASE)).await? {
            Some(refresh) => {
                let span = spans::refresh(refresh.id, &refresh.audience);
                self.process(refresh).instrument(span).await.map(|()| true)
            }
            None => self.help_once().await,
        }
    }

    /// Does a part of a refresh that another process leads. A part that fails is given back: the
    /// leader meets the same error and tells it. `false` if there is none, or it failed.
    async fn help_once(&self) -> Result<bool, LedgerError> {
        let ctx = &self.ctx;
        // A process that is alone has all of its threads at work on the refresh already.
        if !ctx.spec.load().node.is_shared() {
            return Ok(false);
        }
        let now = ctx.clock.now();
        let claim = work::claim_of(&self.holder);
        let claimed = ctx.ledger.claim_part(None, &claim, now, now.plus(LEASE)).await?;
        let Some((refresh, part)) = claimed else { return Ok(false) };
        let helping = AssertUnwindSafe(work::help(ctx, refresh, &part)).catch_unwind();
        let helped = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => None,
            helped = helping => Some(helped.unwrap_or(Err(BuildError::Panicked))),
            never = work::keep_part(ctx, &claim) => match never {},
        };
        if let Some(Ok(())) = helped {
            metrics::counter!(metrics::REFRESH_PARTS_HELPED_TOTAL).increment(1);
            return Ok(true);
        }
        if let Some(Err(error)) = helped {
            tracing::debug!(
                %refresh,
                part = part.number,
                error = &error as &dyn std::error::Error,
                "a part is given back"
            );
        }
        ctx.ledger.release_part(refresh, part.number, &claim).await?;
        Ok(false)
    }

    /// Does what can be done for a refresh that is claimed.
    async fn process(&self, refresh: Refresh) -> Result<(), LedgerError> {
        let ctx = &self.ctx;
        let now = ctx.clock.now();
        ctx.changed(Change::Audiences);
        let audience = declared(&ctx.spec.load(), &refresh.audience).cloned();
        let Some(audience) = audience else {
            let gone = BuildError::Gone(refresh.audience.clone());
            return self.failed(&refresh, None, &gone).await;
        };
        if refresh.crashes >= TRIES {
            let crashed = BuildError::Crashed(refresh.crashes);
            return self.failed(&refresh, Some(&audience), &crashed).await;
        }
        let built = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {
                return self.halt(&refresh).await;
            }
            built = AssertUnwindSafe(self.build(&audience, &refresh)).catch_unwind() => {
                built.unwrap_or(Err(BuildError::Panicked))
            }
        };
        let took = ctx.clock.now().since(now).as_secs_f64();
        let outcome = match built {
            Ok(made) => {
                finish::follow(ctx, &audience, &refresh, &made).await;
                if made.held.is_some() { "held" } else { "published" }
            }
            Err(error) if error.lease_lost() => "lost",
            Err(error @ BuildError::Superseded) => {
                self.failed(&refresh, Some(&audience), &error).await?;
                "superseded"
            }
            Err(error) => {
                self.failed(&refresh, Some(&audience), &error).await?;
                "failed"
            }
        };
        metrics::counter!(metrics::REFRESHES_TOTAL, "outcome" => outcome).increment(1);
        metrics::histogram!(metrics::REFRESH_SECONDS, "outcome" => outcome).record(took);
        Ok(())
    }

    /// Gives a refresh back, so that whoever is next goes on with it at once. The process is about to
    /// end, so a ledger that fails is asked again here and not later.
    async fn halt(&self, refresh: &Refresh) -> Result<(), LedgerError> {
        let ctx = &self.ctx;
        let mut tries = 1;
        loop {
            match ctx.ledger.halt_refresh(refresh.id, &self.holder, ctx.clock.now()).await {
                // It has ended, or somebody else has it.
                Ok(()) | Err(LedgerError::LeaseLost { .. }) => return Ok(()),
                Err(error) if tries == HALT_TRIES => return Err(error),
                Err(error) => tracing::warn!(
                    refresh = %refresh.id,
                    error = &error as &dyn std::error::Error,
                    "a refresh is not halted yet"
                ),
            }
            tries += 1;
            tokio::time::sleep(HALT_RETRY_DELAY).await;
        }
    }

    async fn build(
        &self,
        audience: &Audience,
        refresh: &Refresh,
    ) -> Result<finish::Made, BuildError> {
        let progress = work::Progress::default();
        let limit = u64::from(self.ctx.spec.load().node.query_timeout_secs);
        let worked = tokio::select! {
            worked = work::work(&self.ctx, audience, refresh, &self.holder, &progress) => worked?,
            stop = self.keep(audience, refresh, &progress) => return Err(stop),
            () = tokio::time::sleep(Duration::from_secs(limit)) => {
                return Err(BuildError::Timeout(limit));
            }
        };
        metrics::counter!(metrics::REFRESH_ROWS_TOTAL).increment(worked.rows_read);
        let publish = finish::publish(&self.ctx, audience, refresh, &self.holder, worked);
        tokio::select! {
            made = publish => made,
            // Publishing gives the lease up: only its own answer tells whether it was lost before. A
            // model that changes this late gets its refresh from the schedule role.
            () = async {
                self.keep(audience, refresh, &progress).await;
                std::future::pending().await
            } => Err(BuildError::Panicked),
        }
    }

    /// Keeps the lease and tells progress. Returns only when the work is for nothing: the lease is
    /// lost, or the audience's model is not what is being run.
    async fn keep(
        &self,
        audience: &Audience,
        refresh: &Refresh,
        progress: &work::Progress,
    ) -> BuildError {
        let ctx = &self.ctx;
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.ctx.pause(TELL_EVERY)) => {}
                () = ctx.cancelled.notified() => {}
            }
            match declared(&ctx.spec.load(), &audience.name) {
                None => return BuildError::Gone(audience.name.clone()),
                Some(now) if model_of(now) != model_of(audience) => return BuildError::Superseded,
                Some(_) => {}
            }
            let (rows, null_keys, expected) = progress.figures();
            let until = ctx.clock.now().plus(LEASE);
            let told = ctx
                .ledger
                .refresh_progress(refresh.id, &self.holder, until, rows, null_keys, expected)
                .await;
            match told {
                Ok(()) => ctx.changed(Change::Audiences),
                Err(lost @ LedgerError::LeaseLost { .. }) => return lost.into(),
                Err(error) => tracing::warn!(
                    refresh = %refresh.id,
                    error = &error as &dyn std::error::Error,
                    "a refresh's progress was not recorded"
                ),
            }
        }
    }

    /// Puts a refresh back in the queue, or gives it up with an alert.
    async fn failed(
        &self,
        refresh: &Refresh,
        audience: Option<&Audience>,
        error: &BuildError,
    ) -> Result<(), LedgerError> {
        let ctx = &self.ctx;
        let (name, now) = (&refresh.audience, ctx.clock.now());
        ctx.note_storage(&format!("refresh of {name}"), error);
        let mut reason = error.in_words();
        metrics::counter!(metrics::QUERY_FAILURES_TOTAL, "class" => error.class()).increment(1);
        if let (Some(audience), BuildError::Lake(_)) = (audience, error) {
            let at = &audience.sql_at;
            reason.push_str(&format!("; the SQL begins at {}:{}", at.file.display(), at.line));
        }
        let spec = ctx.spec.load_full();
        let current = declared(&spec, name);
        let changed = match (audience, current) {
            (Some(tried), Some(current)) => {
                matches!(error, BuildError::Superseded) || model_of(tried) != model_of(current)
            }
            _ => false,
        };
        // A new model gets a refresh of its own, and the old one no further try.
        let retry_at = if changed { None } else { next_try(refresh, error.retry(), now) };
        let ended = ctx.ledger.fail_refresh(refresh.id, &self.holder, &reason, retry_at, now).await;
        let tries = match ended {
            Ok(refresh) => refresh.failures,
            Err(LedgerError::LeaseLost { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        if let Some(at) = retry_at {
            tracing::warn!(audience = %name, refresh = %refresh.id, tries, reason, "a refresh failed");
            let why = format!("try {tries} of {TRIES}, the next at {at}: {reason}");
            finish::record(ctx, name, "failed", why).await?;
        } else if changed {
            sweep::drop_parts(ctx, refresh.id).await;
            match ctx.ledger.schedule_refresh(name, RefreshTrigger::Apply, now).await {
                Ok(_) => {}
                // It is stopped; whoever resumes it brings it up to date.
                Err(error) if error.is_wrong_state() => {}
                Err(error) => return Err(error),
            }
            finish::record(ctx, name, "given up", reason).await?;
        } else {
            tracing::error!(audience = %name, refresh = %refresh.id, tries, reason, "a refresh gave up");
            sweep::drop_parts(ctx, refresh.id).await;
            if current.is_some() {
                ctx.ledger.raise_alert(&sweep::failed_alert(name, &reason), now).await?;
            }
            finish::record(ctx, name, "failed", format!("given up: {reason}")).await?;
        }
        ctx.changed(Change::Audiences);
        Ok(())
    }
}

/// The audience of this name, if the spec has it.
fn declared<'a>(spec: &'a Spec, name: &AudienceName) -> Option<&'a Audience> {
    spec.audiences.iter().find(|audience| audience.name == *name)
}

/// The model of an audience.
pub(super) fn model_of(audience: &Audience) -> Model {
    Model { sql: audience.sql.clone(), key: audience.key.clone() }
}

/// When to try again after a failure; `None` to give up.
fn next_try(refresh: &Refresh, retry: Retry, now: Timestamp) -> Option<Timestamp> {
    let tries = refresh.failures.saturating_add(1);
    if tries >= TRIES {
        return None;
    }
    match retry {
        Retry::Never => None,
        Retry::Backoff => Some(now.plus(BACKOFF.delay(tries, refresh.id.0.unsigned_abs()))),
        Retry::After(pause) => Some(now.plus(pause)),
    }
}
