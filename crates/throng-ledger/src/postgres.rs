//! The ledger in PostgreSQL, for many processes.

use throng_model::Secret;
use throng_sql::{Migration, PostgresBackend, PostgresStatus};

use crate::Result;
use crate::backend::SqlLedger;

const MIGRATIONS: &[Migration] = &[
    (1, include_str!("../migrations/postgres/0001_ledger.sql")),
    (2, include_str!("../migrations/postgres/0002_announcements.sql")),
    (3, include_str!("../migrations/postgres/0003_nodes.sql")),
    (4, include_str!("../migrations/postgres/0004_parts.sql")),
    (5, include_str!("../migrations/postgres/0005_failed_runs.sql")),
    (6, include_str!("../migrations/postgres/0006_access.sql")),
    (7, include_str!("../migrations/postgres/0007_stamp.sql")),
    (8, include_str!("../migrations/postgres/0008_alert_deliveries.sql")),
    (9, include_str!("../migrations/postgres/0009_snapshot_checksums.sql")),
    (10, include_str!("../migrations/postgres/0010_refresh_claims.sql")),
    (11, include_str!("../migrations/postgres/0011_log_partitions.sql")),
    (12, include_str!("../migrations/postgres/0012_snapshot_tables.sql")),
    (13, include_str!("../migrations/postgres/0013_delivered_states.sql")),
    (14, include_str!("../migrations/postgres/0014_pauses.sql")),
    (15, include_str!("../migrations/postgres/0015_foreign_audiences.sql")),
    (16, include_str!("../migrations/postgres/0016_sync_removals.sql")),
    (17, include_str!("../migrations/postgres/0017_platform_sizes.sql")),
    (18, include_str!("../migrations/postgres/0018_turnover.sql")),
    (19, include_str!("../migrations/postgres/0019_store_writes.sql")),
    (20, include_str!("../migrations/postgres/0020_source_changes.sql")),
    (21, include_str!("../migrations/postgres/0021_lists.sql")),
    (22, include_str!("../migrations/postgres/0022_budget_report.sql")),
    (23, include_str!("../migrations/postgres/0023_run_requests.sql")),
    (24, include_str!("../migrations/postgres/0024_overdelivery_causes.sql")),
    (25, include_str!("../migrations/postgres/0025_claimable_parts.sql")),
    (26, include_str!("../migrations/postgres/0026_workspace_lists.sql")),
    (27, include_str!("../migrations/postgres/0027_former_audiences.sql")),
    (28, include_str!("../migrations/postgres/0028_currencies_of_days.sql")),
    (29, include_str!("../migrations/postgres/0029_identifier_tables.sql")),
    (30, include_str!("../migrations/postgres/0030_completed_refreshes.sql")),
    (31, include_str!("../migrations/postgres/0031_waiting_refreshes.sql")),
    (32, include_str!("../migrations/postgres/0032_days_in_other_currencies.sql")),
];

/// A ledger in a PostgreSQL database that any number of processes share.
pub type PostgresLedger = SqlLedger<PostgresBackend>;

impl PostgresLedger {
    /// Connects to the database of a URL (`postgres://user:password@host:port/database`, with the
    /// parameters of libpq, such as `sslmode=verify-full&sslrootcert=…`) and migrates its tables. A
    /// database that does not exist is created, if the user may. Keeps up to `connections`
    /// connections open.
    ///
    /// # Errors
    /// [`LedgerError::Unreadable`](throng_store::LedgerError::Unreadable) if a newer version of
    /// Throng wrote it (nothing is changed then),
    /// [`LedgerError::Database`](throng_store::LedgerError::Database) if it cannot be reached or is
    /// not a ledger. The URL is never in an error, because it contains a password.
    pub async fn open(url: &Secret, connections: u32) -> Result<Self> {
        Ok(Self { backend: PostgresBackend::open(url, connections, MIGRATIONS).await? })
    }

    /// Connects to an existing ledger and changes nothing: no database and no table is created. For
    /// comparisons; [`inspect`](Self::inspect) says whether its tables are of this version.
    ///
    /// # Errors
    /// [`LedgerError::Database`](throng_store::LedgerError::Database) if it cannot be reached.
    pub async fn attach(url: &Secret) -> Result<Self> {
        Ok(Self { backend: PostgresBackend::attach(url).await? })
    }

    /// Reads the state of a server and database without changing anything.
    ///
    /// # Errors
    /// [`LedgerError::Database`](throng_store::LedgerError::Database) if it cannot be reached.
    pub async fn inspect(url: &Secret) -> Result<PostgresStatus> {
        PostgresBackend::inspect(url, MIGRATIONS).await
    }

    /// Locks the ledger for this node alone, until this value is dropped or the connection is lost;
    /// `false` if another node has locked it. A node that keeps its objects in a local folder must
    /// be the only one: other nodes would not find the files that the ledger refers to.
    ///
    /// # Errors
    /// [`LedgerError::Database`](throng_store::LedgerError::Database).
    pub async fn acquire_node_lock(&self) -> Result<bool> {
        self.backend.acquire_node_lock().await
    }
}
