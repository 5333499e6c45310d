//! Keeps idle workers for the next request: starting one costs more than planning a small query.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::command::WorkerCommand;
use crate::error::WorkerError;
use crate::limits::{REUSE_BYTES, REUSE_QUERIES};
use crate::output::Output;
use crate::process::Worker;
use crate::setup::{Confinement, Setup, UnopenedFolder};
use crate::spawner::Spawner;
use crate::spill::{SpillFolder, SpillRoot, remove_stale};

/// An idle worker is stopped after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// What a worker may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerClass {
    /// Files of its own in the spill directory.
    Spilling,
    /// Nothing.
    InMemory,
}

/// The limits of the workers of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassLimits {
    /// Requests at the same time, each in a worker of its own; more of them wait. At least 1.
    pub workers: usize,
    /// See [`Confinement::memory_bytes`]. A worker is killed when it has more than 1.6 times as much
    /// and 256 MiB in use.
    pub memory_bytes: u64,
}

/// What the workers of a pool may use.
#[derive(Debug, Clone)]
pub struct PoolSettings<T> {
    /// How a worker is started.
    pub command: WorkerCommand,
    /// The only folders that workers may read.
    pub read: Vec<PathBuf>,
    /// Where workers of the class `Spilling` spill. Each has its own folder there, which is removed
    /// with it.
    pub spill_dir: PathBuf,
    /// Threads of a worker.
    pub threads: usize,
    /// Limits of the class `Spilling`.
    pub spilling: ClassLimits,
    /// Limits of the class `InMemory`.
    pub in_memory: ClassLimits,
    /// The only port that workers may connect to by TCP; `None`: they may not.
    pub connect_port: Option<u16>,
    /// Given to every worker when it starts.
    pub task: T,
}

impl<T> PoolSettings<T> {
    fn limits(&self, class: WorkerClass) -> ClassLimits {
        match class {
            WorkerClass::Spilling => self.spilling,
            WorkerClass::InMemory => self.in_memory,
        }
    }
}

/// The device and inode of each folder to read when a worker was started: it is confined to these.
type Folders = Vec<Option<(u64, u64)>>;

#[derive(Debug)]
struct Idle {
    /// The number of its pool, whose folders it may read.
    pool: u64,
    class: WorkerClass,
    folders: Folders,
    worker: Worker,
    /// Identifies this idle period.
    sequence: u64,
}

#[derive(Debug, Default)]
struct IdleWorkers {
    /// The worker that has been idle for the longest time first.
    workers: Vec<Idle>,
    next_sequence: u64,
    next_pool: u64,
}

/// What pools with the same limits share.
#[derive(Debug)]
struct Shared {
    spilling: Arc<Semaphore>,
    in_memory: Arc<Semaphore>,
    spill: Mutex<Option<Arc<SpillRoot>>>,
    idle: Mutex<IdleWorkers>,
    // Dropped after the workers: the kernel kills workers when its thread ends.
    spawner: Spawner,
}

impl Shared {
    fn slots(&self, class: WorkerClass) -> &Arc<Semaphore> {
        match class {
            WorkerClass::Spilling => &self.spilling,
            WorkerClass::InMemory => &self.in_memory,
        }
    }

    /// Stops idle workers of other pools, so that with a new worker there are no more of a class than requests that
    /// may run. The caller has the permit of a request.
    fn make_room(&self, class: WorkerClass) {
        let free = self.slots(class).available_permits();
        let mut idle_workers = self.idle.lock();
        let count = idle_workers.workers.iter().filter(|idle| idle.class == class).count();
        let mut surplus = count.saturating_sub(free);
        idle_workers.workers.retain(|idle| {
            let stops = surplus > 0 && idle.class == class;
            surplus -= usize::from(stops);
            !stops
        });
    }
}

/// The workers of a node, each given a `T` when it starts.
#[derive(Debug)]
pub struct Pool<T> {
    settings: PoolSettings<T>,
    /// Identifies the pool among those with the same limits.
    number: u64,
    /// The folders that the newest worker could not open.
    unopened: Mutex<Vec<UnopenedFolder>>,
    shared: Arc<Shared>,
}

impl<T: Serialize + Clone + Send + Sync + 'static> Pool<T> {
    /// Prepares a pool. Starts no process. Removes spill folders that a crash has left.
    ///
    /// # Errors
    /// If they cannot be removed.
    pub fn new(settings: PoolSettings<T>) -> io::Result<Arc<Self>> {
        remove_stale(&settings.spill_dir)?;
        let permits = |class| Arc::new(Semaphore::new(settings.limits(class).workers.max(1)));
        let shared = Shared {
            spilling: permits(WorkerClass::Spilling),
            in_memory: permits(WorkerClass::InMemory),
            spill: Mutex::default(),
            idle: Mutex::default(),
            spawner: Spawner::default(),
        };
        let unopened = Mutex::default();
        Ok(Arc::new(Self { settings, number: 0, unopened, shared: Arc::new(shared) }))
    }

    /// A pool whose workers may read other folders and are given another `T`. Both have the limits of one together.
    /// No worker is used by both. Starts no process.
    pub fn with_task(&self, read: Vec<PathBuf>, task: T) -> Arc<Self> {
        self.with_settings(PoolSettings { read, task, ..self.settings.clone() })
    }

    /// A pool whose workers may also connect to a port by TCP, of any host. Both have the limits of one together. No
    /// worker is used by both. Starts no process.
    pub fn with_connection(&self, port: u16) -> Arc<Self> {
        self.with_settings(PoolSettings { connect_port: Some(port), ..self.settings.clone() })
    }

    fn with_settings(&self, settings: PoolSettings<T>) -> Arc<Self> {
        let number = {
            let mut idle_workers = self.shared.idle.lock();
            idle_workers.next_pool += 1;
            idle_workers.next_pool
        };
        let shared = Arc::clone(&self.shared);
        Arc::new(Self { settings, number, unopened: Mutex::default(), shared })
    }

    /// Sends a request to a worker, passes the data frames of its answer to `output`, and returns
    /// its reply. `timeout` does not count the time until a worker is free. Dropping the future
    /// kills the worker.
    ///
    /// # Errors
    /// [`WorkerError`]. An error that the worker itself reports is a reply.
    pub async fn execute<Q: Serialize + Sync, R: DeserializeOwned + Send>(
        self: &Arc<Self>,
        class: WorkerClass,
        request: &Q,
        timeout: Duration,
        output: &mut dyn Output,
    ) -> Result<R, WorkerError> {
        let _permit = self.permit(class).await?;
        let folders = self.folders();
        let mut worker = self.acquire(class, &folders).await?;
        let reply = worker.exchange(request, timeout, output).await?;
        self.release(class, folders, worker);
        Ok(reply)
    }

    async fn permit(&self, class: WorkerClass) -> Result<OwnedSemaphorePermit, WorkerError> {
        let permit = Arc::clone(self.shared.slots(class)).acquire_owned().await;
        permit.map_err(|closed| WorkerError::Output(closed.into()))
    }

    fn folders(&self) -> Folders {
        let inode = |folder: &PathBuf| {
            let metadata = std::fs::metadata(folder).ok()?;
            Some((metadata.dev(), metadata.ino()))
        };
        self.settings.read.iter().map(inode).collect()
    }

    /// Returns the idle worker that was used last, or a new one.
    async fn acquire(&self, class: WorkerClass, folders: &Folders) -> Result<Worker, WorkerError> {
        while let Some(mut worker) = self.acquire_idle(class, folders) {
            if worker.anonymous_bytes().is_some() && worker.can_spill() {
                return Ok(worker);
            }
        }
        self.shared.make_room(class);
        let spill = match class {
            WorkerClass::Spilling => Some(self.spill_folder()?),
            WorkerClass::InMemory => None,
        };
        let settings = &self.settings;
        let confinement = Confinement {
            parent: std::process::id(),
            read: settings.read.clone(),
            memory_bytes: settings.limits(class).memory_bytes,
            spill_dir: spill.as_ref().map(|spill| spill.path().to_owned()),
            connect_port: settings.connect_port,
            threads: settings.threads.max(1),
        };
        let setup = Setup { confinement, task: settings.task.clone() };
        let spawner = &self.shared.spawner;
        let worker = Worker::start(spawner, &settings.command, &setup, spill).await?;
        self.log_unopened(&worker.unopened);
        Ok(worker)
    }

    /// Logs folders that a new worker could not open, each once until it can be opened.
    fn log_unopened(&self, unopened: &[UnopenedFolder]) {
        let mut logged = self.unopened.lock();
        for UnopenedFolder { path, error } in
            unopened.iter().filter(|folder| !logged.contains(folder))
        {
            tracing::warn!(
                path = %path.display(),
                error = error.text(),
                "query worker cannot open the folder of a source"
            );
        }
        *logged = unopened.to_vec();
    }

    fn acquire_idle(&self, class: WorkerClass, folders: &Folders) -> Option<Worker> {
        let own = self.number;
        let mut idle_workers = self.shared.idle.lock();
        // If a folder was replaced, workers that are confined to the old folder cannot
        // read the new one.
        idle_workers.workers.retain(|idle| idle.pool != own || idle.folders == *folders);
        let is_usable = |idle: &Idle| idle.pool == own && idle.class == class;
        let at = idle_workers.workers.iter().rposition(is_usable)?;
        Some(idle_workers.workers.remove(at).worker)
    }

    fn release(&self, class: WorkerClass, folders: Folders, mut worker: Worker) {
        let small = worker.anonymous_bytes().is_some_and(|bytes| bytes <= REUSE_BYTES);
        // If a folder can be opened now, a new worker gets the right to it; this one never does.
        let lacks_a_folder = worker.unopened.iter().any(|folder| folder.path.metadata().is_ok());
        if !small || lacks_a_folder || worker.served >= REUSE_QUERIES {
            return;
        }
        let sequence = {
            let mut idle_workers = self.shared.idle.lock();
            idle_workers.next_sequence += 1;
            let sequence = idle_workers.next_sequence;
            idle_workers.workers.push(Idle { pool: self.number, class, folders, worker, sequence });
            sequence
        };
        let shared = Arc::downgrade(&self.shared);
        tokio::spawn(async move {
            tokio::time::sleep(IDLE_TIMEOUT).await;
            stop_idle(&shared, sequence);
        });
    }

    fn spill_folder(&self) -> Result<SpillFolder, WorkerError> {
        let dir = &self.settings.spill_dir;
        let failed = |source| WorkerError::Confine {
            what: format!("create a spill folder in {}", dir.display()),
            source,
        };
        let mut spill = self.shared.spill.lock();
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
}

/// Stops the worker of this idle period, if it is still idle.
fn stop_idle(shared: &Weak<Shared>, sequence: u64) {
    if let Some(shared) = shared.upgrade() {
        shared.idle.lock().workers.retain(|idle| idle.sequence != sequence);
    }
}
