//! A Throng node: the roles (build, schedule, activate, aggregate), the HTTP API, the web page and
//! the metrics, assembled in [`Node`].

mod api;
mod backup;
mod context;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod health;
mod metrics;
mod node;
mod operations;
mod page;
pub mod roles;

pub use backup::LocalStores;
pub use context::{Change, NodeContext, Queues};
pub use health::{Health, HealthProblem, Impact, ProblemClass};
pub use node::{
    Environment, Finding, Node, NodeConfig, NodeError, Recovery, StampError, TlsError,
    check_backends, migrate,
};
pub use roles::activate::query_worker;
pub use throng_lake::WorkerCommand;
pub use throng_operations::{CheckError, CheckedModel, check_sql};
pub use throng_telemetry::metrics::metric_names;
