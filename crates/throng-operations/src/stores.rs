//! Operations on serving stores: what they have, and what is written to them again or removed from them.

use std::collections::{BTreeMap, HashSet};

use throng_api::{
    StoreAudience, StoreCheckFound, StoreList, StoreRewrite, StoreSummary, StoreWriteList,
    StoreWriteReceipt, StoreWriteState as ApiState,
};
use throng_model::AudienceName;
use throng_spec::ServingStore;
use throng_store::{
    HistoryEvent, LedgerError, NewStoreWrite, StoreWrite, StoreWriteState, SubjectKind,
};

use crate::Operations;
use crate::error::{OperationError, Result};
use crate::record::Record;

/// The stores of the spec with what they have of each audience.
///
/// # Errors
/// [`LedgerError`].
pub async fn list(operations: &Operations) -> Result<StoreList, LedgerError> {
    let spec = &operations.spec;
    let names = audience_names(operations);
    if spec.serving_stores.is_empty() {
        return Ok(StoreList { stores: Vec::new() });
    }
    let rows = operations.ledger.newest_store_writes().await?;
    let served: BTreeMap<AudienceName, u64> =
        operations.ledger.served_versions().await?.into_iter().collect();
    let stores = spec.serving_stores.iter().map(|store| {
        let mut audiences: BTreeMap<AudienceName, Option<StoreWrite>> = BTreeMap::new();
        let declared = spec.audiences.iter().filter(|audience| store.has(&audience.name));
        audiences.extend(declared.map(|audience| (audience.name.clone(), None)));
        for row in rows.iter().filter(|row| row.write.store == store.name) {
            audiences.insert(row.write.audience.clone(), Some(row.clone()));
        }
        let audiences = audiences.into_iter().filter_map(|(audience, write)| {
            let declared = declares(&names, store, &audience);
            // Nothing is left of an audience that was removed.
            let is_removed =
                |w: &StoreWrite| w.state == StoreWriteState::Done && w.write.to_version.is_none();
            if !declared && write.as_ref().is_some_and(is_removed) {
                return None;
            }
            Some(StoreAudience {
                served_version: served.get(&audience).copied(),
                store_version: write.as_ref().and_then(store_version),
                declared,
                write: write.map(receipt),
                audience,
            })
        });
        StoreSummary {
            name: store.name.clone(),
            place: store.place(),
            audiences: audiences.collect(),
        }
    });
    Ok(StoreList { stores: stores.collect() })
}

/// The newest writes of a store.
///
/// # Errors
/// [`OperationError::NotFound`] for a store that the spec does not have, or [`OperationError::Ledger`].
pub async fn writes(operations: &Operations, name: &str, limit: u32) -> Result<StoreWriteList> {
    let store = declared_store(operations, name)?;
    let rows = operations.ledger.store_writes(&store.name, limit).await?;
    Ok(StoreWriteList { writes: rows.into_iter().map(receipt).collect() })
}

/// Begins a rewrite of an audience in a store, or of all that the spec has in it. A write that is open is replaced.
///
/// # Errors
/// [`OperationError`].
pub async fn rewrite(
    operations: &Operations,
    name: &str,
    audience: Option<&str>,
    actor: &str,
) -> Result<StoreRewrite> {
    let store = declared_store(operations, name)?;
    let served = operations.ledger.served_versions().await?;
    let names = audience_names(operations);
    let only = audience.map(|name| operations.qualified(name));
    let wanted = |of: &AudienceName| {
        declares(&names, store, of) && only.as_ref().is_none_or(|name| of.as_str() == *name)
    };
    let wanted: Vec<_> = served.into_iter().filter(|(of, _)| wanted(of)).collect();
    if let Some(audience) = audience
        && wanted.is_empty()
    {
        let message = format!(
            "audience `{audience}` is not written to the store `{name}`, or has no published version"
        );
        return Err(OperationError::not_found(message).help("`throng store list` lists them"));
    }
    let mut begun = 0;
    for (audience, version) in wanted {
        let write = NewStoreWrite {
            store: store.name.clone(),
            place: store.place(),
            from_version: None,
            to_version: Some(version),
            rewrite: true,
            audience,
        };
        begin(operations, &write, actor, HistoryEvent::StoreRewriteRequested).await?;
        begun += 1;
    }
    Ok(StoreRewrite { store: store.name.clone(), writes: begun })
}

/// Begins the removal of an audience, which the spec no longer has in this store, from the store.
///
/// # Errors
/// [`OperationError`].
pub async fn remove(
    operations: &Operations,
    name: &str,
    audience: &str,
    actor: &str,
) -> Result<StoreRewrite> {
    let store = declared_store(operations, name)?;
    let rows = operations.ledger.newest_store_writes().await?;
    let wanted = operations.qualified(audience);
    let found = rows
        .into_iter()
        .find(|row| row.write.store == store.name && row.write.audience.as_str() == wanted);
    let row = found.ok_or_else(|| {
        let message = format!("nothing of audience `{audience}` was written to the store `{name}`");
        OperationError::not_found(message).help("`throng store list` lists what it has")
    })?;
    if declares(&audience_names(operations), store, &row.write.audience) {
        let message = format!("the spec has audience `{audience}` in the store `{name}`");
        let help = "apply a spec without it first: it would be written again";
        return Err(OperationError::wrong_state(message).help(help));
    }
    let from_version = removed_version(&row, &store.place());
    let write = NewStoreWrite {
        store: store.name.clone(),
        audience: row.write.audience.clone(),
        place: store.place(),
        rewrite: from_version.is_none(),
        from_version,
        to_version: None,
    };
    begin(operations, &write, actor, HistoryEvent::StoreRemovalRequested).await?;
    Ok(StoreRewrite { store: store.name.clone(), writes: 1 })
}

/// Begins a write in place of the newest one, and records the caller.
async fn begin(
    operations: &Operations,
    write: &NewStoreWrite,
    actor: &str,
    what: HistoryEvent,
) -> Result<()> {
    loop {
        // Of this audience alone: a rewrite of a store begins a write for each of its audiences.
        let newest = operations.ledger.newest_store_write(&write.store, &write.audience).await?;
        let (newest, now) = (newest.map(|row| row.id), operations.clock.now());
        // Another write was begun in the meantime: this one is to replace it.
        if operations.ledger.begin_store_write(write, newest, now).await?.is_some() {
            break;
        }
    }
    let why = match write.to_version {
        Some(version) => format!("version {version} is written again to the store {}", write.store),
        None => format!("it is removed from the store {}", write.store),
    };
    let (subject_kind, subject) = (SubjectKind::Audience, write.audience.as_str());
    Record { subject_kind, subject, what, why, actor }.write(operations).await
}

fn declared_store<'a>(operations: &'a Operations, name: &str) -> Result<&'a ServingStore> {
    let wanted = operations.qualified(name);
    let found = operations.spec.serving_stores.iter().find(|store| store.name.as_str() == wanted);
    found.ok_or_else(|| {
        OperationError::not_found(format!("no serving store `{name}` in the applied spec"))
            .help("`throng store list` lists the stores")
    })
}

fn audience_names(operations: &Operations) -> HashSet<&AudienceName> {
    operations.spec.audiences.iter().map(|audience| &audience.name).collect()
}

fn declares(names: &HashSet<&AudienceName>, store: &ServingStore, audience: &AudienceName) -> bool {
    names.contains(audience) && store.has(audience)
}

/// The version whose members a removal removes; `None` if it has to remove every known user. Only a write that is
/// done says what the store has: of an open one, users may be in the store that no batch records yet.
fn removed_version(row: &StoreWrite, place: &str) -> Option<u64> {
    let is_exact = row.state == StoreWriteState::Done && row.write.place == place;
    row.write.to_version.filter(|_| is_exact)
}

/// The version that a store has, if its newest write says so.
fn store_version(row: &StoreWrite) -> Option<u64> {
    match row.state {
        StoreWriteState::Done => row.write.to_version,
        // Until the first batch is written.
        StoreWriteState::Open if row.batches == 0 && row.tries == 0 => row.write.from_version,
        StoreWriteState::Open | StoreWriteState::Replaced => None,
    }
}

fn receipt(row: StoreWrite) -> StoreWriteReceipt {
    StoreWriteReceipt {
        id: row.id,
        store: row.write.store,
        audience: row.write.audience,
        from_version: row.write.from_version,
        to_version: row.write.to_version,
        rewrite: row.write.rewrite,
        state: match row.state {
            StoreWriteState::Open => ApiState::Open,
            StoreWriteState::Done => ApiState::Done,
            StoreWriteState::Replaced => ApiState::Replaced,
        },
        users: row.users,
        batches: row.batches,
        added: row.added,
        removed: row.removed,
        tries: row.tries,
        retry_at: row.retry_at,
        error: row.error,
        started_at: row.started_at,
        updated_at: row.updated_at,
        check: row.check.map(|check| StoreCheckFound {
            at: check.at,
            sampled: check.sampled,
            missing: check.missing,
            unexpected: check.unexpected,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: StoreWriteState) -> StoreWrite {
        let write = NewStoreWrite {
            store: "cache".parse().unwrap(),
            audience: "buyers".parse().unwrap(),
            place: "redis://a throng: by_user".to_owned(),
            from_version: Some(3),
            to_version: Some(4),
            rewrite: false,
        };
        let at = throng_model::Timestamp(0);
        StoreWrite {
            id: 7,
            write,
            state,
            users: None,
            batches: 0,
            added: 0,
            removed: 0,
            tries: 0,
            retry_at: None,
            error: None,
            started_at: at,
            updated_at: at,
            check: None,
        }
    }

    #[test]
    fn a_removal_trusts_only_a_write_that_is_done() {
        let place = "redis://a throng: by_user";
        assert_eq!(removed_version(&row(StoreWriteState::Done), place), Some(4));
        // Half of the first batch of version 4 may be in the store.
        assert_eq!(removed_version(&row(StoreWriteState::Open), place), None);
        assert_eq!(removed_version(&row(StoreWriteState::Replaced), place), None);
        assert_eq!(removed_version(&row(StoreWriteState::Done), "redis://b throng: by_user"), None);
    }
}
