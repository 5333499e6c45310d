//! To which deployment the Kafka topics of a prefix belong. Two deployments on the same topics would count each
//! other's events and process each other's tasks, and no record would show it.
//!
//! The compacted topic of keyframes, which every node of a deployment can write, also has a key for the
//! deployment. The first node that starts on topics without such a key puts it; a node whose ledger is of another
//! deployment does not start. A deployment is known by what identifies its hash seed, which stays in its ledger,
//! and so in every backup of it.

use throng_log::{EventLog, KafkaTable};
use throng_membership::seed_check;
use throng_model::{Entropy as _, HashSeed, SystemEntropy};
use throng_store::Ledger;

use crate::error::BackendError;
use crate::stamps::Recovery;

/// The first part of the keys.
const PREFIX: &str = "deployment/";
/// Any value but an empty one, which removes a key.
const VALUE: &[u8] = b"1";

/// The claims on the topics of a prefix.
trait Claims {
    /// The deployments that have claimed the topics, the first one first.
    async fn all(&self) -> throng_log::Result<Vec<String>>;
    async fn put(&self, deployment: &str) -> throng_log::Result<()>;
    async fn remove(&self, deployment: &str) -> throng_log::Result<()>;
}

impl Claims for KafkaTable {
    async fn all(&self) -> throng_log::Result<Vec<String>> {
        let keys = self.keys(PREFIX).await?;
        Ok(keys.iter().filter_map(|key| key.strip_prefix(PREFIX)).map(str::to_owned).collect())
    }

    async fn put(&self, deployment: &str) -> throng_log::Result<()> {
        KafkaTable::put(self, &format!("{PREFIX}{deployment}"), VALUE).await
    }

    async fn remove(&self, deployment: &str) -> throng_log::Result<()> {
        KafkaTable::put(self, &format!("{PREFIX}{deployment}"), b"").await
    }
}

/// Claims topics for a deployment, unless another one has claimed them before. Returns whether they belong to it now.
/// `known`: the claims. `takes_over`: as the operator has asked for, those of others are removed.
async fn claim(
    claims: &impl Claims,
    mut known: Vec<String>,
    own: &str,
    takes_over: bool,
) -> throng_log::Result<bool> {
    if takes_over {
        for other in &known {
            if other != own {
                claims.remove(other).await?;
            }
        }
        known.retain(|one| one == own);
    }
    if let Some(first) = known.first() {
        let is_own = first == own;
        // A deployment that has not got the topics removes its claim, unless it ends before that. Compaction may put
        // that claim first.
        for one in &known {
            if (one == own) != is_own {
                claims.remove(one).await?;
            }
        }
        return Ok(is_own);
    }
    claims.put(own).await?;
    // Another deployment may have done the same since the read: both see the same one first.
    let is_own = claims.all().await?.first().is_none_or(|first| first == own);
    if !is_own {
        // It would be the first one as soon as that of the other deployment is removed.
        claims.remove(own).await?;
    }
    Ok(is_own)
}

/// The deployment that has claimed topics first.
pub(crate) async fn owner_of(keyframes: &KafkaTable) -> throng_log::Result<Option<String>> {
    Ok(Claims::all(keyframes).await?.into_iter().next())
}

/// How a deployment is known.
pub(crate) fn name_of(seed: HashSeed) -> String {
    format!("{:016x}", seed_check(seed))
}

/// Whether topics that nobody has claimed have the frames of a deployment, although no spec was ever applied in this
/// ledger: an earlier version, which claims nothing, runs that deployment.
async fn are_used_before(ledger: &dyn Ledger, frames: &dyn EventLog) -> Result<bool, BackendError> {
    Ok(ledger.applied_version().await?.is_none() && has_frames(frames).await?)
}

/// Whether a frame was ever published.
pub(crate) async fn has_frames(frames: &dyn EventLog) -> Result<bool, BackendError> {
    for partition in 0..frames.partitions() {
        if frames.end(partition).await? > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Claims the topics of a prefix for the deployment of a ledger. To be called before anything is consumed.
///
/// # Errors
/// [`BackendError::ForeignTopics`] if they belong to another deployment.
pub(crate) async fn claim_topics(
    ledger: &dyn Ledger,
    keyframes: &KafkaTable,
    frames: &dyn EventLog,
    recovery: Recovery,
    prefix: &str,
) -> Result<(), BackendError> {
    let own = name_of(ledger.hash_seed(HashSeed(SystemEntropy.next_u64())).await?);
    let takes_over = recovery != Recovery::Refuse;
    match claim_for(keyframes, ledger, frames, &own, takes_over).await? {
        true => Ok(()),
        false => Err(BackendError::ForeignTopics { prefix: prefix.to_owned() }),
    }
}

/// Claims topics for the deployment `own`, of this ledger. Returns whether they belong to it now.
async fn claim_for(
    claims: &impl Claims,
    ledger: &dyn Ledger,
    frames: &dyn EventLog,
    own: &str,
    takes_over: bool,
) -> Result<bool, BackendError> {
    let mut known = claims.all().await?;
    if !takes_over && known.is_empty() && are_used_before(ledger, frames).await? {
        // Another node of this deployment may have claimed them since the read, and the frames are of that one.
        known = claims.all().await?;
        if known.is_empty() {
            return Ok(false);
        }
    }
    Ok(claim(claims, known, own, takes_over).await?)
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use throng_ledger::SqliteLedger;
    use throng_log::{FileLog, FileLogOptions};
    use throng_model::Timestamp;
    use throng_store::{RemovalLedger as _, SpecUpdate};

    use super::*;

    /// Claims in memory, in the order of their puts.
    #[derive(Default)]
    struct Topic {
        claims: Mutex<Vec<String>>,
        /// Puts its claim between the read and the put of another one.
        rival: Mutex<Option<&'static str>>,
        /// Puts its claim after the first read.
        late: Mutex<Option<&'static str>>,
    }

    impl Topic {
        fn claims(&self) -> Vec<String> {
            self.claims.lock().clone()
        }
    }

    impl Claims for Topic {
        async fn all(&self) -> throng_log::Result<Vec<String>> {
            let found = self.claims();
            self.claims.lock().extend(self.late.lock().take().map(str::to_owned));
            Ok(found)
        }

        async fn put(&self, deployment: &str) -> throng_log::Result<()> {
            let rival = self.rival.lock().take().map(str::to_owned);
            self.claims.lock().extend(rival.into_iter().chain([deployment.to_owned()]));
            Ok(())
        }

        async fn remove(&self, deployment: &str) -> throng_log::Result<()> {
            self.claims.lock().retain(|one| one != deployment);
            Ok(())
        }
    }

    async fn claims(topic: &Topic, own: &str, takes_over: bool) -> bool {
        let known = topic.all().await.unwrap();
        claim(topic, known, own, takes_over).await.unwrap()
    }

    #[tokio::test]
    async fn topics_belong_to_the_deployment_that_starts_first() {
        let topic = Topic::default();
        assert!(claims(&topic, "a", false).await);
        assert!(!claims(&topic, "b", false).await);
        assert!(claims(&topic, "a", false).await, "again, as at each start");
        assert_eq!(topic.claims(), ["a"]);
    }

    #[tokio::test]
    async fn of_two_deployments_that_start_at_once_one_has_the_topics() {
        let topic = Topic { rival: Mutex::new(Some("b")), ..Topic::default() };
        assert!(!claims(&topic, "a", false).await);
        assert_eq!(topic.claims(), ["b"], "its own claim is gone");
        assert!(claims(&topic, "b", false).await);
        // Two nodes of one deployment.
        let topic = Topic { rival: Mutex::new(Some("a")), ..Topic::default() };
        assert!(claims(&topic, "a", false).await);
    }

    #[tokio::test]
    async fn one_claim_is_left() {
        let two = || Mutex::new(vec!["a".to_owned(), "b".to_owned()]);
        let topic = Topic { claims: two(), ..Topic::default() };
        assert!(!claims(&topic, "b", false).await, "its own claim is the second one");
        assert_eq!(topic.claims(), ["a"]);
        let topic = Topic { claims: two(), ..Topic::default() };
        assert!(claims(&topic, "a", false).await);
        assert_eq!(topic.claims(), ["a"]);
        let topic = Topic { claims: two(), ..Topic::default() };
        assert!(!claims(&topic, "c", false).await);
        assert_eq!(topic.claims(), ["a", "b"], "of others it knows nothing");
    }

    #[tokio::test]
    async fn topics_can_be_taken_over() {
        let topic = Topic::default();
        assert!(claims(&topic, "a", true).await);
        assert!(claims(&topic, "b", true).await);
        assert_eq!(topic.claims(), ["b"]);
        assert!(!claims(&topic, "a", false).await);
    }

    #[tokio::test]
    async fn frames_without_a_claim_are_of_another_deployment_unless_the_ledger_has_a_spec() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&dir.path().join("ledger.db")).await.unwrap();
        let frames = FileLog::open_with(&dir.path().join("log"), FileLogOptions::new(2)).unwrap();
        assert!(!are_used_before(&ledger, &frames).await.unwrap(), "topics without a frame");
        frames.append(1, Timestamp(1), vec!["frame".into()]).await.unwrap();
        assert!(are_used_before(&ledger, &frames).await.unwrap());
        let topic = Topic::default();
        assert!(!claim_for(&topic, &ledger, &frames, "a", false).await.unwrap());
        assert!(topic.claims().is_empty());
        // A node of the same deployment that starts at the same time has published the frames.
        let topic = Topic { late: Mutex::new(Some("a")), ..Topic::default() };
        assert!(claim_for(&topic, &ledger, &frames, "a", false).await.unwrap());
        let topic = Topic { late: Mutex::new(Some("b")), ..Topic::default() };
        assert!(!claim_for(&topic, &ledger, &frames, "a", false).await.unwrap());
        assert!(claim_for(&Topic::default(), &ledger, &frames, "a", true).await.unwrap());
        // A deployment that an earlier version has run.
        let spec = serde_json::json!({ "version": 1 });
        let update = SpecUpdate { base: 0, spec: &spec, removals: &[], declared: &[] };
        assert!(ledger.apply_spec_update(update, Timestamp(1)).await.unwrap().is_some());
        assert!(!are_used_before(&ledger, &frames).await.unwrap());
        assert!(claim_for(&Topic::default(), &ledger, &frames, "a", false).await.unwrap());
    }
}
