//! A problem of a spec, with the fix.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use throng_model::count;
use throng_spec_types::Location;

/// Problems that are alike are printed one by one if they are not more than this; of more so many places are named.
const MAX_ALIKE: usize = 5;

/// A problem in a spec file. Never contains the text of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The path of the file, as it was given or found.
    pub file: PathBuf,
    /// The line, from 1; 0 if the problem has no line, such as a file that cannot be read.
    pub line: u32,
    /// The column in characters, from 1; 0 without a line.
    pub column: u32,
    /// The field, such as `audiences[2].sql`; may be empty.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// How to fix it.
    pub help: Option<String>,
}

impl Problem {
    /// A problem of the SQL text at `sql_at`; `line` and `column` count from 1 within the text.
    pub fn in_sql(
        sql_at: &Location,
        (line, column): (u32, u32),
        path: impl Into<String>,
        message: String,
        help: Option<String>,
    ) -> Self {
        let line = sql_at.line.saturating_add(line.saturating_sub(1));
        Self { file: sql_at.file.clone(), line, column, path: path.into(), message, help }
    }

    /// File, line and column, such as `throng.yaml:3:5`.
    fn place(&self) -> String {
        match self.line {
            0 => self.file.display().to_string(),
            line => format!("{}:{line}:{}", self.file.display(), self.column),
        }
    }
}

/// Problems as they are printed: more than five with the same message and hint are one entry, the first of them with the
/// number and some places of the others.
pub fn collapsed_problems(problems: &[Problem]) -> Vec<String> {
    let key = |problem: &Problem| (problem.message.clone(), problem.help.clone());
    let mut groups: HashMap<_, Vec<&Problem>> = HashMap::new();
    for problem in problems {
        groups.entry(key(problem)).or_default().push(problem);
    }
    let printed = |problem: &Problem| {
        let group = groups.get(&key(problem)).filter(|group| group.len() > MAX_ALIKE);
        let Some((first, others)) = group.and_then(|group| group.split_first()) else {
            return Some(problem.to_string());
        };
        if !std::ptr::eq(*first, problem) {
            return None;
        }
        let places: Vec<String> =
            others.iter().take(MAX_ALIKE).map(|other| other.place()).collect();
        let (total, places) = (count(others.len() as u64), places.join(", "));
        Some(format!(
            "{problem}\n  the same problem in {total} other places, such as {places}; `--json` prints all"
        ))
    };
    problems.iter().filter_map(printed).collect()
}

impl fmt::Display for Problem {
    /// Up to three lines in the form of compiler errors, without a final line break.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\n  --> {}", self.message, self.place())?;
        if !self.path.is_empty() {
            write!(f, " at {}", self.path)?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_problems_that_are_alike_are_printed_once() {
        let of = |line: u32, message: &str| Problem {
            file: PathBuf::from("throng.yaml"),
            line,
            column: 5,
            path: format!("destinations[{line}].access_token"),
            message: message.to_owned(),
            help: Some("allow it".to_owned()),
        };
        let mut problems: Vec<Problem> = (1..=1_201).map(|line| of(line, "refused")).collect();
        problems.insert(2, of(9, "another one"));
        let printed = collapsed_problems(&problems);
        let first = "error: refused\n  --> throng.yaml:1:5 at destinations[1].access_token\n  help: allow it\n  the same \
                     problem in 1,200 other places, such as throng.yaml:2:5, throng.yaml:3:5, throng.yaml:4:5, \
                     throng.yaml:5:5, throng.yaml:6:5; `--json` prints all";
        assert_eq!(printed, [first.to_owned(), of(9, "another one").to_string()]);
        let few: Vec<Problem> = (1..=5).map(|line| of(line, "refused")).collect();
        assert_eq!(collapsed_problems(&few).len(), 5);
    }
}
