//! SQL on SQLite and PostgreSQL, without the tables of the ledger: connections and transactions
//! (`backend`, `conn`), statements and the cells of rows (`statement`, `rows`), what differs between the
//! databases (`dialect`), the classes of their failures (`failure`), and the runner of migrations, which
//! gets them as a parameter. The driver is named here only, and by `throng-warehouse` for tables of others;
//! `throng-ledger` has the tables and their statements.

pub mod backend;
pub mod conn;
pub mod dialect;
mod durability;
pub mod failure;
mod migrations;
mod postgres;
pub mod rows;
mod sqlite;
pub mod statement;

pub use durability::Durability;
pub use migrations::Migration;
pub use postgres::{PostgresBackend, PostgresStatus, is_unencrypted_remote_postgres};
pub use sqlite::SqliteBackend;
