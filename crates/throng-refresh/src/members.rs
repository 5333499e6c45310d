//! Which users of a shard are members, by the model's rule. Pure.

use throng_lake::Rule;
use throng_model::UserHash;

/// The members among the words of a shard's key files: hashes, or hashes each followed by its value
/// where the rule is a sum. Ascending, each once.
pub(super) fn members(mut words: Vec<u64>, rule: Rule) -> Vec<UserHash> {
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
pub(super) fn sort(words: &mut [u64], rule: Rule) {
    match rule {
        Rule::Rows(_) => words.sort_unstable(),
        // By value too: a sum of floating-point numbers depends on the order, and a repeated
        // part must have the same members.
        Rule::Sum(_) => words.as_chunks_mut::<2>().0.sort_unstable(),
    }
}

/// Appends the [`members`] of words that are sorted.
pub(super) fn append_members(words: &[u64], rule: Rule, to: &mut Vec<UserHash>) {
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

#[cfg(test)]
mod tests {
    use throng_lake::{RowCountRange, SumRange};

    use super::*;

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
}
