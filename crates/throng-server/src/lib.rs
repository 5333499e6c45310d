//! A Throng node: the roles (build, schedule, activate, aggregate), the HTTP API, the web page and
//! the metrics, assembled in [`Node`].

mod api;
mod changes;
mod context;
mod health;
mod metrics;
mod node;
mod operations;
mod page;
mod reporters;
pub mod roles;

pub use changes::Change;
pub use context::NodeContext;
pub use health::{Health, HealthProblem, Impact, ProblemClass};
pub use node::{Node, NodeConfig, NodeError};
pub use throng_backends::Recovery;
pub use throng_lake::WorkerCommand;
pub use throng_operations::{CheckError, CheckedModel, check_sql};
pub use throng_spec::Environment;
pub use throng_telemetry::metrics::metric_names;
