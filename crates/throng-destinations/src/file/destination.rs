//! The calls.

use std::time::Duration;

use async_trait::async_trait;
use throng_activation::{
    Answer, Destination, Ensured, Limits, PlatformSize, PreparedRow, Schema, SendClass, SendError,
    SendRequest, Skip,
};
use throng_model::Personal;

use super::config::{Config, FileAccount, check};
use super::folder::Place;
use super::request::batch_of;
use super::response::{Failure, error_of};
use super::{PREPARATION, audience};
use crate::RegistryError;

/// A file of a batch is a few megabytes. A file system over the network may hang.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// A folder as a destination.
#[derive(Debug)]
pub struct FileDestination {
    config: Config,
}

impl FileDestination {
    /// Checks the settings. The file system is not asked yet.
    ///
    /// # Errors
    /// [`RegistryError::Account`] if the settings make no sense.
    pub fn new(account: &FileAccount) -> Result<Self, RegistryError> {
        Ok(Self { config: check(account)? })
    }

    fn error(&self, failure: &Failure, doing: &str) -> SendError {
        error_of(failure, doing, &self.config.place.path())
    }

    /// One call, in a thread that may wait for the disk.
    async fn call<T: Send + 'static>(
        &self,
        doing: &str,
        work: impl FnOnce(&Place) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, SendError> {
        let place = self.config.place.clone();
        let working = tokio::task::spawn_blocking(move || work(&place));
        let folder = self.config.place.path();
        let retry = |how: &str| {
            let message = format!("{doing} in {} {how}", folder.display());
            SendError::local(SendClass::Retry, message)
        };
        match tokio::time::timeout(CALL_TIMEOUT, working).await {
            Ok(Ok(done)) => done.map_err(|failure| self.error(&failure, doing)),
            Ok(Err(_)) => Err(retry("was broken off")),
            Err(_) => Err(retry("did not end in time; check the file system")),
        }
    }
}

#[async_trait]
impl Destination for FileDestination {
    fn limits(&self) -> Limits {
        Limits { max_batch_rows: 10_000, max_tasks: 4 }
    }

    async fn ensure_audience(&self, name: &str, owner: &str) -> Result<Ensured, SendError> {
        let (name, owner) = (name.to_owned(), owner.to_owned());
        self.call("making an audience", move |place| audience::ensure(place, &name, &owner)).await
    }

    fn prepare(&self, schema: &Schema, cells: &[Option<Personal>]) -> Result<PreparedRow, Skip> {
        (PREPARATION.prepare)(schema, cells, &mut Vec::new())
    }

    async fn send(&self, request: &SendRequest<'_>) -> Result<Answer, SendError> {
        let doing = "writing a batch";
        let batch =
            batch_of(request, &self.config).map_err(|failure| self.error(&failure, doing))?;
        let (rows, name) = (batch.rows, batch.name.clone());
        self.call(doing, move |place| audience::put(place, &batch)).await?;
        Ok(Answer { received: rows, platform_ref: Some(name), ..Answer::default() })
    }

    async fn size(&self, platform_id: &str) -> Result<PlatformSize, SendError> {
        let id = platform_id.to_owned();
        self.call("reading an audience", move |place| audience::size(place, &id)).await
    }

    async fn delete_audience(&self, platform_id: &str) -> Result<(), SendError> {
        let id = platform_id.to_owned();
        self.call("deleting an audience", move |place| audience::delete(place, &id)).await
    }

    async fn probe(&self) -> Result<(), SendError> {
        self.call("writing a file", audience::probe).await
    }
}
