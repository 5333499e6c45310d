//! Hashed identifiers from the lake.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::StreamExt;
use throng_activation::{
    IdentifierQueries, IdentifierRow, IdentifierRows, IdentifierSource, SendClass, SendError,
};
use throng_lake::{IdentifierQuery, IdentifierStream, Lake, LakeError};
use throng_model::{HashSeed, Retry, SyncName};
use throng_spec::Identifiers;

use crate::hashing::HashingSettings;

/// The identifier queries of syncs over the lake.
pub struct LakeQueries {
    /// SQL over the sources of the applied spec.
    pub lake: Arc<ArcSwap<Lake>>,
    /// The deployment's hash seed.
    pub seed: HashSeed,
}

impl std::fmt::Debug for LakeQueries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LakeQueries").finish_non_exhaustive()
    }
}

impl IdentifierQueries for LakeQueries {
    fn query_of(&self, sync: &throng_spec::Sync, platform: &str) -> Arc<dyn IdentifierSource> {
        let keys = sync.identifiers.columns.iter().map(|(_, key)| key.clone()).collect();
        let default_country = sync.identifiers.default_country.clone();
        Arc::new(LakeIdentifiers {
            lake: self.lake.load().in_workspace(sync.name.workspace()),
            sync: sync.name.clone(),
            identifiers: sync.identifiers.clone(),
            settings: HashingSettings { platform: platform.to_owned(), keys, default_country },
            seed: self.seed,
        })
    }
}

/// A sync's identifier query over the lake.
struct LakeIdentifiers {
    /// Over the sources of the sync's workspace.
    lake: Lake,
    sync: SyncName,
    identifiers: Identifiers,
    /// The hashing for the platform.
    settings: HashingSettings,
    seed: HashSeed,
}

fn class(error: &LakeError) -> SendClass {
    match error.retry() {
        Retry::Never => SendClass::Stop,
        Retry::Backoff | Retry::After(_) => SendClass::Retry,
    }
}

#[async_trait]
impl IdentifierSource for LakeIdentifiers {
    async fn open(&self) -> Result<Box<dyn IdentifierRows>, SendError> {
        let hasher = serde_json::to_value(&self.settings)
            .map_err(|_| SendError::local(SendClass::Stop, "cannot encode the columns as JSON"))?;
        let query = IdentifierQuery {
            sql: self.identifiers.sql.clone(),
            key: self.identifiers.key.clone(),
            columns: self.identifiers.columns.iter().map(|(column, _)| column.clone()).collect(),
            hasher,
        };
        let stream = self.lake.identifiers(&query, self.seed).await.map_err(|error| {
            let at = &self.identifiers.sql_at;
            let place = format!("{}:{}", at.file.display(), at.line);
            let words = throng_model::with_causes(&error);
            let message = format!("sync {}: identifiers.sql at {place}: {words}", self.sync);
            SendError::local(class(&error), message)
        })?;
        let (sync, settings) = (self.sync.clone(), self.settings.clone());
        Ok(Box::new(LakeRows { stream, sync, settings }))
    }
}

struct LakeRows {
    stream: IdentifierStream,
    sync: SyncName,
    settings: HashingSettings,
}

#[async_trait]
impl IdentifierRows for LakeRows {
    async fn next(&mut self) -> Result<Option<Vec<IdentifierRow>>, SendError> {
        match self.stream.next().await {
            None => Ok(None),
            Some(Ok(rows)) => self.settings.read(rows).map(Some).map_err(|error| {
                SendError::local(SendClass::Stop, format!("sync {}: {error}", self.sync))
            }),
            Some(Err(error)) => {
                // Errors of the lake have no values of the data.
                let message = format!(
                    "sync {}: identifiers.sql was interrupted: {}",
                    self.sync,
                    throng_model::with_causes(&error)
                );
                Err(SendError::local(class(&error), message))
            }
        }
    }
}
