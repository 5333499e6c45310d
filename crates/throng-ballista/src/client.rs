//! The query worker's side: sends a query to the scheduler and reads its result.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use ballista_core::execution_plans::execute_physical_plan;
use ballista_core::extension::SessionConfigExt;
use ballista_core::optimizer::with_ballista_optimizer_rules;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::dataframe::DataFrame;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{Expr, cast};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use datafusion_proto::physical_plan::AsExecutionPlan;
use datafusion_proto::protobuf::PhysicalPlanNode;
use throng_lake::{Cluster, ClusterClient, ClusterQuery, CopiedFolder, CopiedObject};
use throng_tables::{ScannedObject, as_scanned, relocated};

use crate::MAX_MESSAGE_BYTES;
use crate::codec::{TableCodec, file_scan};
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
        let Some(plan) = with_objects(plan, &client.copied)? else {
            let reason = "it reads a file whose object in its bucket is not known".to_owned();
            return Ok(ClusterQuery::NotSendable(reason));
        };
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

/// The plan with the objects that files of copies are copies of, which executors read instead of the files. `None` if
/// that of a file is not known: the copy has changed since its objects were listed, or the store has no ETags.
fn with_objects(
    plan: Arc<dyn ExecutionPlan>,
    copied: &[CopiedFolder],
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let (mut folders, mut known) = (Vec::with_capacity(copied.len()), HashMap::new());
    for copy in copied {
        let folder = as_scanned(&copy.folder)?;
        for CopiedObject { path, etag, bytes, modified } in &copy.objects {
            let Some(etag) = etag.clone() else { continue };
            let key = match copy.prefix.as_str() {
                "" => path.clone(),
                prefix => format!("{prefix}/{path}"),
            };
            let object = ScannedObject { bucket: copy.bucket.clone(), key, etag };
            known.insert((folder.join(path), *bytes, *modified), object);
        }
        folders.push(folder);
    }
    let mut are_known = true;
    let plan = plan.transform(|node| {
        let Some(scan) = file_scan(&node) else { return Ok(Transformed::no(node)) };
        let named = relocated(scan, |stamp| {
            if !folders.iter().any(|folder| stamp.path.starts_with(folder)) {
                return None;
            }
            let object = known.get(&(stamp.path.clone(), stamp.bytes, stamp.modified));
            are_known &= object.is_some();
            object.map(ScannedObject::path)
        })?;
        Ok(match named {
            Some(scan) => {
                let scan: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(scan);
                Transformed::yes(scan)
            }
            None => Transformed::no(node),
        })
    })?;
    Ok(are_known.then_some(plan.data))
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
    use datafusion::common::tree_node::TreeNodeRecursion;
    use datafusion::prelude::{CsvReadOptions, SessionContext};
    use throng_files::FileStamp;
    use throng_tables::stamps;

    use super::*;

    #[tokio::test]
    async fn a_plan_names_the_objects_of_the_copies_that_it_reads() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.csv");
        std::fs::write(&file, "id\n1\n").unwrap();
        let stamp = FileStamp::of(&file).unwrap();
        let context = SessionContext::new();
        let path = file.to_str().unwrap();
        context.register_csv("t", path, CsvReadOptions::default()).await.unwrap();
        let plan = context.sql("SELECT id FROM t").await.unwrap();
        let plan = plan.create_physical_plan().await.unwrap();
        let copy = |objects: Vec<CopiedObject>| CopiedFolder {
            folder: dir.path().to_owned(),
            bucket: "s3://lake".to_owned(),
            prefix: "e".to_owned(),
            objects,
        };
        let object = CopiedObject {
            path: "a.csv".to_owned(),
            etag: Some("1".to_owned()),
            bytes: stamp.bytes,
            modified: stamp.modified,
        };
        let sent = |copied: &[CopiedFolder]| with_objects(Arc::clone(&plan), copied).unwrap();
        let read = |plan: Arc<dyn ExecutionPlan>| {
            let mut read = Vec::new();
            let visited = plan.apply(|node| {
                read.extend(file_scan(node).map(stamps).transpose()?.unwrap_or_default());
                Ok(TreeNodeRecursion::Continue)
            });
            visited.unwrap();
            read
        };
        let (bucket, key) = ("s3://lake".to_owned(), "e/a.csv".to_owned());
        let named = ScannedObject { bucket, key, etag: "1".to_owned() };
        let expected = FileStamp { path: named.path(), ..stamp.clone() };
        assert_eq!(read(sent(&[copy(vec![object.clone()])]).unwrap()), [expected]);
        // A folder of another source stays as it is.
        let other = CopiedFolder { folder: dir.path().join("b"), ..copy(vec![object.clone()]) };
        assert_eq!(read(sent(&[other]).unwrap()), std::slice::from_ref(&stamp));
        for unknown in [
            CopiedObject { modified: stamp.modified + 1, ..object.clone() },
            CopiedObject { bytes: 7, ..object.clone() },
            CopiedObject { etag: None, ..object.clone() },
            CopiedObject { path: "b.csv".to_owned(), ..object },
        ] {
            assert!(sent(&[copy(vec![unknown.clone()])]).is_none(), "{unknown:?}");
        }
    }

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
