//! How far two words are apart, for "did you mean …?".

/// The edit distance of two words: the smallest number of letters to insert, to delete, to replace or to swap
/// with their neighbor that turns `a` into `b` (optimal string alignment). Takes time proportional to the
/// product of the lengths, so the caller limits them where a word comes from outside.
///
/// ```
/// use throng_model::edit_distance;
///
/// assert_eq!(edit_distance("source", "sources"), 1);
/// assert_eq!(edit_distance("audiecnes", "audiences"), 1);
/// assert_eq!(edit_distance("", "hat"), 3);
/// ```
pub fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_edit_counts_once() {
        for (a, b, distance) in [
            ("", "", 0),
            ("total", "total", 0),
            ("totl", "total", 1),
            ("totall", "total", 1),
            ("tptal", "total", 1),
            ("toatl", "total", 1),
            ("latot", "total", 4),
            ("größe", "grosse", 3),
            ("gloves", "hat", 6),
        ] {
            assert_eq!(edit_distance(a, b), distance, "{a} and {b}");
            assert_eq!(edit_distance(b, a), distance, "{b} and {a}");
        }
    }
}
