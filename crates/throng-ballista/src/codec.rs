//! Scans of CSV and JSON files in plans that go to other machines.

use std::any::Any;
use std::sync::Arc;

use ballista_core::serde::BallistaPhysicalExtensionCodec;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use throng_tables::TextSource;

/// Before the bytes of a scan; what Ballista writes begins with other ones.
const MARK: &[u8] = b"\xffthrong-text-scan\0";

/// Ballista's codec, which can also write scans of CSV and JSON files.
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
}

/// The scan of files that an operator is.
pub(crate) fn file_scan(plan: &Arc<dyn ExecutionPlan>) -> Option<&FileScanConfig> {
    let scan = plan.downcast_ref::<DataSourceExec>()?;
    let source: &dyn Any = scan.data_source().as_ref();
    source.downcast_ref::<FileScanConfig>()
}
