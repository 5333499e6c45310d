//! Scans of CSV and JSON files, and functions on integers, in plans that go to other machines.

use std::any::Any;
use std::sync::Arc;

use ballista_core::serde::BallistaPhysicalExtensionCodec;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use throng_tables::{TextSource, checked_function, checked_sum};

/// Before the bytes of a scan; what Ballista writes begins with other ones.
const MARK: &[u8] = b"\xffthrong-text-scan\0";

/// Instead of the bytes of a function of throng-lake. A function without bytes is one of the engine: the scheduler and the
/// executors would find its `sum`.
const FUNCTION: &[u8] = b"throng";

/// Ballista's codec, which can also write scans of CSV and JSON files, and the functions of throng-lake.
#[derive(Debug, Default)]
pub(crate) struct TableCodec(BallistaPhysicalExtensionCodec);

impl PhysicalExtensionCodec for TableCodec {
    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        ctx: &TaskContext,
        proto_converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match buf.strip_prefix(MARK) {
            Some(bytes) => Ok(DataSourceExec::from_data_source(TextSource::decode(bytes)?)),
            None => self.0.try_decode(buf, inputs, ctx, proto_converter),
        }
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        proto_converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        match file_scan(&node).and_then(TextSource::encode) {
            Some(bytes) => {
                buf.extend_from_slice(MARK);
                buf.extend_from_slice(&bytes?);
                Ok(())
            }
            None => self.0.try_encode(node, buf, proto_converter),
        }
    }

    fn try_decode_udf(&self, name: &str, buf: &[u8]) -> Result<Arc<ScalarUDF>> {
        match checked_function(name) {
            Some(function) => Ok(function),
            None => self.0.try_decode_udf(name, buf),
        }
    }

    fn try_encode_udf(&self, node: &ScalarUDF, buf: &mut Vec<u8>) -> Result<()> {
        if checked_function(node.name()).is_none() {
            return self.0.try_encode_udf(node, buf);
        }
        buf.extend_from_slice(FUNCTION);
        Ok(())
    }

    fn try_decode_udaf(&self, name: &str, buf: &[u8]) -> Result<Arc<AggregateUDF>> {
        match buf == FUNCTION {
            true => Ok(checked_sum()),
            false => self.0.try_decode_udaf(name, buf),
        }
    }

    fn try_encode_udaf(&self, node: &AggregateUDF, buf: &mut Vec<u8>) -> Result<()> {
        if *node != *checked_sum() {
            return self.0.try_encode_udaf(node, buf);
        }
        buf.extend_from_slice(FUNCTION);
        Ok(())
    }
}

/// The scan of files that an operator is.
pub(crate) fn file_scan(plan: &Arc<dyn ExecutionPlan>) -> Option<&FileScanConfig> {
    let scan = plan.downcast_ref::<DataSourceExec>()?;
    let source: &dyn Any = scan.data_source().as_ref();
    source.downcast_ref::<FileScanConfig>()
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use datafusion::execution::session_state::SessionStateBuilder;
    use datafusion::physical_plan::collect;
    use datafusion::prelude::SessionContext;
    use datafusion_proto::physical_plan::AsExecutionPlan;
    use datafusion_proto::protobuf::PhysicalPlanNode;
    use throng_tables::with_checked_integers;

    use super::*;

    #[tokio::test]
    async fn functions_on_integers_are_those_of_the_sender() {
        let session = SessionStateBuilder::new().with_default_features();
        let sender = SessionContext::new_with_state(with_checked_integers(session).build());
        let values: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, 1]));
        let batch = RecordBatch::try_from_iter([("v", values)]).unwrap();
        sender.register_batch("t", batch).unwrap();
        let receiver = SessionContext::new().task_ctx();
        let codec = TableCodec::default();
        for sql in [
            "SELECT sum(v) FROM t",
            "SELECT v, sum(DISTINCT v) OVER () FROM t",
            "SELECT v + 1 FROM t",
            "SELECT -v - 2 FROM t",
            "SELECT v FROM t WHERE v * 2 > 5",
        ] {
            let plan = sender.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
            let sent = PhysicalPlanNode::try_from_physical_plan(plan, &codec).unwrap();
            let plan = sent.try_into_physical_plan(&receiver, &codec).unwrap();
            let error = collect(plan, Arc::clone(&receiver)).await.unwrap_err().to_string();
            assert!(error.contains("Arithmetic overflow"), "{sql}: {error}");
        }
    }
}
