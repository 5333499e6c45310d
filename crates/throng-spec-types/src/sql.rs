//! Checks of an SQL text that need no tables.

/// The longest SQL text, in bytes.
pub const MAX_SQL_BYTES: usize = 256 << 10;

/// What is wrong with an SQL text.
#[derive(Debug, PartialEq, Eq)]
pub enum SqlFault {
    /// It has only blanks and comments.
    Empty,
    /// It has text after a semicolon.
    Several,
    /// It does not begin like a query; contains the first word.
    NotAQuery(String),
    /// It is longer than [`MAX_SQL_BYTES`].
    TooLong,
    /// A quote or a comment is not closed.
    Unclosed(&'static str),
}

/// Checks that `sql` is one query, and removes its semicolon and the text after it. The beginning
/// is unchanged, so that positions in the text are positions in the file.
///
/// # Errors
/// [`SqlFault`] if it is not one query.
pub fn one_query(sql: &str) -> Result<&str, SqlFault> {
    if sql.len() > MAX_SQL_BYTES {
        return Err(SqlFault::TooLong);
    }
    let mut end = None;
    let mut first_word = None;
    let mut at = 0;
    while at < sql.len() {
        let rest = &sql[at..];
        // A comment of BigQuery. Before the first word only: `#` is an operator of PostgreSQL.
        if first_word.is_none() && rest.starts_with('#') {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        if let Some(length) = gap(rest)? {
            at += length;
            continue;
        }
        if rest.starts_with(';') {
            end.get_or_insert(at);
            at += 1;
            continue;
        }
        if end.is_some() {
            return Err(if first_word.is_some() { SqlFault::Several } else { SqlFault::Empty });
        }
        first_word.get_or_insert(at);
        at += token(rest)?;
    }
    let Some(first) = first_word else { return Err(SqlFault::Empty) };
    let word: String =
        sql[first..].chars().take_while(|c| c.is_ascii_alphabetic()).take(20).collect();
    let known = ["select", "with", "values"].iter().any(|w| word.eq_ignore_ascii_case(w));
    if !known && !sql[first..].starts_with('(') {
        return Err(SqlFault::NotAQuery(word));
    }
    Ok(sql[..end.unwrap_or(sql.len())].trim_end())
}

/// The comments of an SQL text that end with their line, each from its `--` on. Those behind a quote that is not closed are
/// left out.
pub fn line_comments(sql: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < sql.len() {
        let rest = &sql[at..];
        let length = match gap(rest) {
            Ok(Some(length)) => {
                if rest.starts_with("--") {
                    found.push(&rest[..length]);
                }
                length
            }
            Ok(None) => match token(rest) {
                Ok(length) => length,
                Err(_) => break,
            },
            Err(_) => break,
        };
        at += length;
    }
    found
}

/// The length of a blank or a comment at the beginning of `rest`.
fn gap(rest: &str) -> Result<Option<usize>, SqlFault> {
    if let Some(blank) = rest.chars().next().filter(|c| c.is_whitespace()) {
        return Ok(Some(blank.len_utf8()));
    }
    if rest.starts_with("--") {
        return Ok(Some(rest.find('\n').unwrap_or(rest.len())));
    }
    if let Some(inner) = rest.strip_prefix("/*") {
        return match inner.find("*/") {
            Some(length) => Ok(Some(length + 4)),
            None => Err(SqlFault::Unclosed("/*")),
        };
    }
    Ok(None)
}

/// The length of a quoted text or of one character at the beginning of `rest`. A doubled quote in a
/// quoted text is read as two texts, which has the same length.
fn token(rest: &str) -> Result<usize, SqlFault> {
    for (quote, shown) in [('\'', "'"), ('"', "\"")] {
        if let Some(inner) = rest.strip_prefix(quote) {
            return match inner.find(quote) {
                Some(length) => Ok(length + 2),
                None => Err(SqlFault::Unclosed(shown)),
            };
        }
    }
    Ok(rest.chars().next().map_or(1, char::len_utf8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_query_is_one_query() {
        for (sql, kept) in [
            ("SELECT 1", "SELECT 1"),
            ("\nselect 1 ; -- done\n", "\nselect 1"),
            ("-- a; b\nWITH a AS (SELECT ';') SELECT * FROM a", ""),
            ("(SELECT 'it''s; fine')", ""),
            ("SELECT \"a;b\" /* ; */ FROM t", ""),
            ("SELECT 'ü' ;;", "SELECT 'ü'"),
            ("# don't; stop\n -- b\n#c\nSELECT 5 # 3", ""),
        ] {
            let kept = if kept.is_empty() { sql } else { kept };
            assert_eq!(one_query(sql), Ok(kept));
        }
    }

    #[test]
    fn comments_end_with_their_line() {
        let sql = "SELECT '--a' -- b\n, \"--c\" /* -- d\n */ FROM t --e";
        assert_eq!(line_comments(sql), ["-- b", "--e"]);
        assert_eq!(line_comments("SELECT 1 -- a\n'open -- b"), ["-- a"]);
    }

    #[test]
    fn everything_else_is_refused() {
        assert_eq!(one_query(" -- no\n"), Err(SqlFault::Empty));
        assert_eq!(one_query(";"), Err(SqlFault::Empty));
        assert_eq!(one_query("# no"), Err(SqlFault::Empty));
        assert_eq!(one_query("SELECT 1; DROP TABLE a"), Err(SqlFault::Several));
        assert_eq!(one_query("delete from a"), Err(SqlFault::NotAQuery("delete".into())));
        assert_eq!(one_query("SELECT 'a"), Err(SqlFault::Unclosed("'")));
        assert_eq!(one_query("SELECT /* a"), Err(SqlFault::Unclosed("/*")));
        let long = format!("SELECT {}", "a".repeat(MAX_SQL_BYTES));
        assert_eq!(one_query(&long), Err(SqlFault::TooLong));
    }
}
