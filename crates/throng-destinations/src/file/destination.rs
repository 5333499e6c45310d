//! The calls of the destination.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use throng_activation::{
    Destination, DestinationLimits, EnsuredAudience, PlatformSize, PreparedRow, Schema, SendClass,
    SendError, SendRequest, SendResponse, Skip,
};
use throng_model::Personal;
use tokio::sync::Semaphore;

use super::config::{Config, FileAccount, check};
use super::folder::Location;
use super::request::batch_file;
use super::response::{Failure, error_of};
use super::{PREPARATION, SIZES, audience};
use crate::RegistryError;
use crate::platform::LATEST_YEAR;

/// A batch's file has a few megabytes. A network file system may hang.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Calls of a destination that run at the same time. A call that hangs keeps its place after its timeout, because
/// its thread cannot be ended: without a bound, retries on a file system that hangs would take every thread on
/// which the node blocks, and with them its checkpoints.
const MAX_CALLS: u32 = 4;

/// A folder as a destination.
#[derive(Debug)]
pub struct FileDestination {
    config: Config,
    calls: Arc<Semaphore>,
}

impl FileDestination {
    /// Checks the settings. Does not access the file system.
    ///
    /// # Errors
    /// [`RegistryError::Account`] if the settings are invalid.
    pub fn new(account: &FileAccount) -> Result<Self, RegistryError> {
        let calls = Arc::new(Semaphore::new(MAX_CALLS as usize));
        Ok(Self { config: check(account)?, calls })
    }

    fn error(&self, failure: &Failure, doing: &str) -> SendError {
        error_of(failure, doing, &self.config.location.path())
    }

    /// Runs one call on a thread that may block on the disk.
    async fn call<T: Send + 'static>(
        &self,
        doing: &str,
        work: impl FnOnce(&Location) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, SendError> {
        let location = self.config.location.clone();
        let calls = Arc::clone(&self.calls);
        let running = async move {
            // Never closed, so there is always a permit in the end.
            let permit = calls.acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                let _permit = permit;
                work(&location)
            })
            .await
        };
        let folder = self.config.location.path();
        let retry = |how: &str| {
            let message = format!("{doing} in {} {how}", folder.display());
            SendError::local(SendClass::Retry, message)
        };
        match tokio::time::timeout(CALL_TIMEOUT, running).await {
            Ok(Ok(done)) => done.map_err(|failure| self.error(&failure, doing)),
            Ok(Err(_)) => Err(retry("was interrupted")),
            Err(_) => Err(retry("timed out; check the file system")),
        }
    }
}

#[async_trait]
impl Destination for FileDestination {
    fn limits(&self) -> DestinationLimits {
        DestinationLimits { max_batch_rows: 10_000, max_tasks: MAX_CALLS, sizes: SIZES }
    }

    async fn ensure_audience(&self, name: &str, owner: &str) -> Result<EnsuredAudience, SendError> {
        let (name, owner) = (name.to_owned(), owner.to_owned());
        self.call("creating an audience", move |location| audience::ensure(location, &name, &owner))
            .await
    }

    fn prepare(&self, schema: &Schema, cells: &[Option<Personal>]) -> Result<PreparedRow, Skip> {
        (PREPARATION.prepare)(schema, LATEST_YEAR, cells, &mut Vec::new())
    }

    async fn send(&self, request: &SendRequest<'_>) -> Result<SendResponse, SendError> {
        let doing = "writing a batch";
        let batch =
            batch_file(request, &self.config).map_err(|failure| self.error(&failure, doing))?;
        let (rows, name) = (batch.rows, batch.name.clone());
        self.call(doing, move |location| audience::put(location, &batch)).await?;
        Ok(SendResponse { received: rows, platform_ref: Some(name), ..SendResponse::default() })
    }

    async fn size(&self, platform_id: &str) -> Result<PlatformSize, SendError> {
        let id = platform_id.to_owned();
        self.call("reading an audience", move |location| audience::size(location, &id)).await
    }

    async fn delete_audience(&self, platform_id: &str) -> Result<(), SendError> {
        let id = platform_id.to_owned();
        self.call("deleting an audience", move |location| audience::delete(location, &id)).await
    }

    async fn probe(&self) -> Result<(), SendError> {
        self.call("writing a file", audience::probe).await
    }
}
