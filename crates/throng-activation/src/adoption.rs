//! The audience of a sync that has none yet: made, or taken over with the approval of a person.

use throng_model::{HashSeed, HashedIdentifier, SyncName};
use throng_store::{SyncMode, Task};

use crate::sending::SendFailure;
use crate::{Advice, Job, SendClass, SendError, Worker};

/// Who a sync of this deployment is on a platform. Tells nothing about the seed.
fn owner(seed: HashSeed, sync: &SyncName) -> String {
    let text = format!("throng owner {}/{sync}", seed.0);
    HashedIdentifier::of_normalised(&text).to_hex().chars().take(16).collect()
}

impl Worker {
    /// The audience of a sync that has none yet: a new one. One that is there already holds users whom
    /// nobody here knows, unless an earlier try made it; it is taken over by a replace session that
    /// was planned after it was found, which a person has approved.
    pub(crate) async fn first_audience(
        &self,
        task: &Task,
        job: &Job,
    ) -> Result<String, SendFailure> {
        let name = &job.platform_name;
        let owner = owner(self.seed, &task.sync);
        let ensured = job.destination.ensure_audience(name, &owner).await?;
        let known = self.ledger.foreign_audiences().await?;
        let known = known.into_iter().find(|foreign| {
            foreign.sync == task.sync && foreign.platform_id == ensured.platform_id
        });
        let id = &ensured.platform_id;
        if !ensured.created && (known.is_some() || !ensured.own) {
            let approved = job.adopt
                && known.is_some_and(|foreign| foreign.found && task.run > foreign.run)
                && self.ledger.run(task.run).await?.mode == SyncMode::Replace;
            if !approved {
                self.ledger.put_foreign_audience(&task.sync, id, task.run).await?;
                let (help, advice) = if job.adopt {
                    (
                        "a run that replaces its list is planned, and waits for approval",
                        Advice::None,
                    )
                } else {
                    let help = "delete it there, give the sync another platform_name, or set adopt: \
                                replace at the sync, which replaces its list after an approval";
                    (help, Advice::Requeue)
                };
                let message = format!(
                    "the account has an audience `{name}` already ({id}), with users that this sync did \
                     not put there: {help}"
                );
                return Err(SendError::local(SendClass::Stop, message).advising(advice).into());
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
