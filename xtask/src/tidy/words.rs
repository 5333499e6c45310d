//! Banned words with their replacements: `words.txt`. Pure.

use anyhow::{Context, Result, ensure};

/// An entry of `words.txt`.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// In lower case it matches any case.
    word: String,
    replacement: String,
    /// Allowed phrases with the word.
    exceptions: Vec<String>,
}

/// A line of `words-allowed.txt`.
#[derive(Debug, PartialEq, Eq)]
struct Allowed {
    /// A file, or a prefix of paths.
    path: String,
    /// An allowed phrase; `*`: everything.
    phrase: String,
}

/// Banned words and their exceptions.
#[derive(Debug)]
pub(super) struct Words {
    entries: Vec<Entry>,
    allowed: Vec<Allowed>,
}

/// A banned word in a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hit<'a> {
    pub(super) word: &'a str,
    pub(super) replacement: &'a str,
}

/// Lines that are neither empty nor comments, with their numbers.
fn entries(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = (1..).zip(text.lines().map(str::trim_end));
    lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
}

impl Words {
    /// Reads both files.
    ///
    /// # Errors
    /// A line in an invalid format.
    pub(super) fn read(words: &str, allowed: &str) -> Result<Self> {
        let mut read = Self { entries: Vec::new(), allowed: Vec::new() };
        for (number, line) in entries(words) {
            let invalid = || format!("words.txt, line {number}: not `word -> replacement`");
            let (word, rest) = line.split_once(" -> ").with_context(invalid)?;
            let (replacement, exceptions) = rest.split_once(" | ").unwrap_or((rest, ""));
            let exceptions = exceptions.split(';').map(str::trim).filter(|text| !text.is_empty());
            let entry = Entry {
                word: word.trim().to_owned(),
                replacement: replacement.trim().to_owned(),
                exceptions: exceptions.map(str::to_owned).collect(),
            };
            ensure!(!entry.word.is_empty() && !entry.replacement.is_empty(), invalid());
            ensure!(entry.word.is_ascii(), "words.txt, line {number}: a word is ASCII");
            read.entries.push(entry);
        }
        for (number, line) in entries(allowed) {
            let invalid = || format!("words-allowed.txt, line {number}: not `path | phrase`");
            let (path, phrase) = line.split_once(" | ").with_context(invalid)?;
            let (path, phrase) = (path.trim().to_owned(), phrase.trim().to_owned());
            ensure!(!path.is_empty() && !phrase.is_empty(), invalid());
            read.allowed.push(Allowed { path, phrase });
        }
        Ok(read)
    }

    /// The banned words of a file, each with its line number.
    pub(super) fn of_file<'a>(&'a self, path: &str, text: &str) -> Vec<(usize, Hit<'a>)> {
        let allowed = self.allowed.iter().filter(|allowed| path.starts_with(&allowed.path));
        let allowed: Vec<&str> = allowed.map(|allowed| allowed.phrase.as_str()).collect();
        if allowed.contains(&"*") {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let lower = line.to_ascii_lowercase();
            for entry in &self.entries {
                let hit = || Hit { word: &entry.word, replacement: &entry.replacement };
                let count = uses(entry, &allowed, line, &lower).count();
                found.extend(std::iter::repeat_with(|| (number, hit())).take(count));
            }
        }
        // A phrase of several words may be divided by the end of a line.
        let lines: Vec<&str> = text.lines().map(text_of).collect();
        for (number, pair) in (1..).zip(lines.windows(2)) {
            let [before, after] = pair else { continue };
            if before.is_empty() || after.is_empty() {
                continue;
            }
            let line = format!("{before} {after}");
            let lower = line.to_ascii_lowercase();
            for entry in self.entries.iter().filter(|entry| entry.word.contains(' ')) {
                let is_divided =
                    |at: usize| at < before.len() && at + entry.word.len() > before.len() + 1;
                if uses(entry, &allowed, &line, &lower).any(is_divided) {
                    let hit = Hit { word: &entry.word, replacement: &entry.replacement };
                    found.push((number, hit));
                }
            }
        }
        found
    }
}

/// The positions of an entry's word in a line, without those inside of an exception.
fn uses<'a>(
    entry: &'a Entry,
    allowed: &'a [&'a str],
    line: &'a str,
    lower: &'a str,
) -> impl Iterator<Item = usize> + 'a {
    positions(line, lower, &entry.word).filter(move |at| {
        let exceptions = entry.exceptions.iter().map(String::as_str);
        let mut phrases = exceptions.chain(allowed.iter().copied());
        !phrases.any(|phrase| covers(lower, phrase, *at, entry.word.len()))
    })
}

/// The text of a line: without the marker of a comment, and without the `\` before a line end inside of a string.
fn text_of(line: &str) -> &str {
    let line = line.trim();
    let line = line.strip_suffix('\\').unwrap_or(line);
    line.trim_start_matches(['/', '!', '*', '#']).trim()
}

/// The positions of a word in a line, as a whole word or as a part of an identifier.
fn positions<'a>(line: &'a str, lower: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_exact = word.bytes().any(|byte| byte.is_ascii_uppercase());
    let text = if is_exact { line } else { lower };
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| is_boundary(line, *at) && is_boundary(line, at + word.len()))
}

/// Whether this is a boundary between words: `a|_b`, `a| b`, `a|Bc`, not `A|BC`.
fn is_boundary(line: &str, at: usize) -> bool {
    let (before, after) = line.split_at(at);
    match (before.chars().next_back(), after.chars().next()) {
        (Some(before), Some(after)) => {
            !before.is_alphanumeric()
                || !after.is_alphanumeric()
                || (!before.is_uppercase() && after.is_uppercase())
        }
        _ => true,
    }
}

/// Whether the phrase occurs in the line and includes these bytes.
fn covers(lower: &str, phrase: &str, at: usize, length: usize) -> bool {
    let phrase = phrase.to_ascii_lowercase();
    lower.match_indices(&phrase).any(|(from, _)| from <= at && at + length <= from + phrase.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str =
        "# comment\n\nzorp -> zip | no zorp; zorp more\nBlick -> look\nout of zip -> empty\n";

    fn hits(line: &str) -> Vec<String> {
        let words = Words::read(WORDS, "quoted.rs | zorp()\nold/ | *\n").unwrap();
        words.of_file("some.rs", line).into_iter().map(|(_, hit)| hit.word.to_owned()).collect()
    }

    #[test]
    fn whole_words_and_parts_of_identifiers_are_found() {
        for line in ["a zorp.", "ZORP_MAX", "is_zorp", "lastZorp", "ZorpError", "zorp\u{e9}? zorp"]
        {
            assert_eq!(hits(line), ["zorp"], "{line}");
        }
        for line in ["zorps", "azorp", "zorp1", "AZORP", "zo rp"] {
            assert!(hits(line).is_empty(), "{line}");
        }
        assert_eq!(hits("zorp zorp"), ["zorp", "zorp"]);
        assert_eq!(hits("// it is out of zip"), ["out of zip"]);
    }

    #[test]
    fn a_phrase_that_is_divided_by_the_end_of_a_line_is_found() {
        let words = Words::read(WORDS, "").unwrap();
        let lines = |text: &str| -> Vec<usize> {
            words.of_file("some.rs", text).into_iter().map(|(line, _)| line).collect()
        };
        assert_eq!(lines("a\n    /// it is out of\n    /// zip now"), [2]);
        assert_eq!(lines("(\"it is out \\\n    of zip\")"), [1]);
        assert_eq!(lines("out of zip\nout of zip"), [1, 2]);
        for text in ["out of\n\nzip", "out of\n///\n/// zip", "without of\nzip", "out of\nzips"] {
            assert!(lines(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn an_entry_with_a_capital_matches_as_it_is_written() {
        assert_eq!(hits("struct BlickError; enum Blick"), ["Blick", "Blick"]);
        assert!(hits("blick BLICK").is_empty());
    }

    #[test]
    fn exceptions_apply_only_to_words_inside_of_them() {
        assert!(hits("there is no zorp, and Zorp more").is_empty());
        assert_eq!(hits("no zorp, but a zorp"), ["zorp"]);
    }

    #[test]
    fn allowed_files_and_phrases_are_skipped() {
        let words = Words::read(WORDS, "quoted.rs | zorp()\nold/ | *\n").unwrap();
        assert!(words.of_file("old/a/b.md", "zorp").is_empty());
        let found = words.of_file("quoted.rs", "zorp()\nzorp(1)");
        assert_eq!(found, [(2, Hit { word: "zorp", replacement: "zip" })]);
    }

    #[test]
    fn invalid_lists_are_refused() {
        for (words, allowed) in
            [("zorp", ""), ("zorp -> ", ""), ("z\u{f6}rp -> x", ""), ("", "a.rs")]
        {
            assert!(Words::read(words, allowed).is_err(), "{words:?} {allowed:?}");
        }
    }

    #[test]
    fn the_lists_of_the_project_can_be_read() {
        let words = Words::read(include_str!("words.txt"), include_str!("words-allowed.txt"));
        assert!(words.unwrap().entries.len() > 50);
    }
}
