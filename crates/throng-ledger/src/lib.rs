//! The store of `throng-store` on SQL: SQLite (embedded) and PostgreSQL (many processes) implement
//! its traits with the same statements (`sql/`). The only crate that uses an SQL driver. A node uses
//! it where it opens its backends; everything else uses `throng-store`.

mod backend;
mod conn;
mod dialect;
mod durability;
mod failure;
mod postgres;
mod rows;
mod sql;
mod sqlite;
mod statement;

pub use backend::SqlLedger;
pub use postgres::{PostgresLedger, PostgresStatus, is_unencrypted_remote_postgres};
pub use sqlite::SqliteLedger;

// Rows, traits and errors of the store: the modules of this crate import them as `crate::…`.
use throng_store::*;
