//! A simulated Meta: a real HTTP server that keeps custom audiences by the rules of the Marketing
//! API, so that uploads can be rehearsed and tested without an account. See `docs/simulators.md`.
//!
//! The way of a request: `http` reads it and asks the fault script (`faults`); `call` says
//! which call it is; `payload` checks its rows; `world` charges the quota (`usage`) and
//! changes an `audience`, whose `members` are packed rows; `oracle` tells tests the truth.

mod audience;
mod call;
mod config;
mod conn;
mod control;
mod error;
mod faults;
mod http;
mod keys;
mod members;
mod oracle;
mod params;
mod payload;
mod usage;
mod world;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use throng_model::{Entropy, SplitMix64};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use config::{MetaSimConfig, Tier};
pub use faults::{FaultKind, FaultRule, FaultScript};
pub use oracle::{
    AudienceSummary, CallCounts, MemberRow, RequestCounts, digest_of, member_identity,
};

/// Calls in hand get this long when the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// What every request sees. No two of its locks are ever held at once by one task.
#[derive(Debug)]
struct Shared {
    config: MetaSimConfig,
    url: String,
    stop: CancellationToken,
    world: Mutex<world::World>,
    faults: Mutex<faults::Faults>,
    requests: Mutex<RequestCounts>,
    traces: AtomicU64,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, world::World> {
        self.world.lock()
    }

    fn faults(&self) -> MutexGuard<'_, faults::Faults> {
        self.faults.lock()
    }

    fn requests(&self) -> MutexGuard<'_, RequestCounts> {
        self.requests.lock()
    }

    fn note(&self, served: oracle::Served) {
        self.requests().note(served);
    }

    fn note_unhashed(&self, cells: u64) {
        if cells > 0 {
            self.requests().unhashed_cells += cells;
        }
    }

    fn set_faults(&self, script: FaultScript) -> Result<(), Vec<String>> {
        let problems = script.problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        *self.faults() = faults::Faults::new(script);
        Ok(())
    }

    fn audiences(&self) -> Vec<AudienceSummary> {
        let now = self.config.clock.now();
        self.world().settled(&self.config, now).map(AudienceSummary::of).collect()
    }

    fn with_audience<T>(&self, id: &str, read: impl FnOnce(&audience::Audience) -> T) -> Option<T> {
        let now = self.config.clock.now();
        self.world().one(id, &self.config, now).map(read)
    }

    fn reset(&self) {
        *self.world() = world::World::default();
        *self.requests() = RequestCounts::default();
        *self.faults() = faults::Faults::new(self.config.faults.clone());
    }

    /// `fbtrace_id`: a letter and 22 more characters, unique in this run.
    fn trace_id(&self) -> String {
        const LETTERS: &[u8; 62] =
            b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut random = SplitMix64::new(self.traces.fetch_add(1, Ordering::Relaxed));
        let letters = (0..22).map(|_| char::from(LETTERS[random.below(62) as usize]));
        std::iter::once('A').chain(letters).collect()
    }
}

/// A running simulator. It stops when it is shut down or dropped.
#[derive(Debug)]
pub struct MetaSim {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: Option<JoinHandle<()>>,
}

impl MetaSim {
    /// Binds 127.0.0.1 and serves. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the port cannot be bound, or the fault script is wrong (`InvalidInput`).
    pub async fn start(config: MetaSimConfig) -> io::Result<Self> {
        let problems = config.faults.problems();
        if !problems.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problems.join("; ")));
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, config.port)).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            faults: Mutex::new(faults::Faults::new(config.faults.clone())),
            world: Mutex::default(),
            requests: Mutex::default(),
            traces: AtomicU64::new(config.faults.seed),
            url: format!("http://{address}"),
            stop: stop.clone(),
            config,
        });
        let router = control::routes().fallback(http::graph).with_state(Arc::clone(&shared));
        let service = router.into_make_service_with_connect_info::<conn::Cutter>();
        let server = tokio::spawn(async move {
            let serving = axum::serve(conn::CuttingListener(listener), service)
                .with_graceful_shutdown(stop.cancelled_owned());
            if let Err(error) = serving.await {
                tracing::error!(%error, "the simulator stopped");
            }
        });
        tracing::info!(%address, "simulated Meta is up");
        Ok(Self { shared, address, server: Some(server) })
    }

    /// The base URL, without a slash at its end: `http://127.0.0.1:40123`.
    pub fn url(&self) -> String {
        self.shared.url.clone()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting calls, gives those in hand five seconds, and stops.
    pub async fn shutdown(mut self) {
        self.shared.stop.cancel();
        if let Some(mut server) = self.server.take()
            && tokio::time::timeout(GRACE, &mut server).await.is_err()
        {
            server.abort();
        }
    }

    /// All audiences, oldest first.
    pub fn audiences(&self) -> Vec<AudienceSummary> {
        self.shared.audiences()
    }

    /// How many audiences there are, over all accounts.
    pub fn audience_count(&self) -> usize {
        self.shared.audiences().len()
    }

    /// The exact number of members; `None` if there is no such audience.
    pub fn member_count(&self, id: &str) -> Option<u64> {
        self.shared.with_audience(id, |audience| audience.members.len())
    }

    /// What identifies each member, sorted (see [`member_identity`]): for audiences that are
    /// uploaded with one key, the values of that key. O(members log members).
    pub fn members(&self, id: &str) -> Option<Vec<String>> {
        self.shared.with_audience(id, oracle::identities_of)
    }

    /// Each member with all its keys, sorted. O(members log members).
    pub fn member_rows(&self, id: &str) -> Option<Vec<MemberRow>> {
        self.shared.with_audience(id, oracle::rows_of)
    }

    /// The digest of the members (see [`digest_of`]).
    pub fn digest(&self, id: &str) -> Option<String> {
        self.members(id).map(|members| digest_of(&members))
    }

    /// Which calls there were.
    pub fn requests(&self) -> RequestCounts {
        self.shared.requests().clone()
    }

    /// Replaces the fault script; counting starts anew.
    ///
    /// # Errors
    /// What is wrong with the script, one text for each wrong rule. The old script stays.
    pub fn set_faults(&self, script: FaultScript) -> Result<(), Vec<String>> {
        self.shared.set_faults(script)
    }

    /// How often each rule of the fault script has struck.
    pub fn fault_strikes(&self) -> Vec<u64> {
        self.shared.faults().strikes()
    }

    /// Forgets audiences, sessions, meters and counts; the fault script is that of the start again.
    pub fn reset(&self) {
        self.shared.reset();
    }
}

impl Drop for MetaSim {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}
