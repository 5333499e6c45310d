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

    /// Finds the users of each member among the words of a user shard, which are lost. The keys are sorted once for all
    /// groups: then each user has a number, and the numbers of a group are ascending without a sort of their own.
    pub fn find(&self, buffers: &mut MemberBuffers) {
        if self.width == 3 {
            sort_keys::<3>(buffers);
            self.divide::<3, 2>(buffers);
        } else {
            sort_keys::<2>(buffers);
            self.divide::<2, 1>(buffers);
        }
        let MemberBuffers { words, starts, places, members, .. } = buffers;
        places.clear();
        members.clear();
        members.resize(self.rules.len(), 0..0);
        for (group, range) in self.groups.iter().zip(starts.windows(2)) {
            let Some(words) = words.get(range[0]..range[1]) else { continue };
            for member in group {
                let Some(rule) = self.rules.get(*member).copied() else { continue };
                let start = places.len();
                for_each_member(words, rule, |place| places.push(place as u32));
                if let Some(found) = members.get_mut(*member) {
                    *found = start..places.len();
                }
            }
        }
        keep_members(buffers);
    }

    /// Puts sorted keys of so many words in the order of their groups; in place of its hash each has the number of its
    /// user, and its group is left out. The number of words is a constant, because this is done for every row of the scan.
    fn divide<const WIDTH: usize, const LEFT: usize>(&self, buffers: &mut MemberBuffers) {
        let MemberBuffers { words, sorted, users, starts, next, .. } = buffers;
        let keys = sorted.as_chunks::<WIDTH>().0;
        next.clear();
        next.resize(self.groups.len(), 0);
        for key in keys {
            if let Some(words) = next.get_mut(key[LEFT] as usize) {
                *words += LEFT;
            }
        }
        let mut total = 0;
        starts.clear();
        for words in next.iter_mut() {
            starts.push(total);
            total += std::mem::replace(words, total);
        }
        starts.push(total);
        // Those of the keys, which are in `sorted` now: there are fewer of them without the groups.
        let to = words;
        users.clear();
        for run in keys.chunk_by(|a, b| a[0] == b[0]) {
            let user = users.len() as u64;
            users.push(UserHash(run[0][0]));
            for key in run {
                let Some(place) = next.get_mut(key[LEFT] as usize) else { continue };
                if let Some(to) = to.get_mut(*place..*place + LEFT) {
                    to.copy_from_slice(&key[..LEFT]);
                    to[0] = user;
                }
                *place += LEFT;
            }
        }
    }
}

/// Keys of one bucket of [`sort_keys`], on average.
const BUCKET: usize = 8;

/// Sorts the keys of a shard: first into buckets by the bits that follow those of the shard, which are uniform, and then
/// each bucket. Faster than by comparisons alone where there are many. Keys of one user are in the order of their values,
/// as [`sort`] has them.
fn sort_keys<const WIDTH: usize>(buffers: &mut MemberBuffers) {
    let MemberBuffers { words, sorted, next: ends, .. } = buffers;
    let keys = words.as_chunks::<WIDTH>().0;
    let bits = (keys.len() / BUCKET).max(2).next_power_of_two().trailing_zeros();
    let bucket = |key: &[u64; WIDTH]| ((key[0] << 8) >> (u64::BITS - bits)) as usize;
    ends.clear();
    ends.resize(1 << bits, 0);
    for key in keys {
        ends[bucket(key)] += 1;
    }
    let mut total = 0;
    for end in ends.iter_mut() {
        total += *end;
        *end = total;
    }
    // What it has is replaced.
    sorted.resize(keys.len() * WIDTH, 0);
    let all = sorted.as_chunks_mut::<WIDTH>().0;
    for key in keys {
        let end = &mut ends[bucket(key)];
        *end -= 1;
        all[*end] = *key;
    }
    // The ends have become the starts.
    let mut rest = all;
    for starts in ends.windows(2) {
        let (first, others) = rest.split_at_mut(starts[1] - starts[0]);
        first.sort_unstable();
        rest = others;
    }
    rest.sort_unstable();
}

/// Leaves only those users who are in a member, and numbers them again.
fn keep_members(buffers: &mut MemberBuffers) {
    let MemberBuffers { users, places, next: numbers, .. } = buffers;
    numbers.clear();
    numbers.resize(users.len(), 0);
    for place in places.iter() {
        numbers[*place as usize] = 1;
    }
    let mut kept = 0;
    for (user, number) in numbers.iter_mut().enumerate() {
        if *number > 0 {
            users[kept] = users[user];
            *number = kept;
            kept += 1;
        }
    }
    if kept == users.len() {
        return;
    }
    users.truncate(kept);
    for place in places.iter_mut() {
        *place = numbers[*place as usize] as u32;
    }
}

/// The memory of a user shard, which is used again for the next one: the allocator returns what is freed to the system,
/// which clears it before it is used again.
#[derive(Debug, Default)]
pub struct MemberBuffers {
    /// The words of the keys of a shard, in the order of the scan.
    pub words: Vec<u64>,
    /// The same, sorted.
    sorted: Vec<u64>,
    /// Where the words of each group begin, and where the last ones end.
    starts: Vec<usize>,
    /// Where the next word of each group or bucket is put; a number of each user.
    next: Vec<usize>,
    /// The users of all members: ascending, each once.
    pub users: Vec<UserHash>,
    /// The places in `users` of those of one member after another: ascending, each once.
    places: Vec<u32>,
    /// Which of them are those of each member.
    members: Vec<Range<usize>>,
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
    fn the_keys_of_a_shard_are_sorted_also_if_their_hashes_are_not_uniform() {
        let mut random = SplitMix64::new(3);
        let mut buffers = MemberBuffers::default();
        for count in [0, 1, 2, 5_000, 40] {
            let mut keys: Vec<[u64; 2]> = Vec::new();
            for _ in 0..count {
                let (hash, value) = (random.next_u64() >> 8, random.next_u64() % 3);
                keys.extend([[7 << 56 | hash, value], [7 << 56 | hash >> 40, value]]);
                keys.push([7 << 56 | random.next_u64() % 9, value]);
            }
            buffers.words = keys.concat();
            sort_keys::<2>(&mut buffers);
            keys.sort_unstable();
            assert_eq!(buffers.sorted, keys.concat());
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
