//! Keeps idle workers for the next query: starting one costs more than planning a small model.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use throng_spec::Source;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::confine::UnopenedFolder;
use super::limits::{REUSE_BYTES, REUSE_QUERIES};
use super::process::{Output, Worker};
use super::protocol::{Reply, Request, Setup};
use super::spawner::Spawner;
use super::spill::{SpillFolder, SpillRoot, remove_stale};
use crate::{LakeError, LakeLimits};

/// An idle worker is stopped after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Identifier queries, and plans of checks, at the same time.
const OTHER_QUERIES: usize = 2;
/// Planning reads CSV and JSON files to infer their types, which may take this long.
const PLAN_TIMEOUT: Duration = Duration::from_secs(600);

/// What a worker is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueryClass {
    /// Refreshes of audiences: it may spill.
    Scan,
    /// Identifiers, and plans of statements that are not applied yet: it writes nothing to the
    /// disk.
    Other,
}

/// The device and inode of each source's folder when a worker was started: it is confined to these.
type Folders = Vec<Option<(u64, u64)>>;

#[derive(Debug)]
struct Idle {
    class: QueryClass,
    folders: Folders,
    worker: Worker,
    /// Identifies this idle period.
    sequence: u64,
}

#[derive(Debug, Default)]
struct IdleWorkers {
    workers: Vec<Idle>,
    next_sequence: u64,
}

/// The workers of a lake.
#[derive(Debug)]
pub(crate) struct Pool {
    sources: Vec<Source>,
    limits: LakeLimits,
    scans: Arc<Semaphore>,
    others: Arc<Semaphore>,
    spill: Mutex<Option<Arc<SpillRoot>>>,
    /// The folders that the newest worker could not open.
    unopened: Mutex<Vec<UnopenedFolder>>,
    idle: Mutex<IdleWorkers>,
    // Dropped after the workers: the kernel kills workers when its thread ends.
    spawner: Spawner,
}

impl Pool {
    /// Removes spill folders that a crash has left.
    pub(crate) fn new(sources: &[Source], limits: LakeLimits) -> Result<Arc<Self>, LakeError> {
        let dir = &limits.spill_dir;
        remove_stale(dir).map_err(|source| LakeError::Source { path: dir.clone(), source })?;
        Ok(Arc::new(Self {
            sources: sources.to_vec(),
            scans: Arc::new(Semaphore::new(limits.queries.max(1))),
            others: Arc::new(Semaphore::new(OTHER_QUERIES)),
            limits,
            spill: Mutex::default(),
            unopened: Mutex::default(),
            idle: Mutex::default(),
            spawner: Spawner::default(),
        }))
    }

    /// Runs a request in a worker. Dropping the future kills the worker.
    pub(crate) async fn execute(
        self: &Arc<Self>,
        class: QueryClass,
        request: &Request,
        output: Output<'_, '_>,
    ) -> Result<Reply, LakeError> {
        let _permit = self.permit(class).await?;
        let folders = self.folders();
        let mut worker = self.acquire(class, &folders).await?;
        let timeout = match request {
            Request::Scan { .. } | Request::Identifiers { .. } => self.limits.timeout,
            Request::Plan { .. }
            | Request::Check { .. }
            | Request::List
            | Request::CheckIdentifiers { .. } => PLAN_TIMEOUT.min(self.limits.timeout),
        };
        let reply = worker.exchange(request, timeout, output).await?;
        self.release(class, folders, worker);
        match reply {
            Reply::Failed(failure) => Err(failure.into()),
            reply => Ok(reply),
        }
    }

    async fn permit(&self, class: QueryClass) -> Result<OwnedSemaphorePermit, LakeError> {
        let slots = match class {
            QueryClass::Scan => &self.scans,
            QueryClass::Other => &self.others,
        };
        let permit = Arc::clone(slots).acquire_owned().await;
        permit.map_err(|closed| LakeError::Sink(closed.into()))
    }

    /// The memory of one worker's operators. Four fifths are for scans and one fifth for other
    /// queries, in equal parts: the sum over all workers is never more than the lake's limit.
    fn memory_bytes(&self, class: QueryClass) -> u64 {
        let all = self.limits.memory_bytes;
        match class {
            QueryClass::Scan => all / 5 * 4 / self.limits.queries.max(1) as u64,
            QueryClass::Other => all / 5 / OTHER_QUERIES as u64,
        }
    }

    fn folders(&self) -> Folders {
        let inode = |source: &Source| {
            let metadata = std::fs::metadata(&source.path).ok()?;
            Some((metadata.dev(), metadata.ino()))
        };
        self.sources.iter().map(inode).collect()
    }

    /// Returns the idle worker that was used last, or a new one.
    async fn acquire(&self, class: QueryClass, folders: &Folders) -> Result<Worker, LakeError> {
        while let Some(mut worker) = self.acquire_idle(class, folders) {
            if worker.anonymous_bytes().is_some() && worker.can_spill() {
                return Ok(worker);
            }
        }
        let spill = match class {
            QueryClass::Scan => Some(self.spill_folder()?),
            QueryClass::Other => None,
        };
        let setup = Setup {
            parent: std::process::id(),
            sources: self.sources.clone(),
            memory_bytes: self.memory_bytes(class),
            spill_dir: spill.as_ref().map(|spill| spill.path().to_owned()),
            threads: self.limits.threads.max(1),
        };
        let worker = Worker::start(&self.spawner, &self.limits.worker, &setup, spill).await?;
        self.log_unopened(&worker.unopened);
        Ok(worker)
    }

    /// Logs folders of sources that a new worker could not open, each once until it can be opened.
    fn log_unopened(&self, unopened: &[UnopenedFolder]) {
        let mut logged = self.unopened.lock();
        for UnopenedFolder { path, text, .. } in
            unopened.iter().filter(|folder| !logged.contains(folder))
        {
            tracing::warn!(
                path = %path.display(),
                error = text,
                "query worker cannot open the folder of a source"
            );
        }
        *logged = unopened.to_vec();
    }

    fn acquire_idle(&self, class: QueryClass, folders: &Folders) -> Option<Worker> {
        let mut idle_workers = self.lock_idle();
        // If a source's folder was replaced, workers that are confined to the old folder cannot
        // read the new one.
        idle_workers.workers.retain(|idle| idle.folders == *folders);
        let at = idle_workers.workers.iter().rposition(|idle| idle.class == class)?;
        Some(idle_workers.workers.remove(at).worker)
    }

    fn release(self: &Arc<Self>, class: QueryClass, folders: Folders, mut worker: Worker) {
        let small = worker.anonymous_bytes().is_some_and(|bytes| bytes <= REUSE_BYTES);
        // If a folder can be opened now, a new worker gets the right to it; this one never does.
        let lacks_a_folder = worker.unopened.iter().any(|folder| folder.path.metadata().is_ok());
        if !small || lacks_a_folder || worker.served >= REUSE_QUERIES {
            return;
        }
        let sequence = {
            let mut idle_workers = self.lock_idle();
            idle_workers.next_sequence += 1;
            let sequence = idle_workers.next_sequence;
            idle_workers.workers.push(Idle { class, folders, worker, sequence });
            sequence
        };
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(IDLE_TIMEOUT).await;
            stop_idle(&pool, sequence);
        });
    }

    fn spill_folder(&self) -> Result<SpillFolder, LakeError> {
        let dir: &PathBuf = &self.limits.spill_dir;
        let failed = |source| LakeError::Confine {
            what: format!("create a spill folder in {}", dir.display()),
            source,
        };
        let mut spill = self.spill.lock();
        if let Some(root) = &*spill {
            match root.folder() {
                // The contents of the directory were removed. If the directory itself is missing,
                // it is not created: it may be a disk that is not mounted, and the spilled data
                // would fill another.
                Err(error) if error.kind() == io::ErrorKind::NotFound && dir.is_dir() => {}
                folder => return folder.map_err(failed),
            }
        }
        let root = spill.insert(Arc::new(SpillRoot::create(dir).map_err(failed)?));
        root.folder().map_err(failed)
    }

    fn lock_idle(&self) -> parking_lot::MutexGuard<'_, IdleWorkers> {
        self.idle.lock()
    }
}

/// Stops the worker of this idle period, if it is still idle.
fn stop_idle(pool: &Weak<Pool>, sequence: u64) {
    if let Some(pool) = pool.upgrade() {
        pool.lock_idle().workers.retain(|idle| idle.sequence != sequence);
    }
}
