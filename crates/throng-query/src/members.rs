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
    append_members(&words, rule, &mut members);
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

/// Appends the [`members`] of words that are sorted.
fn append_members(words: &[u64], rule: Rule, to: &mut Vec<UserHash>) {
    match rule {
        Rule::Rows(occurs) => {
            let runs = words.chunk_by(|a, b| a == b);
            let kept = runs.filter(|run| occurs.allows(run.len() as u64));
            to.extend(kept.filter_map(|run| run.first().copied().map(UserHash)));
        }
        Rule::Sum(sum) => {
            let runs = words.as_chunks::<2>().0.chunk_by(|a, b| a[0] == b[0]);
            let kept = runs.filter(|run| sum.allows(run.iter().map(|pair| pair[1])));
            to.extend(kept.filter_map(|run| run.first().map(|pair| UserHash(pair[0]))));
        }
    }
}

/// Users of one bucket of [`sorted`], on average.
const BUCKET: usize = 8;

/// Sorts the users of a shard: first into buckets by the bits that follow those of the shard, which are uniform, and then
/// each bucket. Faster than by comparisons alone where there are many.
fn sorted(users: &[UserHash]) -> Vec<UserHash> {
    let bits = (users.len() / BUCKET).max(2).next_power_of_two().trailing_zeros();
    let bucket = |hash: &UserHash| ((hash.0 << 8) >> (u64::BITS - bits)) as usize;
    let mut ends = vec![0_usize; 1 << bits];
    for user in users {
        ends[bucket(user)] += 1;
    }
    let mut total = 0;
    for end in &mut ends {
        total += *end;
        *end = total;
    }
    let mut all = vec![UserHash(0); users.len()];
    for user in users {
        let end = &mut ends[bucket(user)];
        *end -= 1;
        all[*end] = *user;
    }
    // The ends have become the starts.
    let mut rest = all.as_mut_slice();
    for sizes in ends.windows(2) {
        let (first, others) = rest.split_at_mut(sizes[1] - sizes[0]);
        first.sort_unstable();
        rest = others;
    }
    rest.sort_unstable();
    all
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

    /// Finds the users of each member among the words of a user shard: ascending, each once. Two passes over the words, which
    /// are put in the order of their groups and sorted once for all members of a group.
    pub fn find(&self, buffers: &mut MemberBuffers) {
        if self.width == 3 {
            self.order::<3>(buffers);
        } else {
            self.order::<2>(buffers);
        }
        let MemberBuffers { ordered, starts, users, members, .. } = buffers;
        users.clear();
        members.clear();
        members.resize(self.rules.len(), 0..0);
        for (group, range) in self.groups.iter().zip(starts.windows(2)) {
            let Some(words) = ordered.get_mut(range[0]..range[1]) else { continue };
            for (at, member) in group.iter().enumerate() {
                let Some(rule) = self.rules.get(*member).copied() else { continue };
                // All rules of a scan are of one kind.
                if at == 0 {
                    sort(words, rule);
                }
                let start = users.len();
                append_members(words, rule, users);
                if let Some(found) = members.get_mut(*member) {
                    *found = start..users.len();
                }
            }
        }
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
        ordered.clear();
        ordered.resize(total, 0);
        for key in keys {
            if let Some(place) = next.get_mut(key[width] as usize) {
                ordered[*place..*place + width].copy_from_slice(&key[..width]);
                *place += width;
            }
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
    users: Vec<UserHash>,
    /// Which of them are those of each member.
    members: Vec<Range<usize>>,
    /// For what is written of a shard.
    pub bytes: Vec<u8>,
}

impl MemberBuffers {
    /// The users of each member, as [`MemberLayout::find`] has found them.
    pub fn members(&self) -> Vec<&[UserHash]> {
        let users = |range: &Range<usize>| self.users.get(range.clone()).unwrap_or_default();
        self.members.iter().map(users).collect()
    }

    /// The users of all members: ascending, each once.
    pub fn union(&self) -> Vec<UserHash> {
        let mut all = sorted(&self.users);
        all.dedup();
        all
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
    fn the_users_of_a_shard_are_sorted_also_if_their_hashes_are_not_uniform() {
        let mut random = SplitMix64::new(3);
        for count in [0, 1, 2, 40, 5_000] {
            let mut users: Vec<UserHash> = Vec::new();
            for _ in 0..count {
                let hash = random.next_u64() >> 8;
                users.extend([UserHash(7 << 56 | hash), UserHash(7 << 56 | hash >> 40)]);
            }
            let mut expected = users.clone();
            expected.sort_unstable();
            assert_eq!(sorted(&users), expected);
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
            .collect();
        let at_least = |min| Rule::Rows(RowCountRange { min, max: None });
        let above = |min| Rule::Sum(SumRange::Whole { min, max: i64::MAX });
        for (width, rules) in [(2, [at_least(1), at_least(2)]), (3, [above(20), above(60)])] {
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
            for (at, found) in found.iter().enumerate() {
                assert_eq!(*found, expected(&rows, &layout, at), "width {width}, member {at}");
            }
            let all: std::collections::BTreeSet<UserHash> =
                found.iter().copied().flatten().copied().collect();
            assert!(buffers.union().into_iter().eq(all));
        }
    }
}
