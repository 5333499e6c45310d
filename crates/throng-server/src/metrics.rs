//! Metrics: the recorder of the process, and metrics that are read from the ledger, the log and the disk at
//! each scrape. Their names and help texts: `throng_telemetry::metrics`.

mod collect;
mod recorder;

pub(crate) use collect::{Collector, MetricSources};
pub(crate) use recorder::{drain_samples, install, render};
