//! SQL without its layout. Pure.

/// The SQL without comments, and with every run of white space outside of quotes as one space. Two
/// texts with the same result have the same meaning.
pub fn canonical(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql.trim();
    let mut space = false;
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '\'' | '"' | '`' => quoted(rest, next),
            _ if next.is_whitespace() => {
                space = true;
                rest = rest.trim_start();
                continue;
            }
            _ if rest.starts_with("--") || rest.starts_with("/*") => {
                space = true;
                rest = &rest[comment(rest)..];
                continue;
            }
            _ => next.len_utf8(),
        };
        if std::mem::take(&mut space) && !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out.truncate(out.trim_end_matches([';', ' ']).len());
    out
}

/// The length of a quoted text at the start. A doubled quote is read as two adjacent quoted texts,
/// which gives the same result.
fn quoted(text: &str, quote: char) -> usize {
    text[1..].find(quote).map_or(text.len(), |at| at + 2)
}

/// The length of a comment at the start; comments in `/*` may contain others.
fn comment(text: &str) -> usize {
    if text.starts_with("--") {
        return text.find('\n').unwrap_or(text.len());
    }
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// How deep parentheses are nested, outside of quotes and comments.
pub fn depth(sql: &str) -> usize {
    let (mut rest, mut open, mut deepest) = (sql, 0_usize, 0);
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '\'' | '"' | '`' => quoted(rest, next),
            _ if rest.starts_with("--") || rest.starts_with("/*") => comment(rest),
            _ => next.len_utf8(),
        };
        match next {
            '(' | '[' => open += 1,
            ')' | ']' => open = open.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(open);
        rest = &rest[length..];
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_and_comments_are_removed_and_quotes_are_kept() {
        assert_eq!(canonical(" SELECT\n\t a -- one\n FROM b ; "), "SELECT a FROM b");
        assert_eq!(canonical("SELECT /* a /* b */ c */ 1"), "SELECT 1");
        assert_eq!(canonical("SELECT 'x  -- y' , \"a  b\""), "SELECT 'x  -- y' , \"a  b\"");
        assert_eq!(canonical("SELECT 'it''s  ü'"), "SELECT 'it''s  ü'");
        // The comma is a comment in the first one only.
        assert_ne!(canonical("SELECT a -- x , b"), canonical("SELECT a -- x\n, b"));
    }

    #[test]
    fn broken_sql_is_accepted() {
        for sql in ["", "'", "\"ü", "/*", "/* /* */", "--", "é/*é", ";;;"] {
            canonical(sql);
        }
    }
}
