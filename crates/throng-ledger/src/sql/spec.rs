//! The applied spec, the hash seed, ad group numbers and budget days in SQL.

use async_trait::async_trait;
use sqlx::QueryBuilder;
use throng_model::{AdGroupIndex, AdGroupName, BudgetDay, HashSeed, Micros, Timestamp};

use super::{Backend, Conn, Db, DbResult, ROWS_PER_INSERT, read_one, write_tx};
use crate::rows::{Cells, json};
use crate::{AppliedSpec, BudgetDayRow, Result, SpecLedger};

pub(super) async fn newest_spec(tx: &mut Conn) -> DbResult<Option<AppliedSpec>> {
    let row = sqlx::query(
        "SELECT version, spec, applied_at FROM applied_specs ORDER BY version DESC LIMIT 1",
    )
    .fetch_optional(tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let cells = Cells::new(&row, "spec");
    Ok(Some(AppliedSpec {
        version: cells.number("version")?,
        spec: cells.json("spec")?,
        applied_at: cells.time("applied_at")?,
    }))
}

/// Stores a spec after the newest one, unless they are equal. Returns its version.
pub(super) async fn put_spec(
    tx: &mut Conn,
    newest: Option<AppliedSpec>,
    spec: &serde_json::Value,
    now: Timestamp,
) -> DbResult<u64> {
    if let Some(newest) = &newest
        && newest.spec == *spec
    {
        return Ok(newest.version);
    }
    let version = newest.map_or(0, |newest| newest.version) + 1;
    sqlx::query("INSERT INTO applied_specs (version, spec, applied_at) VALUES ($1, $2, $3)")
        .bind(crate::rows::count(version))
        .bind(json(spec)?)
        .bind(now.0)
        .execute(tx)
        .await?;
    Ok(version)
}

/// Writes budget days. `update`: the assignments for existing rows.
async fn put_days(tx: &mut Conn, rows: &[BudgetDayRow], update: &str) -> DbResult<()> {
    // One INSERT must not have a key twice, so of equal keys only the last row is inserted.
    let mut last = std::collections::BTreeMap::new();
    for row in rows {
        last.insert((&row.ad_group, row.day), row);
    }
    let rows: Vec<&BudgetDayRow> = last.into_values().collect();
    for chunk in rows.chunks(ROWS_PER_INSERT) {
        let mut insert =
            QueryBuilder::<Db>::new("INSERT INTO budget_days (ad_group, day, budget, actual) ");
        insert.push_values(chunk, |mut values, row| {
            values
                .push_bind(row.ad_group.as_str())
                .push_bind(i64::from(row.day.0))
                .push_bind(row.budget.0)
                .push_bind(row.actual.0);
        });
        insert.push(" ON CONFLICT (ad_group, day) DO UPDATE SET ").push(update);
        insert.build().persistent(false).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Sets the spend of stored days to 0.
async fn clear_days(tx: &mut Conn, rows: &[BudgetDayRow]) -> DbResult<()> {
    for chunk in rows.chunks(ROWS_PER_INSERT) {
        let mut update = QueryBuilder::<Db>::new(
            "UPDATE budget_days SET actual = 0 WHERE actual <> 0 AND (ad_group, day) IN (VALUES ",
        );
        let mut first = true;
        for row in chunk {
            update.push(if first { "(" } else { ", (" });
            update.push_bind(row.ad_group.as_str()).push(", ");
            update.push_bind(i64::from(row.day.0)).push(")");
            first = false;
        }
        update.push(")").build().persistent(false).execute(&mut *tx).await?;
    }
    Ok(())
}

async fn index_of(tx: &mut Conn, name: &AdGroupName) -> DbResult<AdGroupIndex> {
    let known = sqlx::query("SELECT number FROM ad_groups WHERE name = $1")
        .bind(name.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    let row = match known {
        Some(row) => row,
        None => {
            sqlx::query(
                "INSERT INTO ad_groups (name, number)
                 VALUES ($1, (SELECT coalesce(max(number) + 1, 0) FROM ad_groups))
                 RETURNING number",
            )
            .bind(name.as_str())
            .fetch_one(tx)
            .await?
        }
    };
    let index = Cells::new(&row, "ad group").number("number")?;
    Ok(AdGroupIndex(index))
}

#[async_trait]
impl SpecLedger for Backend {
    async fn hash_seed(&self, proposed: HashSeed) -> Result<HashSeed> {
        write_tx!(self, Full, "reading the hash seed", |tx| {
            // The seed uses all 64 bits, so it is stored as the signed number with the same bits.
            sqlx::query(
                "INSERT INTO deployment (only_row, hash_seed) VALUES (1, $1)
                 ON CONFLICT (only_row) DO NOTHING",
            )
            .bind(proposed.0.cast_signed())
            .execute(&mut *tx)
            .await?;
            let seed: i64 =
                sqlx::query_scalar("SELECT hash_seed FROM deployment").fetch_one(tx).await?;
            HashSeed(seed.cast_unsigned())
        })
    }

    async fn log_partitions(&self, proposed: Option<u32>) -> Result<Option<u32>> {
        write_tx!(self, Full, "reading the number of partitions", |tx| {
            if let Some(proposed) = proposed {
                sqlx::query(
                    "UPDATE deployment SET log_partitions = $1 WHERE log_partitions IS NULL",
                )
                .bind(i64::from(proposed))
                .execute(&mut *tx)
                .await?;
            }
            let stored: Option<Option<i64>> =
                sqlx::query_scalar("SELECT log_partitions FROM deployment")
                    .fetch_optional(tx)
                    .await?;
            stored.flatten().and_then(|count| u32::try_from(count).ok())
        })
    }

    async fn applied_spec(&self) -> Result<Option<AppliedSpec>> {
        read_one!(self, "reading the applied spec", |tx| newest_spec(tx).await?)
    }

    async fn applied_version(&self) -> Result<Option<u64>> {
        read_one!(self, "reading the applied spec's version", |tx| {
            let newest: Option<i64> =
                sqlx::query_scalar("SELECT max(version) FROM applied_specs").fetch_one(tx).await?;
            newest.and_then(|version| u64::try_from(version).ok())
        })
    }

    async fn acquire_leadership(&self) -> Result<bool> {
        self.backend_acquire_leadership().await
    }

    async fn ad_group_indexes(
        &self,
        names: &[AdGroupName],
    ) -> Result<Vec<(AdGroupName, AdGroupIndex)>> {
        write_tx!(self, Full, "numbering ad groups", |tx| {
            let mut found = Vec::with_capacity(names.len());
            for name in names {
                found.push((name.clone(), index_of(tx, name).await?));
            }
            found
        })
    }

    async fn put_budget_days(&self, rows: &[BudgetDayRow]) -> Result<()> {
        let update = "budget = excluded.budget, actual = excluded.actual";
        write_tx!(self, Full, "storing budget days", |tx| put_days(&mut *tx, rows, update).await?)
    }

    async fn put_past_budget_days(&self, rows: &[BudgetDayRow]) -> Result<()> {
        let update = "actual = excluded.actual";
        let (none, some): (Vec<_>, Vec<_>) =
            rows.iter().cloned().partition(|row| row.actual.0 == 0);
        write_tx!(self, Full, "storing past budget days", |tx| {
            put_days(&mut *tx, &some, update).await?;
            clear_days(tx, &none).await?;
        })
    }

    async fn budget_days(&self, ad_group: &AdGroupName, limit: u32) -> Result<Vec<BudgetDayRow>> {
        read_one!(self, "reading budget days", |tx| {
            let rows = sqlx::query(
                "SELECT day, budget, actual FROM budget_days WHERE ad_group = $1
                 ORDER BY day DESC LIMIT $2",
            )
            .bind(ad_group.as_str())
            .bind(i64::from(limit))
            .fetch_all(tx)
            .await?;
            let mut days = Vec::with_capacity(rows.len());
            for row in &rows {
                let cells = Cells::new(row, "budget day");
                days.push(BudgetDayRow {
                    ad_group: ad_group.clone(),
                    day: BudgetDay(cells.number("day")?),
                    budget: Micros(cells.int("budget")?),
                    actual: Micros(cells.int("actual")?),
                });
            }
            days
        })
    }
}
