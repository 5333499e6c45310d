//! A Throng node: the roles (build, schedule, activate, aggregate), the HTTP API, the web page and
//! the metrics, assembled in [`Node`].

mod api;
mod context;
mod health;
mod node;
mod page;
pub mod roles;

pub use context::{Change, NodeContext, Queues};
pub use health::{Health, Impact, Problem, ProblemClass};
pub use node::{
    Environment, Finding, Node, NodeConfig, NodeError, TlsError, check_backends, migrate,
};
