//! Identifiers out of the lake.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use throng_activation::{IdentifierRow, IdentifierRows, IdentifierSource, SendClass, SendError};
use throng_lake::{IdentifierStream, Lake, LakeError};
use throng_model::{Retry, SyncName};
use throng_spec::Identifiers;

/// A sync's identifier query over the lake.
pub(super) struct LakeIdentifiers {
    pub(super) lake: Arc<Lake>,
    pub(super) sync: SyncName,
    pub(super) identifiers: Identifiers,
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
        let columns: Vec<String> =
            self.identifiers.columns.iter().map(|(column, _)| column.clone()).collect();
        let (sql, key) = (&self.identifiers.sql, &self.identifiers.key);
        let stream = self.lake.identifiers(sql, key, &columns).await.map_err(|error| {
            let at = &self.identifiers.sql_at;
            let place = format!("{}:{}", at.file.display(), at.line);
            let message = format!("sync {}: identifiers.sql at {place}: {error}", self.sync);
            SendError::local(class(&error), message)
        })?;
        Ok(Box::new(LakeRows { stream, sync: self.sync.clone() }))
    }
}

struct LakeRows {
    stream: IdentifierStream,
    sync: SyncName,
}

#[async_trait]
impl IdentifierRows for LakeRows {
    async fn next(&mut self) -> Result<Option<Vec<IdentifierRow>>, SendError> {
        match self.stream.next().await {
            None => Ok(None),
            Some(Ok(rows)) => Ok(Some(rows)),
            Some(Err(error)) => {
                // The engine's words on a row may quote the row: they stay out of ledger and log.
                let message = format!(
                    "sync {}: identifiers.sql broke off while it ran; run it by hand to see why",
                    self.sync
                );
                Err(SendError::local(class(&error), message))
            }
        }
    }
}
