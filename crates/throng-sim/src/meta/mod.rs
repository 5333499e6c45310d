//! A simulated Meta: a real HTTP server that stores custom audiences by the rules of the Marketing
//! API, so that uploads can be tried and tested without an account. See `docs/simulators.md`.
//!
//! The flow of a request: `http` reads it and evaluates the fault script (`faults`); `call` routes it; `payload`
//! checks its rows; `state` charges the quota (`usage`) and changes an `audience`, whose `members` are packed
//! rows; `oracle` shows tests the exact state.

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
mod state;
mod usage;

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
    CallCounts, MemberRow, RequestCounts, SimulatedAudience, digest_of, member_identity,
};

/// The time for running calls when the server stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// The state that all requests share. A task never holds two of its locks at the same time.
#[derive(Debug)]
struct Shared {
    config: MetaSimConfig,
    url: String,
    stop: CancellationToken,
    state: Mutex<state::PlatformState>,
    faults: Mutex<faults::Faults>,
    requests: Mutex<RequestCounts>,
    traces: AtomicU64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, state::PlatformState> {
        self.state.lock()
    }

    fn faults(&self) -> MutexGuard<'_, faults::Faults> {
        self.faults.lock()
    }

    fn requests(&self) -> MutexGuard<'_, RequestCounts> {
        self.requests.lock()
    }

    fn record(&self, served: oracle::ServedRequest) {
        self.requests().record(served);
    }

    fn record_unhashed(&self, cells: u64) {
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

    fn audiences(&self) -> Vec<SimulatedAudience> {
        let now = self.config.clock.now();
        self.state().settled(&self.config, now).map(SimulatedAudience::of).collect()
    }

    fn with_audience<T>(&self, id: &str, read: impl FnOnce(&audience::Audience) -> T) -> Option<T> {
        let now = self.config.clock.now();
        self.state().one(id, &self.config, now).map(read)
    }

    fn reset(&self) {
        *self.state() = state::PlatformState::default();
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

/// A running simulator. Stops when it is shut down or dropped.
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
    /// If the port cannot be bound, or the fault script is invalid (`InvalidInput`).
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
            state: Mutex::default(),
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
                tracing::error!(%error, "simulator stopped");
            }
        });
        tracing::info!(%address, "simulated Meta is listening");
        Ok(Self { shared, address, server: Some(server) })
    }

    /// The base URL, without a slash at its end: `http://127.0.0.1:40123`.
    pub fn url(&self) -> String {
        self.shared.url.clone()
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting calls, waits up to five seconds for running calls, and stops.
    pub async fn shutdown(mut self) {
        self.shared.stop.cancel();
        if let Some(mut server) = self.server.take()
            && tokio::time::timeout(SHUTDOWN_TIMEOUT, &mut server).await.is_err()
        {
            server.abort();
        }
    }

    /// All audiences, oldest first.
    pub fn audiences(&self) -> Vec<SimulatedAudience> {
        self.shared.audiences()
    }

    /// The number of audiences of all accounts.
    pub fn audience_count(&self) -> usize {
        self.shared.audiences().len()
    }

    /// The exact number of members; `None` if the audience does not exist.
    pub fn member_count(&self, id: &str) -> Option<u64> {
        self.shared.with_audience(id, |audience| audience.members.len())
    }

    /// The identity of each member, sorted (see [`member_identity`]): for audiences that are uploaded with one
    /// key, the values of that key. O(members log members).
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

    /// Counts of calls.
    pub fn requests(&self) -> RequestCounts {
        self.shared.requests().clone()
    }

    /// Replaces the fault script and resets its counts.
    ///
    /// # Errors
    /// The problems of the script, one text for each invalid rule. The old script remains active.
    pub fn set_faults(&self, script: FaultScript) -> Result<(), Vec<String>> {
        self.shared.set_faults(script)
    }

    /// The number of faults that each rule of the script has injected.
    pub fn injected_faults(&self) -> Vec<u64> {
        self.shared.faults().injected()
    }

    /// Deletes audiences, sessions, meters and counts, and restores the fault script of the start.
    pub fn reset(&self) {
        self.shared.reset();
    }
}

impl Drop for MetaSim {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}
