//! Sets of users in memory: algebra, and members by rank.

use std::ops::Range;

use roaring::RoaringBitmap;
use throng_model::SHARD_COUNT;

use crate::SnapshotFile;

/// A set of users as one bitmap of ordinals per shard. Ranks count by shard, then by ordinal: the
/// same set always has the same ranks, so a batch can be cut again.
///
/// ```
/// use roaring::RoaringBitmap;
/// use throng_membership::MemberSet;
///
/// // Ordinals 3 and 9 of shard 0, ordinal 1 of shard 1.
/// let shards = vec![RoaringBitmap::from_iter([3, 9]), RoaringBitmap::from_iter([1])];
/// let buyers = MemberSet::new(shards);
/// let visitors = MemberSet::new(vec![RoaringBitmap::from_iter([3, 4])]);
/// assert_eq!(buyers.union(&visitors).len(), 4);
/// assert_eq!(buyers.intersect(&visitors).iter().collect::<Vec<_>>(), [(0, 3)]);
/// assert_eq!(buyers.minus(&visitors).iter().collect::<Vec<_>>(), [(0, 9), (1, 1)]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct MemberSet {
    shards: Vec<RoaringBitmap>,
    /// `members_before[s]` members are in shards below `s`; the last entry is the total.
    members_before: Vec<u64>,
}

impl Default for MemberSet {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl MemberSet {
    /// A set of bitmaps by shard; missing ones are empty, those past 256 are dropped.
    pub fn new(mut shards: Vec<RoaringBitmap>) -> Self {
        shards.resize(SHARD_COUNT, RoaringBitmap::new());
        let mut members_before = Vec::with_capacity(SHARD_COUNT + 1);
        let mut total = 0;
        members_before.push(0);
        for shard in &shards {
            total += shard.len();
            members_before.push(total);
        }
        Self { shards, members_before }
    }

    /// The members of a snapshot, copied out of its file.
    pub fn of_snapshot(snapshot: &SnapshotFile) -> Self {
        Self::new((0..=u8::MAX).map(|shard| snapshot.shard_bitmap(shard)).collect())
    }

    /// How many members. Constant time.
    pub fn len(&self) -> u64 {
        self.members_before[SHARD_COUNT]
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The members of one shard.
    pub fn shard(&self, shard: u8) -> &RoaringBitmap {
        &self.shards[usize::from(shard)]
    }

    /// Whether the user is a member.
    pub fn contains(&self, shard: u8, ordinal: u32) -> bool {
        self.shard(shard).contains(ordinal)
    }

    /// How many members come before this one; `None` if it is not a member.
    pub fn rank(&self, shard: u8, ordinal: u32) -> Option<u64> {
        let bitmap = self.shard(shard);
        let before = self.members_before[usize::from(shard)];
        bitmap.contains(ordinal).then(|| before + bitmap.rank(ordinal) - 1)
    }

    /// The members with the given ranks, in order, as (shard, ordinal). Ranks past the end have no
    /// member. Finding the first costs a search; each next one is a step.
    ///
    /// ```
    /// use roaring::RoaringBitmap;
    /// use throng_membership::MemberSet;
    ///
    /// // Batches of two: each can be cut again by its ranks alone, also after a restart.
    /// let set = MemberSet::new(vec![RoaringBitmap::from_iter([5, 6, 7])]);
    /// assert_eq!(set.by_rank(0..2).collect::<Vec<_>>(), [(0, 5), (0, 6)]);
    /// assert_eq!(set.by_rank(2..4).collect::<Vec<_>>(), [(0, 7)]);
    /// ```
    pub fn by_rank(&self, ranks: Range<u64>) -> impl Iterator<Item = (u8, u32)> + '_ {
        let end = ranks.end.min(self.len());
        let count = end.saturating_sub(ranks.start);
        let first_shard =
            self.members_before.partition_point(|&b| b <= ranks.start).saturating_sub(1);
        let skip = ranks.start - self.members_before[first_shard.min(SHARD_COUNT)];
        (first_shard..SHARD_COUNT)
            .flat_map(move |shard| {
                let bitmap = &self.shards[shard];
                let skip = if shard == first_shard { skip } else { 0 };
                let from = u32::try_from(skip).ok().and_then(|n| bitmap.select(n));
                let members = from.map(|from| bitmap.range(from..));
                members.into_iter().flatten().map(move |ordinal| (shard as u8, ordinal))
            })
            .take(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// All members in order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, u32)> + '_ {
        self.by_rank(0..u64::MAX)
    }

    fn combine(
        &self,
        other: &Self,
        operation: impl Fn(&RoaringBitmap, &RoaringBitmap) -> RoaringBitmap,
    ) -> Self {
        Self::new(self.shards.iter().zip(&other.shards).map(|(a, b)| operation(a, b)).collect())
    }

    /// Members of either.
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a | b)
    }

    /// Members of both.
    pub fn intersect(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & b)
    }

    /// Members of this one that are not in the other.
    pub fn minus(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a - b)
    }
}
