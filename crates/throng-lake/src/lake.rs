//! A lake: the sources of a spec, and the workers that run SQL over them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use throng_files::FileError;
use throng_model::HashSeed;
use throng_query::copies::{CopiedFolder, CopiedSources, Copies, Wait};
use throng_query::keys::IdentifierBatch;
use throng_query::limits::folders;
use throng_spec::{ParameterValue, Source, TemplateRows, sources_by_workspace};
use throng_worker::{NoOutput, Output, Pool, WorkerClass, WorkerError, WorkerExit};
use tokio::sync::mpsc;

use crate::cluster::{ClusterOptions, FoundCluster};
use crate::statement::check_bounds;
use crate::worker::{KeyOutput, Reply, Request, RowOutput, SharedOutput};
use crate::{
    IdentifierQuery, IdentifierStream, InputQuery, InputState, LakeError, LakeLimits, Model,
    ModelInfo, ScanPart, ScanStats, SharedPlan, SharedScan, SharedSink, SharedStats, Sink,
    SourceListing, TableFacts,
};

/// Batches of identifiers that are buffered.
const BUFFERED_BATCHES: usize = 4;
/// Planning reads CSV and JSON files to infer their types, which may take this long.
const PLAN_TIMEOUT: Duration = Duration::from_secs(600);

/// The longest list of objects that a worker is given, in bytes: a message has at most 64 MiB, also with the files of the
/// part.
const MAX_OBJECTS_BYTES: usize = 24 << 20;

/// SQL over the sources of a spec. Cheap to clone. Its methods need a Tokio runtime.
///
/// It is that of the default workspace: [`Lake::in_workspace`] has those of the others. Each has the sources of its
/// workspace under their local names, in workers that can read no other folder. All of them have one set of limits.
#[derive(Debug, Clone)]
pub struct Lake {
    pool: Arc<Pool<Vec<Source>>>,
    /// The longest time of one query.
    timeout: Duration,
    copied: CopiedSources,
    /// Of the default workspace: the lakes of the others.
    workspaces: Arc<BTreeMap<String, Lake>>,
    /// Runs queries that are not divided into parts.
    cluster: Option<Arc<ClusterQueries>>,
}

/// A cluster, and the workers that may connect to it.
#[derive(Debug)]
struct ClusterQueries {
    options: ClusterOptions,
    pool: Arc<Pool<Vec<Source>>>,
}

impl Lake {
    /// Prepares a lake. Starts no process and opens no file of a source: tables are looked up when
    /// a query names them, so a source may change between queries. `copies` copies the objects of sources in buckets
    /// before each request that reads them.
    ///
    /// # Errors
    /// [`LakeError::File`] if what a crash left in the spill directory cannot be removed.
    pub fn new(
        sources: &[Source],
        limits: LakeLimits,
        copies: Option<&Arc<dyn Copies>>,
    ) -> Result<Self, LakeError> {
        let (timeout, spill_dir) = (limits.timeout, limits.spill_dir.clone());
        let mut sources = sources_by_workspace(sources);
        let mut own = sources.remove(&None::<String>).unwrap_or_default();
        let copied = CopiedSources::of(&mut own, copies);
        let pool = Pool::new(limits.into_pool_settings(&own));
        let pool = pool.map_err(|source| FileError::Source { path: spill_dir, source })?;
        let lake = Self { pool, timeout, copied, workspaces: Arc::default(), cluster: None };
        let workspaces =
            sources.into_iter().filter_map(|(name, of)| Some((name?, lake.over(of, copies))));
        Ok(Self { workspaces: Arc::new(workspaces.collect()), ..lake.clone() })
    }

    fn over(&self, mut sources: Vec<Source>, copies: Option<&Arc<dyn Copies>>) -> Self {
        let copied = CopiedSources::of(&mut sources, copies);
        let pool = self.pool.with_task(folders(&sources), sources);
        let (timeout, workspaces) = (self.timeout, Arc::default());
        let lake = Self { pool, timeout, copied, workspaces, cluster: None };
        match &self.cluster {
            Some(cluster) => lake.on_cluster(cluster.options.clone()),
            None => lake,
        }
    }

    /// The lake with the scans that are not divided into parts run on a cluster, by workers that may connect to its
    /// scheduler. Those of sources in buckets only if its executors read buckets: the copies are on this machine.
    #[must_use]
    pub fn on_cluster(self, options: ClusterOptions) -> Self {
        let each = self.workspaces.iter();
        let each =
            each.map(|(name, lake)| (name.clone(), lake.clone().on_cluster(options.clone())));
        let workspaces = Arc::new(each.collect());
        let pool = self.pool.with_connection(options.port());
        Self { cluster: Some(Arc::new(ClusterQueries { options, pool })), workspaces, ..self }
    }

    /// This lake, with the same workers, and another limit on the time of a query.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        let of = |lake: &Self| Self { timeout, ..lake.clone() };
        let workspaces = self.workspaces.iter().map(|(name, lake)| (name.clone(), of(lake)));
        Self { workspaces: Arc::new(workspaces.collect()), ..of(self) }
    }

    /// The lake of a workspace; `None` is the default one. That of a workspace without sources has no table.
    #[must_use]
    pub fn in_workspace(&self, workspace: Option<&str>) -> Self {
        match workspace {
            None => self.clone(),
            Some(name) => {
                self.workspaces.get(name).cloned().unwrap_or_else(|| self.over(Vec::new(), None))
            }
        }
    }

    /// The cluster that a part of a scan may run on: if it covers all files, its rows may have to be seen together.
    async fn cluster_for(
        &self,
        sql: &str,
        part: &ScanPart,
    ) -> Result<Option<FoundCluster>, LakeError> {
        let Some(cluster) = self.cluster.as_ref().filter(|_| part.file.is_none()) else {
            return Ok(None);
        };
        let mut copied = Vec::new();
        if self.copied.are_named_by(sql) {
            let not_used = |why: &str| Ok(Some(FoundCluster::NotUsed(why.to_owned())));
            if !cluster.options.reads_buckets {
                return not_used("it reads a source in a bucket");
            }
            self.update_copies(sql, Some(part)).await?;
            copied = self.copied.objects(sql).await?;
            if copied.iter().map(CopiedFolder::message_bytes).sum::<usize>() > MAX_OBJECTS_BYTES {
                return not_used("the buckets that it reads have too many objects");
            }
        }
        Ok(Some(cluster.options.client(copied).await))
    }

    /// Makes the copies that a query reads up to date: those of a part are, while its files are as they were planned.
    async fn update_copies(&self, sql: &str, part: Option<&ScanPart>) -> Result<(), LakeError> {
        let is_current = match part {
            Some(part) => part.is_current().await,
            None => false,
        };
        if !is_current {
            self.copied.update(sql).await?;
        }
        Ok(())
    }

    /// Answers a request in a worker, once the copies that it reads are up to date. Dropping the future kills the
    /// worker.
    async fn execute(
        &self,
        class: WorkerClass,
        request: &Request,
        output: &mut dyn Output,
    ) -> Result<Reply, LakeError> {
        if let Some((sql, part)) = request.query()
            && self.copied.are_named_by(sql)
        {
            self.update_copies(sql, part).await?;
        }
        let needs_cluster = matches!(
            request,
            Request::Scan { cluster: Some(FoundCluster::Reachable(_)), .. }
                | Request::ScanShared { cluster: Some(FoundCluster::Reachable(_)), .. }
        );
        let pool = match &self.cluster {
            Some(cluster) if needs_cluster => &cluster.pool,
            _ => &self.pool,
        };
        let timeout = match request {
            Request::Scan { .. }
            | Request::Identifiers { .. }
            | Request::PlanShared { .. }
            | Request::WhyAlone { .. }
            | Request::ScanShared { .. }
            | Request::TemplateRows { .. } => self.timeout,
            Request::Plan { .. }
            | Request::Check { .. }
            | Request::List { .. }
            | Request::Inputs { .. }
            | Request::CheckIdentifiers { .. } => PLAN_TIMEOUT.min(self.timeout),
        };
        let reply: Reply = pool.execute(class, request, timeout, output).await?;
        match reply {
            Reply::Failed(failure) => Err(match LakeError::from(failure) {
                LakeError::File(error) => self.copied.shown_error(error).into(),
                error => error,
            }),
            Reply::Plan { mut info, parts } => {
                self.copied.show_in(&mut info.warnings);
                Ok(Reply::Plan { info, parts })
            }
            reply => Ok(reply),
        }
    }

    /// Plans a model and runs it over the first 1,000 rows of each file, as a build does: only what makes the keys.
    ///
    /// # Errors
    /// The error of that run within ten seconds; [`LakeError::Sql`] with a position,
    /// [`LakeError::Key`] if the result has no usable key, [`LakeError::Worker`] if it takes
    /// too much memory.
    pub async fn check_model(&self, sql: &str, key: Option<&str>) -> Result<ModelInfo, LakeError> {
        let (sql, key) = (sql.to_owned(), key.map(str::to_owned));
        self.check(Model { sql, key, source: None, parameters: Vec::new() }).await
    }

    /// As [`Lake::check_model`], of a model that may have parameters.
    ///
    /// # Errors
    /// As [`Lake::check_model`].
    pub async fn check(&self, model: Model) -> Result<ModelInfo, LakeError> {
        check_bounds(&model.sql)?;
        match self.execute(WorkerClass::InMemory, &Request::Check { model }, &mut NoOutput).await? {
            Reply::Plan { info, .. } => Ok(info),
            _ => Err(protocol_error()),
        }
    }

    /// Runs the query of a template, which may return `max_rows` rows.
    ///
    /// # Errors
    /// [`LakeError::Sql`] with a hint if there are more rows, a NULL, or a column of a type that no parameter
    /// has; else the error of the query.
    pub async fn template_rows(&self, sql: &str, max_rows: u32) -> Result<TemplateRows, LakeError> {
        check_bounds(sql)?;
        let request = Request::TemplateRows { sql: sql.to_owned(), max_rows };
        match self.execute(WorkerClass::Spilling, &request, &mut NoOutput).await? {
            Reply::TemplateRows(rows) => Ok(rows),
            _ => Err(protocol_error()),
        }
    }

    /// Plans a model that is to be scanned, and divides its scan: one part per file if each row is
    /// evaluated by itself, else one part. Compares the tables with those that the served version
    /// was made from, if there is one: no column that the model uses may have another kind of type
    /// now, unless the source declares it, and no table that had rows may be empty.
    ///
    /// # Errors
    /// As [`Lake::check_model`]; [`LakeError::File`] naming file, column and both types.
    pub async fn plan_scan(
        &self,
        model: &Model,
        served: &[TableFacts],
    ) -> Result<(ModelInfo, Vec<ScanPart>), LakeError> {
        check_bounds(&model.sql)?;
        let request = Request::Plan { model: model.clone(), served: served.to_vec() };
        match self.execute(WorkerClass::Spilling, &request, &mut NoOutput).await? {
            Reply::Plan { info, parts } => Ok((info, parts)),
            _ => Err(protocol_error()),
        }
    }

    /// Runs one part and passes its keys to `sink` as they arrive. Dropping the future kills the
    /// query.
    ///
    /// # Errors
    /// [`LakeError::Sink`] if the sink returned an error, [`LakeError::Worker`] if the query
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
        let cluster = self.cluster_for(&model.sql, part).await?;
        let request = Request::Scan { model: model.clone(), part: part.clone(), seed, cluster };
        match self.execute(WorkerClass::Spilling, &request, &mut KeyOutput(sink)).await? {
            Reply::Scanned(stats) => Ok(stats),
            _ => Err(protocol_error()),
        }
    }

    /// Plans the models of some sets of parameters as one scan; the parameters of `model` do not count. `served`
    /// has the tables from which served versions were made, as for [`Lake::plan_scan`]. `None` if the models cannot
    /// be one scan.
    ///
    /// # Errors
    /// As [`Lake::plan_scan`].
    pub async fn plan_shared(
        &self,
        model: &Model,
        sets: Vec<Vec<(String, ParameterValue)>>,
        served: Vec<Vec<TableFacts>>,
    ) -> Result<Option<SharedPlan>, LakeError> {
        check_bounds(&model.sql)?;
        let request = Request::PlanShared { model: model.clone(), sets, served };
        match self.execute(WorkerClass::Spilling, &request, &mut NoOutput).await? {
            Reply::SharedPlan(plan) => Ok(plan.map(|plan| *plan)),
            _ => Err(protocol_error()),
        }
    }

    /// Why the models of some sets of parameters cannot be one scan, as the end of a sentence; `None` if they can. The
    /// parameters of `model` do not count.
    ///
    /// # Errors
    /// As [`Lake::plan_scan`].
    pub async fn why_alone(
        &self,
        model: &Model,
        sets: Vec<Vec<(String, ParameterValue)>>,
    ) -> Result<Option<String>, LakeError> {
        check_bounds(&model.sql)?;
        let request = Request::WhyAlone { model: model.clone(), sets };
        match self.execute(WorkerClass::Spilling, &request, &mut NoOutput).await? {
            Reply::WhyAlone(why) => Ok(why),
            _ => Err(protocol_error()),
        }
    }

    /// Runs one part of a scan for several models, as [`Lake::scan`].
    ///
    /// # Errors
    /// As [`Lake::scan`].
    pub async fn scan_shared(
        &self,
        scan: &SharedScan,
        part: &ScanPart,
        seed: HashSeed,
        sink: &mut SharedSink<'_>,
    ) -> Result<SharedStats, LakeError> {
        let cluster = self.cluster_for(scan.sql(), part).await?;
        let request = Request::ScanShared { scan: scan.clone(), part: part.clone(), seed, cluster };
        match self.execute(WorkerClass::Spilling, &request, &mut SharedOutput::new(sink)).await? {
            Reply::SharedScanned(stats) => Ok(stats),
            _ => Err(protocol_error()),
        }
    }

    /// Lists the tables of the sources of the workspace; those of the default one are followed by the sources of all
    /// others, whose names begin with the workspace. With their files and columns and with what is passed over.
    /// Costs a `stat` of every file, and reading the CSV and JSON files of tables that have no more
    /// than 256 MiB of them.
    ///
    /// # Errors
    /// [`LakeError::Worker`] if it takes too much memory or time. The error of a source or a
    /// table is part of the list.
    pub async fn list(&self) -> Result<Vec<SourceListing>, LakeError> {
        self.list_all(true).await
    }

    /// As [`Lake::list`], but reads no file: its tables have no rows and columns.
    ///
    /// # Errors
    /// As [`Lake::list`].
    pub async fn list_files(&self) -> Result<Vec<SourceListing>, LakeError> {
        self.list_all(false).await
    }

    async fn list_all(&self, contents: bool) -> Result<Vec<SourceListing>, LakeError> {
        let mut listed = self.list_own(contents).await?;
        for (workspace, lake) in self.workspaces.iter() {
            let own = lake.list_own(contents).await?.into_iter();
            listed.extend(own.map(|listing| SourceListing {
                name: format!("{workspace}:{}", listing.name),
                ..listing
            }));
        }
        Ok(listed)
    }

    async fn list_own(&self, contents: bool) -> Result<Vec<SourceListing>, LakeError> {
        let failed = self.copied.update_all().await;
        let request = Request::List { contents };
        match self.execute(WorkerClass::InMemory, &request, &mut NoOutput).await? {
            Reply::Listed(sources) => Ok(self.copied.listed(sources, &failed)),
            _ => Err(protocol_error()),
        }
    }

    /// The states of the files of some queries, in their order. Costs a `stat` of every file of the
    /// sources that they name, and reads no file.
    ///
    /// # Errors
    /// [`LakeError::Worker`] if it takes too much memory or time, [`LakeError::Sql`] if a query is
    /// longer or deeper than statements may be. Other errors of a query are its state.
    pub async fn input_states(&self, queries: &[InputQuery]) -> Result<Vec<InputState>, LakeError> {
        self.inspect(WorkerClass::InMemory, queries).await
    }

    /// [`Lake::input_states`] of queries that are to be scanned. Waits for scans and not for queries
    /// of identifiers, which may take hours.
    ///
    /// # Errors
    /// As [`Lake::input_states`].
    pub async fn states_before_scan(
        &self,
        queries: &[InputQuery],
    ) -> Result<Vec<InputState>, LakeError> {
        self.inspect(WorkerClass::Spilling, queries).await
    }

    async fn inspect(
        &self,
        class: WorkerClass,
        queries: &[InputQuery],
    ) -> Result<Vec<InputState>, LakeError> {
        queries.iter().try_for_each(|query| check_bounds(&query.sql))?;
        let is_scan = class == WorkerClass::Spilling;
        let wait = if is_scan { Wait::ToTheEnd } else { Wait::Short };
        let failed = self.copied.update_for(queries, wait).await;
        let request = Request::Inputs { queries: queries.to_vec() };
        match self.execute(class, &request, &mut NoOutput).await? {
            Reply::Inputs(states) if states.len() == queries.len() => {
                Ok(self.copied.states(queries, states, &failed))
            }
            _ => Err(protocol_error()),
        }
    }

    /// Plans an identifier query and runs it over the first 1,000 rows of each file. Returns what is doubtful about its
    /// files.
    ///
    /// # Errors
    /// As [`Lake::check_model`]; [`LakeError::Key`] if a column is missing.
    pub async fn check_identifiers(
        &self,
        sql: &str,
        key: &str,
        columns: &[String],
    ) -> Result<Vec<String>, LakeError> {
        check_bounds(sql)?;
        let (sql, key, columns) = (sql.to_owned(), key.to_owned(), columns.to_vec());
        let request = Request::CheckIdentifiers { sql, key, columns };
        match self.execute(WorkerClass::InMemory, &request, &mut NoOutput).await? {
            Reply::CheckedIdentifiers(doubts) => Ok(doubts),
            _ => Err(protocol_error()),
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
        Ok(self.identifiers_after(query, Vec::new(), seed).await?.1)
    }

    /// [`Lake::identifiers`] with the tables of the query. `delivered`: those of earlier runs of it, whose rows were
    /// delivered.
    ///
    /// # Errors
    /// As [`Lake::identifiers`]; [`LakeError::File`] if a column has another type than it had.
    pub async fn identifiers_after(
        &self,
        query: &IdentifierQuery,
        delivered: Vec<Vec<TableFacts>>,
        seed: HashSeed,
    ) -> Result<(Vec<TableFacts>, IdentifierStream), LakeError> {
        check_bounds(&query.sql)?;
        let request = Request::Identifiers { query: query.clone(), delivered, seed };
        let (sender, mut rows) = mpsc::channel(BUFFERED_BATCHES);
        let lake = self.clone();
        tokio::spawn(async move {
            let mut output = RowOutput(sender.clone());
            let result = tokio::select! {
                result = lake.execute(WorkerClass::InMemory, &request, &mut output) => result,
                // The stream was dropped: dropping the request kills the worker.
                () = sender.closed() => return,
            };
            let error = match result {
                Ok(Reply::Checked) => return,
                Ok(_) => protocol_error(),
                Err(error) => error,
            };
            // The stream may be dropped already.
            let _ = sender.send(Err(error)).await;
        });
        // The tables come first: the query is planned.
        let tables = match rows.recv().await {
            Some(Ok(IdentifierBatch::Tables(tables))) => tables,
            Some(Err(error)) => return Err(error),
            Some(Ok(IdentifierBatch::Rows(_))) | None => return Err(protocol_error()),
        };
        let rows = futures::stream::poll_fn(move |cx| rows.poll_recv(cx));
        let rows = rows.map(|batch| match batch? {
            IdentifierBatch::Rows(rows) => Ok(rows),
            IdentifierBatch::Tables(_) => Err(protocol_error()),
        });
        Ok((tables, Box::pin(rows)))
    }
}

/// The error of a reply that does not belong to the request.
fn protocol_error() -> LakeError {
    WorkerError::Exited(WorkerExit::Protocol).into()
}
