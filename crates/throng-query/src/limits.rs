//! Limits on what the queries of a lake may use.

use std::path::PathBuf;
use std::time::Duration;

use throng_spec::{NodeSettings, Source};
use throng_worker::{ClassLimits, PoolSettings, WorkerCommand};

/// Identifier queries, and plans of checks, at the same time.
const OTHER_QUERIES: usize = 2;

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

/// The folder beside its own that links of a source may lead to: its root. `None` for a source of a workspace, because
/// the root may have the folders of other workspaces too.
pub fn linked_folder(source: &Source) -> Option<&PathBuf> {
    source.root.as_ref().filter(|_| source.name.workspace().is_none())
}

/// The folders that queries over some sources may read.
pub fn folders(sources: &[Source]) -> Vec<PathBuf> {
    let read = sources.iter().flat_map(|source| [Some(&source.path), linked_folder(source)]);
    read.flatten().cloned().collect()
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

    /// The settings of the query workers. Four fifths of the memory are for scans, which may spill,
    /// and one fifth for other queries, in equal parts: the sum over all workers is never more than
    /// the lake's limit.
    pub fn into_pool_settings(self, sources: &[Source]) -> PoolSettings<Vec<Source>> {
        let queries = self.queries.max(1);
        let (scans, others) = (self.memory_bytes / 5 * 4, self.memory_bytes / 5);
        PoolSettings {
            command: self.worker,
            read: folders(sources),
            spill_dir: self.spill_dir,
            threads: self.threads,
            spilling: ClassLimits { workers: queries, memory_bytes: scans / queries as u64 },
            in_memory: ClassLimits {
                workers: OTHER_QUERIES,
                memory_bytes: others / OTHER_QUERIES as u64,
            },
            connect_port: None,
            task: sources.to_vec(),
        }
    }
}
