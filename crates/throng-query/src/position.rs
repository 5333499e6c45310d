//! The position of an error in an SQL text, and the name that was probably intended. Pure.

use throng_model::edit_distance;

/// A place in an SQL text; line and column from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// Parses `… at Line: 3, Column: 7` in a parser's message, and returns the message without it.
pub fn from_parser(message: &str) -> (String, Option<Position>) {
    let Some(at) = message.rfind(" at Line: ") else { return (message.to_owned(), None) };
    let mut numbers = message[at..]
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse::<u32>().ok());
    let position =
        numbers.next().zip(numbers.next()).map(|(line, column)| Position { line, column });
    (message[..at].to_owned(), position)
}

/// The first position of `word` as a whole word in the SQL, outside of single quotes and of comments that begin with `--`.
pub fn of_word(sql: &str, word: &str) -> Option<Position> {
    of_words(sql, word).first().copied()
}

/// The position of `word` as [`of_word`] finds it, if the SQL has it once: of several ones, another may be meant than the
/// first.
pub fn of_only_word(sql: &str, word: &str) -> Option<Position> {
    match of_words(sql, word).as_slice() {
        [only] => Some(*only),
        _ => None,
    }
}

fn of_words(sql: &str, word: &str) -> Vec<Position> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (number, line) in sql.lines().enumerate() {
        let code = line.split("--").next().unwrap_or(line);
        for (at, _) in code.to_lowercase().match_indices(&word.to_lowercase()) {
            // Lower-casing can change the length of some letters; such a position is not reported.
            let (Some(before), Some(after)) = (code.get(..at), code.get(at + word.len()..)) else {
                continue;
            };
            let quoted = before.matches('\'').count() % 2 == 1;
            let whole = !before.ends_with(is_word) && !after.starts_with(is_word);
            if !whole || quoted {
                continue;
            }
            let (line, column) = (number + 1, before.chars().count() + 1);
            if let (Ok(line), Ok(column)) = (u32::try_from(line), u32::try_from(column)) {
                found.push(Position { line, column });
            }
        }
    }
    found
}

/// The candidate nearest to `word`, if it is near enough for a typing error.
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    candidates
        .iter()
        .map(|c| (edit_distance(&word.to_lowercase(), &c.to_lowercase()), *c))
        .filter(|(distance, c)| *distance <= 1 + c.chars().count().min(12) / 4)
        .min()
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parser_positions_are_read() {
        let (message, position) = from_parser("Expected: x, found: y at Line: 3, Column: 17");
        assert_eq!(message, "Expected: x, found: y");
        assert_eq!(position, Some(Position { line: 3, column: 17 }));
    }

    #[test]
    fn only_whole_words_outside_of_quotes_and_comments_are_found() {
        let sql = "SELECT 'totl'\nFROM subtotl -- totl\nWHERE a.totl > 1";
        assert_eq!(of_word(sql, "totl"), Some(Position { line: 3, column: 9 }));
        assert_eq!(of_word(sql, "nothing"), None);
    }

    #[test]
    fn of_several_words_none_is_the_only_one() {
        let sql = "SELECT id FROM a JOIN b USING (id)\nFULL JOIN c USING (id) -- FULL";
        assert_eq!(of_word(sql, "JOIN"), Some(Position { line: 1, column: 18 }));
        assert_eq!(of_only_word(sql, "JOIN"), None);
        assert_eq!(of_only_word(sql, "full"), Some(Position { line: 2, column: 1 }));
        assert_eq!(of_only_word(sql, "RIGHT"), None);
    }

    #[test]
    fn typing_errors_are_recognized() {
        assert_eq!(nearest("totl", &["customer", "total"]), Some("total"));
        assert_eq!(nearest("banana", &["customer", "total"]), None);
    }
}
