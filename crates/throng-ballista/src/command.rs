//! The command line of a process of a cluster.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use throng_lake::{Cluster, ClusterTls};
use throng_worker::restrict_files;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::client::cluster;
use crate::objects::open_cache;
use crate::{ClusterError, ExecutorOptions, SchedulerOptions, run_executor, run_scheduler};

/// The first argument of the `throng` binary that makes it a process of a cluster.
pub const SUBCOMMAND: &str = "ballista";

/// What the system reads to look up the names of hosts.
const RESOLVER_FILES: [&str; 5] =
    ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"];

/// A process of a Ballista cluster, which runs SQL of nodes past one machine.
#[derive(Debug, Parser)]
#[command(name = "throng ballista", bin_name = "throng ballista", disable_help_subcommand = true)]
struct Arguments {
    /// What is logged: a level, or targets with levels.
    #[arg(long, global = true, default_value = "info")]
    log: String,
    #[command(subcommand)]
    process: Process,
}

#[derive(Debug, Subcommand)]
enum Process {
    /// Takes queries and divides them into tasks. One for a cluster.
    Scheduler(SchedulerArguments),
    /// Runs tasks. Any number for a cluster; all of them see the files of the sources at the same paths.
    Executor(ExecutorArguments),
}

/// The certificates of the cluster: all three, or none on one machine.
#[derive(Debug, Args)]
struct Certificates {
    /// A PEM file of the certificate authority of the cluster.
    #[arg(long, requires_all = ["cert", "key"])]
    ca: Option<PathBuf>,
    /// A PEM file of a certificate that it has signed, for the name `throng-ballista`.
    #[arg(long, requires_all = ["ca", "key"])]
    cert: Option<PathBuf>,
    /// A PEM file of its key.
    #[arg(long, requires_all = ["ca", "cert"])]
    key: Option<PathBuf>,
}

impl Certificates {
    fn read(&self) -> Result<Option<ClusterTls>, ClusterError> {
        match (&self.ca, &self.cert, &self.key) {
            (Some(ca), Some(cert), Some(key)) => Ok(Some(ClusterTls::read(ca, cert, key)?)),
            _ => Ok(None),
        }
    }
}

#[derive(Debug, Args)]
struct SchedulerArguments {
    /// Address and port.
    #[arg(long, default_value = "127.0.0.1:50050")]
    listen: SocketAddr,
    #[command(flatten)]
    certificates: Certificates,
    /// Seconds without a sign of an executor after which its tasks are given to others. A busy one calls every 5
    /// seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(10..=3600))]
    executor_timeout_secs: u64,
    /// Seconds for which executors keep a result: a node must have read it by then.
    #[arg(long, default_value_t = 14_400, value_parser = clap::value_parser!(u64).range(60..))]
    keep_results_secs: u64,
}

#[derive(Debug, Args)]
struct ExecutorArguments {
    /// Host and port of the scheduler.
    #[arg(long, default_value = "127.0.0.1:50050", value_parser = host_and_port)]
    scheduler: (String, u16),
    /// Address and port for other executors and the scheduler; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The host by which they reach it, if it is not the address.
    #[arg(long)]
    host: Option<String>,
    #[command(flatten)]
    certificates: Certificates,
    /// A folder of a source, which queries may read. Repeat it for each; other files cannot be read.
    #[arg(long = "read", required_unless_present = "buckets")]
    read: Vec<PathBuf>,
    /// A YAML file of buckets, whose objects queries may read.
    #[arg(long, requires = "object_cache")]
    buckets: Option<PathBuf>,
    /// A folder for the objects that it downloads, for this executor alone.
    #[arg(long, requires = "buckets")]
    object_cache: Option<PathBuf>,
    /// The most bytes of these objects. Those that were not used for the longest time are removed.
    #[arg(long, default_value_t = 64 << 30)]
    object_cache_bytes: u64,
    /// A folder for the output of tasks and for what they spill. It has user keys.
    #[arg(long)]
    work_dir: PathBuf,
    /// Memory of all tasks before they spill, in bytes.
    #[arg(long, default_value_t = 2 << 30)]
    memory: u64,
    /// Partitions that are worked on side by side; one for each processor unless set.
    #[arg(long)]
    cores: Option<usize>,
}

fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let parts = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let parts = parts.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    parts.ok_or_else(|| "write HOST:PORT".to_owned())
}

/// Runs this process as a part of a cluster, or as a query worker that can use one, if its first argument says so;
/// `worker` runs the latter. Call it first in `main`, before another thread is started: the process confines itself,
/// which threads that exist already would not notice.
pub fn process(worker: fn(&'static dyn Cluster) -> ExitCode) -> Option<ExitCode> {
    let first = std::env::args_os().nth(1)?;
    if first == throng_worker::SUBCOMMAND {
        return Some(worker(cluster()));
    }
    (first == SUBCOMMAND).then(main)
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            // What it prints is the help, or what is wrong.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {}", throng_model::with_causes(&error));
            match error {
                ClusterError::Options(_) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(arguments: Arguments) -> Result<(), ClusterError> {
    let filter = EnvFilter::try_new(&arguments.log)
        .map_err(|error| ClusterError::Options(format!("--log {}: {error}", arguments.log)))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    // What it writes can be read by its own user only.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    match arguments.process {
        Process::Scheduler(scheduler) => {
            let options = SchedulerOptions {
                listen: scheduler.listen,
                tls: scheduler.certificates.read()?,
                executor_timeout_secs: scheduler.executor_timeout_secs,
                keep_results_secs: scheduler.keep_results_secs,
            };
            confine(Vec::new(), &[])?;
            block_on(run_scheduler(options, print_address, terminated()))
        }
        Process::Executor(executor) => {
            let work_dir = own_folder("work folder", &executor.work_dir)?;
            let mut write = vec![work_dir.clone()];
            let objects = match (&executor.buckets, &executor.object_cache) {
                (Some(buckets), Some(folder)) => {
                    let folder = own_folder("folder of objects", folder)?;
                    write.push(folder.clone());
                    Some(Arc::new(open_cache(buckets, folder, executor.object_cache_bytes)?))
                }
                _ => None,
            };
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            let options = ExecutorOptions {
                scheduler: executor.scheduler,
                listen: executor.listen,
                host: executor.host,
                tls: executor.certificates.read()?,
                work_dir,
                memory_bytes: executor.memory,
                cores: executor.cores.unwrap_or(processors),
                objects,
            };
            confine(executor.read, &write)?;
            block_on(run_executor(options, print_address))
        }
    }
}

/// A folder that the executor writes, as an absolute path. It is made with the rights of its user only.
fn own_folder(what: &str, folder: &Path) -> Result<PathBuf, ClusterError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    let doing = || ClusterError::system(format!("use the {what} {}", folder.display()));
    made.map_err(doing())?;
    folder.canonicalize().map_err(doing())
}

/// Confines the process to these folders. Connections are not restricted: an executor has some with other executors and
/// with the servers of buckets, and plans can open none.
fn confine(mut read: Vec<PathBuf>, write: &[PathBuf]) -> Result<(), ClusterError> {
    read.extend(RESOLVER_FILES.iter().map(PathBuf::from).filter(|file| file.exists()));
    let landlock = restrict_files(&read, write).map_err(ClusterError::system("confine itself"))?;
    if let Some(warning) = landlock.warning() {
        tracing::warn!(warning, "plans of queries may read what this process may read");
    }
    Ok(())
}

fn block_on(work: impl Future<Output = Result<(), ClusterError>>) -> Result<(), ClusterError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(ClusterError::system("start its threads"))?.block_on(work)
}

/// One line for programs that start it.
fn print_address(address: SocketAddr) {
    tracing::info!(%address, "listening");
    let _ = writeln!(io::stdout(), "listening on {address}");
}

/// Ends at SIGTERM or SIGINT.
async fn terminated() {
    let (Ok(mut term), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn certificates_belong_together() {
        assert!(parse("ballista scheduler --ca ca.pem").is_err());
        assert!(parse("ballista scheduler --ca ca.pem --cert c.pem --key k.pem").is_ok());
        assert!(parse("ballista scheduler --listen 10.0.0.7:50050").is_ok());
    }

    #[test]
    fn an_executor_needs_the_folders_that_it_may_read() {
        assert!(parse("ballista executor --work-dir /w").is_err());
        let line = "ballista executor --work-dir /w --read /a --read /b --scheduler [::1]:7";
        let Process::Executor(executor) = parse(line).unwrap().process else { panic!("{line}") };
        assert_eq!(executor.read, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(executor.scheduler, ("[::1]".to_owned(), 7));
        assert!(parse("ballista executor --work-dir /w --read /a --scheduler x").is_err());
        // Buckets are enough, with a folder for their objects.
        let line = "ballista executor --work-dir /w --buckets b.yaml";
        assert!(parse(line).is_err());
        let line = format!("{line} --object-cache /o");
        let Process::Executor(executor) = parse(&line).unwrap().process else { panic!("{line}") };
        assert_eq!(executor.object_cache_bytes, 64 << 30);
        assert!(parse("ballista executor --work-dir /w --read /a --object-cache /o").is_err());
    }
}
