//! A lake: the sources of a spec, and the workers that run SQL over them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use throng_model::HashSeed;
use throng_spec::{NodeSettings, Source};
use tokio::sync::mpsc;

use crate::statement::check_bounds;
use crate::worker::{Output, Pool, QueryClass, Reply, Request, WorkerCommand};
use crate::{
    IdentifierQuery, IdentifierStream, LakeError, Model, ModelInfo, ScanPart, ScanStats, Sink,
    SourceListing, TableFacts, WorkerExit,
};

/// Batches of identifiers that are buffered.
const BUFFERED_BATCHES: usize = 4;

/// Limits on what queries may use.
#[derive(Debug, Clone)]
pub struct LakeLimits {
    /// Memory that the operators of all queries of this lake use together, in bytes; what does not
    /// fit is spilled. Each query gets a fixed part: see `docs/operate/queries.md`. A query's
    /// process is killed when it has more than 1.6 times its part and 256 MiB in use.
    pub memory_bytes: u64,
    /// Where queries spill. Each worker has its own folder there, which is removed with it.
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
    /// Prepares a lake. Starts no process and opens no file of a source: tables are looked up when
    /// a query names them, so a source may change between queries.
    ///
    /// # Errors
    /// [`LakeError::Source`] if what a crash left in the spill directory cannot be removed.
    pub fn new(sources: &[Source], limits: LakeLimits) -> Result<Self, LakeError> {
        Ok(Self { pool: Pool::new(sources, limits)? })
    }

    /// Plans a model and runs it over the first 1,000 rows of each file.
    ///
    /// # Errors
    /// The error of that run within ten seconds; [`LakeError::Sql`] with a position,
    /// [`LakeError::Key`] if the result has no usable key, [`LakeError::WorkerExited`] if it takes
    /// too much memory.
    pub async fn check_model(&self, sql: &str, key: Option<&str>) -> Result<ModelInfo, LakeError> {
        let model = Model { sql: sql.to_owned(), key: key.map(str::to_owned) };
        check_bounds(sql)?;
        match self.pool.execute(QueryClass::Other, &Request::Check { model }, Output::None).await? {
            Reply::Plan { info, .. } => Ok(info),
            _ => Err(LakeError::WorkerExited(WorkerExit::Protocol)),
        }
    }

    /// Plans a model that is to be scanned, and divides its scan: one part per file if each row is
    /// evaluated by itself, else one part. Compares the tables with those that the served version
    /// was made from, if there is one: no column that the model uses may have another kind of type
    /// now, unless the source declares it, and no table that had rows may be empty.
    ///
    /// # Errors
    /// As [`Lake::check_model`]; [`LakeError::Table`] naming file, column and both types.
    pub async fn plan_scan(
        &self,
        model: &Model,
        served: &[TableFacts],
    ) -> Result<(ModelInfo, Vec<ScanPart>), LakeError> {
        check_bounds(&model.sql)?;
        let request = Request::Plan { model: model.clone(), served: served.to_vec() };
        match self.pool.execute(QueryClass::Scan, &request, Output::None).await? {
            Reply::Plan { info, parts } => Ok((info, parts)),
            _ => Err(LakeError::WorkerExited(WorkerExit::Protocol)),
        }
    }

    /// Runs one part and passes its keys to `sink` as they arrive. Dropping the future kills the
    /// query.
    ///
    /// # Errors
    /// [`LakeError::Sink`] if the sink returned an error, [`LakeError::WorkerExited`] if the query
    /// took too much memory or time, else the error of the query. After an error, the keys that
    /// were passed before must be discarded.
    pub async fn scan(
        &self,
        model: &Model,
        part: &ScanPart,
        seed: HashSeed,
        sink: &mut Sink<'_>,
    ) -> Result<ScanStats, LakeError> {
        check_bounds(&model.sql)?;
        let request = Request::Scan { model: model.clone(), part: part.clone(), seed };
        match self.pool.execute(QueryClass::Scan, &request, Output::Keys(sink)).await? {
            Reply::Scanned(stats) => Ok(stats),
            _ => Err(LakeError::WorkerExited(WorkerExit::Protocol)),
        }
    }

    /// Lists the tables of all sources, with their files and columns and with what is passed over.
    /// Costs a `stat` of every file, and reading the CSV and JSON files of tables that have no more
    /// than 256 MiB of them.
    ///
    /// # Errors
    /// [`LakeError::WorkerExited`] if it takes too much memory or time. The error of a source or a
    /// table is part of the list.
    pub async fn list(&self) -> Result<Vec<SourceListing>, LakeError> {
        match self.pool.execute(QueryClass::Other, &Request::List, Output::None).await? {
            Reply::Listed(sources) => Ok(sources),
            _ => Err(LakeError::WorkerExited(WorkerExit::Protocol)),
        }
    }

    /// Plans an identifier query and runs it over the first 1,000 rows of each file.
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
        match self.pool.execute(QueryClass::Other, &request, Output::None).await? {
            Reply::Checked => Ok(()),
            _ => Err(LakeError::WorkerExited(WorkerExit::Protocol)),
        }
    }

    /// Streams the output of the worker's hashers for the rows of a query. Rows whose key is NULL
    /// are left out. The query does not spill, so that identifiers are never on the disk: it fails
    /// if its memory does not suffice.
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
        let (sender, mut rows) = mpsc::channel(BUFFERED_BATCHES);
        let pool = Arc::clone(&self.pool);
        tokio::spawn(async move {
            let result = tokio::select! {
                result = pool.execute(QueryClass::Other, &request, Output::Rows(&sender)) => result,
                // The stream was dropped: dropping the request kills the worker.
                () = sender.closed() => return,
            };
            let error = match result {
                Ok(Reply::Checked) => return,
                Ok(_) => LakeError::WorkerExited(WorkerExit::Protocol),
                Err(error) => error,
            };
            // The stream may be dropped already.
            let _ = sender.send(Err(error)).await;
        });
        // The first batch is empty: it means that the query is planned.
        match rows.recv().await {
            Some(Ok(_)) => Ok(Box::pin(futures::stream::poll_fn(move |cx| rows.poll_recv(cx)))),
            Some(Err(error)) => Err(error),
            None => Err(LakeError::WorkerExited(WorkerExit::Protocol)),
        }
    }
}
