//! What receives the keys and rows of a scan or an identifier query.

use async_trait::async_trait;
use throng_query::keys::{
    IdentifierBatch, KEYS, NOT_ON_CLUSTER, ROWS, SHARED, SharedBatch, TABLES, read_keys,
    read_not_on_cluster, read_shared,
};
use throng_worker::{ExchangeError, Output};
use tokio::sync::mpsc;

use crate::{LakeError, SharedSink, Sink};

/// Logs that a scan is not run on the cluster of the node, and why. Without values of the data.
fn report_in_worker(reason: &str) {
    tracing::info!(%reason, "query runs in the query worker instead of the cluster");
}

/// Passes the keys of a scan to its sink.
pub(crate) struct KeyOutput<'a, 'b>(pub(crate) &'a mut Sink<'b>);

#[async_trait]
impl Output for KeyOutput<'_, '_> {
    fn accepts(&self, kind: u8) -> bool {
        matches!(kind, KEYS | NOT_ON_CLUSTER)
    }

    async fn receive(&mut self, kind: u8, payload: &[u8]) -> Result<(), ExchangeError> {
        if kind == NOT_ON_CLUSTER {
            report_in_worker(read_not_on_cluster(payload)?);
            return Ok(());
        }
        (self.0)(read_keys(payload)?).map_err(ExchangeError::Receiver)
    }
}

/// Passes the keys of a scan for several models to its sink.
pub(crate) struct SharedOutput<'a, 'b> {
    sink: &'a mut SharedSink<'b>,
    /// The last frame's.
    batch: SharedBatch,
}

impl<'a, 'b> SharedOutput<'a, 'b> {
    pub(crate) fn new(sink: &'a mut SharedSink<'b>) -> Self {
        Self { sink, batch: SharedBatch::default() }
    }
}

#[async_trait]
impl Output for SharedOutput<'_, '_> {
    fn accepts(&self, kind: u8) -> bool {
        matches!(kind, SHARED | NOT_ON_CLUSTER)
    }

    async fn receive(&mut self, kind: u8, payload: &[u8]) -> Result<(), ExchangeError> {
        if kind == NOT_ON_CLUSTER {
            report_in_worker(read_not_on_cluster(payload)?);
            return Ok(());
        }
        read_shared(payload, &mut self.batch)?;
        (self.sink)(&mut self.batch).map_err(ExchangeError::Receiver)
    }
}

/// Sends the tables and rows of an identifier query to its stream.
pub(crate) struct RowOutput(pub(crate) mpsc::Sender<Result<IdentifierBatch, LakeError>>);

#[async_trait]
impl Output for RowOutput {
    fn accepts(&self, kind: u8) -> bool {
        kind == ROWS || kind == TABLES
    }

    async fn receive(&mut self, kind: u8, payload: &[u8]) -> Result<(), ExchangeError> {
        let sent = self.0.send(Ok(IdentifierBatch::read(kind, payload)?)).await;
        sent.map_err(|_| ExchangeError::Receiver("the stream of identifiers was dropped".into()))
    }
}
