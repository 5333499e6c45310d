//! The sidecar: a gate that follows a node, and its listeners.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use throng_api::{GATE_ID_RULE, is_gate_id};
use throng_gate::{Catalog, Gate};
use throng_http::{ConnectionLimits, Server, caps_within_open_files};
use throng_membership::seed_check;
use throng_model::{Clock, Retry, Secret};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::client::{NodeClient, NodeOptions};
use crate::error::{SidecarError, SyncError};
use crate::follow::FeedFollower;
use crate::guard::{self, Guard};
use crate::http::{Api, router};
use crate::membership::{MembershipObserver as _, MembershipSync};
use crate::socket::{self, SocketFile, SocketListener};
use crate::status::Status;

/// How often membership is compared with the node. The answer is empty while nothing has changed.
const MEMBERSHIP_INTERVAL: Duration = Duration::from_secs(2);
/// How often applied versions are reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);
/// How long open requests may take when a sidecar stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// The limits of connections, as a node has them by default.
const CAPS: ConnectionLimits = ConnectionLimits { total: 8_192, per_address: 2_048 };
/// Connections to the socket at a time; further ones wait until one of them ends.
const MAX_SOCKET_CONNECTIONS: usize = 2_048;
/// How long a start waits for the node. Until then nobody is answered, and probes must not fail.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// What a sidecar is started with.
#[derive(Debug)]
pub struct SidecarOptions {
    /// The node that is followed.
    pub node: NodeOptions,
    /// The folder for copies of its files, of this sidecar alone.
    pub cache_dir: PathBuf,
    /// The name in the list of gates; a random one of the cache if left out.
    pub id: Option<String>,
    /// The address to listen on.
    pub listen: Option<SocketAddr>,
    /// The host names that requests may have besides the address.
    pub allowed_hosts: Vec<String>,
    /// The token that requests over TCP must have. Required unless the address is a loopback address.
    pub client_token: Option<Secret>,
    /// The path of the unix socket.
    pub socket: Option<PathBuf>,
    /// The mode of its file.
    pub socket_mode: u32,
    /// After how long without a frame the figures are stale.
    pub stale_after: Duration,
    /// The time of decisions: the one by which the node counts.
    pub clock: Arc<dyn Clock>,
}

/// A gate that follows a node and answers decisions.
#[derive(Debug)]
pub struct Sidecar {
    id: String,
    status: Arc<Status>,
    address: Option<SocketAddr>,
    /// Ends what follows the node.
    stop: CancellationToken,
    /// Ends the listeners.
    stop_listening: CancellationToken,
    following: JoinSet<()>,
    listening: JoinSet<()>,
    socket: Option<SocketFile>,
}

impl Sidecar {
    /// Starts to listen and to follow. It waits a few seconds for a node that does not answer, never for files, and
    /// decides when the gate is complete: see [`is_ready`](Self::is_ready). With files in the cache, only what is new
    /// is read.
    ///
    /// # Errors
    /// [`SidecarError`] for options that cannot be used, for a cache, address or socket that is in use, and for a node
    /// that answers and refuses the token or is of another deployment.
    pub async fn start(options: SidecarOptions) -> Result<Self, SidecarError> {
        check_options(&options)?;
        let client = NodeClient::new(&options.node)?;
        let cache = Arc::new(Cache::open(&options.cache_dir)?);
        let id = match &options.id {
            Some(id) => id.clone(),
            None => cache.gate_id()?,
        };
        let tcp = match options.listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let unix = match &options.socket {
            Some(path) => {
                let caps = ConnectionLimits {
                    total: MAX_SOCKET_CONNECTIONS,
                    per_address: MAX_SOCKET_CONNECTIONS,
                };
                let most = caps_within_open_files(caps).total;
                Some(socket::listen(path, options.socket_mode, most)?)
            }
            None => None,
        };
        let gate = Arc::new(Gate::new(Catalog::default(), options.stale_after));
        let status = Arc::new(Status::new(options.clock, Arc::clone(&gate), id.clone()));
        let follower = FeedFollower::new(client.clone(), Arc::clone(&gate), id.clone());
        let membership = MembershipSync::new(client.clone(), Arc::clone(&cache));
        check_access(&client, &membership).await?;
        let (stop, stop_listening) = (CancellationToken::new(), CancellationToken::new());
        let following = follow(membership, follower, &status, &stop);
        let router = router(Arc::new(Api { gate, status: Arc::clone(&status), client, cache }));
        let mut listening = JoinSet::new();
        let mut address = None;
        if let Some((listener, own)) = tcp {
            let guard = Guard::new(own, &options.allowed_hosts, options.client_token.as_ref());
            let guarded = router.clone().layer(from_fn_with_state(Arc::new(guard), guard::check));
            let server = Server::new(guarded, CAPS, None, stop_listening.clone());
            listening.spawn(server.serve(listener));
            address = Some(own);
        }
        let socket = unix.map(|(listener, file)| {
            listening.spawn(serve_socket(listener, router, stop_listening.clone()));
            file
        });
        Ok(Self { id, status, address, stop, stop_listening, following, listening, socket })
    }

    /// The name in the list of gates.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The URL, if it listens on an address.
    pub fn url(&self) -> Option<String> {
        self.address.map(|address| format!("http://{address}"))
    }

    /// Whether it decides: it has catalog, membership and figures.
    pub fn is_ready(&self) -> bool {
        self.status.is_ready()
    }

    /// Stops listening, lets open requests end, and stops following. Releases cache and socket.
    pub async fn shutdown(mut self) {
        // First: a client that connects now gets an error at once, instead of no answer.
        drop(self.socket.take());
        self.stop_listening.cancel();
        let ended = async { while self.listening.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, ended).await.is_err() {
            tracing::warn!("open requests were aborted");
        }
        self.listening.shutdown().await;
        self.stop.cancel();
        while let Some(ended) = self.following.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}

fn check_options(options: &SidecarOptions) -> Result<(), SidecarError> {
    let refuse = |message: &str| Err(SidecarError::Options(message.to_owned()));
    if options.listen.is_none() && options.socket.is_none() {
        return refuse("a sidecar needs an address to listen on, a socket, or both");
    }
    let is_open = options.listen.is_some_and(|address| !address.ip().is_loopback());
    if is_open && options.client_token.is_none() {
        return refuse(
            "other machines can reach this address: name the token that clients send with \
             --client-token-file, or listen on a loopback address",
        );
    }
    if !options.id.as_deref().is_none_or(is_gate_id) {
        return refuse(GATE_ID_RULE);
    }
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), SidecarError> {
    let failed = |source| SidecarError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let own = listener.local_addr().map_err(failed)?;
    Ok((listener, own))
}

/// Asks the node once, so that a wrong token, or the feed of another deployment, ends the start with its error. Other
/// errors may go away.
async fn check_access(
    client: &NodeClient,
    membership: &MembershipSync,
) -> Result<(), SidecarError> {
    let check = async {
        let (_, deployment) = client.catalog_of().await?;
        let seed = membership.check().await?;
        match deployment.zip(seed) {
            Some((deployment, seed)) if deployment != seed_check(seed) => {
                Err(SyncError::OtherFeed { url: client.feed_url() })
            }
            _ => Ok(()),
        }
    };
    match tokio::time::timeout(CHECK_TIMEOUT, check).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) if error.retry() == Retry::Never => return Err(error.into()),
        Ok(Err(error)) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the node is not available, trying again"
        ),
        Err(_) => tracing::warn!("the node does not answer, trying again"),
    }
    Ok(())
}

/// Follows feed, membership and reports, each in a task of its own: none of them delays another one.
fn follow(
    mut membership: MembershipSync,
    follower: FeedFollower,
    status: &Arc<Status>,
    stop: &CancellationToken,
) -> JoinSet<()> {
    let mut following = JoinSet::new();
    let (observer, ended) = (Arc::clone(status), stop.clone());
    following.spawn(async move {
        // Here, because it reads all files: probes are answered meanwhile.
        let opened = tokio::select! {
            () = ended.cancelled() => return,
            opened = membership.open_cached() => opened,
        };
        if let Some(index) = opened {
            observer.loaded(&index);
        }
        membership.follow(MEMBERSHIP_INTERVAL, &*observer, &ended).await;
    });
    let (observer, ended, reporter) = (Arc::clone(status), stop.clone(), follower.clone());
    following.spawn(async move { follower.follow(&*observer, &ended).await });
    let (observer, ended) = (Arc::clone(status), stop.clone());
    following.spawn(async move { reporter.report(REPORT_INTERVAL, &*observer, &ended).await });
    following
}

async fn serve_socket(listener: SocketListener, router: Router, stop: CancellationToken) {
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(error = &error as &dyn std::error::Error, "failed to serve the socket");
    }
}
