//! SQL without its layout. Pure.

/// The SQL without comments, and with every run of white space outside of quotes as one space. Two
/// texts with the same result have the same meaning.
pub fn canonical(sql: &str) -> String {
    let sql = sql.trim();
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    let mut space = false;
    while let Some(next) = rest.chars().next() {
        if next.is_whitespace() {
            space = true;
            rest = rest.trim_start();
            continue;
        }
        if is_comment(rest) {
            space = true;
            rest = &rest[comment(rest)..];
            continue;
        }
        let length = literal(sql, rest, next);
        if std::mem::take(&mut space) && !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out.truncate(out.trim_end_matches([';', ' ']).len());
    out
}

/// The length of the quoted text or of the character `next` at the start of `rest`, which is the end of `sql`. The quotes
/// of the lake's parser: also `E'…'`, in which a backslash escapes, and `$$…$$` and `$tag$…$tag$`. If one of them was
/// taken for other text, a part of it could count as a comment, and a change of it would not be seen.
fn literal(sql: &str, rest: &str, next: char) -> usize {
    match next {
        '\'' if ends_with_escape(&sql[..sql.len() - rest.len()]) => escaped(rest),
        '\'' | '"' | '`' => quoted(rest, next),
        '$' => dollar_quoted(rest),
        _ => next.len_utf8(),
    }
}

/// Whether the quote that follows this text begins a text with backslashes: after the word `E`.
fn ends_with_escape(before: &str) -> bool {
    let before = before.strip_suffix(['e', 'E']);
    before.is_some_and(|before| !before.ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// The length of a text with backslashes at the start.
fn escaped(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, next)) = chars.next() {
        match next {
            '\\' => _ = chars.next(),
            '\'' if chars.next_if(|(_, after)| *after == '\'').is_none() => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a text between dollars at the start, or that of the dollar before a parameter.
fn dollar_quoted(text: &str) -> usize {
    let after = &text[1..];
    let tag = after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len());
    if !after[tag..].starts_with('$') {
        return 1;
    }
    let (delimiter, inside) = text.split_at(tag + 2);
    inside.find(delimiter).map_or(text.len(), |at| at + 2 * delimiter.len())
}

/// The length of a quoted text at the start. A doubled quote is read as two adjacent quoted texts,
/// which gives the same result.
fn quoted(text: &str, quote: char) -> usize {
    text[1..].find(quote).map_or(text.len(), |at| at + 2)
}

/// Whether a comment is at the start.
fn is_comment(text: &str) -> bool {
    text.starts_with("--") || text.starts_with("/*")
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
        let length = if is_comment(rest) { comment(rest) } else { literal(sql, rest, next) };
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
    fn every_part_of_a_quoted_text_counts() {
        for (one, other) in [
            (r"SELECT E'it\'s -- 1'", r"SELECT E'it\'s -- 2'"),
            (r"SELECT e'a''\' -- 1'", r"SELECT e'a''\' -- 2'"),
            ("SELECT $$ü -- 1$$", "SELECT $$ü -- 2$$"),
            ("SELECT $a$'  $$ -- 1$a$", "SELECT $a$' $$ -- 1$a$"),
        ] {
            assert_ne!(canonical(one), canonical(other));
        }
        // A backslash in another text, and a dollar before a parameter.
        assert_eq!(canonical(r"SELECT '\' -- x"), r"SELECT '\'");
        assert_eq!(canonical(r"SELECT nameE'\' -- x"), r"SELECT nameE'\'");
        assert_eq!(canonical("SELECT $a  , $b -- x"), "SELECT $a , $b");
        assert_eq!(canonical("SELECT $$a$$  , E'b' -- x"), "SELECT $$a$$ , E'b'");
        assert_eq!((depth(r"E'\'' (("), depth("$$((($$ (")), (2, 1));
    }

    #[test]
    fn broken_sql_is_accepted() {
        let dollars = ["$", "$$", "$ü", "$ü$", "$$$", "$a$ü$", r"E'\", "E'", "e"];
        for sql in
            ["", "'", "\"ü", "/*", "/* /* */", "--", "é/*é", ";;;"].into_iter().chain(dollars)
        {
            canonical(sql);
            depth(sql);
        }
    }
}
