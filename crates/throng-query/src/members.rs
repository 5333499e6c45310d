//! Which users of a shard are members, by the rule of the model: of one, or of several that are one scan.

use std::ops::Range;

use throng_model::UserHash;

use crate::rule::Rule;

/// The members among the words of a shard's key files: hashes, or hashes each followed by its value
/// where the rule is a sum. Ascending, each once.
pub fn members(mut words: Vec<u64>, rule: Rule) -> Vec<UserHash> {
    sort(&mut words, rule);
    if rule == Rule::ANY {
        words.dedup();
        return words.into_iter().map(UserHash).collect();
    }
    let mut members = Vec::new();
    for_each_member(&words, rule, |hash| members.push(UserHash(hash)));
    members
}

/// Sorts words, so that those of a user follow each other: the same order for all rules of a kind.
fn sort(words: &mut [u64], rule: Rule) {
    match rule {
        Rule::Rows(_) => words.sort_unstable(),
        // By value too: a sum of floating-point numbers depends on the order, and a repeated
        // part must have the same members.
        Rule::Sum(_) => words.as_chunks_mut::<2>().0.sort_unstable(),
    }
}

/// Calls `found` with the user of each of the [`members`] of words that are sorted.
fn for_each_member(words: &[u64], rule: Rule, mut found: impl FnMut(u64)) {
    match rule {
        Rule::Rows(occurs) => {
            for run in words.chunk_by(|a, b| a == b) {
                if occurs.allows(run.len() as u64) {
                    found(run[0]);
                }
            }
        }
        Rule::Sum(sum) => {
            for run in words.as_chunks::<2>().0.chunk_by(|a, b| a[0] == b[0]) {
                if sum.allows(run.iter().map(|pair| pair[1])) {
                    found(run[0][0]);
                }
            }
        }
    }
}

/// How the words of a scan for several models belong to their members. A key is its hash, its value if the rules are
/// sums, and its group.
#[derive(Debug)]
pub struct MemberLayout {
    /// The members of each group.
    groups: Vec<Vec<usize>>,
    /// The rule of each member.
    rules: Vec<Rule>,
    /// Words of a key: hash, value if the rule is a sum, group.
    width: usize,
}

impl MemberLayout {
    /// `groups`: how many there are. `of_members` and `rules`: the group of each member, and its rule. All rules are of one
    /// kind.
    pub fn new(groups: usize, of_members: &[u32], rules: Vec<Rule>) -> Self {
        let mut groups = vec![Vec::new(); groups];
        for (member, group) in of_members.iter().enumerate() {
            if let Some(members) = groups.get_mut(*group as usize) {
                members.push(member);
            }
        }
        let with_values = rules.iter().any(|rule| matches!(rule, Rule::Sum(_)));
        let width = if with_values { 3 } else { 2 };
        Self { groups, rules, width }
    }

    /// Finds the users of each member among the words of a user shard. Three passes over the words: they are put in the
    /// order of their groups, sorted once for all members of a group, and those of members are numbered by user.
    pub fn find(&self, buffers: &mut MemberBuffers) {
        if self.width == 3 {
            self.order::<3>(buffers);
        } else {
            self.order::<2>(buffers);
        }
        let MemberBuffers { ordered, starts, found, members, sorter, pairs, .. } = buffers;
        found.clear();
        members.clear();
        members.resize(self.rules.len(), 0..0);
        for (group, range) in self.groups.iter().zip(starts.windows(2)) {
            let Some(words) = ordered.get_mut(range[0]..range[1]) else { continue };
            for (at, member) in group.iter().enumerate() {
                let Some(rule) = self.rules.get(*member).copied() else { continue };
                // All rules of a scan are of one kind.
                match rule {
                    _ if at > 0 => {}
                    Rule::Rows(_) => words.sort_unstable(),
                    Rule::Sum(_) => sorter.sort_pairs(words.as_chunks_mut().0, pairs),
                }
                let start = found.len();
                for_each_member(words, rule, |hash| found.push(hash));
                if let Some(of_member) = members.get_mut(*member) {
                    *of_member = start..found.len();
                }
            }
        }
        number(buffers);
    }

    /// Puts keys of so many words in the order of their groups, which they are without then. The number of words is a
    /// constant, because this is done for every row of the scan.
    fn order<const WIDTH: usize>(&self, buffers: &mut MemberBuffers) {
        let MemberBuffers { words, ordered, starts, next, .. } = buffers;
        let keys = words.as_chunks::<WIDTH>().0;
        let (groups, width) = (self.groups.len(), WIDTH - 1);
        next.clear();
        next.resize(groups, 0);
        for key in keys {
            if let Some(words) = next.get_mut(key[width] as usize) {
                *words += width;
            }
        }
        let mut total = 0;
        starts.clear();
        for words in next.iter_mut() {
            starts.push(total);
            total += std::mem::replace(words, total);
        }
        starts.push(total);
        // What it has is replaced.
        ordered.resize(total, 0);
        for key in keys {
            if let Some(place) = next.get_mut(key[width] as usize) {
                ordered[*place..*place + width].copy_from_slice(&key[..width]);
                *place += width;
            }
        }
    }
}

/// Lists the users of all members, and numbers them in each member.
fn number(buffers: &mut MemberBuffers) {
    let MemberBuffers { found, users, places, sorter, .. } = buffers;
    sorter.sort(found.iter().copied());
    users.clear();
    places.resize(found.len(), 0);
    sorter.for_each(|place, hash| {
        if users.last() != Some(&UserHash(hash)) {
            users.push(UserHash(hash));
        }
        places[place] = users.len() as u32 - 1;
    });
}

/// Hashes of one bucket of a [`Sorter`], on average: few enough for its bits to have room for their places.
const BUCKET: usize = 64;
/// The first bits of a hash, which are those of its shard.
const SHARD_BITS: u32 = 8;

/// Sorts hashes of one user shard, and remembers the place of each. They are divided into buckets by the bits that follow
/// those of the shard, which are uniform. Bits that all hashes of a bucket have tell nothing: the place is written over
/// them, so that what is sorted are words, which processors compare without branches. Memory is read and written in
/// order but for that of the buckets, because a read of another place would take longer than the comparisons.
#[derive(Debug, Default)]
struct Sorter {
    /// By bucket: the other bits of a hash, then its place.
    sorted: Vec<u64>,
    /// Where each bucket begins.
    starts: Vec<usize>,
    /// The bits that number a bucket.
    bits: u32,
    /// The bits of the shard.
    shard: u64,
}

impl Sorter {
    fn sort(&mut self, hashes: impl ExactSizeIterator<Item = u64> + Clone) {
        let count = hashes.len();
        let Self { sorted, starts, .. } = &mut *self;
        let bits = (count / BUCKET).max(1).next_power_of_two().trailing_zeros();
        let bucket = |hash: u64| ((hash << SHARD_BITS) >> 1 >> (u64::BITS - 1 - bits)) as usize;
        let mut shard = 0;
        starts.clear();
        starts.resize(1 << bits, 0);
        for hash in hashes.clone() {
            starts[bucket(hash)] += 1;
            shard = hash;
        }
        let mut total = 0;
        for end in starts.iter_mut() {
            total += *end;
            *end = total;
        }
        // What it has is replaced.
        sorted.resize(count, 0);
        for (place, hash) in hashes.enumerate() {
            let end = &mut starts[bucket(hash)];
            *end -= 1;
            sorted[*end] = (hash << (SHARD_BITS + bits)) | place as u64;
        }
        // The ends have become the starts.
        let mut rest = sorted.as_mut_slice();
        for starts in starts.windows(2) {
            let (first, others) = rest.split_at_mut(starts[1] - starts[0]);
            first.sort_unstable();
            rest = others;
        }
        rest.sort_unstable();
        let shard = shard >> (u64::BITS - SHARD_BITS) << (u64::BITS - SHARD_BITS);
        (self.bits, self.shard) = (bits, shard);
    }

    /// Calls `each` with the places and hashes, ascending by hash and place.
    fn for_each(&self, mut each: impl FnMut(usize, u64)) {
        let low = SHARD_BITS + self.bits;
        let ends = self.starts.iter().skip(1).copied().chain([self.sorted.len()]);
        for ((bucket, start), end) in self.starts.iter().enumerate().zip(ends) {
            let first = self.shard | (bucket as u64) << (u64::BITS - low);
            for word in &self.sorted[*start..end] {
                each((word & ((1 << low) - 1)) as usize, first | word >> low);
            }
        }
    }

    /// Sorts pairs of a hash and a value, as [`sort`] does. `ordered` is memory that is used again.
    fn sort_pairs(&mut self, pairs: &mut [[u64; 2]], ordered: &mut Vec<[u64; 2]>) {
        self.sort(pairs.iter().map(|pair| pair[0]));
        ordered.clear();
        self.for_each(|place, _| ordered.push(pairs[place]));
        pairs.copy_from_slice(ordered);
        for run in pairs.chunk_by_mut(|a, b| a[0] == b[0]) {
            run.sort_unstable();
        }
    }
}

/// The memory of a user shard, which is used again for the next one: the allocator returns what is freed to the system,
/// which clears it before it is used again.
#[derive(Debug, Default)]
pub struct MemberBuffers {
    /// The words of the keys of a shard, in the order of the scan.
    pub words: Vec<u64>,
    /// The same without their groups, in the order of these.
    ordered: Vec<u64>,
    /// Where the words of each group begin, and where the last ones end.
    starts: Vec<usize>,
    /// Where the next word of each group is put.
    next: Vec<usize>,
    /// The users of one member after another.
    found: Vec<u64>,
    /// Which of them are those of each member.
    members: Vec<Range<usize>>,
    /// The users of all members: ascending, each once.
    pub users: Vec<UserHash>,
    /// The place in `users` of each of `found`.
    places: Vec<u32>,
    sorter: Sorter,
    /// For the sorter.
    pairs: Vec<[u64; 2]>,
    /// For what is written of a shard.
    pub bytes: Vec<u8>,
}

impl MemberBuffers {
    /// The places in [`users`](Self::users) of the users of each member, as [`MemberLayout::find`] has found them:
    /// ascending, each once.
    pub fn members(&self) -> Vec<&[u32]> {
        let places = |range: &Range<usize>| self.places.get(range.clone()).unwrap_or_default();
        self.members.iter().map(places).collect()
    }
}

#[cfg(test)]
mod tests {
    use throng_model::{Entropy as _, SplitMix64};

    use super::*;
    use crate::rule::RowCountRange;
    use crate::sum::SumRange;

    #[test]
    fn users_with_the_right_number_of_rows_are_members_once() {
        let kept = |min, max| {
            let rule = Rule::Rows(RowCountRange { min, max });
            let words = vec![3, 1, 2, 3, 9, 2, 3];
            members(words, rule).into_iter().map(|hash| hash.0).collect::<Vec<_>>()
        };
        assert_eq!(kept(1, None), [1, 2, 3, 9]);
        assert_eq!(kept(2, None), [2, 3]);
        assert_eq!(kept(1, Some(1)), [1, 9]);
        assert_eq!(kept(2, Some(2)), [2]);
        assert_eq!(kept(4, None), [] as [u64; 0]);
    }

    #[test]
    fn values_are_added_up_by_user() {
        let minus_five = (-5_i64).cast_unsigned();
        let words = vec![7, 6, 8, 11, 7, 5, 8, minus_five, 9, 10];
        let rule = Rule::Sum(SumRange::Whole { min: 10, max: i64::MAX });
        assert_eq!(members(words, rule), [UserHash(7), UserHash(9)]);
    }

    #[test]
    fn hashes_of_a_shard_are_sorted_with_their_places_also_if_they_are_not_uniform() {
        let mut random = SplitMix64::new(3);
        let (mut sorter, mut ordered) = (Sorter::default(), Vec::new());
        for shard in [0, 7, 255_u64] {
            for count in [0, 1, 2, 20, 85, 100, 300, 5_000, 40] {
                let mut pairs: Vec<[u64; 2]> = Vec::new();
                for _ in 0..count {
                    let (hash, value) = (random.next_u64() >> 8, random.next_u64() % 3);
                    let few = random.next_u64() % 9;
                    for hash in [hash, hash >> 40, few, u64::MAX >> 8 ^ few] {
                        pairs.push([shard << 56 | hash, value]);
                    }
                }
                sorter.sort(pairs.iter().map(|pair| pair[0]));
                let mut found = Vec::new();
                sorter.for_each(|place, hash| found.push((hash, place)));
                let mut expected: Vec<(u64, usize)> =
                    pairs.iter().enumerate().map(|(place, pair)| (pair[0], place)).collect();
                expected.sort_unstable();
                assert_eq!(found, expected);
                let mut expected = pairs.clone();
                expected.sort_unstable();
                sorter.sort_pairs(&mut pairs, &mut ordered);
                assert_eq!(pairs, expected);
            }
        }
    }

    /// The members of each audience, from the rows of its group alone.
    fn expected(rows: &[(u64, u64, u32)], layout: &MemberLayout, at: usize) -> Vec<UserHash> {
        let group = layout.groups.iter().position(|members| members.contains(&at)).unwrap();
        let rows = rows.iter().filter(|(_, _, of)| *of as usize == group);
        let words = rows.flat_map(|(hash, value, _)| match layout.width {
            2 => vec![*hash],
            _ => vec![*hash, *value],
        });
        members(words.collect(), layout.rules[at])
    }

    #[test]
    fn every_audience_has_the_members_of_its_own_rows() {
        let mut random = SplitMix64::new(7);
        let rows: Vec<(u64, u64, u32)> = (0..20_000)
            .map(|_| {
                (random.next_u64() % 900, random.next_u64() % 9, (random.next_u64() % 40) as u32)
            })
            .chain((900..950).map(|hash| (hash, 9, 3)))
            .collect();
        let at_least = |min| Rule::Rows(RowCountRange { min, max: None });
        let above = |min| Rule::Sum(SumRange::Whole { min, max: i64::MAX });
        for (width, rules) in [(2, [at_least(2), at_least(3)]), (3, [above(20), above(60)])] {
            // Two audiences of each group, with another threshold each.
            let groups: Vec<Vec<usize>> = (0..40).map(|group| vec![group, group + 40]).collect();
            let rules = (0..80).map(|member| rules[member / 40]).collect();
            let layout = MemberLayout { groups, rules, width };
            let words: Vec<u64> = rows
                .iter()
                .flat_map(|(hash, value, group)| match width {
                    2 => vec![*hash, u64::from(*group)],
                    _ => vec![*hash, *value, u64::from(*group)],
                })
                .collect();
            // Of another shard.
            let mut buffers = MemberBuffers { words: vec![1; 60], ..MemberBuffers::default() };
            layout.find(&mut buffers);
            buffers.words = words;
            layout.find(&mut buffers);
            let found = buffers.members();
            assert!(found.iter().any(|members| !members.is_empty()));
            let users = |places: &[u32]| -> Vec<UserHash> {
                places.iter().map(|place| buffers.users[*place as usize]).collect()
            };
            let mut all = std::collections::BTreeSet::new();
            for (at, found) in found.iter().enumerate() {
                let found = users(found);
                assert_eq!(found, expected(&rows, &layout, at), "width {width}, member {at}");
                all.extend(found);
            }
            // Others have rows too, and are users of no member.
            assert!(rows.iter().any(|(hash, ..)| !all.contains(&UserHash(*hash))));
            assert!(buffers.users.iter().copied().eq(all));
        }
    }
}
