//! Syncs that a new spec no longer has: what becomes of their audiences on the platforms (`on_remove`).

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use throng_model::SyncName;
use throng_spec::{Destination, OnRemove, Spec, Sync};
use throng_store::{DeliveredRecord, Ledger, LedgerError, NewRemoval, Removal, RemovalRule};

/// A sync and its destination as they were declared last: what a removal needs. Secrets are references.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Definition {
    /// The sync.
    pub(crate) sync: Sync,
    /// Its destination.
    pub(crate) destination: Destination,
}

impl Definition {
    /// The definition that is kept with a removal.
    ///
    /// # Errors
    /// If another version wrote it in a way that this one does not know.
    pub(crate) fn of(removal: &Removal) -> Result<Self, serde_json::Error> {
        Self::deserialize(&removal.definition)
    }

    /// The audience's name on the platform.
    pub(crate) fn platform_name(&self) -> String {
        let named = self.sync.platform_name.clone();
        named.unwrap_or_else(|| format!("throng: {}", self.sync.audience))
    }
}

/// A sync that a new spec no longer has, and what is known of its audience on the platform.
pub(crate) struct Removed {
    definition: Definition,
    platform_id: Option<String>,
    /// `None` if it is not known who was delivered.
    users: Option<u64>,
}

/// How many users a record says to be on the platform; `None` if that is not known.
pub(crate) fn users_of(record: Option<&DeliveredRecord>) -> Option<u64> {
    record.filter(|record| record.state.is_some()).map(|record| record.users)
}

/// A number of users, in words.
pub(crate) fn counted(users: Option<u64>) -> String {
    match users {
        Some(1) => "1 user".to_owned(),
        Some(users) => format!("{users} users"),
        None => "an unknown number of users".to_owned(),
    }
}

impl Removed {
    pub(crate) fn sync(&self) -> &SyncName {
        &self.definition.sync.name
    }

    /// What becomes of the audience.
    pub(crate) fn what(&self) -> String {
        let (name, users) = (self.sync(), counted(self.users));
        let rule = self.definition.sync.on_remove;
        let Some(id) = &self.platform_id else {
            let mut what = "it has no audience on the platform".to_owned();
            if rule != OnRemove::Keep {
                what.push_str(&format!(
                    "; one that an open run makes waits for `throng sync approve --removal {name}`"
                ));
            }
            return what;
        };
        let audience =
            format!("the audience `{}` on the platform ({id})", self.definition.platform_name());
        let decide = format!(
            "after `throng sync approve --removal {name}`; `throng sync keep {name}` leaves it as it is"
        );
        match rule {
            OnRemove::Keep => format!(
                "{audience} stays there with {users} and is no longer updated (on_remove: keep)"
            ),
            OnRemove::Empty => {
                format!("{users} are removed from {audience} (on_remove: empty) {decide}")
            }
            OnRemove::Delete => {
                format!("{audience} with {users} is deleted (on_remove: delete) {decide}")
            }
        }
    }

    /// As it is said to whoever plans or applies the spec.
    pub(crate) fn warning(&self) -> String {
        format!("sync `{}` is removed: {}", self.sync(), self.what())
    }

    /// The removal that waits for a person, if there is anything to be done.
    pub(crate) fn to_record(&self) -> Result<Option<NewRemoval>, serde_json::Error> {
        let rule = match self.definition.sync.on_remove {
            OnRemove::Keep => return Ok(None),
            OnRemove::Empty => RemovalRule::Empty,
            OnRemove::Delete => RemovalRule::Delete,
        };
        let sync = self.sync().clone();
        let definition = serde_json::to_value(&self.definition)?;
        let message = format!("sync {sync} was removed from the spec: {}", self.what());
        Ok(Some(NewRemoval { sync, rule, definition, message }))
    }
}

/// The syncs of `before` that `new` does not have. Asks the ledger only if there are any.
pub(crate) async fn removed(
    ledger: &dyn Ledger,
    before: Option<&Spec>,
    new: &Spec,
) -> Result<Vec<Removed>, LedgerError> {
    let Some(before) = before else { return Ok(Vec::new()) };
    let kept: BTreeSet<&SyncName> = new.syncs.iter().map(|sync| &sync.name).collect();
    let gone: Vec<&Sync> = before.syncs.iter().filter(|s| !kept.contains(&s.name)).collect();
    if gone.is_empty() {
        return Ok(Vec::new());
    }
    let audiences: HashMap<_, _> = ledger.delivered().await?.into_iter().collect();
    let records = ledger.delivered_records().await?;
    let records: HashMap<_, _> = records.iter().map(|record| (&record.sync, record)).collect();
    let mut removed = Vec::with_capacity(gone.len());
    for sync in gone {
        // A checked spec has the destinations of its syncs.
        let destination = before.destinations.iter().find(|d| d.name == sync.destination);
        let Some(destination) = destination.cloned() else { continue };
        removed.push(Removed {
            platform_id: audiences.get(&sync.name).map(|there| there.platform_id.clone()),
            users: users_of(records.get(&sync.name).copied()),
            definition: Definition { sync: sync.clone(), destination },
        });
    }
    Ok(removed)
}
