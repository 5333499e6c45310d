//! A scan of CSV and JSON files, as the engine's scans of files are: a group of files for each partition, with
//! statistics of their size, which the engine uses to order joins. An engine on several machines gives each machine
//! some of the groups.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, internal_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileGroup, FileOpenFuture, FileOpener, FileScanConfig, FileScanConfigBuilder, FileSource,
};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::object_store::ObjectStore;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::StreamExt;

use super::column_mapping::TextFiles;
use super::layout::Layout;
use super::scanned_file::scanned_file;

/// CSV and JSON files of a table, read with some of its columns.
#[derive(Debug, Clone)]
pub struct TextSource {
    pub(super) files: TextFiles,
    /// The number of each file in the table, by its location.
    numbers: Arc<HashMap<String, usize>>,
    schema: TableSchema,
    metrics: ExecutionPlanMetricsSet,
}

impl TextSource {
    /// The scan of some files of a table, in groups that are read side by side. `schema` has the wanted columns.
    ///
    /// # Errors
    /// If a path is not a location.
    pub(super) fn scan(
        layout: &Arc<Layout>,
        groups: &[Vec<usize>],
        wanted: Arc<[usize]>,
        schema: &SchemaRef,
        limit: Option<usize>,
    ) -> Result<FileScanConfig> {
        let mut numbers = HashMap::new();
        let mut located = Vec::with_capacity(groups.len());
        let (mut rows, mut bytes) = (Some(0), 0);
        for group in groups {
            let mut files = Vec::with_capacity(group.len());
            for at in group {
                let plan = &layout.files[*at];
                let file = scanned_file(&plan.file.stamp)?;
                numbers.insert(location(&file).to_owned(), *at);
                rows = rows.zip(plan.rows).map(|(all, rows)| all + rows);
                bytes += plan.file.stamp.bytes;
                files.push(file);
            }
            located.push(FileGroup::new(files));
        }
        let small = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let mut statistics = Statistics::new_unknown(schema);
        if let Some(rows) = rows {
            statistics.num_rows = Precision::Inexact(small(rows));
        }
        statistics.total_byte_size = Precision::Inexact(small(bytes));
        let source = Self {
            files: TextFiles::new(Arc::clone(layout), wanted, Arc::clone(schema)),
            numbers: Arc::new(numbers),
            schema: TableSchema::from(schema),
            metrics: ExecutionPlanMetricsSet::new(),
        };
        let scan = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source));
        Ok(scan.with_file_groups(located).with_statistics(statistics).with_limit(limit).build())
    }

    /// The number of a file in the table.
    pub(super) fn number(&self, file: &PartitionedFile) -> Option<usize> {
        self.numbers.get(location(file)).copied()
    }
}

fn location(file: &PartitionedFile) -> &str {
    file.object_meta.location.as_ref()
}

impl FileSource for TextSource {
    fn create_file_opener(
        &self,
        _object_store: Arc<dyn ObjectStore>,
        _base_config: &FileScanConfig,
        _partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        Ok(Arc::new(TextOpener(self.clone())))
    }

    fn table_schema(&self) -> &TableSchema {
        &self.schema
    }

    /// The readers have batches of a size of their own.
    fn with_batch_size(&self, _batch_size: usize) -> Arc<dyn FileSource> {
        Arc::new(self.clone())
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        &self.metrics
    }

    fn file_type(&self) -> &str {
        "text"
    }

    /// A file is read by one reader: where its rows begin is known only after reading it.
    fn supports_repartitioning(&self) -> bool {
        false
    }

    fn apply_expressions(
        &self,
        _each: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
}

/// Opens the files of a source.
struct TextOpener(TextSource);

impl fmt::Debug for TextOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TextOpener").finish_non_exhaustive()
    }
}

impl FileOpener for TextOpener {
    /// Reads in the thread that polls. With one thread for each reader, a query over more tables
    /// than there are threads would deadlock: readers would wait for each other.
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let Some(number) = self.0.number(&file) else {
            return internal_err!("a scan has no such file");
        };
        let rows = self.0.files.rows(number);
        Ok(Box::pin(async move { Ok(futures::stream::iter(rows).boxed()) }))
    }
}
