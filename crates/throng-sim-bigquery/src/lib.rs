//! A simulated BigQuery: a real HTTP server with the rules of the jobs API, so that sources of the
//! type `bigquery` can be tried and tested without an account. See `docs/bigquery.md`.
//!
//! `http` routes a request, evaluates the fault rules (`faults`) and the access token (`tokens`);
//! `jobs` has the rules of jobs and pages; `engine` runs the SQL over folders of files; `oracle` shows
//! what happened.

mod config;
mod engine;
mod error;
mod faults;
mod http;
mod jobs;
mod oracle;
mod tokens;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::BigQuerySimConfig;
pub use engine::{Column, Engine, FixedTables, FolderEngine, SqlError, Table, row_worker};
pub use faults::{CallKind, FaultKind, FaultRule};
pub use oracle::{JobRecord, Oracle};
pub use tokens::AcceptedAccount;

/// The state that all requests share.
struct Shared {
    config: BigQuerySimConfig,
    stop: CancellationToken,
    jobs: Mutex<jobs::Jobs>,
    tokens: Mutex<tokens::Tokens>,
    faults: Mutex<faults::Faults>,
    oracle: Mutex<Oracle>,
}

/// A running simulator. Stops when it is dropped.
pub struct BigQuerySim {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl std::fmt::Debug for BigQuerySim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BigQuerySim").field("address", &self.address).finish_non_exhaustive()
    }
}

impl BigQuerySim {
    /// Binds 127.0.0.1 and serves. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the port cannot be bound.
    pub async fn start(config: BigQuerySimConfig) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, config.port)).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            faults: Mutex::new(faults::Faults::new(config.faults.clone())),
            jobs: Mutex::default(),
            tokens: Mutex::default(),
            oracle: Mutex::default(),
            stop: stop.clone(),
            config,
        });
        let router = http::router(Arc::clone(&shared));
        tokio::spawn(async move {
            let serving = axum::serve(listener, router);
            if let Err(error) = serving.with_graceful_shutdown(stop.cancelled_owned()).await {
                tracing::error!(%error, "simulator stopped");
            }
        });
        tracing::info!(%address, "simulated BigQuery is listening");
        Ok(Self { shared, address })
    }

    /// The base URL, without a slash at its end: `http://127.0.0.1:40123`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What happened until now.
    pub fn oracle(&self) -> Oracle {
        self.shared.oracle.lock().clone()
    }

    /// Replaces the fault rules, and counts calls from the start again.
    pub fn set_faults(&self, rules: Vec<FaultRule>) {
        *self.shared.faults.lock() = faults::Faults::new(rules);
    }

    /// Makes every access token invalid, as if its time had passed.
    pub fn expire_tokens(&self) {
        *self.shared.tokens.lock() = tokens::Tokens::default();
    }
}

impl Drop for BigQuerySim {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}
