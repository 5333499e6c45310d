//! The ledger in one SQLite file.

use std::path::Path;

use throng_sql::{Migration, SqliteBackend};

use crate::Result;
use crate::backend::SqlLedger;

const MIGRATIONS: &[Migration] = &[
    (1, include_str!("../migrations/sqlite/0001_ledger.sql")),
    (2, include_str!("../migrations/sqlite/0002_announcements.sql")),
    (3, include_str!("../migrations/sqlite/0003_nodes.sql")),
    (4, include_str!("../migrations/sqlite/0004_parts.sql")),
    (5, include_str!("../migrations/sqlite/0005_failed_runs.sql")),
    (6, include_str!("../migrations/sqlite/0006_access.sql")),
    (7, include_str!("../migrations/sqlite/0007_stamp.sql")),
    (8, include_str!("../migrations/sqlite/0008_alert_deliveries.sql")),
    (9, include_str!("../migrations/sqlite/0009_snapshot_checksums.sql")),
    (10, include_str!("../migrations/sqlite/0010_refresh_claims.sql")),
    (11, include_str!("../migrations/sqlite/0011_log_partitions.sql")),
    (12, include_str!("../migrations/sqlite/0012_snapshot_tables.sql")),
    (13, include_str!("../migrations/sqlite/0013_delivered_states.sql")),
    (14, include_str!("../migrations/sqlite/0014_pauses.sql")),
    (15, include_str!("../migrations/sqlite/0015_foreign_audiences.sql")),
    (16, include_str!("../migrations/sqlite/0016_sync_removals.sql")),
    (17, include_str!("../migrations/sqlite/0017_platform_sizes.sql")),
    (18, include_str!("../migrations/sqlite/0018_turnover.sql")),
    (19, include_str!("../migrations/sqlite/0019_store_writes.sql")),
    (20, include_str!("../migrations/sqlite/0020_source_changes.sql")),
    (21, include_str!("../migrations/sqlite/0021_lists.sql")),
    (22, include_str!("../migrations/sqlite/0022_budget_report.sql")),
    (23, include_str!("../migrations/sqlite/0023_run_requests.sql")),
    (24, include_str!("../migrations/sqlite/0024_overdelivery_causes.sql")),
    (25, include_str!("../migrations/sqlite/0025_claimable_parts.sql")),
    (26, include_str!("../migrations/sqlite/0026_workspace_lists.sql")),
    (27, include_str!("../migrations/sqlite/0027_former_audiences.sql")),
    (28, include_str!("../migrations/sqlite/0028_currencies_of_days.sql")),
    (29, include_str!("../migrations/sqlite/0029_identifier_tables.sql")),
    (30, include_str!("../migrations/sqlite/0030_completed_refreshes.sql")),
    (31, include_str!("../migrations/sqlite/0031_waiting_refreshes.sql")),
    (32, include_str!("../migrations/sqlite/0032_days_in_other_currencies.sql")),
];

/// A ledger in a SQLite file. Several processes may open the same file.
pub type SqliteLedger = SqlLedger<SqliteBackend>;

impl SqliteLedger {
    /// Opens the ledger: creates the file if it does not exist (its folder must exist), checks that
    /// an existing file is intact, and migrates its tables. After a clean shutdown the whole file
    /// is compared with its checksum; after a crash its structure is checked, unless it is larger
    /// than a gigabyte: then
    /// [`MaintenanceLedger::check_structure`](throng_store::MaintenanceLedger) does it.
    ///
    /// # Errors
    /// [`LedgerError::Unreadable`](throng_store::LedgerError::Unreadable) if a newer version of
    /// Throng wrote it (nothing is changed then),
    /// [`LedgerError::Damaged`](throng_store::LedgerError::Damaged),
    /// [`LedgerError::Database`](throng_store::LedgerError::Database) if the file cannot be opened
    /// or is not a ledger.
    pub async fn open(path: &Path) -> Result<Self> {
        Ok(Self { backend: SqliteBackend::open(path, MIGRATIONS).await? })
    }

    /// Opens an existing ledger, which a node may have open, and changes nothing: no table is
    /// created, and the checksum of a clean shutdown stays. For backups and inspection.
    ///
    /// # Errors
    /// [`LedgerError::Unreadable`](throng_store::LedgerError::Unreadable) if its tables are not of
    /// this version, [`LedgerError::Damaged`](throng_store::LedgerError::Damaged) if it has changed
    /// since the last clean shutdown,
    /// [`LedgerError::Database`](throng_store::LedgerError::Database).
    pub async fn attach(path: &Path) -> Result<Self> {
        Ok(Self { backend: SqliteBackend::attach(path, MIGRATIONS).await? })
    }

    /// Writes a compact copy of one consistent state to a new file, and syncs it. Does not block
    /// writers. Reads the whole ledger, so a damaged structure is detected.
    ///
    /// # Errors
    /// [`LedgerError::Database`](throng_store::LedgerError::Database), also if the file exists.
    pub async fn copy_to(&self, path: &Path) -> Result<()> {
        self.backend.copy_to(path).await
    }
}
