//! The store of `throng-store` on SQL: the tables, their migrations, and the statements on them
//! (`sql/`), which are the same for SQLite (embedded) and PostgreSQL (many processes). `throng-sql` runs
//! them and knows the databases. A node uses this crate where it opens its backends; everything else
//! uses `throng-store`.

mod backend;
mod postgres;
mod sql;
mod sqlite;

pub use backend::SqlLedger;
pub use postgres::PostgresLedger;
pub use sqlite::SqliteLedger;
pub use throng_sql::{PostgresStatus, is_unencrypted_remote_postgres};

// Rows, traits and errors of the store, and the modules of `throng-sql` for its statements: the modules
// of this crate import them as `crate::…`.
use throng_sql::{conn, dialect, failure, rows};
use throng_store::*;
