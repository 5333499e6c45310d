//! The calls of the destination.

use std::time::Duration;

use async_trait::async_trait;
use throng_activation::{
    Destination, EnsuredAudience, Limits, PlatformSize, PreparedRow, Schema, SendClass, SendError,
    SendRequest, SendResponse, Skip,
};
use throng_model::Personal;

use super::config::{Config, FileAccount, check};
use super::folder::Location;
use super::request::batch_file;
use super::response::{Failure, error_of};
use super::{PREPARATION, audience};
use crate::RegistryError;

/// A batch's file has a few megabytes. A network file system may hang.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// A folder as a destination.
#[derive(Debug)]
pub struct FileDestination {
    config: Config,
}

impl FileDestination {
    /// Checks the settings. Does not access the file system.
    ///
    /// # Errors
    /// [`RegistryError::Account`] if the settings are invalid.
    pub fn new(account: &FileAccount) -> Result<Self, RegistryError> {
        Ok(Self { config: check(account)? })
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
        let running = tokio::task::spawn_blocking(move || work(&location));
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
    fn limits(&self) -> Limits {
        Limits { max_batch_rows: 10_000, max_tasks: 4 }
    }

    async fn ensure_audience(&self, name: &str, owner: &str) -> Result<EnsuredAudience, SendError> {
        let (name, owner) = (name.to_owned(), owner.to_owned());
        self.call("creating an audience", move |location| audience::ensure(location, &name, &owner))
            .await
    }

    fn prepare(&self, schema: &Schema, cells: &[Option<Personal>]) -> Result<PreparedRow, Skip> {
        (PREPARATION.prepare)(schema, cells, &mut Vec::new())
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
