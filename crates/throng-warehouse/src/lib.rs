//! Warehouses that run the SQL of audiences: BigQuery and PostgreSQL. Implements the traits by which
//! `throng-refresh` runs jobs and records every page ([`Warehouse`]); this crate keeps no state but access
//! tokens. In reading order:
//!
//! 1. `bigquery`: a job, its pages, a dry run;
//! 2. `request`, `response` and `columns`: ids and bodies, what answers and errors mean, keys. Pure;
//! 3. `client`: calls with access tokens (`throng-google`) and retries;
//! 4. `postgres`: a read-only transaction and its cursor; its `keys`, `failure` and `ranges` are pure.

mod bigquery;
mod client;
mod columns;
mod postgres;
mod request;
mod response;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use throng_model::{Clock, Secret, SourceName};
use throng_refresh::{Warehouse, WarehouseError, Warehouses};
use throng_spec::{Environment, WarehouseSettings, WarehouseSource};

pub use client::CallOptions;

use bigquery::BigQuery;
use postgres::Postgres;

/// The open warehouses. One is opened again when its settings or its secret change; otherwise its
/// connections and its access token are reused.
pub struct OpenWarehouses {
    secrets: Environment,
    clock: Arc<dyn Clock>,
    options: CallOptions,
    open: Mutex<HashMap<SourceName, OpenWarehouse>>,
}

/// A warehouse, and what it was opened with.
struct OpenWarehouse {
    source: WarehouseSource,
    credentials: Option<Secret>,
    warehouse: Arc<dyn Warehouse>,
}

impl std::fmt::Debug for OpenWarehouses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenWarehouses").finish_non_exhaustive()
    }
}

impl OpenWarehouses {
    /// No open warehouse. `secrets` looks up secrets of the kind `env:NAME`; `clock` decides when
    /// access tokens and results expire.
    pub fn new(secrets: Environment, clock: Arc<dyn Clock>) -> Self {
        Self { secrets, clock, options: CallOptions::default(), open: Mutex::default() }
    }

    /// With other delays.
    #[must_use]
    pub fn with_options(self, options: CallOptions) -> Self {
        Self { options, ..self }
    }
}

impl Warehouses for OpenWarehouses {
    fn open(&self, source: &WarehouseSource) -> Result<Arc<dyn Warehouse>, WarehouseError> {
        let credentials = source.settings.secret().map(|at| at.resolve(&*self.secrets));
        let credentials = credentials.transpose().map_err(|error| WarehouseError::Refused {
            message: format!("source {}: {error}", source.name),
            help: None,
        })?;
        let mut open = self.open.lock();
        if let Some(one) = open.get(&source.name)
            && one.source == *source
            && one.credentials == credentials
        {
            return Ok(Arc::clone(&one.warehouse));
        }
        let clock = Arc::clone(&self.clock);
        let warehouse: Arc<dyn Warehouse> = match &source.settings {
            WarehouseSettings::Bigquery(settings) => {
                Arc::new(BigQuery::open(settings, credentials.as_ref(), clock, self.options)?)
            }
            WarehouseSettings::Postgres(settings) => {
                Arc::new(Postgres::open(settings, credentials.as_ref())?)
            }
        };
        let one = OpenWarehouse {
            source: source.clone(),
            credentials,
            warehouse: Arc::clone(&warehouse),
        };
        open.insert(source.name.clone(), one);
        Ok(warehouse)
    }
}
