//! Recognizes rows of a CSV file that are not values: the header of a file that was joined with it, and what database
//! clients and programs write below a result: a count of rows, a comment, an error. Pure.

use csv::ByteRecord;

use crate::format::BYTE_ORDER_MARK;
use crate::kinds::SEPARATORS;

/// The hint for a repeated header.
pub(crate) const JOINED: &str = "put the files into one folder instead of joining them; files without a header need \
     `header: false` in the source";
/// The fault of a count of rows, and its hint.
pub(crate) const COUNT: (&str, &str) = (
    "this line is a count of rows, as psql writes it below a result",
    "remove it: `psql --csv` and `COPY` write no count",
);

/// The same of other clients.
const OTHER_COUNT: (&str, &str) = (
    "this line is a count of rows, as database clients write it below a result",
    "remove it; `mysql --batch` and, in SQL*Plus, `SET FEEDBACK OFF` write no count",
);
const COMMENT: (&str, &str) = ("this line is a comment", "remove it");
const ERROR: (&str, &str) = (
    "this line is an error of the program that wrote the file, or a part of a web page",
    "export the file again: rows may be missing",
);

/// Words that follow a number of rows, at the start of the rest of a line.
const COUNTED: [&str; 8] = [
    "row in set",
    "rows in set",
    "row selected",
    "rows selected",
    "row affected",
    "rows affected",
    "row returned",
    "rows returned",
];
/// Beginnings of errors, and of web pages with which servers answer instead of rows.
const ERRORS: [&str; 9] = [
    "error:",
    "fatal:",
    "fatal error:",
    "traceback (most recent call last)",
    "exception in thread",
    "<html",
    "</html",
    "<!doctype",
    "<?xml",
];

/// A cell without the byte order mark of a file that was appended to another.
pub(crate) fn without_mark(cell: &[u8]) -> &[u8] {
    cell.strip_prefix(BYTE_ORDER_MARK).unwrap_or(cell)
}

fn lower(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().flat_map(char::to_lowercase)
}

/// A text without white space around it, in lower case.
fn plain(text: &str) -> String {
    lower(text.trim()).collect()
}

/// The text of a cell, without what is around it; `None` if it is not UTF-8.
fn text(cell: &[u8]) -> Option<&str> {
    std::str::from_utf8(without_mark(cell)).ok().map(str::trim)
}

/// The names of the columns of a file, by which a header in another order, case or spacing is recognized.
pub(crate) struct JoinedHeader {
    /// As [`plain`] makes them.
    sorted: Vec<String>,
    /// Whether a row can have the same texts by chance: they are numbers and single characters.
    may_be_values: bool,
}

impl JoinedHeader {
    pub(crate) fn of(names: &[String]) -> Self {
        let mut sorted: Vec<String> = names.iter().map(|name| plain(name)).collect();
        sorted.sort_unstable();
        let may_be_value =
            |name: &String| name.chars().nth(1).is_none() || name.parse::<f64>().is_ok();
        let may_be_values = sorted.iter().all(may_be_value);
        Self { sorted, may_be_values }
    }

    /// Whether the fields of a row are the names, each as often as in the header.
    pub(crate) fn is_in(&self, record: &ByteRecord) -> bool {
        if record.len() != self.sorted.len() || self.may_be_values {
            return false;
        }
        // Of almost all rows the first field is not a name, and nothing is copied.
        let first = record.get(0).and_then(text).unwrap_or_default();
        if !self.sorted.iter().any(|name| lower(first).eq(name.chars())) {
            return false;
        }
        record.iter().all(|cell| self.has(cell)) && self.are_names(record.iter().map(text))
    }

    fn has(&self, cell: &[u8]) -> bool {
        text(cell).is_some_and(|cell| self.sorted.binary_search(&plain(cell)).is_ok())
    }

    fn are_names<'t>(&self, fields: impl Iterator<Item = Option<&'t str>>) -> bool {
        let found: Option<Vec<String>> = fields.map(|field| field.map(plain)).collect();
        found.is_some_and(|mut found| {
            found.sort_unstable();
            found == self.sorted
        })
    }

    /// The fault and the hint of a row with another number of fields, if it is the header of another file or a count
    /// of rows.
    pub(crate) fn other_fault(&self, record: &ByteRecord) -> Option<(&'static str, &'static str)> {
        if let Some(one) = record.get(0).and_then(text).filter(|_| record.len() == 1) {
            let is_header =
                |by: &char| one.contains(*by) && self.are_names(one.split(*by).map(Some));
            if SEPARATORS.iter().any(is_header) {
                return Some((
                    "the header is repeated here, and its columns are not separated by commas",
                    "put the files into one folder instead of joining them, with commas between columns in all",
                ));
            }
            return counted(one).map(|_| COUNT);
        }
        let has_all = || self.sorted.iter().all(|name| record.iter().any(|cell| is(cell, name)));
        let is_header = match record.len() < self.sorted.len() {
            true => {
                record.iter().all(|cell| self.has(cell))
                    && record.iter().any(|cell| !cell.is_empty())
            }
            false => self.sorted.len() > 1 && has_all(),
        };
        (is_header && !self.may_be_values)
            .then_some(("a header with other columns is in this line", JOINED))
    }
}

fn is(cell: &[u8], name: &str) -> bool {
    text(cell).is_some_and(|cell| lower(cell).eq(name.chars()))
}

/// The words of a count in parentheses, such as `rows`, and in other languages.
fn counted(line: &str) -> Option<&str> {
    let (count, words) = line.strip_prefix('(')?.strip_suffix(')')?.split_once(' ')?;
    let is_number = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
    let are_words = words.chars().all(|c| c.is_alphabetic() || c == ' ');
    (is_number && are_words).then_some(words)
}

/// The fault and the hint of a row with one field that is not a value, also in a file with one column: a count of rows,
/// as `(2 rows)` of psql, `(2 rows affected)` of SQL Server and `2 rows in set (0.01 sec)` of MySQL, a comment, an error.
pub(crate) fn footer(record: &ByteRecord) -> Option<(&'static str, &'static str)> {
    let line = record.get(0).filter(|_| record.len() == 1).and_then(text)?;
    let starts = |starts: &[&str], line: &str| {
        let is_start = |start: &&str| {
            line.get(..start.len()).is_some_and(|there| there.eq_ignore_ascii_case(start))
        };
        starts.iter().any(is_start)
    };
    match line.as_bytes().first()? {
        b'(' => ["row", "rows", "row affected", "rows affected"]
            .contains(&counted(line)?)
            .then_some(COUNT),
        b'0'..=b'9' => {
            let (count, words) = line.split_once(' ')?;
            let is_number = count.bytes().all(|byte| byte.is_ascii_digit());
            (is_number && starts(&COUNTED, words)).then_some(OTHER_COUNT)
        }
        b'#' => line[1..].starts_with(char::is_whitespace).then_some(COMMENT),
        b'<' | b'A'..=b'Z' | b'a'..=b'z' => starts(&ERRORS, line).then_some(ERROR),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(names: &[&str]) -> JoinedHeader {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        JoinedHeader::of(&names)
    }

    #[test]
    fn a_header_is_recognized_in_another_order_case_and_spacing() {
        let people = header(&["User_ID", " email", "Straße"]);
        for row in [
            ["User_ID", " email", "Straße"],
            ["email", "STRAßE", "user_id"],
            ["\u{feff}user_id", "Email ", "straße"],
        ] {
            assert!(people.is_in(&ByteRecord::from(&row[..])), "{row:?}");
        }
        for row in [
            // Some of the fields, or one of them twice.
            &["user_id", "email", "x"][..],
            &["user_id", "email", "email"],
            &["email", "a@x.com", "u1"],
            &["user_id", "email"],
            &["", "", ""],
        ] {
            assert!(!people.is_in(&ByteRecord::from(row)), "{row:?}");
        }
        assert!(header(&["user_id"]).is_in(&ByteRecord::from(vec!["USER_ID"])));
        assert!(!people.is_in(&ByteRecord::from(vec![&b"email"[..], b"\xFC", b"user_id"])));
        // Counts below the numbers of a pivot table, and letters.
        assert!(!header(&["0", "1"]).is_in(&ByteRecord::from(vec!["1", "0"])));
        assert!(!header(&["a", "b"]).is_in(&ByteRecord::from(vec!["b", "a"])));
    }

    #[test]
    fn a_header_with_other_columns_is_recognized() {
        let people = header(&["user_id", "email"]);
        let fault = |row: &[&str]| people.other_fault(&ByteRecord::from(row)).map(|(text, _)| text);
        for row in ["user_id;email", "Email\tUser_ID", "user_id | email"] {
            assert!(fault(&[row]).unwrap().contains("not separated by commas"), "{row}");
        }
        assert!(fault(&["email", "total", "user_id"]).unwrap().contains("other columns"));
        for row in
            [&["u1;a@x.com"][..], &["u1", "email", "x"], &["user_id"], &["user_id", "x", "y"]]
        {
            assert_eq!(fault(row), None, "{row:?}");
        }
        let three = header(&["user_id", "email", "total"]);
        let found = three.other_fault(&ByteRecord::from(vec!["total", "user_id"]));
        assert_eq!(found, Some(("a header with other columns is in this line", JOINED)));
    }

    #[test]
    fn a_count_of_rows_is_recognized() {
        for line in ["(2 rows)", "(1 row)", "(20 rows affected)"] {
            assert_eq!(footer(&ByteRecord::from(vec![line])), Some(COUNT), "{line}");
        }
        for line in
            ["2 rows in set (0.01 sec)", "1 row selected.", "20 rows affected", "3 Rows Returned"]
        {
            assert_eq!(footer(&ByteRecord::from(vec![line])), Some(OTHER_COUNT), "{line}");
        }
        for line in
            ["2 rows", "(rows)", "(2 pieces)", "( rows)", "(2)", "", "2a rows in set", "in set"]
        {
            assert_eq!(footer(&ByteRecord::from(vec![line])), None, "{line}");
        }
        assert_eq!(footer(&ByteRecord::from(vec!["(2 rows)", ""])), None);
        // In another language, where the number of fields is wrong too.
        let people = header(&["user_id", "email"]);
        assert_eq!(people.other_fault(&ByteRecord::from(vec!["(2 Zeilen)"])), Some(COUNT));
    }

    #[test]
    fn comments_and_errors_below_a_column_are_recognized() {
        for (line, fault) in [
            ("# exported 2026-11-25", Some(COMMENT)),
            ("#\texported", Some(COMMENT)),
            ("ERROR: canceling statement due to timeout", Some(ERROR)),
            ("Traceback (most recent call last):", Some(ERROR)),
            ("<html><body>504 Gateway Time-out</body></html>", Some(ERROR)),
            ("</HTML>", Some(ERROR)),
            ("#42", None),
            ("#", None),
            ("error", None),
            ("errors:1", None),
            ("<a>", None),
            ("ü", None),
        ] {
            assert_eq!(footer(&ByteRecord::from(vec![line])), fault, "{line}");
        }
        assert_eq!(footer(&ByteRecord::from(vec!["# offer", "u1"])), None);
    }
}
