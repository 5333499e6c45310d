//! A Throng node: the roles (build, schedule, activate, aggregate), the HTTP API, the web page and
//! the metrics, assembled in [`Node`].

pub mod access;
mod api;
pub mod backup;
mod changes;
mod check;
mod context;
mod health;
mod limits;
mod metrics;
mod node;
mod operations;
mod page;
mod reporters;
pub mod roles;

pub use changes::Change;
pub use check::{CheckError, CheckedModel, check_sql};
pub use context::NodeContext;
pub use health::{Health, HealthProblem, Impact, ProblemClass};
pub use limits::{LimitsChange, LimitsConfig, LimitsError};
pub use node::{Node, NodeConfig, NodeError};
pub use throng_backends::{Environment, Recovery};
pub use throng_lake::WorkerCommand;
pub use throng_telemetry::metrics::metric_names;
