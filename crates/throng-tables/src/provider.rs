//! The engine's view of a table of files: CSV and JSON files are read by readers that map their
//! columns, and Parquet files by the engine's own scan, one for each way in which files name the
//! columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::{Result, ScalarValue, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::expressions::{CastExpr, Column as PhysicalColumn, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::union::UnionExec;
use throng_files::{Format, WHITE_SPACE};
use throng_model::INVISIBLE;

use super::column_mapping::constant;
use super::layout::{FilePlan, Layout, Origin};
use super::scanned_file::scanned_file;
use super::text_source::TextSource;

/// A table.
#[derive(Debug)]
pub struct LakeTable {
    layout: Arc<Layout>,
    schema: SchemaRef,
}

impl LakeTable {
    /// A table that is read so.
    pub fn new(layout: Arc<Layout>) -> Self {
        Self { schema: layout.schema(), layout }
    }
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all = || (0..self.schema.fields().len()).collect();
        let wanted: Arc<[usize]> = projection.cloned().unwrap_or_else(all).into();
        let schema = Arc::new(self.schema.project(&wanted)?);
        let (parquet, text): (Vec<usize>, Vec<usize>) = (0..self.layout.files.len())
            .partition(|at| self.layout.files[*at].file.format == Format::Parquet);
        let partitions = state.config().target_partitions();
        let mut plans: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if !text.is_empty() {
            plans.push(self.text_scan(&text, &wanted, &schema, (partitions, limit))?);
        }
        let mut groups: BTreeMap<Vec<GroupKey>, Vec<&FilePlan>> = BTreeMap::new();
        for at in parquet {
            let file = &self.layout.files[at];
            let key = wanted.iter().map(|column| GroupKey::of(&file.origins[*column])).collect();
            groups.entry(key).or_default().push(file);
        }
        for (key, files) in groups {
            let scan =
                ParquetScan { layout: &self.layout, wanted: &wanted, key: &key, files: &files };
            plans.push(scan.plan(state, self.layout.sample.or(limit)).await?);
        }
        match plans.len() {
            0 => Ok(Arc::new(EmptyExec::new(schema))),
            1 => Ok(plans.remove(0)),
            _ => UnionExec::try_new(plans),
        }
    }
}

impl LakeTable {
    fn text_scan(
        &self,
        files: &[usize],
        wanted: &Arc<[usize]>,
        schema: &SchemaRef,
        (partitions, limit): (usize, Option<usize>),
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let sizes: Vec<u64> =
            files.iter().map(|at| self.layout.files[*at].file.stamp.bytes).collect();
        let groups = balanced(files, &sizes, partitions.max(1));
        let wanted = Arc::clone(wanted);
        let scan = TextSource::scan(&self.layout, &groups, wanted, schema, limit)?;
        Ok(DataSourceExec::from_data_source(scan))
    }
}

/// Divides files into at most `groups` groups of similar size; the files of a group stay in their
/// order.
fn balanced(files: &[usize], sizes: &[u64], groups: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(sizes[*at]));
    let mut filled: Vec<(u64, Vec<usize>)> = vec![(0, Vec::new()); groups.min(files.len())];
    for at in order {
        if let Some(smallest) = filled.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            smallest.0 += sizes[at].max(1);
            smallest.1.push(files[at]);
        }
    }
    filled
        .into_iter()
        .map(|(_, mut files)| {
            files.sort_unstable();
            files
        })
        .collect()
}

/// How a group of Parquet files names a column. Files with the same keys are scanned together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum GroupKey {
    Missing,
    Column(String),
    Folder,
}

impl GroupKey {
    fn of(origin: &Origin) -> Self {
        match origin {
            Origin::Missing => Self::Missing,
            Origin::Column(name) => Self::Column(name.clone()),
            // Of JSON files only.
            Origin::Spelled(names) => names.first().cloned().map_or(Self::Missing, Self::Column),
            Origin::Folder(_) => Self::Folder,
        }
    }
}

/// A scan of Parquet files that name the columns alike.
struct ParquetScan<'a> {
    layout: &'a Layout,
    wanted: &'a [usize],
    key: &'a [GroupKey],
    files: &'a [&'a FilePlan],
}

impl ParquetScan<'_> {
    async fn plan(
        &self,
        state: &dyn Session,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = || self.wanted.iter().map(|at| &self.layout.columns[*at]).zip(self.key);
        let mut in_file = Vec::new();
        let mut in_folder = Vec::new();
        for (column, key) in columns() {
            match key {
                GroupKey::Column(name) => {
                    in_file.push(Field::new(name, column.data_type.clone(), true));
                }
                GroupKey::Folder => {
                    let field = Field::new(&column.name, column.data_type.clone(), true);
                    in_folder.push(Arc::new(field));
                }
                GroupKey::Missing => {}
            }
        }
        let file_columns = in_file.len();
        let schema = TableSchema::builder(Arc::new(Schema::new(in_file)))
            .with_table_partition_cols(in_folder)
            .build();
        let options = state.default_table_options().parquet;
        let format = ParquetFormat::default().with_options(options);
        let mut statistics = Statistics::new_unknown(schema.table_schema());
        let rows: Option<u64> = self.files.iter().map(|file| file.rows).sum();
        if let Some(rows) = rows.and_then(|rows| usize::try_from(rows).ok()) {
            statistics.num_rows = Precision::Exact(rows);
        }
        let bytes = self.files.iter().map(|file| file.file.stamp.bytes).sum::<u64>();
        statistics.total_byte_size =
            Precision::Inexact(usize::try_from(bytes).unwrap_or(usize::MAX));
        let conf = FileScanConfigBuilder::new(
            ObjectStoreUrl::local_filesystem(),
            format.file_source(schema),
        )
        .with_file_groups(self.groups(state.config().target_partitions().max(1))?)
        .with_statistics(statistics)
        .with_limit(limit)
        .build();
        let scan = format.create_physical_plan(state, conf).await?;
        let (mut next_column, mut next_folder) = (0, file_columns);
        let mut exprs = Vec::with_capacity(self.wanted.len());
        for (column, key) in columns() {
            let expr: Arc<dyn PhysicalExpr> = match key {
                GroupKey::Missing => {
                    let null = ScalarValue::try_from(&column.data_type)?;
                    Arc::new(Literal::new(null))
                }
                GroupKey::Column(name) => {
                    next_column += 1;
                    let read = Arc::new(PhysicalColumn::new(name, next_column - 1));
                    if self.layout.trim && column.data_type == DataType::Utf8View {
                        trim(read, &scan.schema())?
                    } else {
                        read
                    }
                }
                GroupKey::Folder => {
                    next_folder += 1;
                    Arc::new(PhysicalColumn::new(&column.name, next_folder - 1))
                }
            };
            exprs.push(ProjectionExpr::new(expr, &column.name));
        }
        Ok(Arc::new(ProjectionExec::try_new(exprs, scan)?))
    }

    fn groups(&self, partitions: usize) -> Result<Vec<FileGroup>> {
        let sizes: Vec<u64> = self.files.iter().map(|file| file.file.stamp.bytes).collect();
        let all: Vec<usize> = (0..self.files.len()).collect();
        let groups = balanced(&all, &sizes, partitions).into_iter();
        groups
            .map(|files| {
                let files = files.into_iter().map(|at| self.partitioned(self.files[at]));
                Ok(FileGroup::new(files.collect::<Result<_>>()?))
            })
            .collect()
    }

    fn partitioned(&self, plan: &FilePlan) -> Result<PartitionedFile> {
        let file = scanned_file(&plan.file.stamp)?;
        let mut values = Vec::new();
        for at in self.wanted {
            if let Origin::Folder(value) = &plan.origins[*at] {
                values.push(constant(value.as_deref(), &self.layout.columns[*at])?);
            }
        }
        Ok(file.with_partition_values(values))
    }
}

/// Removes the white space and invisible characters around the values of a text column.
fn trim(column: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let white = WHITE_SPACE.iter().chain(&INVISIBLE).collect();
    let white = ScalarValue::Utf8View(Some(white));
    let arguments: Vec<Arc<dyn PhysicalExpr>> = vec![column, Arc::new(Literal::new(white))];
    let function = datafusion::functions::string::btrim();
    let config = Arc::new(ConfigOptions::default());
    let trimmed = ScalarFunctionExpr::try_new(function, arguments, schema, config)?;
    let text = CastExpr::new(Arc::new(trimmed), DataType::Utf8View, None);
    Ok(Arc::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_similar_sizes() {
        assert_eq!(balanced(&[4, 5, 6, 7], &[10, 1, 1, 9], 2), [vec![4, 6], vec![5, 7]]);
        assert_eq!(balanced(&[3], &[0], 2), [vec![3]]);
    }
}
