//! When audiences were refreshed last, as a metric.

use throng_model::{AudienceName, Timestamp};
use throng_telemetry::metrics;

/// Records that a refresh of an audience was completed now.
pub(super) fn record_success(name: &AudienceName, now: Timestamp) {
    let seconds = now.0.div_euclid(1_000_000) as f64;
    let metric = metrics::AUDIENCE_LAST_SUCCESS_TIMESTAMP_SECONDS;
    metrics::gauge!(metric, "audience" => name.to_string()).set(seconds);
}
