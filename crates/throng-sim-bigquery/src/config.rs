//! The settings of a simulated BigQuery.

use std::sync::Arc;
use std::time::Duration;

use throng_model::{Clock, SystemClock};

use crate::{AcceptedAccount, Engine, FaultRule};

/// The settings of a simulated BigQuery.
#[derive(Clone)]
pub struct BigQuerySimConfig {
    /// The port of 127.0.0.1 to listen on; 0 selects a free one.
    pub port: u16,
    /// The clock of access tokens and results.
    pub clock: Arc<dyn Clock>,
    /// Runs the SQL.
    pub engine: Arc<dyn Engine>,
    /// The location of all tables and jobs.
    pub location: String,
    /// How often the state of a job is read until it is done: half of them as `PENDING`, the others
    /// as `RUNNING`.
    pub polls: u32,
    /// The largest number of rows of a page, whatever is asked for.
    pub max_page_rows: usize,
    /// How long results are kept after the end of a job.
    pub results_kept: Duration,
    /// How long an access token is valid.
    pub token_valid: Duration,
    /// The service account whose signed requests get access tokens; `None`: only the metadata server
    /// returns them.
    pub account: Option<AcceptedAccount>,
    /// What goes wrong.
    pub faults: Vec<FaultRule>,
}

impl BigQuerySimConfig {
    /// The limits of the real service, on a free port, without faults and without a service account.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self {
            port: 0,
            clock: Arc::new(SystemClock),
            engine,
            location: "US".to_owned(),
            polls: 2,
            max_page_rows: 100_000,
            results_kept: Duration::from_secs(24 * 3_600),
            token_valid: Duration::from_secs(3_600),
            account: None,
            faults: Vec::new(),
        }
    }
}
