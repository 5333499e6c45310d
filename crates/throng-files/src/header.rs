//! Decides whether the first line of a CSV file is a header or a row of values. Pure.
//!
//! CSV does not mark a header. A first row that is read as a header is lost, and its values become
//! names of columns. So a file is refused if the line is probably a row: [`line_fault`] checks the
//! line itself, [`FirstLine`] compares it with the values that follow. The source can declare
//! `header: true` or `header: false`.

use crate::names::personal;

/// Values of a column that are compared with the pattern of the first line.
const COMPARED: u64 = 1000;
/// Characters of the longest number that may be a name, such as a year.
const SHORT_NUMBER: usize = 4;

/// The fault of a first line that is a row.
pub(crate) const VALUES: &str = "the first line holds values and not names of columns";
/// The hint for a first line that is probably a row.
pub(crate) const DECLARE: &str = "start the file with a line that names its columns; or, if no CSV file of the source has one, \
     declare `header: false` and all `columns` in their order; or, if the line does name the columns, \
     `header: true`";
/// The hint for lines before the header.
pub(crate) const LINES_BEFORE: &str = "remove the lines before the one that names the columns";
/// The hint for a first line that is a title, or a header of which one column has a name.
const TITLE: &str = "remove the lines before the one that names the columns; or, if this line does, give each column that has values \
     a name, remove the values in the others, or declare `header: true`";

/// The fault and the hint of a first line that is not a header, independent of the rows that
/// follow.
pub(crate) fn line_fault(names: &[String]) -> Option<(String, &'static str)> {
    let first = names.first()?.trim();
    if first.starts_with('{') {
        return Some(("it is JSON".to_owned(), "give the file a name that ends with .json"));
    }
    let comment = |rest: &str| names.len() == 1 || rest.starts_with(char::is_whitespace);
    if first.strip_prefix('#').is_some_and(comment) {
        return Some(("the first line is a comment".to_owned(), LINES_BEFORE));
    }
    let found = names.iter().enumerate().find_map(|(at, name)| Some((at, value_kind(name)?)));
    let number = || {
        let all = names.iter().all(|name| is_number(name));
        if all { Some(0) } else { unexpected_number(names) }
    };
    let (at, kind) = found.or_else(|| Some((number()?, "a number")))?;
    Some((format!("{VALUES}: field {} is {kind}", at + 1), DECLARE))
}

/// Whether the line is the one by which Excel declares the separator.
pub(crate) fn names_separator(names: &[String]) -> bool {
    let first = names.first().map_or("", |name| name.trim());
    let prefix = first.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("sep="));
    prefix && first.chars().count() <= 5 && names.len() <= 2
}

/// The kind of a cell that cannot be the name of a column.
fn value_kind(cell: &str) -> Option<&'static str> {
    let cell = cell.trim();
    match personal(cell) {
        Some(kind) => Some(kind),
        None if cell.contains("://") => Some("a web address"),
        None if is_number(cell) && cell.len() > SHORT_NUMBER => Some("a number"),
        None => None,
    }
}

/// Digits with points, with or without a sign.
fn is_number(cell: &str) -> bool {
    let digits = cell.trim().trim_start_matches(['-', '+']);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

fn is_year(cell: &str) -> bool {
    let cell = cell.trim();
    cell.len() == 4 && cell.parse().is_ok_and(|year: u32| (1900..2100).contains(&year))
}

/// The first short number in a line of names and numbers, unless the numbers are years, or count
/// from 0 or 1: the columns of pivot tables have such names.
fn unexpected_number(names: &[String]) -> Option<usize> {
    let numbers: Vec<(usize, &str)> = names
        .iter()
        .enumerate()
        .map(|(at, name)| (at, name.trim()))
        .filter(|(_, name)| is_number(name))
        .collect();
    let (first, _) = numbers.first()?;
    let years = numbers.iter().all(|(_, number)| is_year(number));
    let parsed: Option<Vec<u32>> = numbers.iter().map(|(_, number)| number.parse().ok()).collect();
    let counts = parsed.is_some_and(|parsed| {
        parsed.len() > 1
            && parsed[0] <= 1
            && parsed.windows(2).all(|pair| pair[0].checked_add(1) == Some(pair[1]))
    });
    (!years && !counts).then_some(*first)
}

/// The first line, with counts of the values of its columns that are similar to it.
pub(crate) struct FirstLine<'a> {
    cells: Vec<Cell<'a>>,
}

/// A field of the first line.
struct Cell<'a> {
    text: &'a str,
    pattern: ValuePattern,
    /// Values of the column that are not blank.
    values: u64,
    /// Rows in which it is blank.
    blanks: u64,
    /// Values that equal the field's text.
    same: u64,
    /// Values that were compared with its pattern, and those that match it.
    compared: u64,
    matching: u64,
}

/// The pattern of a text, as far as it distinguishes values from names.
enum ValuePattern {
    Year,
    /// The characters, with `a` for a run of letters and `0` for a run of digits.
    Characters(String),
    /// Names and values can both be written like this.
    Any,
}

impl ValuePattern {
    fn of(text: &str) -> Self {
        let there = |is: fn(char) -> bool| text.chars().any(is);
        if is_year(text) {
            Self::Year
        } else if !there(|c| c.is_ascii_digit())
            || is_number(text)
            || (there(char::is_whitespace) && there(char::is_alphabetic))
        {
            // Words with a number between them can be names.
            Self::Any
        } else {
            Self::Characters(characters(text).collect())
        }
    }

    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Year => is_year(value),
            Self::Characters(of) => characters(value).eq(of.chars()),
            Self::Any => false,
        }
    }
}

/// The characters of a text, with `a` for a run of letters and `0` for a run of digits.
fn characters(text: &str) -> impl Iterator<Item = char> + '_ {
    let mut before = None;
    text.chars().filter_map(move |c| {
        let class = match c {
            _ if c.is_ascii_digit() => '0',
            _ if c.is_alphabetic() => 'a',
            _ => c,
        };
        let again = before == Some(class) && matches!(class, '0' | 'a');
        before = Some(class);
        (!again).then_some(class)
    })
}

impl<'a> FirstLine<'a> {
    pub(crate) fn of(names: &'a [String]) -> Self {
        let cell = |name: &'a String| Cell {
            text: name,
            pattern: ValuePattern::of(name.trim()),
            values: 0,
            blanks: 0,
            same: 0,
            compared: 0,
            matching: 0,
        };
        Self { cells: names.iter().map(cell).collect() }
    }

    /// Counts a value of a column.
    pub(crate) fn add(&mut self, column: usize, value: &str) {
        let Some(cell) = self.cells.get_mut(column) else { return };
        if value.is_empty() {
            cell.blanks += 1;
            return;
        }
        cell.values += 1;
        cell.same += u64::from(value == cell.text);
        if cell.compared < COMPARED && !matches!(cell.pattern, ValuePattern::Any) {
            cell.compared += 1;
            cell.matching += u64::from(cell.pattern.matches(value.trim()));
        }
    }

    /// The fault and the hint of the line, if the values show that it is not a header.
    pub(crate) fn fault(&self) -> Option<(String, &'static str)> {
        let blank = |cell: &Cell<'_>| cell.text.trim().is_empty();
        let named = self.cells.iter().filter(|cell| !blank(cell)).count();
        let below = self.cells.iter().skip(1).any(|cell| cell.values > 0);
        if named == 1 && self.cells.len() > 2 && !blank(&self.cells[0]) && below {
            let text = format!("the first line has one name for {} columns", self.cells.len());
            return Some((text, TITLE));
        }
        let (at, how) = self.similar().or_else(|| self.repeated()).or_else(|| self.gap())?;
        Some((format!("{VALUES}: field {} {how}", at + 1), DECLARE))
    }

    /// A field that is written like the values of its column.
    fn similar(&self) -> Option<(usize, &'static str)> {
        let similar =
            |cell: &Cell<'_>| cell.compared > 0 && cell.matching * 10 >= cell.compared * 9;
        Some((self.cells.iter().position(similar)?, "is written like the values below it"))
    }

    /// A field that is also a value of its column. One value in more than a hundred may equal the
    /// name by chance.
    fn repeated(&self) -> Option<(usize, &'static str)> {
        let repeats = |cell: &Cell<'_>| {
            // The column of a checkbox has its name as its only value.
            let is_checkbox = cell.same == cell.values && cell.blanks > 0;
            // A pivot table has counts below numbers.
            cell.same > 0 && !is_checkbox && !is_number(cell.text) && !cell.text.trim().is_empty()
        };
        let several = self.cells.iter().filter(|cell| repeats(cell)).count() > 1;
        let often = |cell: &Cell<'_>| cell.same * 100 >= cell.values;
        let at = self.cells.iter().position(|cell| repeats(cell) && (several || often(cell)))?;
        Some((at, "is a value of its column"))
    }

    /// A blank field between others above a column with values. The first column may have no name:
    /// programs number the rows there. Neither may columns after the last name: spreadsheets have
    /// notes there.
    fn gap(&self) -> Option<(usize, &'static str)> {
        let blank = |cell: &Cell<'_>| cell.text.trim().is_empty();
        let last = self.cells.iter().rposition(|cell| !blank(cell))?;
        let gap = self.cells.iter().take(last).skip(1).position(|c| blank(c) && c.values > 0)?;
        Some((gap + 1, "is blank, and its column is not"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn a_line_of_values_is_not_a_header() {
        for cells in [
            &["u3", "c@example.com"][..],
            &["1", "2.5"],
            &["u", "15551234567"],
            &["ann", "+49 30 1234567"],
            &["f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "gold"],
            &["https://example.com/a", "ann"],
            &["ann", "42"],
            &["ann", "7", "42"],
            &["0"],
            &["# exported by crm"],
            &["# exported by crm", " 2026-11-25"],
            &["{\"error\": \"unauthorized\"}"],
        ] {
            assert!(line_fault(&line(cells)).is_some(), "{cells:?}");
        }
        for cells in [
            &["user_id", "email"][..],
            &["region", "2024", "2025"],
            &["region", "2026-11-25", "11/26/2026"],
            &["user_id", "1", "2", "3"],
            &["user_id", "0", "1"],
            &["@timestamp", "#user_id"],
            &["#user_id", "total"],
            &["", "user_id", "total"],
            &[""],
        ] {
            assert_eq!(line_fault(&line(cells)), None, "{cells:?}");
        }
    }

    #[test]
    fn faults_have_no_value_of_the_data() {
        let (text, help) = line_fault(&line(&["zoe", "zoe@example.com"])).unwrap();
        assert!(text.contains("field 2 is an e-mail address"), "{text}");
        assert!(help.contains("`header: false`") && help.contains("`header: true`"), "{help}");
        assert!(!text.contains("zoe"), "{text}");
    }

    #[test]
    fn the_separator_line_of_a_spreadsheet_is_recognized() {
        for cells in [&["sep=;"][..], &["sep=", ""], &["SEP=\t"], &["\u{a0}sep=|"]] {
            assert!(names_separator(&line(cells)), "{cells:?}");
        }
        for cells in [&["sep=total"][..], &["sep", "b"], &["sé"], &["sep=", "a", "b"]] {
            assert!(!names_separator(&line(cells)), "{cells:?}");
        }
    }

    /// The fault of the first row, given the others.
    fn fault(rows: &[&[&str]]) -> Option<String> {
        let names = line(rows[0]);
        let mut first = FirstLine::of(&names);
        for row in &rows[1..] {
            row.iter().enumerate().for_each(|(at, value)| first.add(at, value));
        }
        first.fault().map(|(text, _)| text)
    }

    #[test]
    fn a_first_line_is_compared_with_the_rows() {
        for (rows, at) in [
            // Written like the values.
            (&[&["u1", "ann"][..], &["u2", "bob"], &["u37", "zoe"]][..], "field 1"),
            (&[&["ann", "1985"], &["bob", "1990"]], "field 2"),
            (&[&["ann", "2026-11-25"], &["bob", "2026-01-02"]], "field 2"),
            (&[&["ann", "2026-11-25 10:00:00"], &["bob", "2026-01-02 09:30:00"]], "field 2"),
            (&[&["ann", "€5"], &["bob", "€12"]], "field 2"),
            // Repeated.
            (&[&["ann", "gold"], &["bob", "silver"], &["zoe", "gold"]], "field 2"),
            (&[&["ann"], &["bob"], &["ann"]], "field 1"),
            // Blank between others.
            (&[&["ann", "", "rome"], &["bob", "gold", "paris"]], "field 2"),
            // A title.
            (&[&["Customers", "", ""], &["user_id", "email", "city"]], "3 columns"),
        ] {
            let text = fault(rows).unwrap_or_default();
            assert!(text.contains(at), "{rows:?}: {text}");
        }
        for rows in [
            &[&["user_id", "total"][..], &["u1", "5"]][..],
            &[&["user_id", "2024", "2025"], &["u1", "17", "4"], &["u2", "1999", "5"]],
            &[&["user_id", "2026-11-25"], &["u1", "17"]],
            &[&["user_id", "address 1"], &["u1", "street 5"]],
            &[&["user_id", "feature_0"], &["u1", "9bde591"]],
            &[&["user_id", "0", "1"], &["u1", "1", "1"]],
            // A checkbox.
            &[&["user_id", "gold"], &["u1", "gold"], &["u2", ""]],
            // A column that numbers the rows, and notes beside the table.
            &[&["", "user_id"], &["0", "u1"]],
            &[&["user_id", "total", ""], &["u1", "5", "called"]],
            &[&["user_id", "", "total"], &["u1", "", "5"]],
            &[&["user_id", ""], &["u1", "x"]],
            &[&["user_id"]],
        ] {
            assert_eq!(fault(rows), None, "{rows:?}");
        }
    }

    #[test]
    fn a_line_with_one_name_is_a_title_or_a_header() {
        let names = line(&["user_id", "", ""]);
        let mut first = FirstLine::of(&names);
        for (column, value) in [(0, "13"), (1, "x"), (2, "")] {
            first.add(column, value);
        }
        let (_, help) = first.fault().unwrap();
        assert!(help.contains("remove the lines before"), "{help}");
        assert!(help.contains("if this line does, give each column"), "{help}");
    }

    #[test]
    fn one_value_of_many_may_equal_the_name_by_chance() {
        let names = line(&["user_id", "coupon"]);
        let mut first = FirstLine::of(&names);
        first.add(1, "coupon");
        (0..200).for_each(|_| first.add(1, "X"));
        assert_eq!(first.fault(), None);
    }
}
