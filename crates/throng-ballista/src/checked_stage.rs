//! The tasks of an executor. A task reads files of this machine, as they were when the query was planned; it writes
//! nothing but its output; and its errors have no values of the data.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use ballista_core::JobId;
use ballista_core::error::BallistaError;
use ballista_core::serde::protobuf::{
    RuntimeStatsReport, ShuffleWritePartition, TaskColumnStats, WindowStateReport,
};
use ballista_executor::execution_engine::{
    DefaultExecutionEngine, ExecutionEngine, QueryStageExecutor,
};
use datafusion::common::exec_err;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::prelude::SessionConfig;
use futures::future::abortable;
use throng_files::{FileError, FileStamp, ScannedFiles};
use throng_lake::{stage_error, stage_file_error};
use throng_source_copies::{CachedObject, ObjectCache};
use throng_tables::{relocated, stamps};

use crate::codec::file_scan;
use crate::objects::{StageObjects, named_by};
use crate::peers::Peers;
use crate::running_tasks::{RunningTasks, TaskName};

/// The operator that writes files, which no query has.
const SINK: &str = "DataSinkExec";

/// Makes tasks that are checked, and that can be cancelled.
pub(crate) struct CheckedEngine {
    engine: DefaultExecutionEngine,
    tasks: Arc<RunningTasks>,
    /// The objects of buckets; `None`: it reads none.
    cache: Option<Arc<ObjectCache>>,
}

impl CheckedEngine {
    pub(crate) fn new(tasks: Arc<RunningTasks>, cache: Option<Arc<ObjectCache>>) -> Self {
        let engine = DefaultExecutionEngine::with_client_pool(Arc::new(Peers::default()));
        Self { engine, tasks, cache }
    }
}

impl ExecutionEngine for CheckedEngine {
    fn create_query_stage_exec(
        &self,
        job_id: JobId,
        stage_id: usize,
        task_id: usize,
        global_output_partition_ids: Vec<usize>,
        plan: Arc<dyn ExecutionPlan>,
        work_dir: &str,
        config: &SessionConfig,
    ) -> Result<Arc<dyn QueryStageExecutor>> {
        let LocalPlan { plan, files, objects } = LocalPlan::of(plan, self.cache.as_deref())?;
        let objects = StageObjects { objects, cache: self.cache.clone() };
        let name = (job_id.to_string(), stage_id, task_id);
        let stage = self.engine.create_query_stage_exec(
            job_id,
            stage_id,
            task_id,
            global_output_partition_ids,
            plan,
            work_dir,
            config,
        )?;
        let tasks = Arc::clone(&self.tasks);
        Ok(Arc::new(CheckedStage { stage, files, objects, name, tasks }))
    }
}

/// A plan for this executor.
struct LocalPlan {
    plan: Arc<dyn ExecutionPlan>,
    /// The files that it reads, as they were when it was made.
    files: Vec<FileStamp>,
    /// The objects that are some of them.
    objects: Vec<CachedObject>,
}

impl LocalPlan {
    /// A plan as it was sent, with the files of the cache in the place of objects.
    ///
    /// # Errors
    /// If it writes files, or reads some of another store.
    fn of(plan: Arc<dyn ExecutionPlan>, cache: Option<&ObjectCache>) -> Result<Self> {
        let (mut files, mut objects) = (Vec::new(), HashSet::new());
        let plan = plan.transform(|node| {
            if node.name() == SINK {
                return exec_err!("a query may not write files");
            }
            let Some(scan) = file_scan(&node) else { return Ok(Transformed::no(node)) };
            if scan.object_store_url != ObjectStoreUrl::local_filesystem() {
                return exec_err!("a query may read files of the executor only");
            }
            let local = relocated(scan, |stamp| {
                let object = named_by(stamp)?;
                let path = cache.map(|cache| cache.path_of(&object));
                objects.insert(object);
                path
            })?;
            files.extend(stamps(local.as_ref().unwrap_or(scan))?);
            Ok(match local {
                Some(scan) => {
                    let scan: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(scan);
                    Transformed::yes(scan)
                }
                None => Transformed::no(node),
            })
        })?;
        Ok(Self { plan: plan.data, files, objects: objects.into_iter().collect() })
    }
}

/// A task.
#[derive(Debug)]
struct CheckedStage {
    stage: Arc<dyn QueryStageExecutor>,
    files: Vec<FileStamp>,
    objects: StageObjects,
    name: TaskName,
    tasks: Arc<RunningTasks>,
}

impl CheckedStage {
    /// Runs the stage on the files of the query.
    async fn run(
        &self,
        task_id: usize,
        context: Arc<TaskContext>,
    ) -> Result<Vec<ShuffleWritePartition>> {
        let shown = |error: FileError| self.objects.shown(error);
        // Until the end: what is held is not removed.
        let _held = self.objects.hold().await.map_err(stage_file_error)?;
        let opened = self.open().map_err(|error| stage_file_error(shown(error)))?;
        let written = self.stage.execute_query_stage(task_id, context).await;
        let written = written.map_err(|error| without_values(error, || opened.compare(), shown))?;
        opened.compare().map_err(|error| stage_file_error(shown(error)))?;
        Ok(written)
    }

    /// The files, if they are those of the query.
    fn open(&self) -> Result<ScannedFiles, FileError> {
        self.files.iter().try_for_each(FileStamp::compare)?;
        ScannedFiles::of(&self.files)
    }
}

impl fmt::Display for CheckedStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.stage)
    }
}

#[async_trait::async_trait]
impl QueryStageExecutor for CheckedStage {
    async fn execute_query_stage(
        &self,
        task_id: usize,
        context: Arc<TaskContext>,
    ) -> Result<Vec<ShuffleWritePartition>> {
        let (task, handle) = abortable(self.run(task_id, context));
        let running = self.tasks.add(self.name.clone(), handle);
        let written =
            task.await.unwrap_or_else(|_| Err(BallistaError::Cancelled.into_datafusion()));
        drop(running);
        written
    }

    fn collect_plan_metrics(&self) -> Vec<MetricsSet> {
        self.stage.collect_plan_metrics()
    }

    fn collect_runtime_stats_reports(&self) -> Vec<RuntimeStatsReport> {
        self.stage.collect_runtime_stats_reports()
    }

    fn collect_window_state_reports(&self) -> Result<Vec<WindowStateReport>> {
        self.stage.collect_window_state_reports()
    }

    fn collect_column_stats(&self) -> Vec<TaskColumnStats> {
        self.stage.collect_column_stats()
    }
}

/// The error of a task as it leaves the executor. Ballista tells by their types which errors can be retried: those of
/// reading the output of another executor, and those of the system. They have no values.
fn without_values(
    error: DataFusionError,
    changed: impl FnOnce() -> Result<(), FileError>,
    shown: impl FnOnce(FileError) -> FileError,
) -> DataFusionError {
    let cause = innermost(&error);
    let is_retried = match cause {
        DataFusionError::IoError(_) => true,
        DataFusionError::External(cause) => matches!(
            cause.downcast_ref::<BallistaError>(),
            Some(
                BallistaError::FetchFailed(..)
                    | BallistaError::IoError(_)
                    | BallistaError::Cancelled
            )
        ),
        _ => false,
    };
    if is_retried { error } else { stage_error(cause, changed, shown) }
}

/// The error of the engine within errors of Ballista.
fn innermost(error: &DataFusionError) -> &DataFusionError {
    let root = error.find_root();
    if let DataFusionError::External(cause) = root
        && let Some(BallistaError::DataFusionError(inner)) = cause.downcast_ref::<BallistaError>()
    {
        return innermost(inner);
    }
    root
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::error::ArrowError;

    use super::*;

    #[test]
    fn errors_that_are_retried_keep_their_type() {
        let lost = BallistaError::FetchFailed("e1".into(), 1, 2, "gone".into());
        let lost =
            without_values(DataFusionError::External(Box::new(lost)), || Ok(()), |file| file);
        assert!(matches!(lost, DataFusionError::External(_)), "{lost:?}");
        let system = DataFusionError::IoError(std::io::ErrorKind::ConnectionReset.into());
        let system = without_values(system.context("reading"), || Ok(()), |file| file);
        assert!(matches!(system, DataFusionError::Context(..)));
    }

    #[test]
    fn other_errors_have_no_values() {
        let cast = ArrowError::CastError("Cannot cast string 'zoe@example.com' to Int32".into());
        let cast = DataFusionError::ArrowError(Box::new(cast), None);
        let cast = BallistaError::DataFusionError(Box::new(cast));
        let cast = DataFusionError::External(Box::new(cast));
        let sent = without_values(cast, || Ok(()), |file| file);
        assert!(!format!("{sent:?}").contains("zoe"), "{sent:?}");
    }
}
