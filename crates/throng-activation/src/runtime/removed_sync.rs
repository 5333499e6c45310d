//! Syncs that a new spec no longer has, and the rule for their audiences on the platforms (`on_remove`); and syncs
//! that it moves to another account.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use throng_model::{DestinationName, SyncName};
use throng_spec::{Destination, OnRemove, Spec, Sync};
use throng_store::{DeliveredRecord, Ledger, LedgerError, NewRemoval, Removal, RemovalRule};

/// The last declaration of a sync and its destination, which a removal needs. Secrets are references.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemovalDefinition {
    /// The sync.
    pub sync: Sync,
    /// Its destination.
    pub destination: Destination,
}

impl RemovalDefinition {
    /// Decodes the definition that is stored with a removal.
    ///
    /// # Errors
    /// If another version wrote it in a format that this version does not know.
    pub fn of(removal: &Removal) -> Result<Self, serde_json::Error> {
        Self::deserialize(&removal.definition)
    }

    /// The audience's name on the platform.
    pub fn platform_name(&self) -> String {
        self.sync.name_on_platform()
    }
}

/// A sync that a new spec no longer has, and the known facts about its audience on the platform.
pub struct RemovedSync {
    definition: RemovalDefinition,
    platform_id: Option<String>,
    /// The number of delivered users; `None` if it is not known.
    users: Option<u64>,
}

/// The number of users on the platform by a record; `None` if it is not known.
pub fn users_of(record: Option<&DeliveredRecord>) -> Option<u64> {
    record.filter(|record| record.state.is_some()).map(|record| record.users)
}

/// A number of users, as text.
pub fn users_text(users: Option<u64>) -> String {
    match users {
        Some(1) => "1 user".to_owned(),
        Some(users) => format!("{users} users"),
        None => "an unknown number of users".to_owned(),
    }
}

impl RemovedSync {
    /// The sync's name.
    pub fn sync(&self) -> &SyncName {
        &self.definition.sync.name
    }

    /// Describes what happens to the audience.
    pub fn description(&self) -> String {
        let (name, users) = (self.sync(), users_text(self.users));
        let rule = self.definition.sync.on_remove;
        let Some(id) = &self.platform_id else {
            let mut text = "it has no audience on the platform".to_owned();
            if rule != OnRemove::Keep {
                text.push_str(&format!(
                    "; an audience that an open run creates waits for `throng sync approve --removal {name}`"
                ));
            }
            return text;
        };
        let audience =
            format!("the audience `{}` on the platform ({id})", self.definition.platform_name());
        let decide = format!(
            "after `throng sync approve --removal {name}`; `throng sync keep {name}` keeps it unchanged"
        );
        match rule {
            OnRemove::Keep => format!(
                "{audience} remains there with {users} and is no longer updated (on_remove: keep)"
            ),
            OnRemove::Empty => {
                format!("{users} are removed from {audience} (on_remove: empty) {decide}")
            }
            OnRemove::Delete => {
                format!("{audience} with {users} is deleted (on_remove: delete) {decide}")
            }
        }
    }

    /// The warning of a plan or an applied spec.
    pub fn warning(&self) -> String {
        format!("sync `{}` is removed: {}", self.sync(), self.description())
    }

    /// The removal to record, which waits for approval; `None` if the audience is kept.
    ///
    /// # Errors
    /// If the definition cannot be encoded.
    pub fn to_record(&self) -> Result<Option<NewRemoval>, serde_json::Error> {
        let rule = match self.definition.sync.on_remove {
            OnRemove::Keep => return Ok(None),
            OnRemove::Empty => RemovalRule::Empty,
            OnRemove::Delete => RemovalRule::Delete,
        };
        let sync = self.sync().clone();
        let definition = serde_json::to_value(&self.definition)?;
        let message = format!("sync {sync} was removed from the spec: {}", self.description());
        Ok(Some(NewRemoval { sync, rule, definition, message }))
    }
}

/// The syncs of `before` that `new` does not have. Reads the ledger only if there are any.
///
/// # Errors
/// Those of the ledger.
pub async fn removed_syncs(
    ledger: &dyn Ledger,
    before: Option<&Spec>,
    new: &Spec,
) -> Result<Vec<RemovedSync>, LedgerError> {
    let Some(before) = before else { return Ok(Vec::new()) };
    let kept: BTreeSet<&SyncName> = new.syncs.iter().map(|sync| &sync.name).collect();
    let missing: Vec<&Sync> = before.syncs.iter().filter(|s| !kept.contains(&s.name)).collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let audiences: HashMap<_, _> = ledger.delivered().await?.into_iter().collect();
    let records = ledger.delivered_records().await?;
    let records: HashMap<_, _> = records.iter().map(|record| (&record.sync, record)).collect();
    let mut removed_syncs = Vec::with_capacity(missing.len());
    for sync in missing {
        // A checked spec has the destinations of its syncs.
        let destination = before.destinations.iter().find(|d| d.name == sync.destination);
        let Some(destination) = destination.cloned() else { continue };
        removed_syncs.push(RemovedSync {
            platform_id: audiences.get(&sync.name).map(|audience| audience.platform_id.clone()),
            users: users_of(records.get(&sync.name).copied()),
            definition: RemovalDefinition { sync: sync.clone(), destination },
        });
    }
    Ok(removed_syncs)
}

/// Warnings about the syncs that `new` moves to another account: the audience on the earlier account remains there.
/// Reads the ledger only if there are any.
///
/// # Errors
/// Those of the ledger.
pub async fn moved_syncs(
    ledger: &dyn Ledger,
    before: Option<&Spec>,
    new: &Spec,
) -> Result<Vec<String>, LedgerError> {
    let Some(before) = before else { return Ok(Vec::new()) };
    let (accounts_before, accounts) = (accounts(before), accounts(new));
    let syncs_before: HashMap<_, _> = before.syncs.iter().map(|sync| (&sync.name, sync)).collect();
    let moved = new.syncs.iter().filter_map(|sync| {
        let from = accounts_before.get(&syncs_before.get(&sync.name)?.destination)?;
        let to = accounts.get(&sync.destination)?;
        (from != to).then_some((sync, from, to))
    });
    let moved: Vec<_> = moved.collect();
    if moved.is_empty() {
        return Ok(Vec::new());
    }
    let audiences: HashMap<_, _> = ledger.delivered().await?.into_iter().collect();
    let records = ledger.delivered_records().await?;
    let records: HashMap<_, _> = records.iter().map(|record| (&record.sync, record)).collect();
    let warnings = moved.into_iter().filter_map(|(sync, from, to)| {
        let audience = audiences.get(&sync.name)?;
        let record = records.get(&sync.name).copied();
        // An earlier move that is not carried out yet: nothing was delivered to the account in between.
        let from = record.map_or(from, |record| &record.account);
        let (name, id) = (&sync.name, &audience.platform_id);
        let users = users_text(users_of(record));
        (from != to).then(|| {
            format!(
                "sync `{name}` moves from account {from} to account {to}: the audience {id} on account {from} keeps \
                 {users} and is no longer updated, whatever `on_remove` says. To remove them, leave the sync on \
                 {from} and apply it with `on_remove: empty` or `delete`, apply the spec without it, run \
                 `throng sync approve --removal {name}`, and declare it on {to} when the removal is carried out; or \
                 delete the audience there by hand"
            )
        })
    });
    Ok(warnings.collect())
}

/// The account of each destination.
fn accounts(spec: &Spec) -> HashMap<&DestinationName, String> {
    spec.destinations.iter().map(|of| (&of.name, of.account())).collect()
}
