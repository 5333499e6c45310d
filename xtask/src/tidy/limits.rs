//! Limits for each kind of finding that the project still has, which may only go down
//! (`xtask/tidy-limits.toml`). Pure.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

/// Findings of one kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Count {
    /// Its name in the file of limits.
    pub(super) name: &'static str,
    /// The number of findings, or the size of the largest one.
    pub(super) number: u64,
    /// A text for each finding.
    pub(super) findings: Vec<String>,
}

impl Count {
    /// The number of these findings.
    pub(super) fn of(name: &'static str, findings: Vec<String>) -> Self {
        Self { name, number: findings.len() as u64, findings }
    }
}

/// Reads the limits.
///
/// # Errors
/// If the text is not a table of numbers.
pub(super) fn read(text: &str) -> Result<BTreeMap<String, u64>> {
    toml::from_str(text).context("xtask/tidy-limits.toml is not a table of numbers")
}

/// A finding for each count that is above its limit, or below it.
///
/// # Errors
/// If a limit has no count, or a count has no limit.
pub(super) fn compare(counts: &[Count], limits: &BTreeMap<String, u64>) -> Result<Vec<String>> {
    for name in limits.keys() {
        let known = counts.iter().any(|count| count.name == name);
        ensure!(known, "xtask/tidy-limits.toml has `{name}`, which is not a count");
    }
    let mut findings = Vec::new();
    for Count { name, number, .. } in counts {
        let limit = limits.get(*name);
        let limit = *limit.with_context(|| format!("xtask/tidy-limits.toml has no `{name}`"))?;
        if *number > limit {
            findings.push(format!(
                "{name} is {number}, and the limit is {limit}: `cargo xtask tidy --list` lists all findings"
            ));
        } else if *number < limit {
            findings.push(format!(
                "{name} is {number}, below the limit {limit}: lower it with `cargo xtask tidy --lower`"
            ));
        }
    }
    Ok(findings)
}

/// The text with each limit lowered to its count. Does not raise limits.
pub(super) fn lowered(text: &str, counts: &[Count]) -> String {
    let mut lowered = String::new();
    for line in text.lines() {
        let pair = line.split_once('=').map(|(name, limit)| (name.trim(), limit.trim()));
        let count = pair.and_then(|(name, limit)| {
            let limit: u64 = limit.parse().ok()?;
            counts.iter().find(|count| count.name == name && count.number < limit)
        });
        match count {
            Some(Count { name, number, .. }) => lowered.push_str(&format!("{name} = {number}")),
            None => lowered.push_str(line),
        }
        lowered.push('\n');
    }
    lowered
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# words\nwords = 7\n\n# cycles\ncycles = 2\n";

    fn counts(words: u64, cycles: u64) -> [Count; 2] {
        let count = |name, number| Count { name, number, findings: Vec::new() };
        [count("words", words), count("cycles", cycles)]
    }

    fn findings(counts: &[Count]) -> Vec<String> {
        compare(counts, &read(TEXT).unwrap()).unwrap()
    }

    #[test]
    fn a_count_must_equal_its_limit() {
        assert!(findings(&counts(7, 2)).is_empty());
        let above = findings(&counts(8, 2));
        assert!(
            above.len() == 1 && above[0].contains("words is 8, and the limit is 7"),
            "{above:?}"
        );
        let below = findings(&counts(7, 1));
        assert!(below.len() == 1 && below[0].contains("--lower"), "{below:?}");
    }

    #[test]
    fn limits_and_counts_have_the_same_names() {
        assert!(compare(&counts(7, 2)[..1], &read(TEXT).unwrap()).is_err());
        assert!(compare(&counts(7, 2), &read("words = 7").unwrap()).is_err());
        assert!(read("words = \"7\"").is_err());
    }

    #[test]
    fn limits_are_lowered_and_never_raised() {
        let text = lowered(TEXT, &counts(3, 9));
        assert_eq!(text, "# words\nwords = 3\n\n# cycles\ncycles = 2\n");
    }
}
