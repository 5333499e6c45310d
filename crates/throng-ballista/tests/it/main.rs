//! Queries on clusters of processes of this machine: the users are those that a query worker finds by itself.

#![expect(clippy::unwrap_used, reason = "tests: a panic is how a case fails")]

mod buckets;
mod cluster;
mod files;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use throng_lake::{ClusterOptions, Copies, Lake, LakeLimits, WorkerCommand};
use throng_spec::{BallistaSettings, BallistaTls, Source, SourceBucket};

/// The program of every process.
const PROGRAM: &str = env!("CARGO_BIN_EXE_ballista-process");

/// A process of a cluster, killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    port: u16,
}

impl Process {
    /// Starts one and waits until it takes connections.
    fn start(arguments: &[String]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["ballista", "--log", "warn"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        Self { child, port: port.unwrap_or_else(|| panic!("no port in {line:?}")) }
    }

    /// Ends it by SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with a source `shop`, and the processes of a cluster.
pub(crate) struct Cluster {
    certificates: Option<BallistaTls>,
    /// The file of the buckets that executors read.
    pub(crate) buckets: Option<PathBuf>,
    scheduler: Option<Process>,
    pub(crate) executors: Vec<Process>,
    // Removed after the processes that use it.
    dir: tempfile::TempDir,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["shop", "spill"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let (certificates, buckets, scheduler) = (None, None, None);
        Self { dir, certificates, buckets, scheduler, executors: Vec::new() }
    }

    /// With certificates of an authority of its own.
    pub(crate) fn encrypted() -> Self {
        let mut cluster = Self::new();
        cluster.certificates = Some(cluster.certificates("authority"));
        cluster
    }

    /// Certificates of a new authority.
    pub(crate) fn certificates(&self, name: &str) -> BallistaTls {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let names = vec![throng_ballista::CERTIFICATE_NAME.to_owned()];
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        let write = |kind: &str, text: String| {
            let path = self.dir.path().join(format!("{name}-{kind}.pem"));
            std::fs::write(&path, text).unwrap();
            path
        };
        BallistaTls {
            ca_file: write("ca", authority.pem()),
            cert_file: write("cert", certificate.pem()),
            key_file: write("key", key.serialize_pem()),
        }
    }

    pub(crate) fn shop(&self) -> PathBuf {
        self.dir.path().join("shop")
    }

    /// Writes a file of the source.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.shop().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// A path outside of the source.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where an executor has objects.
    pub(crate) fn object_cache(&self, executor: usize) -> PathBuf {
        self.path(&format!("objects-{executor}"))
    }

    /// Where an executor writes.
    pub(crate) fn work_dir(&self, executor: usize) -> PathBuf {
        self.dir.path().join(format!("work-{executor}"))
    }

    /// Starts a scheduler and executors of one core.
    pub(crate) fn start(&mut self, executors: usize) {
        let text = |path: &Path| path.display().to_string();
        let mut certificates = Vec::new();
        if let Some(tls) = &self.certificates {
            for (option, file) in
                [("--ca", &tls.ca_file), ("--cert", &tls.cert_file), ("--key", &tls.key_file)]
            {
                certificates.extend([option.to_owned(), text(file)]);
            }
        }
        let line = "scheduler --listen 127.0.0.1:0 --executor-timeout-secs 10";
        let line = line.split(' ').map(str::to_owned);
        let scheduler = Process::start(&line.chain(certificates.clone()).collect::<Vec<_>>());
        for number in 0..executors {
            let mut line: Vec<String> =
                ["executor", "--cores", "1", "--memory", "268435456"].map(str::to_owned).to_vec();
            line.extend(["--scheduler".to_owned(), format!("127.0.0.1:{}", scheduler.port)]);
            line.extend(["--work-dir".to_owned(), text(&self.work_dir(number))]);
            line.extend(["--read".to_owned(), text(&self.shop())]);
            if let Some(buckets) = &self.buckets {
                line.extend(["--buckets".to_owned(), text(buckets)]);
                line.extend(["--object-cache".to_owned(), text(&self.object_cache(number))]);
            }
            line.extend(certificates.clone());
            self.executors.push(Process::start(&line));
        }
        self.scheduler = Some(scheduler);
    }

    /// A lake whose queries run in workers of this machine only.
    pub(crate) fn lake(&self) -> Lake {
        self.lake_of(None, None)
    }

    /// A lake whose source is this bucket, if there is one.
    pub(crate) fn lake_of(
        &self,
        bucket: Option<SourceBucket>,
        copies: Option<&Arc<dyn Copies>>,
    ) -> Lake {
        let sources = [Source {
            name: "shop".parse().unwrap(),
            path: self.shop(),
            root: None,
            description: None,
            columns: Vec::new(),
            trim: false,
            header: None,
            bucket,
        }];
        let limits = LakeLimits {
            memory_bytes: 512 << 20,
            spill_dir: self.dir.path().join("spill"),
            threads: 2,
            queries: 2,
            timeout: Duration::from_secs(600),
            worker: WorkerCommand {
                program: PROGRAM.into(),
                args: vec![throng_worker::SUBCOMMAND.to_owned()],
            },
        };
        Lake::new(&sources, limits, copies).unwrap()
    }

    /// A lake that uses the cluster, with the cluster's certificates.
    pub(crate) fn distributed(&self) -> Lake {
        self.distributed_with(self.certificates.clone())
    }

    pub(crate) fn distributed_with(&self, tls: Option<BallistaTls>) -> Lake {
        self.lake().on_cluster(self.options(tls, false))
    }

    /// How nodes reach it; `buckets`: its executors read buckets.
    pub(crate) fn options(&self, tls: Option<BallistaTls>, buckets: bool) -> ClusterOptions {
        let port = self.scheduler.as_ref().unwrap().port;
        let host = "localhost".to_owned();
        let settings = BallistaSettings { host, port, tls, partitions: 4, buckets };
        ClusterOptions::of(&settings).unwrap()
    }

    /// Whether an executor has output of tasks.
    pub(crate) fn has_output(&self, executor: usize) -> bool {
        std::fs::read_dir(self.work_dir(executor)).is_ok_and(|mut jobs| jobs.next().is_some())
    }
}
