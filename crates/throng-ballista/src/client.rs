//! The query worker's side: sends a query to the scheduler and reads its result.

use std::sync::Arc;

use async_trait::async_trait;
use ballista_core::execution_plans::execute_physical_plan;
use ballista_core::extension::SessionConfigExt;
use ballista_core::optimizer::with_ballista_optimizer_rules;
use datafusion::arrow::datatypes::DataType;
use datafusion::dataframe::DataFrame;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{Expr, cast};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use datafusion_proto::physical_plan::AsExecutionPlan;
use datafusion_proto::protobuf::PhysicalPlanNode;
use throng_lake::{Cluster, ClusterClient, ClusterQuery};

use crate::MAX_MESSAGE_BYTES;
use crate::codec::TableCodec;
use crate::tls::endpoints;

/// Memory that a sort of an executor reserves for its merge, of the memory of one core.
const SORT_RESERVATION: usize = 32 << 20;

/// Runs queries on the clusters that nodes name.
#[derive(Debug)]
struct Ballista;

/// What runs the queries of a worker on a cluster: see `throng_platforms::query_worker_with_cluster`.
pub fn cluster() -> &'static dyn Cluster {
    &Ballista
}

#[async_trait]
impl Cluster for Ballista {
    async fn execute(
        &self,
        client: &ClusterClient,
        query: DataFrame,
    ) -> Result<ClusterQuery, DataFusionError> {
        let (state, plan) = without_views(query)?.into_parts();
        let config = config(state.config().clone(), client);
        let rules = with_ballista_optimizer_rules(state.optimizers());
        let session = state.session_id().to_owned();
        let state = SessionStateBuilder::new_from_existing(state)
            .with_config(config.clone())
            .with_optimizer_rules(rules)
            .build();
        let plan = state.create_physical_plan(&plan).await?;
        let codec = TableCodec::default();
        if let Some(operator) = unsendable(&plan, &codec) {
            return Ok(ClusterQuery::NotSendable(format!(
                "its operator {operator} cannot be sent"
            )));
        }
        let url = format!("http://{}", client.scheduler);
        let settings = config.ballista_config();
        let result = execute_physical_plan::<PhysicalPlanNode>(
            url, &settings, plan, &codec, session, config,
        );
        result.await.map(ClusterQuery::Running)
    }
}

/// The operator because of which a plan cannot be sent, such as one of a recursive query; `None` if it can. Only its
/// name: the engine's own error has the plan, with the values of the statement.
fn unsendable(plan: &Arc<dyn ExecutionPlan>, codec: &TableCodec) -> Option<String> {
    if PhysicalPlanNode::try_from_physical_plan(Arc::clone(plan), codec).is_ok() {
        return None;
    }
    let below = plan.children().into_iter().find_map(|child| unsendable(child, codec));
    Some(below.unwrap_or_else(|| plan.name().to_owned()))
}

/// The settings of a query. The plan is made by the rules for one process, and by Ballista's for several: joins that
/// spill, no filters that are known only while the query runs.
fn config(config: SessionConfig, client: &ClusterClient) -> SessionConfig {
    let mut config = config
        .with_target_partitions(client.partitions)
        .upgrade_for_ballista()
        .with_ballista_grpc_client_max_message_size(MAX_MESSAGE_BYTES as usize)
        .with_ballista_override_create_grpc_client_endpoint(endpoints(client.tls.as_ref()));
    config.options_mut().execution.sort_spill_reservation_bytes = SORT_RESERVATION;
    config
}

/// The query with its texts and bytes in arrays that are sent as they are. A view of a few values is sent with all
/// values that it was taken from, and may be larger than a message.
fn without_views(query: DataFrame) -> Result<DataFrame> {
    let columns = query.schema().fields().iter().enumerate().map(|(at, field)| {
        let column = Expr::Column(query.schema().qualified_field(at).into());
        let plain = match field.data_type() {
            DataType::Utf8View => DataType::Utf8,
            DataType::BinaryView => DataType::Binary,
            _ => return column,
        };
        cast(column, plain).alias(field.name())
    });
    let columns: Vec<Expr> = columns.collect();
    query.select(columns)
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    #[tokio::test]
    async fn the_operator_that_cannot_be_sent_is_named() {
        for (sql, operator) in [
            ("SELECT 'a' AS who UNION SELECT 'b'", None),
            (
                "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 9)
                 SELECT n FROM r ORDER BY n",
                Some("WorkTableExec"),
            ),
        ] {
            let plan = SessionContext::new().sql(sql).await.unwrap();
            let plan = plan.create_physical_plan().await.unwrap();
            assert_eq!(unsendable(&plan, &TableCodec::default()).as_deref(), operator, "{sql}");
        }
    }

    #[tokio::test]
    async fn results_have_no_views() {
        let sql = "SELECT arrow_cast('a', 'Utf8View') AS key, 7 AS value, 'x' AS \"parameter 0\"";
        let query = SessionContext::new().sql(sql).await.unwrap();
        let plain = without_views(query).unwrap();
        let fields = plain.schema().fields().iter();
        let fields: Vec<(String, DataType)> =
            fields.map(|f| (f.name().clone(), f.data_type().clone())).collect();
        assert_eq!(fields[0], ("key".to_owned(), DataType::Utf8));
        assert_eq!(fields[1], ("value".to_owned(), DataType::Int64));
        assert_eq!(fields[2].0, "parameter 0");
        assert_eq!(plain.collect().await.unwrap()[0].num_rows(), 1);
    }
}
