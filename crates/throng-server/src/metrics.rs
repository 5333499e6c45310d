//! Metrics that are read from the ledger, the log and the disk at each scrape. Their names and help
//! texts, and those of metrics that are recorded when something happens:
//! `throng_telemetry::metrics`.

mod collect;

pub(crate) use collect::Collector;
