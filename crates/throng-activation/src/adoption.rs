//! The audience of a sync that has none yet: created, or adopted after a person has approved it.

use throng_model::{HashSeed, HashedIdentifier, SyncMode, SyncName};
use throng_store::Task;

use crate::sending::SendInterruption;
use crate::{Advice, SendClass, SendError, TaskInput, Worker};

/// Identifies a sync of this deployment on a platform, without revealing the seed.
fn owner(seed: HashSeed, sync: &SyncName) -> String {
    let text = format!("throng owner {}/{sync}", seed.0);
    HashedIdentifier::of_normalised(&text).to_hex().chars().take(16).collect()
}

impl Worker {
    /// Creates the audience of a sync that has none yet. An audience of that name that already exists
    /// holds unknown users, unless an earlier try of this sync created it. Adding to it, or removing
    /// from it, would mix two lists. So it is adopted only by a replace run that was planned after the
    /// audience was found, and to adopt it: such a run waits for the approval of a person.
    pub(crate) async fn create_or_adopt_audience(
        &self,
        task: &Task,
        input: &TaskInput,
    ) -> Result<String, SendInterruption> {
        let name = &input.platform_name;
        let owner = owner(self.seed, &task.sync);
        let ensured = input.destination.ensure_audience(name, &owner).await?;
        let found = self.ledger.foreign_audiences().await?;
        let found = found.into_iter().find(|foreign| {
            foreign.sync == task.sync && foreign.platform_id == ensured.platform_id
        });
        let id = &ensured.platform_id;
        if !ensured.created && (found.is_some() || !ensured.own) {
            let approved = input.adopt
                && input.adopts.as_ref() == Some(id)
                && found.is_some_and(|foreign| foreign.found && task.run > foreign.run)
                && self.ledger.run(task.run).await?.mode == SyncMode::Replace;
            if !approved {
                self.ledger.put_foreign_audience(&task.sync, id, task.run).await?;
                let (help, advice) = if input.adopt {
                    (
                        "a run that replaces its list is planned, and waits for approval",
                        Advice::None,
                    )
                } else {
                    let help = "delete or rename it there, give the sync another platform_name, or set adopt: \
                                replace at the sync, which replaces its list after an approval";
                    (help, Advice::Requeue)
                };
                let message = format!(
                    "the account already has an audience `{name}` ({id}), with users that this sync did \
                     not add, or added before `throng sync recreate` or a move to another account: {help}"
                );
                return Err(SendError::local(SendClass::Stop, message).with_advice(advice).into());
            }
        }
        Ok(self.ledger.put_platform_audience(&task.sync, id).await?.platform_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_differ_by_deployment_and_sync() {
        let of = |seed, sync: &str| owner(HashSeed(seed), &sync.parse().unwrap());
        assert_eq!(of(1, "a"), of(1, "a"));
        assert!(of(1, "a") != of(2, "a") && of(1, "a") != of(1, "b"));
        assert!(of(1, "a").len() == 16 && of(1, "a").bytes().all(|b| b.is_ascii_hexdigit()));
    }
}
