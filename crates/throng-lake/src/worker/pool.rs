//! Workers that are kept for the next query: starting one costs more than planning a small model.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use throng_spec::Source;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::confine::Unopened;
use super::limits::{REUSE_BYTES, REUSE_QUERIES};
use super::process::{Output, Worker};
use super::protocol::{Reply, Request, Setup};
use super::spawner::Spawner;
use super::spill::{SpillFolder, SpillRoot, sweep};
use crate::{LakeError, LakeLimits};

/// An idle worker ends after this.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Identifier queries, and plans of checks, at the same time.
const OTHER_QUERIES: usize = 2;
/// Planning looks through CSV files to find their types out, and must end all the same.
const PLAN_TIMEOUT: Duration = Duration::from_secs(600);

/// What a worker is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Refreshes of audiences: it may spill.
    Scan,
    /// Identifiers, and plans of statements that nobody has applied yet: it leaves nothing on disk.
    Other,
}

/// The device and inode of each source's folder, as a worker found them: it is confined to these.
type Folders = Vec<Option<(u64, u64)>>;

#[derive(Debug)]
struct Idle {
    class: Class,
    folders: Folders,
    worker: Worker,
    /// Which time it became idle.
    turn: u64,
}

#[derive(Debug, Default)]
struct Rest {
    workers: Vec<Idle>,
    turns: u64,
}

/// The workers of a lake.
#[derive(Debug)]
pub(crate) struct Pool {
    sources: Vec<Source>,
    limits: LakeLimits,
    scans: Arc<Semaphore>,
    others: Arc<Semaphore>,
    spill: Mutex<Option<Arc<SpillRoot>>>,
    /// What the newest worker could not open.
    unopened: Mutex<Vec<Unopened>>,
    idle: Mutex<Rest>,
    // After the workers.
    spawner: Spawner,
}

impl Pool {
    /// What a crash left in the spill directory is removed.
    pub(crate) fn new(sources: &[Source], limits: LakeLimits) -> Result<Arc<Self>, LakeError> {
        let dir = &limits.spill_dir;
        sweep(dir).map_err(|source| LakeError::Source { path: dir.clone(), source })?;
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

    /// Has a worker do a request. Dropping the future kills the worker.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        class: Class,
        request: &Request,
        output: Output<'_, '_>,
    ) -> Result<Reply, LakeError> {
        let _permit = self.permit(class).await?;
        let folders = self.folders();
        let mut worker = self.take(class, &folders).await?;
        let timeout = match request {
            Request::Scan { .. } | Request::Identifiers { .. } => self.limits.timeout,
            Request::Plan { .. }
            | Request::Check { .. }
            | Request::List
            | Request::CheckIdentifiers { .. } => PLAN_TIMEOUT.min(self.limits.timeout),
        };
        let reply = worker.exchange(request, timeout, output).await?;
        self.give_back(class, folders, worker);
        match reply {
            Reply::Failed(failure) => Err(failure.into()),
            reply => Ok(reply),
        }
    }

    async fn permit(&self, class: Class) -> Result<OwnedSemaphorePermit, LakeError> {
        let slots = match class {
            Class::Scan => &self.scans,
            Class::Other => &self.others,
        };
        let permit = Arc::clone(slots).acquire_owned().await;
        permit.map_err(|closed| LakeError::Sink(closed.into()))
    }

    /// The memory of one worker's operators. Four fifths are for scans, one fifth for the others,
    /// in equal parts: the sum over all workers is never more than the lake's.
    fn memory_bytes(&self, class: Class) -> u64 {
        let all = self.limits.memory_bytes;
        match class {
            Class::Scan => all / 5 * 4 / self.limits.queries.max(1) as u64,
            Class::Other => all / 5 / OTHER_QUERIES as u64,
        }
    }

    fn folders(&self) -> Folders {
        let inode = |source: &Source| {
            let metadata = std::fs::metadata(&source.path).ok()?;
            Some((metadata.dev(), metadata.ino()))
        };
        self.sources.iter().map(inode).collect()
    }

    /// An idle worker, the one that was used last, or a new one.
    async fn take(&self, class: Class, folders: &Folders) -> Result<Worker, LakeError> {
        while let Some(mut worker) = self.take_idle(class, folders) {
            if worker.anonymous_bytes().is_some() && worker.can_spill() {
                return Ok(worker);
            }
        }
        let spill = match class {
            Class::Scan => Some(self.spill_folder()?),
            Class::Other => None,
        };
        let setup = Setup {
            parent: std::process::id(),
            sources: self.sources.clone(),
            memory_bytes: self.memory_bytes(class),
            spill_dir: spill.as_ref().map(|spill| spill.path().to_owned()),
            threads: self.limits.threads.max(1),
        };
        let worker = Worker::start(&self.spawner, &self.limits.worker, &setup, spill).await?;
        self.note_unopened(&worker.unopened);
        Ok(worker)
    }

    /// Logs folders of sources that a new worker has no right to, each once until it can be opened.
    fn note_unopened(&self, unopened: &[Unopened]) {
        let mut noted = self.unopened.lock();
        for Unopened { path, text, .. } in unopened.iter().filter(|folder| !noted.contains(folder))
        {
            tracing::warn!(
                path = %path.display(),
                error = text,
                "a query worker cannot open a folder of a source: queries that name the source fail"
            );
        }
        *noted = unopened.to_vec();
    }

    fn take_idle(&self, class: Class, folders: &Folders) -> Option<Worker> {
        let mut rest = self.lock_idle();
        // A source whose folder was replaced is another folder: who was confined to the old one
        // cannot read it.
        rest.workers.retain(|idle| idle.folders == *folders);
        let at = rest.workers.iter().rposition(|idle| idle.class == class)?;
        Some(rest.workers.remove(at).worker)
    }

    fn give_back(self: &Arc<Self>, class: Class, folders: Folders, mut worker: Worker) {
        let small = worker.anonymous_bytes().is_some_and(|bytes| bytes <= REUSE_BYTES);
        // Another worker has the right to a folder that can be opened now.
        let lacks_a_folder = worker.unopened.iter().any(|folder| folder.path.metadata().is_ok());
        if !small || lacks_a_folder || worker.served >= REUSE_QUERIES {
            return;
        }
        let turn = {
            let mut rest = self.lock_idle();
            rest.turns += 1;
            let turn = rest.turns;
            rest.workers.push(Idle { class, folders, worker, turn });
            turn
        };
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(IDLE_TIMEOUT).await;
            end_idle(&pool, turn);
        });
    }

    fn spill_folder(&self) -> Result<SpillFolder, LakeError> {
        let dir: &PathBuf = &self.limits.spill_dir;
        let failed = |source| LakeError::Confine {
            what: format!("have a spill folder in {}", dir.display()),
            source,
        };
        let mut spill = self.spill.lock();
        if let Some(root) = &*spill {
            match root.folder() {
                // Somebody emptied the directory. If it is gone itself, nobody makes it: it may be a
                // disk that is not mounted.
                Err(error) if error.kind() == io::ErrorKind::NotFound && dir.is_dir() => {}
                folder => return folder.map_err(failed),
            }
        }
        let root = spill.insert(Arc::new(SpillRoot::create(dir).map_err(failed)?));
        root.folder().map_err(failed)
    }

    fn lock_idle(&self) -> parking_lot::MutexGuard<'_, Rest> {
        self.idle.lock()
    }
}

/// Ends a worker that is idle since a certain turn.
fn end_idle(pool: &Weak<Pool>, turn: u64) {
    if let Some(pool) = pool.upgrade() {
        pool.lock_idle().workers.retain(|idle| idle.turn != turn);
    }
}
