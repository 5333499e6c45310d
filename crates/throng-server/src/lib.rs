//! A Throng node: [`Node`] assembles the backends and the roles of a process, which have crates of their own, and
//! serves them. This crate has the HTTP API, the handlers of the pages, which `throng-page` renders, the metrics
//! that are read at a scrape, the health of the process, and what every node does besides its roles: following
//! the specs and snapshots of the others.

mod api;
mod context;
mod metrics;
mod node;
mod page;
mod reporters;
mod roles;

pub use context::NodeContext;
pub use node::{Node, NodeConfig, NodeError};
pub use throng_apply::changes::Change;
pub use throng_backends::Recovery;
pub use throng_lake::WorkerCommand;
pub use throng_operations::{CheckError, CheckedModel, CheckedSql, check_sql};
pub use throng_spec::Environment;
pub use throng_telemetry::metrics::metric_names;
pub use throng_telemetry::{Health, HealthProblem, Impact, ProblemClass};
