//! Ingesting batches.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use throng_api::IngestReport;
use throng_model::{Clock, WorkspaceName};
use throng_schema::value::MICROS_PER_DAY;
use throng_schema::{DEFAULT_WORKSPACE, RecordFormat, Schema, workspace_folder};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::bucket_commit::{self, BucketBatch};
use crate::bucket_lake::BucketLake;
use crate::bucket_leftovers;
use crate::bucket_tables;
use crate::commit::{Batch, StepHook, recover};
use crate::error::IngestError;
use crate::manifest::Manifest;
use crate::paths::{TablePaths, batch_key, create_folder, entries, name_of};
use crate::pipeline;
use crate::quarantine::{self, Quarantine};
use crate::source::{Content, Encoding};
use crate::tables::create_table;
use crate::unreadable;
use crate::worker::{Job, StagedFile};

/// Batches at the same time: each holds its rows in memory.
const MAX_BATCHES: usize = 2;
/// Bytes of a batch id, at most.
const MAX_BATCH_ID: usize = 128;

/// Where ingested rows are: `node.lake`.
#[derive(Debug, Clone)]
pub enum LakeStore {
    /// A folder. One process at a time ingests to it.
    Folder(PathBuf),
    /// A bucket.
    Bucket(Arc<BucketLake>),
}

/// What ingesting needs of a node.
#[derive(Debug, Clone)]
pub struct IngestSettings {
    /// Where ingested rows are.
    pub lake: LakeStore,
    /// The folder for rows in quarantine and for temporary files, which only this user can read.
    pub private: PathBuf,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Threads that check and write the rows of one batch.
    pub workers: usize,
}

/// One batch to ingest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestRequest {
    /// Its id; `None`: the digest of its content.
    pub batch: Option<String>,
    /// The format of its rows.
    pub format: RecordFormat,
    /// How it is encoded.
    pub encoding: Encoding,
}

/// From the first use on.
struct Opened {
    /// The lock of the lake, if that is a folder.
    _lock: Option<File>,
}

/// Ingests batches into the tables of a lake. One process at a time ingests to a folder; to a bucket, any number.
pub struct Ingest {
    settings: IngestSettings,
    opened: Mutex<Option<Opened>>,
    /// Tables, and workspaces with all of their tables, that may still have what a crash has left: it could not be
    /// removed.
    unrecovered: Mutex<BTreeSet<PathBuf>>,
    /// One commit at a time.
    committing: Mutex<()>,
    next: AtomicU64,
    slots: Arc<Semaphore>,
    step: Arc<StepHook>,
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Ingest {
    /// Reads and writes nothing yet.
    pub fn new(settings: IngestSettings) -> Self {
        Self {
            settings,
            opened: Mutex::new(None),
            unrecovered: Mutex::default(),
            committing: Mutex::new(()),
            next: AtomicU64::new(0),
            slots: Arc::new(Semaphore::new(MAX_BATCHES)),
            step: Arc::new(|_| {}),
        }
    }

    /// Calls `step` between the steps of every commit, for tests that end the process there.
    #[must_use]
    pub fn with_step_hook(self, step: Arc<StepHook>) -> Self {
        Self { step, ..self }
    }

    /// Waits until another batch may begin. The batch runs while the caller holds the result.
    pub async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.slots).acquire_owned().await.ok()
    }

    /// Takes the lock of a lake in a folder, and removes what a crash has left on the local disk. Does nothing if that
    /// is done. A table of which it cannot be removed gets no batch until it can; that stops no other table.
    ///
    /// # Errors
    /// [`IngestError::Locked`] if another process has it; [`IngestError::Io`].
    pub fn open(&self) -> Result<(), IngestError> {
        let mut opened = self.opened.lock();
        if opened.is_some() {
            return Ok(());
        }
        let lock = match &self.settings.lake {
            LakeStore::Folder(lake) => Some(self.open_folder(lake)?),
            LakeStore::Bucket(_) => None,
        };
        for workspace in workspaces_in(&self.quarantine())? {
            if let Err(error) = quarantine::remove_unfinished(&workspace) {
                log_unrecovered(&error, &workspace);
            }
        }
        *opened = Some(Opened { _lock: lock });
        Ok(())
    }

    /// Takes the lock of a lake in a folder, and removes what a crash has left of its tables.
    fn open_folder(&self, lake: &Path) -> Result<File, IngestError> {
        create_folder(lake)?;
        // One for the lake with all of its workspaces.
        let path = lake.join(format!("{DEFAULT_WORKSPACE}.lock"));
        let opened = throng_fs::open_lock(&path);
        let file = opened.map_err(IngestError::io("open", &path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(IngestError::Locked { path: lake.to_owned() });
            }
            Err(error) => return Err(IngestError::io("lock", &path)(error.into())),
        }
        let mut unrecovered = self.unrecovered.lock();
        for workspace in workspaces_in(lake)? {
            if let Err(error) = recover_workspace(&workspace, &mut unrecovered) {
                log_unrecovered(&error, &workspace);
                unrecovered.insert(workspace);
            }
        }
        Ok(file)
    }

    /// Tries again to remove what a crash has left of a table, if that failed. Until it succeeds the table has no batch
    /// under way.
    fn recover_table(&self, paths: &TablePaths) -> Result<(), IngestError> {
        let mut unrecovered = self.unrecovered.lock();
        if let Some(workspace) = paths.folder.parent().filter(|path| unrecovered.contains(*path)) {
            recover_workspace(workspace, &mut unrecovered)?;
            unrecovered.remove(workspace);
        }
        if unrecovered.contains(&paths.folder) {
            recover(paths)?;
            unrecovered.remove(&paths.folder);
        }
        Ok(())
    }

    /// Ingests a batch. Blocks, for as long as the content takes. When it returns a report, the batch is durable and
    /// part of its table; after an error none of its rows is. A batch of the same id and content is not stored again.
    ///
    /// # Errors
    /// [`IngestError`].
    pub fn run(
        &self,
        schema: &Schema,
        request: &IngestRequest,
        body: impl Read + Send,
    ) -> Result<IngestReport, IngestError> {
        check_request(schema, request)?;
        self.open()?;
        self.prepare(schema)?;
        let mut content = Content::new(body, request.encoding)?;
        if let Some(batch) = &request.batch
            && let Some(manifest) = self.manifest(schema, &batch_key(batch))?
        {
            content.drain()?;
            return manifest.repeated(&content.digest());
        }
        let token = format!(
            "{}-{}-{}",
            self.settings.clock.now().0,
            std::process::id(),
            self.next.fetch_add(1, Ordering::Relaxed)
        );
        let staging = Staging::create(self.staging(schema).join(&token))?;
        let workspace = workspace_folder(schema.name.workspace());
        let folder = self.quarantine().join(workspace).join(schema.name.local());
        let quarantine = Quarantine::new(&folder, &token, schema);
        let result = self.ingest(schema, request, &mut content, &token, &staging, &quarantine);
        if let Err(error) = &result {
            tracing::debug!(error = error as &dyn std::error::Error, "a batch was not ingested");
        }
        result
    }

    fn ingest(
        &self,
        schema: &Schema,
        request: &IngestRequest,
        content: &mut Content<'_>,
        token: &str,
        staging: &Staging,
        quarantine: &Quarantine,
    ) -> Result<IngestReport, IngestError> {
        let started = self.settings.clock.elapsed();
        let today = self.today();
        let workers = self.settings.workers.max(1);
        let job = Job::new(schema, today, quarantine, &staging.0, workers);
        let spool = self.settings.private.join("spool").join(token);
        let (tally, files) = pipeline::run(&job, content, request.format, &spool, workers)?;
        // A batch of columns may end before its content does.
        content.drain()?;
        let digest = content.digest();
        let batch = request.batch.clone().unwrap_or_else(|| digest.clone());
        let key = batch_key(&batch);
        // Until a batch in a folder is committed. Uploading takes too long for that.
        let _one = match &self.settings.lake {
            LakeStore::Folder(_) => Some(self.committing.lock()),
            LakeStore::Bucket(_) => None,
        };
        if let Some(manifest) = self.manifest(schema, &key)? {
            return manifest.repeated(&digest);
        }
        unreadable::check(&tally, content, request.format, schema)?;
        let report = IngestReport {
            schema: schema.name.to_string(),
            batch,
            digest,
            format: request.format.name().to_owned(),
            rows: tally.rows,
            accepted: tally.accepted,
            quarantined: tally.rows - tally.accepted,
            quarantine_kept: quarantine.rows(),
            faults: tally.faults(schema),
            days: days_of(&files),
            files: files.len() as u64,
            bytes: files.iter().map(|file| file.bytes).sum(),
            seconds: self.settings.clock.elapsed().saturating_sub(started).as_secs_f64(),
            repeated: false,
        };
        (self.step)("staged");
        let key = key.as_str();
        match &self.settings.lake {
            LakeStore::Folder(lake) => {
                let paths = &table_paths(lake, schema);
                Batch { paths, key, files, quarantine, today, report }.commit(&*self.step)
            }
            LakeStore::Bucket(bucket) => {
                let (committing, clock) = (&self.committing, &*self.settings.clock);
                let batch = BucketBatch {
                    bucket,
                    schema,
                    key,
                    files,
                    quarantine,
                    today,
                    report,
                    committing,
                    clock,
                };
                batch.commit(&*self.step)
            }
        }
    }

    /// Makes the table of a schema ready for a batch.
    fn prepare(&self, schema: &Schema) -> Result<(), IngestError> {
        match &self.settings.lake {
            LakeStore::Folder(lake) => {
                self.recover_table(&table_paths(lake, schema))?;
                let _one = self.committing.lock();
                create_table(&workspace_lake(lake, schema), schema)
            }
            LakeStore::Bucket(bucket) => bucket_tables::create_table(bucket, schema),
        }
    }

    /// The manifest of a batch; `None` if the batch is not ingested.
    fn manifest(&self, schema: &Schema, key: &str) -> Result<Option<Manifest>, IngestError> {
        match &self.settings.lake {
            LakeStore::Folder(lake) => Manifest::read(&table_paths(lake, schema), key),
            LakeStore::Bucket(bucket) => bucket_commit::manifest(bucket, schema, key),
        }
    }

    /// The folder for files that are being written.
    fn staging(&self, schema: &Schema) -> PathBuf {
        match &self.settings.lake {
            LakeStore::Folder(lake) => table_paths(lake, schema).staging(),
            LakeStore::Bucket(bucket) => bucket.staging(),
        }
    }

    /// Removes objects of a bucket that crashes have left, a day after they were written, from the workspaces of these
    /// schemas. Returns their number. Does nothing for a folder, where [`Ingest::open`] does that.
    ///
    /// # Errors
    /// [`IngestError::Bucket`]; [`IngestError::Table`] for a damaged manifest, after what no such manifest may name.
    pub fn remove_leftovers(&self, schemas: &[Schema]) -> Result<u64, IngestError> {
        let LakeStore::Bucket(bucket) = &self.settings.lake else { return Ok(0) };
        let folder = |schema: &Schema| workspace_folder(schema.name.workspace()).to_owned();
        let workspaces: BTreeSet<String> = schemas.iter().map(folder).collect();
        let now = self.settings.clock.now();
        let (mut removed, mut failed) = (0, None);
        for folder in workspaces {
            match bucket_leftovers::remove_leftovers(bucket, &folder, now) {
                Ok(of_workspace) => removed += of_workspace,
                Err(error) if error.is_unreachable() => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(removed), Err)
    }

    /// Removes the rows in quarantine whose time has passed. Returns the number of files.
    ///
    /// # Errors
    /// [`IngestError::Io`], after those of all workspaces whose folders can be read.
    pub fn remove_expired(&self, schemas: &[Schema]) -> Result<u64, IngestError> {
        let (mut removed, mut failed) = (0, None);
        for folder in workspaces_in(&self.quarantine())? {
            let name = name_of(&folder);
            let is_own = |schema: &&Schema| workspace_folder(schema.name.workspace()) == name;
            let own: Vec<&Schema> = schemas.iter().filter(is_own).collect();
            match quarantine::remove_expired(&folder, &own, self.today()) {
                Ok(of_workspace) => removed += of_workspace,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(removed), Err)
    }

    fn today(&self) -> i32 {
        let days = self.settings.clock.now().0.div_euclid(MICROS_PER_DAY);
        i32::try_from(days).unwrap_or(0)
    }

    /// Has a folder for each workspace, and in it one for each schema.
    fn quarantine(&self) -> PathBuf {
        self.settings.private.join("quarantine")
    }
}

/// The folder of the workspace of a schema, which has one for each table.
fn workspace_lake(lake: &Path, schema: &Schema) -> PathBuf {
    lake.join(workspace_folder(schema.name.workspace()))
}

fn table_paths(lake: &Path, schema: &Schema) -> TablePaths {
    TablePaths::new(&workspace_lake(lake, schema), schema.name.local())
}

/// Removes what a crash has left of the tables of a workspace. Those of which it cannot are added to `unrecovered`.
fn recover_workspace(
    workspace: &Path,
    unrecovered: &mut BTreeSet<PathBuf>,
) -> Result<(), IngestError> {
    for table in entries(workspace)?.into_iter().filter(|path| path.is_dir()) {
        let paths = TablePaths { folder: table };
        if let Err(error) = recover(&paths) {
            log_unrecovered(&error, &paths.folder);
            unrecovered.insert(paths.folder);
        }
    }
    Ok(())
}

fn log_unrecovered(error: &IngestError, folder: &Path) {
    tracing::error!(
        error = error as &dyn std::error::Error,
        folder = %folder.display(),
        "failed to remove what an interrupted batch has left"
    );
}

/// The folders of workspaces in a folder, also of those that the spec no longer has.
fn workspaces_in(folder: &Path) -> Result<Vec<PathBuf>, IngestError> {
    let is_workspace = |path: &PathBuf| path.is_dir() && WorkspaceName::new(name_of(path)).is_ok();
    Ok(entries(folder)?.into_iter().filter(is_workspace).collect())
}

fn days_of(files: &[StagedFile]) -> u64 {
    let days: BTreeSet<i32> = files.iter().map(|file| file.day).collect();
    days.len() as u64
}

fn check_request(schema: &Schema, request: &IngestRequest) -> Result<(), IngestError> {
    if let Some(only) = schema.format.filter(|format| *format != request.format) {
        let message = format!("the schema `{}` accepts {} only", schema.name, only.name());
        let help = format!("send it as {}", only.content_type());
        return Err(IngestError::refused(message, help));
    }
    let is_id = |id: &str| {
        (1..=MAX_BATCH_ID).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
    };
    if request.batch.as_deref().is_some_and(|id| !is_id(id)) {
        let help = format!("write 1 to {MAX_BATCH_ID} letters, digits, `-`, `_`, `.` and `:`");
        return Err(IngestError::refused("this is not an id of a batch", help));
    }
    Ok(())
}

/// The folder of a batch's files until they are renamed; removed at the end, whatever happens.
struct Staging(PathBuf);

impl Staging {
    fn create(path: PathBuf) -> Result<Self, IngestError> {
        create_folder(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path) {
        tracing::warn!(%error, "failed to remove the staging folder of a batch");
    }
}
