//! Compares samples of an audience with a store: members who have to be in it, and known users who must not be.

use std::collections::BTreeSet;

use roaring::RoaringBitmap;
use throng_model::{Entropy, SplitMix64, SystemEntropy, UserHash};
use throng_store::{StoreCheck, StoreWrite};

use crate::changes::{Dictionaries, blocking, open_version};
use crate::error::WriteError;
use crate::pass::Pass;
use crate::{MemberStore, StoresDeps};

/// User shards from which members are taken, and as many for others: a shard's dictionary is read completely.
const SHARDS: usize = 8;
/// Members of a shard, and as many others, at most.
const USERS_OF_SHARD: usize = 32;

/// Users of a sample.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sample {
    members: Vec<UserHash>,
    others: Vec<UserHash>,
}

/// Compares a sample of the version that a write has written. `None` if the pass has to end.
pub(crate) async fn check(
    pass: Pass<'_>,
    connection: &mut dyn MemberStore,
    row: &StoreWrite,
) -> Result<Option<StoreCheck>, WriteError> {
    let Sample { members, others } = sample(pass.deps, row).await?;
    let Some(present) = count(pass, connection, row, &members).await? else { return Ok(None) };
    let Some(unexpected) = count(pass, connection, row, &others).await? else { return Ok(None) };
    let (members, others) = (members.len() as u64, others.len() as u64);
    let missing = members.saturating_sub(present);
    let at = pass.deps.clock.now();
    Ok(Some(StoreCheck { at, sampled: members + others, missing, unexpected }))
}

/// How many of these users the store has in the audience. `None` if the pass has to end.
async fn count(
    pass: Pass<'_>,
    connection: &mut dyn MemberStore,
    row: &StoreWrite,
    users: &[UserHash],
) -> Result<Option<u64>, WriteError> {
    let mut count = 0;
    for chunk in users.chunks(pass.request_users(&*connection)) {
        if pass.has_stopped(&row.write) {
            return Ok(None);
        }
        let found = connection.contains(&row.write.audience, chunk).await?;
        count += found.iter().filter(|found| **found).count() as u64;
    }
    Ok(Some(count))
}

async fn sample(deps: &StoresDeps, row: &StoreWrite) -> Result<Sample, WriteError> {
    let Some(version) = row.write.to_version else { return Ok(Sample::default()) };
    let file = open_version(deps, &row.write.audience, version).await?;
    let dictionaries = Dictionaries::read(deps).await?;
    let mut entropy = SplitMix64::new(SystemEntropy.next_u64());
    let mut sample = Sample::default();
    let (mut of_members, mut of_others) = (0, 0);
    for shard in shuffled(&mut entropy) {
        if of_members == SHARDS && of_others == SHARDS {
            break;
        }
        let snapshot = std::sync::Arc::clone(&file);
        let bitmap = blocking(move || snapshot.shard_bitmap(shard)).await?;
        let dictionary = dictionaries.open(deps, shard).await?;
        let has_members = of_members < SHARDS && !bitmap.is_empty();
        let has_others = of_others < SHARDS && u64::from(dictionary.len()) > bitmap.len();
        if !has_members && !has_others {
            continue;
        }
        let seed = entropy.next_u64();
        let part = blocking(move || {
            let mut entropy = SplitMix64::new(seed);
            sample_of_shard(&bitmap, &dictionary.hashes(), &mut entropy)
        })
        .await?;
        of_members += usize::from(has_members);
        of_others += usize::from(has_others);
        sample.members.extend(part.members);
        sample.others.extend(part.others);
    }
    Ok(sample)
}

/// All shards in a random order.
fn shuffled(entropy: &mut dyn Entropy) -> Vec<u8> {
    let mut shards: Vec<u8> = (0..=u8::MAX).collect();
    for at in (1..shards.len()).rev() {
        shards.swap(at, entropy.below(at as u64 + 1) as usize);
    }
    shards
}

/// Some members of a shard, and some of its other users.
fn sample_of_shard(
    members: &RoaringBitmap,
    hashes: &[UserHash],
    entropy: &mut dyn Entropy,
) -> Sample {
    let (mut found, mut others) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..USERS_OF_SHARD {
        let rank = entropy.below(members.len());
        found.extend(members.select(u32::try_from(rank).unwrap_or(u32::MAX)));
        // Where nearly all are members, chance rarely finds another one; the first is found at any rate.
        let ordinal = entropy.below(hashes.len() as u64) as u32;
        others.extend((!members.contains(ordinal)).then_some(ordinal));
    }
    if others.is_empty() {
        others.extend((0..hashes.len() as u32).find(|ordinal| !members.contains(*ordinal)));
    }
    let hash = |ordinal: u32| hashes.get(ordinal as usize).copied();
    Sample {
        members: found.into_iter().filter_map(hash).collect(),
        others: others.into_iter().filter_map(hash).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_members_and_others_where_there_are_some() {
        let hashes: Vec<UserHash> = (0..1_000).map(|n| UserHash(n * 3)).collect();
        let of =
            |members: RoaringBitmap| sample_of_shard(&members, &hashes, &mut SplitMix64::new(5));
        let even = of((0..1_000).filter(|n| n % 2 == 0).collect());
        assert!(even.members.len() > 16 && even.others.len() > 4);
        assert!(even.members.iter().all(|user| user.0 % 6 == 0));
        assert!(even.others.iter().all(|user| user.0 % 6 == 3));
        let nobody = of(RoaringBitmap::new());
        assert!(nobody.members.is_empty() && !nobody.others.is_empty());
        let all_but_one = of((0..1_000).filter(|n| *n != 517).collect());
        assert_eq!(all_but_one.others, [UserHash(517 * 3)]);
        assert!(of((0..1_000).collect()).others.is_empty());
        let none = sample_of_shard(&RoaringBitmap::new(), &[], &mut SplitMix64::new(5));
        assert_eq!(none, Sample::default());
    }

    #[test]
    fn every_shard_is_in_the_order_once() {
        let mut shards = shuffled(&mut SplitMix64::new(9));
        assert_ne!(shards, (0..=u8::MAX).collect::<Vec<_>>());
        shards.sort_unstable();
        assert_eq!(shards, (0..=u8::MAX).collect::<Vec<_>>());
    }
}
