//! The versions of the tables, and the runner of migrations. What they are is up to the caller.

use throng_store::LedgerError;

use crate::failure::{DbResult, Failure};

/// A migration: its number, which is the version of the tables after it, and its statements. A list of
/// them is in the order of the numbers.
pub type Migration = (i64, &'static str);

/// The version of the tables after all migrations; 0 if there are none.
pub(crate) fn newest(migrations: &[Migration]) -> i64 {
    migrations.last().map_or(0, |(version, _)| *version)
}

/// Refuses a ledger that a newer version wrote: this version does not know the meaning of its rows,
/// so it could misread them and destroy data.
pub(crate) fn check_schema(found: i64, migrations: &[Migration]) -> DbResult<()> {
    let known = newest(migrations);
    if found <= known {
        return Ok(());
    }
    Err(Failure::Ledger(LedgerError::Unreadable {
        what: "schema",
        why: format!(
            "a newer version of throng wrote it (schema {found}, this version supports up to \
             {known}); upgrade throng, or restore a backup from before that upgrade"
        ),
    }))
}

/// Runs the migrations that are missing in a transaction that has the table `ledger_schema`. A macro, because
/// the driver's types differ between the databases.
macro_rules! run_missing {
    ($tx:ident, $migrations:ident) => {
        let found: Option<i64> = sqlx::query_scalar("SELECT version FROM ledger_schema")
            .fetch_optional(&mut *$tx)
            .await?;
        let found = found.unwrap_or(0);
        crate::migrations::check_schema(found, $migrations)?;
        for (version, statements) in $migrations.iter().filter(|(version, _)| *version > found) {
            sqlx::raw_sql(*statements).execute(&mut *$tx).await?;
            sqlx::query(
                "INSERT INTO ledger_schema (only_row, version) VALUES (1, $1)
                 ON CONFLICT (only_row) DO UPDATE SET version = excluded.version",
            )
            .bind(*version)
            .execute(&mut *$tx)
            .await?;
        }
    };
}
pub(crate) use run_missing;
