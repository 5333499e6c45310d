//! Comments of SQL that YAML makes longer. YAML joins the lines of a text that does not begin with `|` by spaces: a comment
//! `-- …` of SQL then ends after them, and a `WHERE` in the line below it is not applied. Pure.

use std::collections::HashSet;

use throng_spec_types::{MAX_SQL_BYTES, line_comments};

/// Words with which the lines of an SQL text begin.
const WORDS: [&str; 30] = [
    "SELECT",
    "FROM",
    "WHERE",
    "AND",
    "OR",
    "NOT",
    "ON",
    "USING",
    "JOIN",
    "LEFT",
    "RIGHT",
    "INNER",
    "FULL",
    "CROSS",
    "NATURAL",
    "GROUP",
    "HAVING",
    "QUALIFY",
    "WINDOW",
    "ORDER",
    "LIMIT",
    "OFFSET",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
];

/// Steps for each line: a text whose lines are nearly alike would otherwise need their number squared.
const STEPS_PER_LINE: usize = 32;

/// The first line of SQL that has become a part of the comment before it, with its first word. `text`: the SQL as YAML reads
/// it; `written`: the file from the beginning of the text on, which is in line `first_line`. None is found in a text that is
/// too long for SQL.
pub(super) fn line_in_comment(
    text: &str,
    written: &str,
    first_line: u32,
) -> Option<(u32, &'static str)> {
    if text.len() > MAX_SQL_BYTES || !text.contains("--") {
        return None;
    }
    // The rest of a file may be long. In the file the text has indentation, quotes and escapes besides.
    let mut most = 8 * text.len() + 4_096;
    let lines: Vec<&str> = written
        .lines()
        .take_while(|line| {
            let is_near = most > 0;
            most = most.saturating_sub(line.len() + 1);
            is_near
        })
        .collect();
    // A line of the text that is also one of the file is not joined, such as each of a block that begins with `|`.
    let in_file: HashSet<&str> = lines.iter().map(|line| line.trim()).collect();
    let joined_lines: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !in_file.contains(line)).collect();
    let mut steps = STEPS_PER_LINE * (lines.len() + 32);
    line_comments(text).into_iter().find_map(|comment| {
        let comment = comment.trim_end();
        steps = steps.checked_sub(joined_lines.len())?;
        if !joined_lines.iter().any(|line| line.ends_with(comment)) {
            return None;
        }
        let (at, word) = joined(comment, &lines, &mut steps)?;
        Some((first_line.saturating_add(u32::try_from(at).ok()?), word))
    })
}

/// The line, from 0, that was joined to a comment. `None` also after so many `steps`.
fn joined(comment: &str, lines: &[&str], steps: &mut usize) -> Option<(usize, &'static str)> {
    for (at, line) in lines.iter().enumerate() {
        *steps = steps.checked_sub(1)?;
        let Some(start) = line.find("--") else { continue };
        let begun = line[start..].trim_end();
        if begun == comment {
            return None;
        }
        let Some(mut rest) = comment.strip_prefix(begun) else { continue };
        for (below, next) in lines.iter().enumerate().skip(at + 1) {
            *steps = steps.checked_sub(1)?;
            let next = next.trim();
            rest = rest.trim_start();
            let is_next = |word: &&str| begins_with(next, word) && begins_with(rest, word);
            if let Some(word) = WORDS.into_iter().find(is_next) {
                return Some((below, word));
            }
            match rest.strip_prefix(next) {
                Some(after) if !next.is_empty() => rest = after,
                _ => break,
            }
        }
    }
    None
}

/// Whether a text begins with a word, in any case.
fn begins_with(text: &str, word: &str) -> bool {
    let start = text.get(..word.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(word))
        && !text[word.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_yaml_joins_to_a_comment_is_found() {
        let from = "SELECT id FROM s.u";
        for (text, written, found) in [
            ("-- a\n  WHERE n > 5", "-- a WHERE n > 5", Some((8, "WHERE"))),
            ("-- a\n  where n > 5", "-- a where n > 5\n", Some((8, "WHERE"))),
            ("-- a\n  -- b\n  WHERE n > 5", "-- a -- b WHERE n > 5", Some((9, "WHERE"))),
            ("WHERE n > 5 -- a\n  AND id > 'b'", "WHERE n > 5 -- a AND id > 'b'", Some((8, "AND"))),
            // A block that keeps its lines, a comment that ends the text, and one without SQL behind it.
            ("-- a\n  WHERE n > 5", "-- a\nWHERE n > 5", None),
            ("-- a\n", "-- a", None),
            ("-- all, with\n  wherever", "-- all, with wherever", None),
            ("WHERE t = '-- a\n  AND b'", "WHERE t = '-- a AND b'", None),
            // The first line of the file that begins like the comment is another one.
            ("-- a\n  WHERE n > 5\n  -- a b", "-- a\nWHERE n > 5\n-- a b", None),
            // A comment of a block that keeps its lines begins like an earlier one and the line below that.
            ("-- of\n  WHERE n > 5 -- of where", "-- of\nWHERE n > 5 -- of where", None),
            ("--\n  WHERE n > 5 -- where", "--\nWHERE n > 5 -- where", None),
        ] {
            // The file has the lines, and YAML makes the text of them.
            let (in_file, read) = (format!("{from}\n  {text}\nnext: x\n"), written);
            let read = format!("{from} {read}");
            assert_eq!(line_in_comment(&read, &in_file, 6), found, "{read}");
        }
    }
    #[test]
    fn the_work_for_a_text_is_bounded() {
        let lines = ["SELECT id FROM s.u", "-- a", "WHERE n > 5"];
        let found = |mut steps: usize| joined("-- a WHERE n > 5", &lines, &mut steps);
        assert_eq!(found(3), Some((2, "WHERE")));
        assert_eq!(found(2), None);
        let (read, in_file) = ("SELECT id FROM s.u -- a WHERE n > 5", lines.join("\n"));
        assert_eq!(line_in_comment(read, &in_file, 1), Some((3, "WHERE")));
        let too_long = format!("{read}{}", " ".repeat(MAX_SQL_BYTES));
        assert_eq!(line_in_comment(&too_long, &in_file, 1), None);
    }
}
