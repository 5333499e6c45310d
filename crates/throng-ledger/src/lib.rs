//! The store of `throng-store` on SQL: SQLite (embedded) and PostgreSQL (many processes) implement its
//! traits with the same statements, which both compile from `sql/`. The only crate that names an SQL
//! driver; a node names it where it opens its backends, and everything else names `throng-store`.

mod failure;
mod postgres;
mod rows;
mod sqlite;

pub use postgres::{PostgresLedger, PostgresLook, is_plain_remote_postgres};
pub use sqlite::SqliteLedger;

// Rows, traits and errors of the store: every module here names them as `crate::…`.
use throng_store::*;
