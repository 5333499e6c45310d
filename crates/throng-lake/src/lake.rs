//! A lake: the sources of a spec, and the workers that run SQL over them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use throng_model::HashSeed;
use throng_spec::{NodeSettings, Source};
use tokio::sync::mpsc;

use crate::statement::check_bounds;
use crate::worker::{Class, Output, Pool, Reply, Request, WorkerCommand};
use crate::{
    IdentifierQuery, IdentifierStream, LakeError, Model, ModelInfo, ScanPart, ScanStats, Sink,
    SourceListing, TableFacts, WorkerDeath,
};

/// Batches of identifiers that wait to be read.
const BATCHES_AHEAD: usize = 4;

/// Limits on what queries may use.
#[derive(Debug, Clone)]
pub struct LakeLimits {
    /// Memory that the operators of all queries of this lake hold together, in bytes; what does not
    /// fit is spilled. Each query gets a fixed part: see `docs/operate/queries.md`. A query's process
    /// is killed when it has more than 1.6 times its part and 256 MiB in use.
    pub memory_bytes: u64,
    /// Where queries spill. Each worker has a folder of its own there, which goes with it.
    pub spill_dir: PathBuf,
    /// Partitions of one query.
    pub threads: usize,
    /// Scans at the same time; more of them wait.
    pub queries: usize,
    /// The longest time of one query.
    pub timeout: Duration,
    /// How a query worker is started.
    pub worker: WorkerCommand,
}

impl LakeLimits {
    /// The limits of a node's settings, with one partition for each processor.
    pub fn of(node: &NodeSettings, spill_dir: PathBuf, worker: WorkerCommand) -> Self {
        Self {
            memory_bytes: node.memory_limit_bytes,
            spill_dir,
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            queries: node.build_workers.max(1) as usize,
            timeout: Duration::from_secs(u64::from(node.query_timeout_secs)),
            worker,
        }
    }
}

/// SQL over the sources of a spec. Cheap to clone. Its methods need a Tokio runtime.
#[derive(Debug, Clone)]
pub struct Lake {
    pool: Arc<Pool>,
}

impl Lake {
    /// Prepares a lake. Starts no process and opens no file of a source: tables are looked up when a
    /// query names them, so a source may change between queries.
    ///
    /// # Errors
    /// [`LakeError::Source`] if what a crash left in the spill directory cannot be removed.
    pub fn new(sources: &[Source], limits: LakeLimits) -> Result<Self, LakeError> {
        Ok(Self { pool: Pool::new(sources, limits)? })
    }

    /// Plans a model and tries it with the first 1,000 rows of each file.
    ///
    /// # Errors
    /// What the query fails of there within ten seconds; [`LakeError::Sql`] with a position,
    /// [`LakeError::Key`] if the result has no usable key, [`LakeError::Died`] if it takes too much
    /// memory.
    pub async fn check_model(&self, sql: &str, key: Option<&str>) -> Result<ModelInfo, LakeError> {
        let model = Model { sql: sql.to_owned(), key: key.map(str::to_owned) };
        check_bounds(sql)?;
        match self.pool.ask(Class::Other, &Request::Check { model }, Output::None).await? {
            Reply::Plan { info, .. } => Ok(info),
            _ => Err(LakeError::Died(WorkerDeath::Protocol)),
        }
    }

    /// Plans a model that is to be scanned, and cuts its scan: one part per file if every row is
    /// looked at alone, else one part.
    ///
    /// # Errors
    /// As [`Lake::check_model`].
    pub async fn plan_scan(&self, model: &Model) -> Result<(ModelInfo, Vec<ScanPart>), LakeError> {
        self.plan_scan_after(model, &[]).await
    }

    /// As [`Lake::plan_scan`], and holds the tables to what they were when the served version was made
    /// of them: no column that the model uses has another kind of type now, unless the source declares
    /// it, and no table that had rows has none.
    ///
    /// # Errors
    /// As [`Lake::check_model`]; [`LakeError::Table`] naming file, column and both types.
    pub async fn plan_scan_after(
        &self,
        model: &Model,
        served: &[TableFacts],
    ) -> Result<(ModelInfo, Vec<ScanPart>), LakeError> {
        check_bounds(&model.sql)?;
        let request = Request::Plan { model: model.clone(), served: served.to_vec() };
        match self.pool.ask(Class::Scan, &request, Output::None).await? {
            Reply::Plan { info, parts } => Ok((info, parts)),
            _ => Err(LakeError::Died(WorkerDeath::Protocol)),
        }
    }

    /// Runs one part and hands its keys over as they come. Dropping the future kills the query.
    ///
    /// # Errors
    /// [`LakeError::Sink`] if the keys could not be taken, [`LakeError::Died`] if the query took too
    /// much memory or time, else what the query failed of. Keys that were handed over before an
    /// error count for nothing.
    pub async fn scan(
        &self,
        model: &Model,
        part: &ScanPart,
        seed: HashSeed,
        sink: &mut Sink<'_>,
    ) -> Result<ScanStats, LakeError> {
        check_bounds(&model.sql)?;
        let request = Request::Scan { model: model.clone(), part: part.clone(), seed };
        match self.pool.ask(Class::Scan, &request, Output::Keys(sink)).await? {
            Reply::Scanned(stats) => Ok(stats),
            _ => Err(LakeError::Died(WorkerDeath::Protocol)),
        }
    }

    /// Lists the tables of all sources, with their files and columns and with what is passed over.
    /// Costs a look at every file, and reading the CSV and JSON files of tables that have no more than
    /// 256 MiB of them.
    ///
    /// # Errors
    /// [`LakeError::Died`] if it takes too much memory or time. What is wrong with a source or a table
    /// is part of the list.
    pub async fn list(&self) -> Result<Vec<SourceListing>, LakeError> {
        match self.pool.ask(Class::Other, &Request::List, Output::None).await? {
            Reply::Listed(sources) => Ok(sources),
            _ => Err(LakeError::Died(WorkerDeath::Protocol)),
        }
    }

    /// Plans an identifier query and tries it with the first 1,000 rows of each file.
    ///
    /// # Errors
    /// As [`Lake::check_model`]; [`LakeError::Key`] if a column is missing.
    pub async fn check_identifiers(
        &self,
        sql: &str,
        key: &str,
        columns: &[String],
    ) -> Result<(), LakeError> {
        check_bounds(sql)?;
        let (sql, key, columns) = (sql.to_owned(), key.to_owned(), columns.to_vec());
        let request = Request::CheckIdentifiers { sql, key, columns };
        match self.pool.ask(Class::Other, &request, Output::None).await? {
            Reply::Checked => Ok(()),
            _ => Err(LakeError::Died(WorkerDeath::Protocol)),
        }
    }

    /// Streams what the worker's hashers make of the rows of a query. Rows whose key is NULL are left
    /// out. The query does not spill: what does not fit into its memory fails.
    ///
    /// # Errors
    /// As [`Lake::check_identifiers`]; errors of the running query come in the stream.
    pub async fn identifiers(
        &self,
        query: &IdentifierQuery,
        seed: HashSeed,
    ) -> Result<IdentifierStream, LakeError> {
        check_bounds(&query.sql)?;
        let request = Request::Identifiers { query: query.clone(), seed };
        let (sender, mut rows) = mpsc::channel(BATCHES_AHEAD);
        let pool = Arc::clone(&self.pool);
        tokio::spawn(async move {
            let asked = tokio::select! {
                asked = pool.ask(Class::Other, &request, Output::Rows(&sender)) => asked,
                // Nobody reads on: the worker is killed as the request is dropped.
                () = sender.closed() => return,
            };
            let ended = match asked {
                Ok(Reply::Checked) => return,
                Ok(_) => LakeError::Died(WorkerDeath::Protocol),
                Err(error) => error,
            };
            // Nobody may read on.
            let _ = sender.send(Err(ended)).await;
        });
        // The first batch, which is empty, says that the query is planned.
        match rows.recv().await {
            Some(Ok(_)) => Ok(Box::pin(futures::stream::poll_fn(move |cx| rows.poll_recv(cx)))),
            Some(Err(error)) => Err(error),
            None => Err(LakeError::Died(WorkerDeath::Protocol)),
        }
    }
}
