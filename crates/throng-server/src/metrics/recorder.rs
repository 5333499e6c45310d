//! The recorder of this process, for metrics that are recorded when something happens.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use throng_telemetry::metrics;

/// One recorder per process; nodes of the same process share it.
static PROMETHEUS: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Starts collecting metrics. Idempotent.
pub(crate) fn install() {
    PROMETHEUS.get_or_init(|| {
        let handle = PrometheusBuilder::new().install_recorder().ok();
        metrics::describe();
        handle
    });
}

/// Moves the samples of histograms into their summaries. Otherwise only a scrape does so, and without one
/// the samples would accumulate in memory.
pub(crate) fn drain_samples() {
    if let Some(handle) = PROMETHEUS.get().and_then(Option::as_ref) {
        handle.run_upkeep();
    }
}

/// The recorded metrics in Prometheus' text format; `None` if another recorder is installed.
pub(crate) fn render() -> Option<String> {
    PROMETHEUS.get().and_then(Option::as_ref).map(PrometheusHandle::render)
}
