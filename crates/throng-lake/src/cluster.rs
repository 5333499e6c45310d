//! An engine on several machines, which runs the queries that are not divided into parts: how a worker reaches it, and
//! what it must be able to do. `throng-ballista` has the one that exists.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use serde::{Deserialize, Serialize};
use throng_files::FileError;
use throng_query::copies::CopiedFolder;
use throng_spec::BallistaSettings;
use tokio::net::TcpStream;

use crate::error::LakeError;

/// The longest time to connect to a scheduler.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// What a process of a cluster proves itself with, as PEM texts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterTls {
    /// The certificate authority of the cluster.
    pub ca: String,
    /// The certificate of this process.
    pub cert: String,
    /// The key of that certificate.
    pub key: String,
}

impl fmt::Debug for ClusterTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterTls").finish_non_exhaustive()
    }
}

impl ClusterTls {
    /// Reads the three files.
    ///
    /// # Errors
    /// [`FileError::Source`] naming the file that cannot be read.
    pub fn read(ca: &Path, cert: &Path, key: &Path) -> Result<Self, FileError> {
        let text = |path: &Path| {
            throng_fs::read_to_string(path)
                .map_err(|source| FileError::Source { path: path.to_owned(), source })
        };
        Ok(Self { ca: text(ca)?, cert: text(cert)?, key: text(key)? })
    }
}

/// How a worker reaches a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterClient {
    /// The address of its scheduler.
    pub scheduler: SocketAddr,
    /// `None`: connections are not encrypted.
    pub tls: Option<ClusterTls>,
    /// Partitions of a query.
    pub partitions: usize,
    /// The copies of buckets that the query reads. The cluster reads their objects.
    pub copied: Vec<CopiedFolder>,
}

/// What a worker gets to know of the cluster. Which queries need it is known when they are planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FoundCluster {
    /// Its scheduler takes connections.
    Reachable(ClusterClient),
    /// Its scheduler takes none, and why: an error of the queries that need it.
    Unreachable(String),
    /// It cannot run the query, and why.
    NotUsed(String),
}

/// A cluster as the settings of a node name it.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    host: String,
    port: u16,
    tls: Option<ClusterTls>,
    partitions: usize,
    pub(crate) reads_buckets: bool,
}

impl ClusterOptions {
    /// The options of some settings.
    ///
    /// # Errors
    /// [`LakeError::File`] naming the file of a certificate or key that cannot be read.
    pub fn of(settings: &BallistaSettings) -> Result<Self, LakeError> {
        let tls = settings.tls.as_ref();
        let tls = tls.map(|tls| ClusterTls::read(&tls.ca_file, &tls.cert_file, &tls.key_file));
        Ok(Self {
            host: settings.host.clone(),
            port: settings.port,
            tls: tls.transpose()?,
            partitions: settings.partitions.max(1) as usize,
            reads_buckets: settings.buckets,
        })
    }

    /// The port that workers connect to.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Finds the address of the scheduler, which a worker cannot do: of those that its name has, one that takes
    /// connections. `copied`: the copies of buckets that the query reads.
    pub(crate) async fn client(&self, copied: Vec<CopiedFolder>) -> FoundCluster {
        let connected = TcpStream::connect((self.host.as_str(), self.port));
        let scheduler = match tokio::time::timeout(CONNECT_TIMEOUT, connected).await {
            Ok(connected) => connected.and_then(|stream| stream.peer_addr()),
            Err(_) => return FoundCluster::Unreachable("it does not answer".to_owned()),
        };
        match scheduler {
            Ok(scheduler) => FoundCluster::Reachable(ClusterClient {
                scheduler,
                tls: self.tls.clone(),
                partitions: self.partitions,
                copied,
            }),
            Err(error) => FoundCluster::Unreachable(error.to_string()),
        }
    }
}

/// An engine on several machines. The query worker calls it.
#[async_trait]
pub trait Cluster: fmt::Debug + Send + Sync {
    /// Runs a query. It ends there when the stream is dropped, or the process that has it ends.
    ///
    /// # Errors
    /// Those of planning and of the connection, and those of the tasks as [`crate::stage_error()`] has made them; the
    /// latter also in the stream.
    async fn execute(
        &self,
        client: &ClusterClient,
        query: DataFrame,
    ) -> Result<ClusterQuery, DataFusionError>;
}

/// What becomes of a query that is to run on a cluster.
pub enum ClusterQuery {
    /// It runs there: its rows.
    Running(SendableRecordBatchStream),
    /// It cannot be sent to other machines: why, without values of the data.
    NotSendable(String),
}

/// The cluster that a worker uses for a request.
#[derive(Clone, Copy)]
pub(crate) struct OnCluster<'a> {
    pub(crate) found: &'a FoundCluster,
    /// Takes the reason if the cluster cannot run the query, before it is run here.
    pub(crate) report: &'a (dyn Fn(&str) -> io::Result<()> + Sync),
}
