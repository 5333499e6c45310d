//! A Throng node: the roles (build, schedule, activate, aggregate), the HTTP API, the web page and
//! the metrics, assembled in [`Node`].

mod api;
mod context;
mod health;
mod metrics;
mod node;
mod page;
pub mod roles;

pub use context::{Change, NodeContext, Queues};
pub use health::{Health, Impact, Problem, ProblemClass};
pub use metrics::metric_names;
pub use node::{Environment, Finding, Node, NodeConfig, NodeError, check_backends, migrate};
