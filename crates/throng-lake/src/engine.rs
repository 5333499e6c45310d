//! The query engine in this process. Only the query worker runs it: see [`crate::worker`].

use std::sync::Arc;

use datafusion::dataframe::DataFrame;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt as _;
use throng_query::model::Shape;
use throng_spec::Source;

use crate::cluster::{Cluster, ClusterQuery, FoundCluster, OnCluster};
use crate::engine_failure::EngineFailure;
use crate::error::LakeError;
use crate::session::{EngineLimits, Session};
use crate::stage_error::{cluster_error, cluster_failure};

/// What fails if the cluster has no result.
const ON_CLUSTER: &str = "running the query on the cluster";
/// What fails if its scheduler takes no connection.
const CONNECTING: &str = "connecting to the scheduler of the cluster";
/// The cause if the program was built without a cluster's engine.
const WITHOUT_CLUSTER: &str =
    "this program cannot use `node.engine: ballista`: it was built without the feature `ballista`";

/// SQL over the sources of a spec, in this process.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    pub(crate) inner: Arc<Session>,
    /// Runs queries on a cluster, if the program can.
    cluster: Option<&'static dyn Cluster>,
}

impl Engine {
    /// Prepares the engine. Opens no file of a source: tables are looked up when a query names
    /// them, so a source may change between queries.
    pub(crate) fn new(
        sources: &[Source],
        limits: &EngineLimits,
        cluster: Option<&'static dyn Cluster>,
    ) -> Result<Self, LakeError> {
        Ok(Self { inner: Arc::new(Session::new(sources, limits)?), cluster })
    }

    /// Runs a query: on the cluster, if there is one and rows are not evaluated each by itself. What a cluster cannot
    /// run is run here, once the reason is reported.
    pub(crate) async fn execute(
        &self,
        doing: &'static str,
        query: DataFrame,
        shape: Shape,
        on: Option<OnCluster<'_>>,
    ) -> Result<SendableRecordBatchStream, LakeError> {
        if let Some(on) = on.filter(|_| shape == Shape::General)
            && let Some(stream) = self.on_cluster(doing, &query, on).await?
        {
            return Ok(stream);
        }
        query.execute_stream().await.map_err(|e| LakeError::engine(doing, e))
    }

    /// `None` if the cluster cannot run the query, once the reason is reported.
    async fn on_cluster(
        &self,
        doing: &'static str,
        query: &DataFrame,
        on: OnCluster<'_>,
    ) -> Result<Option<SendableRecordBatchStream>, LakeError> {
        let failed = |doing: &str, cause: &str| LakeError::Engine {
            doing: doing.to_owned(),
            source: EngineFailure::of_text(cause.to_owned()),
        };
        let reason = match on.found {
            FoundCluster::Unreachable(cause) => return Err(failed(CONNECTING, cause)),
            FoundCluster::NotUsed(reason) => reason.clone(),
            FoundCluster::Reachable(client) => {
                let cluster = self.cluster.ok_or_else(|| failed(doing, WITHOUT_CLUSTER))?;
                let sent = cluster.execute(client, query.clone()).await;
                match sent.map_err(|e| cluster_failure(ON_CLUSTER, &e))? {
                    ClusterQuery::Running(stream) => return Ok(Some(marked(doing, stream))),
                    ClusterQuery::NotSendable(reason) => reason,
                }
            }
        };
        (on.report)(&reason).map_err(|e| LakeError::Sink(e.into()))?;
        Ok(None)
    }
}

/// The rows of a query on a cluster. Its errors stay distinct from those of queries in this process.
fn marked(doing: &'static str, rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
    let schema = rows.schema();
    let rows = rows.map_err(move |error| cluster_error(doing, &error));
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}
