//! The parts of a refresh: recorded, claimed, renewed, released, finished.

use throng_model::{RefreshId, Timestamp};

use super::refreshes;
use crate::conn::Conn;
use crate::dialect::ROWS_PER_STATEMENT;
use crate::failure::DbResult;
use crate::rows::{Cells, DbRow, json};
use crate::{ClaimFilter, LedgerError, NewPart, Part, Result, StoredEnum};

fn part_of(row: &DbRow) -> Result<Part> {
    let cells = Cells::new(row, "part");
    Ok(Part {
        kind: cells.variant("kind")?,
        number: cells.number("number")?,
        state: cells.variant("state")?,
        covers: cells.json("covers")?,
        output: cells.maybe_json("output")?,
        holder: cells.maybe_text("holder")?,
    })
}

/// Records parts of an open refresh; existing ones stay as they are. `replacing`: the holder of the
/// refresh, which replaces all parts by these.
pub(super) async fn insert(
    tx: &mut Conn,
    id: RefreshId,
    parts: &[NewPart],
    replacing: Option<&str>,
) -> DbResult<()> {
    if let Some(holder) = replacing {
        refreshes::get_leased_by(tx, id, holder).await?;
        delete_all(tx, id).await?;
    }
    let refresh = refreshes::get(tx, id).await?;
    if refresh.finished_at.is_some() {
        let state = refresh.state.stored_name();
        return Err(LedgerError::wrong_state("refresh", id, state, "divided into parts").into());
    }
    for chunk in parts.chunks(ROWS_PER_STATEMENT) {
        let mut rows = Vec::with_capacity(chunk.len());
        for part in chunk {
            rows.push((id, part.number, part.kind, json(&part.covers)?));
        }
        let insert = tx.build("INSERT INTO refresh_parts (refresh, number, kind, covers) VALUES ");
        let insert = insert.rows(rows).push(" ON CONFLICT (refresh, number) DO NOTHING");
        tx.execute_built(insert.build(false)).await?;
    }
    Ok(())
}

/// Deletes the parts of a refresh.
pub(super) async fn delete_all(tx: &mut Conn, id: RefreshId) -> DbResult<()> {
    tx.execute("DELETE FROM refresh_parts WHERE refresh = $1", id).await?;
    Ok(())
}

/// Deletes the parts of some refreshes.
pub(super) async fn delete_of(tx: &mut Conn, ids: &[RefreshId]) -> DbResult<()> {
    let delete = tx.build("DELETE FROM refresh_parts WHERE refresh IN (").values(ids).push(")");
    tx.execute_built(delete.build(ids.len() == 1)).await?;
    Ok(())
}

/// The parts of a refresh, by number.
pub(super) async fn all(tx: &mut Conn, id: RefreshId) -> DbResult<Vec<Part>> {
    let text = "SELECT number, kind, state, covers, output, holder FROM refresh_parts
         WHERE refresh = $1 ORDER BY number";
    tx.all(text, id, part_of).await
}

/// SELECT of the parts of a refresh that can be claimed, up to the present time, which the caller appends with `)` and
/// the order. They are of the first kind that has pending parts, `scan` before `shards`, because each of the kind
/// `shards` reads the output of every scan. Both databases find the kind and the parts in `refresh_parts_pending`, so
/// that a claim reads no part that is done; of the others, it reads those that builders have claimed before the one that
/// it finds.
macro_rules! select_claimable {
    (of $refresh:literal) => {
        concat!(
            "SELECT p.number FROM refresh_parts p
             WHERE p.refresh = ",
            $refresh,
            " AND p.state = 'pending'
                AND p.kind = (SELECT s.kind FROM refresh_parts s
                              WHERE s.refresh = ",
            $refresh,
            " AND s.state = 'pending' ORDER BY s.kind LIMIT 1)
                AND (p.lease_until IS NULL OR p.lease_until <= "
        )
    };
}

/// The refreshes of the filter's audiences that are processing and have a part that can be claimed, the oldest first.
pub(super) async fn refreshes_with_claimable(
    tx: &mut Conn,
    filter: ClaimFilter<'_>,
    now: Timestamp,
) -> DbResult<Vec<RefreshId>> {
    let select = concat!(
        "SELECT r.id FROM refreshes r WHERE r.state = 'processing' AND (",
        select_claimable!(of "r.id")
    );
    let select = tx.build(select).values(now).push(") ORDER BY p.number LIMIT 1) IS NOT NULL");
    let select = refreshes::filtered(select, filter)?.push(" ORDER BY r.id");
    let found = tx.rows(select.build(true)).await?;
    let id_of = |row: &DbRow| Cells::new(row, "refresh").int("id").map(RefreshId);
    Ok(found.iter().map(id_of).collect::<Result<_>>()?)
}

/// Claims the first part of a refresh that can be claimed for `holder`; `None` if there is none, or the refresh is not
/// processing.
pub(super) async fn claim(
    tx: &mut Conn,
    id: RefreshId,
    holder: &str,
    now: Timestamp,
    lease_until: Timestamp,
) -> DbResult<Option<Part>> {
    let text = [
        concat!(
            "UPDATE refresh_parts SET holder = $1, lease_until = $3
             WHERE refresh = $4 AND number = (",
            select_claimable!(of "$4"),
            "$2) AND EXISTS (SELECT 1 FROM refreshes r WHERE r.id = $4 AND r.state = 'processing')
             ORDER BY p.number LIMIT 1"
        ),
        tx.dialect().lock_rows(),
        ") RETURNING number, kind, state, covers, output, holder",
    ];
    Ok(tx.all(text.concat(), (holder, now, lease_until, id), part_of).await?.pop())
}

/// Renews the leases of all unfinished parts that `holder` has claimed.
pub(super) async fn renew_leases(
    tx: &mut Conn,
    holder: &str,
    lease_until: Timestamp,
) -> DbResult<()> {
    let text = "UPDATE refresh_parts SET lease_until = $2 WHERE holder = $1 AND state = 'pending'";
    tx.execute(text, (holder, lease_until)).await?;
    Ok(())
}

/// Releases a part that `holder` has claimed; a part that another has, or that is done, stays as it
/// is.
pub(super) async fn release(
    tx: &mut Conn,
    id: RefreshId,
    number: u32,
    holder: &str,
) -> DbResult<()> {
    tx.execute(
        "UPDATE refresh_parts SET holder = NULL, lease_until = NULL
         WHERE refresh = $1 AND number = $2 AND holder = $3 AND state = 'pending'",
        (id, number, holder),
    )
    .await?;
    Ok(())
}

/// Records the output of a part; a first output stays. Earlier tries that ended with a crash no
/// longer count: the refresh makes progress, so it must not be given up as one that kills its
/// builders.
pub(super) async fn finish(
    tx: &mut Conn,
    id: RefreshId,
    number: u32,
    output: &serde_json::Value,
) -> DbResult<()> {
    // The refresh is locked before its parts, as in all transactions, so that they cannot deadlock.
    tx.execute("UPDATE refreshes SET claims = 1 WHERE id = $1 AND claims > 1", id).await?;
    let found = tx
        .execute(
            "UPDATE refresh_parts SET state = 'done', output = coalesce(output, $3)
             WHERE refresh = $1 AND number = $2",
            (id, number, json(output)?),
        )
        .await?;
    if found == 0 {
        return Err(LedgerError::not_found("part", format_args!("{id}/{number}")).into());
    }
    Ok(())
}
