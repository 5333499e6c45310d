//! The applied spec, the hash seed, ad group numbers and budget days in SQL.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use throng_model::{
    AdGroupIndex, AdGroupName, BudgetDay, Currency, HashSeed, Micros, OverdeliveryCauses, Timestamp,
};
use throng_sql::statement::StatementBuilder;

use crate::backend::{Backend, SqlLedger, read_one, write_tx};
use crate::conn::Conn;
use crate::dialect::ROWS_PER_STATEMENT;
use crate::failure::DbResult;
use crate::rows::{Cells, DbRow, json};
use crate::{AppliedSpec, BudgetDayRow, PredictedSpend, Result, SpecLedger};

fn spec_of(row: &DbRow) -> Result<AppliedSpec> {
    let cells = Cells::new(row, "spec");
    Ok(AppliedSpec {
        version: cells.number("version")?,
        spec: cells.json("spec")?,
        applied_at: cells.time("applied_at")?,
    })
}

pub(super) async fn newest_spec(tx: &mut Conn) -> DbResult<Option<AppliedSpec>> {
    let text = "SELECT version, spec, applied_at FROM applied_specs ORDER BY version DESC LIMIT 1";
    tx.optional(text, (), spec_of).await
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
    let text = "INSERT INTO applied_specs (version, spec, applied_at) VALUES ($1, $2, $3)";
    tx.execute(text, (version, json(spec)?, now)).await?;
    Ok(version)
}

/// The columns of a budget day.
const COLUMNS: &str = "ad_group, day, budget, actual, currency, predicted, earned, over_events, over_feed, \
    over_prediction, over_burst, over_price_change";

/// What was spent on a day in a currency other than that of its row in `budget_days`.
const OTHER_DAYS: &str = "budget_days_in_other_currencies";

/// Whether a new budget day and the stored one may be of the same currency.
const SAME_CURRENCY: &str = "(excluded.currency IS NULL OR budget_days.currency IS NULL
    OR budget_days.currency = excluded.currency)";

/// What a row without these figures keeps of the stored row, unless that is of another currency.
const KEPT: [&str; 7] = [
    "predicted",
    "earned",
    "over_events",
    "over_feed",
    "over_prediction",
    "over_burst",
    "over_price_change",
];

/// An INSERT of budget days into a table.
fn insert_of(tx: &Conn, table: &str, rows: &[&BudgetDayRow]) -> StatementBuilder {
    let insert = tx.build("INSERT INTO ").push(table).push(" (").push(COLUMNS).push(") VALUES ");
    insert.rows(rows.iter().map(|row| {
        let predicted = row.prediction.map(|prediction| prediction.predicted);
        let earned = row.prediction.map(|prediction| prediction.earned);
        let causes = row.causes.map(|causes| causes.amounts());
        let [events, feed, over, burst, price] =
            std::array::from_fn(|place| causes.map(|amounts| amounts[place]));
        let currency = row.currency.as_ref().map(Currency::as_str);
        let (name, day, budget, actual) = (&row.ad_group, row.day, row.budget, row.actual);
        (name, day, budget, actual, currency, predicted, earned, events, feed, over, burst, price)
    }))
}

fn by_currency(rows: &[BudgetDayRow]) -> BTreeMap<Option<Currency>, Vec<&BudgetDayRow>> {
    let mut by_currency: BTreeMap<Option<Currency>, Vec<&BudgetDayRow>> = BTreeMap::new();
    for row in rows {
        by_currency.entry(row.currency).or_default().push(row);
    }
    by_currency
}

/// Keeps the stored rows of these days that are in another currency: their ad groups were removed and added again in it.
async fn keep_other_days(tx: &mut Conn, rows: &[BudgetDayRow]) -> DbResult<()> {
    let update = COLUMNS.split(", ").map(|column| format!("{column} = excluded.{column}"));
    let update = update.collect::<Vec<_>>().join(", ");
    for (currency, rows) in by_currency(rows) {
        let Some(currency) = currency else { continue };
        for chunk in rows.chunks(ROWS_PER_STATEMENT) {
            let days = chunk.iter().map(|row| (&row.ad_group, row.day));
            let insert = tx.build("INSERT INTO ").push(OTHER_DAYS).push(" (").push(COLUMNS);
            let insert = insert.push(") SELECT ").push(COLUMNS).push(" FROM budget_days");
            let insert = insert.push(" WHERE (ad_group, day) IN (VALUES ").rows(days);
            let insert = insert.push(") AND currency <> ").values(currency.as_str());
            let insert = insert.push(" AND (actual <> 0 OR predicted <> 0)");
            let insert = insert.push(" ON CONFLICT (ad_group, day, currency) DO UPDATE SET ");
            tx.execute_built(insert.push(&update).build(false)).await?;
        }
    }
    Ok(())
}

/// Stores days beside their rows, if these are in another currency.
async fn put_other_days(tx: &mut Conn, rows: &[BudgetDayRow]) -> DbResult<()> {
    let mut last = BTreeMap::new();
    for (currency, rows) in by_currency(rows) {
        let Some(currency) = currency else { continue };
        for chunk in rows.chunks(ROWS_PER_STATEMENT) {
            let days = chunk.iter().map(|row| (&row.ad_group, row.day));
            let select = tx.build("SELECT ad_group, day FROM budget_days");
            let select = select.push(" WHERE (ad_group, day) IN (VALUES ").rows(days);
            let select = select.push(") AND currency <> ").values(currency.as_str());
            let found = tx.rows(select.build(false)).await?;
            let found = found.iter().map(key_of).collect::<Result<BTreeSet<_>>>()?;
            let others = chunk.iter().copied();
            let others = others.filter(|row| found.contains(&(row.ad_group.clone(), row.day)));
            last.extend(others.map(|row| ((&row.ad_group, row.day, row.currency), row)));
        }
    }
    let rows: Vec<&BudgetDayRow> = last.into_values().collect();
    let kept = KEPT
        .map(|column| format!(", {column} = coalesce(excluded.{column}, {OTHER_DAYS}.{column})"));
    let kept = kept.concat();
    for chunk in rows.chunks(ROWS_PER_STATEMENT) {
        let insert = insert_of(tx, OTHER_DAYS, chunk);
        let insert = insert.push(" ON CONFLICT (ad_group, day, currency) DO UPDATE SET ");
        let insert = insert.push("actual = excluded.actual").push(&kept);
        tx.execute_built(insert.build(false)).await?;
    }
    remove_doubles(tx).await
}

/// A day is in its row, or beside it.
async fn remove_doubles(tx: &mut Conn) -> DbResult<()> {
    let text = "DELETE FROM budget_days_in_other_currencies WHERE EXISTS (
            SELECT 1 FROM budget_days d
            WHERE d.ad_group = budget_days_in_other_currencies.ad_group
                AND d.day = budget_days_in_other_currencies.day
                AND d.currency = budget_days_in_other_currencies.currency)";
    tx.execute(text, ()).await?;
    Ok(())
}

/// Budget days in every currency, for `FROM`.
fn all_days() -> String {
    format!(
        "(SELECT {COLUMNS} FROM budget_days UNION ALL SELECT {COLUMNS} FROM {OTHER_DAYS}) AS days"
    )
}

/// Writes budget days. `update`: the assignments for existing rows. `condition`: which of these are changed.
async fn put_days(
    tx: &mut Conn,
    rows: &[BudgetDayRow],
    update: &str,
    condition: &str,
) -> DbResult<()> {
    let kept: String = KEPT
        .iter()
        .map(|column| {
            format!(
                ", {column} = CASE WHEN {SAME_CURRENCY}
                    THEN coalesce(excluded.{column}, budget_days.{column}) ELSE excluded.{column} END"
            )
        })
        .collect();
    // One INSERT must not have a key twice, so of equal keys only the last row is inserted.
    let mut last = BTreeMap::new();
    for row in rows {
        last.insert((&row.ad_group, row.day), row);
    }
    let rows: Vec<&BudgetDayRow> = last.into_values().collect();
    for chunk in rows.chunks(ROWS_PER_STATEMENT) {
        let insert = insert_of(tx, "budget_days", chunk);
        let insert = insert.push(" ON CONFLICT (ad_group, day) DO UPDATE SET ");
        let currency = ", currency = coalesce(excluded.currency, budget_days.currency)";
        let insert = insert.push(update).push(currency).push(&kept).push(condition);
        tx.execute_built(insert.build(false)).await?;
    }
    Ok(())
}

/// Sets the spend of stored days to 0, and removes the rest of their figures if the new ones have a prediction, which is
/// 0. Days in another currency stay as they are.
async fn clear_days(tx: &mut Conn, rows: &[BudgetDayRow]) -> DbResult<()> {
    let figures = KEPT.map(|column| format!("{column} = NULL")).join(", ");
    let figures = format!("{figures} WHERE (predicted IS NOT NULL OR over_events IS NOT NULL)");
    for (currency, rows) in by_currency(rows) {
        for chunk in rows.chunks(ROWS_PER_STATEMENT) {
            if let Some(currency) = &currency {
                remove_days(&mut *tx, *currency, chunk).await?;
            }
            update_days(&mut *tx, currency, chunk, "actual = 0 WHERE actual <> 0").await?;
            let with_prediction = chunk.iter().copied().filter(|row| row.prediction.is_some());
            let with_prediction: Vec<&BudgetDayRow> = with_prediction.collect();
            if !with_prediction.is_empty() {
                update_days(&mut *tx, currency, &with_prediction, &figures).await?;
            }
        }
    }
    Ok(())
}

/// Removes days in a currency that have a row in another one.
async fn remove_days(tx: &mut Conn, currency: Currency, rows: &[&BudgetDayRow]) -> DbResult<()> {
    let days = || rows.iter().map(|row| (&row.ad_group, row.day));
    let delete = tx.build("DELETE FROM ").push(OTHER_DAYS);
    let delete = delete.push(" WHERE (ad_group, day) IN (VALUES ").rows(days());
    let delete = delete.push(") AND currency = ").values(currency.as_str());
    tx.execute_built(delete.build(false)).await?;
    let delete = tx.build("DELETE FROM budget_days WHERE (ad_group, day) IN (VALUES ");
    let delete = delete.rows(days()).push(") AND currency = ").values(currency.as_str());
    let delete = delete.push(" AND EXISTS (SELECT 1 FROM ").push(OTHER_DAYS);
    let delete =
        delete.push(" o WHERE o.ad_group = budget_days.ad_group AND o.day = budget_days.day)");
    tx.execute_built(delete.build(false)).await?;
    Ok(())
}

/// Changes stored days that are not in another currency. `change`: the assignments, and a condition after WHERE.
async fn update_days(
    tx: &mut Conn,
    currency: Option<Currency>,
    rows: &[&BudgetDayRow],
    change: &str,
) -> DbResult<()> {
    let days = rows.iter().map(|row| (&row.ad_group, row.day));
    let update = tx.build("UPDATE budget_days SET ").push(change);
    let mut update = update.push(" AND (ad_group, day) IN (VALUES ").rows(days).push(")");
    if let Some(currency) = &currency {
        let text = " AND (currency IS NULL OR currency = ";
        update = update.push(text).values(currency.as_str()).push(")");
    }
    tx.execute_built(update.build(false)).await?;
    Ok(())
}

fn key_of(row: &DbRow) -> Result<(AdGroupName, BudgetDay)> {
    let cells = Cells::new(row, "budget day");
    Ok((cells.name("ad_group")?, BudgetDay(cells.number("day")?)))
}

fn currency_of(row: &DbRow) -> Result<(AdGroupName, Currency)> {
    let cells = Cells::new(row, "budget day");
    Ok((cells.name("ad_group")?, cells.name("currency")?))
}

fn day_of(row: &DbRow) -> Result<BudgetDayRow> {
    let cells = Cells::new(row, "budget day");
    let predicted = cells.maybe_int("predicted")?;
    let prediction = predicted.zip(cells.maybe_int("earned")?);
    Ok(BudgetDayRow {
        ad_group: cells.name("ad_group")?,
        day: BudgetDay(cells.number("day")?),
        budget: Micros(cells.int("budget")?),
        actual: Micros(cells.int("actual")?),
        prediction: prediction.map(|(predicted, earned)| PredictedSpend {
            predicted: Micros(predicted),
            earned: Micros(earned),
        }),
        currency: cells.maybe_text("currency")?.and_then(|code| code.parse().ok()),
        causes: causes_of(&cells)?,
    })
}

/// `None` if an earlier version wrote the day.
fn causes_of(cells: &Cells<'_>) -> Result<Option<OverdeliveryCauses>> {
    let columns =
        ["over_events", "over_feed", "over_prediction", "over_burst", "over_price_change"];
    let mut amounts = [Micros::ZERO; 5];
    for (amount, column) in amounts.iter_mut().zip(columns) {
        let Some(stored) = cells.maybe_int(column)? else { return Ok(None) };
        *amount = Micros(stored);
    }
    Ok(Some(OverdeliveryCauses::of_amounts(amounts)))
}

async fn index_of(tx: &mut Conn, name: &AdGroupName) -> DbResult<AdGroupIndex> {
    let number_of = |row: &DbRow| Cells::new(row, "ad group").number("number").map(AdGroupIndex);
    let text = "SELECT number FROM ad_groups WHERE name = $1";
    if let Some(known) = tx.optional(text, name, number_of).await? {
        return Ok(known);
    }
    let text = "INSERT INTO ad_groups (name, number)
         VALUES ($1, (SELECT coalesce(max(number) + 1, 0) FROM ad_groups))
         RETURNING number";
    tx.one(text, name, number_of).await
}

#[async_trait]
impl<B: Backend> SpecLedger for SqlLedger<B> {
    async fn hash_seed(&self, proposed: HashSeed) -> Result<HashSeed> {
        write_tx!(self, Full, "reading the hash seed", |tx| {
            // The seed uses all 64 bits, so it is stored as the signed number with the same bits.
            tx.execute(
                "INSERT INTO deployment (only_row, hash_seed) VALUES (1, $1)
                 ON CONFLICT (only_row) DO NOTHING",
                proposed.0.cast_signed(),
            )
            .await?;
            let seed: i64 = tx.scalar("SELECT hash_seed FROM deployment", ()).await?;
            HashSeed(seed.cast_unsigned())
        })
    }

    async fn log_partitions(&self, proposed: Option<u32>) -> Result<Option<u32>> {
        write_tx!(self, Full, "reading the number of partitions", |tx| {
            if let Some(proposed) = proposed {
                let text = "UPDATE deployment SET log_partitions = $1 WHERE log_partitions IS NULL";
                tx.execute(text, proposed).await?;
            }
            let stored: Option<Option<i64>> =
                tx.maybe_scalar("SELECT log_partitions FROM deployment", ()).await?;
            stored.flatten().and_then(|count| u32::try_from(count).ok())
        })
    }

    async fn applied_spec(&self) -> Result<Option<AppliedSpec>> {
        read_one!(self, "reading the applied spec", |tx| newest_spec(tx).await?)
    }

    async fn applied_version(&self) -> Result<Option<u64>> {
        read_one!(self, "reading the applied spec's version", |tx| {
            let newest: Option<i64> =
                tx.scalar("SELECT max(version) FROM applied_specs", ()).await?;
            newest.and_then(|version| u64::try_from(version).ok())
        })
    }

    async fn acquire_leadership(&self) -> Result<bool> {
        self.backend.acquire_leadership().await
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
        write_tx!(self, Full, "storing budget days", |tx| {
            keep_other_days(&mut *tx, rows).await?;
            put_days(&mut *tx, rows, update, "").await?;
            remove_doubles(tx).await?;
        })
    }

    async fn put_past_budget_days(&self, rows: &[BudgetDayRow]) -> Result<()> {
        let (update, condition) = ("actual = excluded.actual", format!(" WHERE {SAME_CURRENCY}"));
        let is_none = |row: &BudgetDayRow| {
            row.actual.0 == 0 && row.prediction.unwrap_or_default() == PredictedSpend::default()
        };
        let (none, some): (Vec<_>, Vec<_>) = rows.iter().cloned().partition(is_none);
        write_tx!(self, Full, "storing past budget days", |tx| {
            put_days(&mut *tx, &some, update, &condition).await?;
            put_other_days(&mut *tx, &some).await?;
            clear_days(tx, &none).await?;
        })
    }

    async fn budget_days(&self, ad_group: &AdGroupName, limit: u32) -> Result<Vec<BudgetDayRow>> {
        read_one!(self, "reading budget days", |tx| {
            let (days, order) = (all_days(), "ORDER BY day DESC, currency LIMIT $2");
            let text = format!("SELECT {COLUMNS} FROM {days} WHERE ad_group = $1 {order}");
            tx.all(text, (ad_group, limit), day_of).await?
        })
    }

    async fn budget_days_between(
        &self,
        from: BudgetDay,
        to: BudgetDay,
        limit: u32,
    ) -> Result<Vec<BudgetDayRow>> {
        read_one!(self, "reading the budget days of all ad groups", |tx| {
            let (days, order) = (all_days(), "ORDER BY day, ad_group, currency LIMIT $3");
            let text = format!("SELECT {COLUMNS} FROM {days} WHERE day BETWEEN $1 AND $2 {order}");
            tx.all(text, (from, to, limit), day_of).await?
        })
    }

    async fn budget_day_currencies(&self) -> Result<Vec<(AdGroupName, Currency)>> {
        read_one!(self, "reading the currencies of budget days", |tx| {
            let text = format!(
                "SELECT DISTINCT ad_group, currency FROM {}
                 WHERE currency IS NOT NULL ORDER BY ad_group, currency",
                all_days()
            );
            tx.all(text, (), currency_of).await?
        })
    }
}
