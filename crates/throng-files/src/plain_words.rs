//! Whether a first line that was taken as the header may be a row of plain words, such as a first name and a
//! city. Pure.
//!
//! The rules for headers refuse a line that can only be a row. Words can be both: such a file is read, the doubt is
//! reported, and what may be values is not shown.

/// Values of a column that are compared with the first line.
const COMPARED: u64 = 1000;

/// Words that name columns and are rarely values, in English and, for names and places, in other languages.
const NAME_WORDS: &str = "account action active address adresse age amount apellido area betrag birthday brand campaign \
    category channel cidade city ciudad class client cliente code color colour comment company consent \
    correo count country coupon created currency customer date datum day department description device \
    domain email event external family first firstname gender given group hash hour id identifier ids \
    item key kind kunde label land language last lastname level list locale location login mail member \
    method middle minute mobile month nachname name names nom nombre note number option order ort owner \
    page pais path pays phone plan platform points postal prenom price product quantity rank reason \
    region role score segment sex size source stadt state status store street subscriber surname tag \
    team telefon telephone tier time timestamp title token total town type unit updated url user \
    username users value ville vorname year zip";

/// Whether the first line of a file names its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeaderEvidence {
    /// The source declares it, or the format has names.
    #[default]
    Certain,
    /// It was taken as the header.
    Assumed,
    /// It was taken as the header, and may be a row: it has no word that names columns, and its fields are written
    /// like the values below them, or one of them is also a value of its column.
    Doubtful,
    /// It was taken as the header, and has no name that can hardly be a value: a field is written as values are, or
    /// there are no rows to compare it with.
    Unsure,
}

/// Words that name columns and are not values, also by themselves.
const CERTAIN_NAMES: [&str; 8] =
    ["id", "userid", "username", "firstname", "lastname", "surname", "vorname", "nachname"];
/// Words that are values, although they could be names.
const VALUE_WORDS: [&str; 6] = ["true", "false", "null", "none", "yes", "no"];

/// Whether a line has a field that names a column and can hardly be a value, such as `user_id`.
pub(crate) fn has_certain_name<'n>(names: impl IntoIterator<Item = &'n str>) -> bool {
    names.into_iter().any(|name| {
        let is_joined = name.contains('_') && is_identifier(name) && digits(name) == 0;
        (is_joined && has_name_word(name)) || CERTAIN_NAMES.contains(&name)
    })
}

/// Whether a field is written as names of columns are rather than as values: in lower case as in a program, or of words
/// that name columns. Numbers, such as years, are compared with the rows.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let name = name.trim();
    let words = words_of(name);
    if words.is_empty() {
        return true;
    }
    let all_known = || words.iter().all(|word| word.chars().count() == 1 || is_name_word(word));
    match words.iter().any(|word| is_name_word(word)) {
        // `address_1`, but not `user_0001`.
        true => digits(name) < 2 && (is_identifier(name) || all_known()),
        false => is_identifier(name) && digits(name) == 0 && !VALUE_WORDS.contains(&name),
    }
}

/// Whether a field is written as names of columns are, and has a word that names columns.
pub(crate) fn is_known_name(name: &str) -> bool {
    is_plain_name(name) && has_name_word(name)
}

/// Whether a line without a certain name may be a row: it has no rows to compare it with, or a field that has digits or
/// is a word for a value.
pub(crate) fn may_be_row(names: &[String], rows: u64) -> bool {
    let is_value = |name: &str| {
        let name = name.trim();
        // Columns may be `c1` and `c2`, but hardly `c001`.
        let digits = digits(name);
        digits > 2 || (digits > 0 && !is_identifier(name)) || VALUE_WORDS.contains(&name)
    };
    let mut unknown = names.iter().filter(|name| !is_plain_name(name));
    let found = unknown.any(|name| rows == 0 || is_value(name));
    found && !has_certain_name(names.iter().map(String::as_str))
}

fn digits(text: &str) -> usize {
    text.chars().filter(char::is_ascii_digit).count()
}

/// Whether a name is written as in a program: in lower case of ASCII, with digits and underscores.
fn is_identifier(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_') && name.chars().all(is_allowed)
}

/// A first line of plain words, with counts of the values of its columns.
pub(crate) struct PlainWords<'a> {
    cells: Vec<WordCell<'a>>,
}

/// A field of the first line.
struct WordCell<'a> {
    text: &'a str,
    style: Style,
    letters: usize,
    /// Values of the column, and rows in which it is blank.
    values: u64,
    blanks: u64,
    /// Values that equal the field's text.
    same: u64,
    /// Values that were compared with its style, those that have it, and the shortest and longest of them all.
    compared: u64,
    alike: u64,
    shortest: usize,
    longest: usize,
}

/// How words are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Lower,
    Upper,
    Capitalized,
}

impl Style {
    /// `None` if the text has other characters than words, or letters without case.
    fn of(text: &str) -> Option<Self> {
        let is_word = |c: char| c.is_alphabetic() || c.is_whitespace() || "-'’.".contains(c);
        let mut letters = text.chars().filter(|c| c.is_alphabetic());
        let first = letters.next().filter(|_| text.chars().all(is_word))?;
        let has = |is: fn(char) -> bool| text.chars().any(is);
        match (has(char::is_lowercase), has(char::is_uppercase)) {
            (true, false) => Some(Self::Lower),
            (false, true) => Some(Self::Upper),
            (true, true) if first.is_uppercase() => Some(Self::Capitalized),
            _ => None,
        }
    }
}

impl<'a> WordCell<'a> {
    /// `None` if the text is a name rather than a value.
    fn of(name: &'a str) -> Option<Self> {
        let trimmed = name.trim();
        let style = Style::of(trimmed).filter(|_| !has_name_word(trimmed))?;
        Some(Self {
            text: name,
            style,
            letters: trimmed.chars().count(),
            values: 0,
            blanks: 0,
            same: 0,
            compared: 0,
            alike: 0,
            shortest: usize::MAX,
            longest: 0,
        })
    }

    fn add(&mut self, value: &str) {
        if value.is_empty() {
            self.blanks += 1;
            return;
        }
        self.values += 1;
        self.same += u64::from(value == self.text);
        if self.compared < COMPARED {
            let trimmed = value.trim();
            self.compared += 1;
            self.alike += u64::from(Style::of(trimmed) == Some(self.style));
            let length = trimmed.chars().count();
            (self.shortest, self.longest) = (self.shortest.min(length), self.longest.max(length));
        }
    }

    /// Written like the values below it, and about as long.
    fn is_alike(&self) -> bool {
        let fits = self.letters.saturating_mul(2) >= self.shortest
            && self.letters <= self.longest.saturating_mul(2);
        self.compared > 0 && self.alike * 10 >= self.compared * 9 && fits
    }

    /// Also a value of its column. The column of a checkbox has its name as its only value.
    fn is_repeated(&self) -> bool {
        let is_checkbox = self.same == self.values && self.blanks > 0;
        self.same > 0 && !is_checkbox
    }
}

/// Whether a text has a word that names columns.
fn has_name_word(text: &str) -> bool {
    words_of(text).iter().any(|word| is_name_word(word))
}

fn is_name_word(word: &str) -> bool {
    NAME_WORDS.split(' ').any(|known| known == word)
}

/// The words of a text in lower case: they are separated, or begin with a capital as in `firstName`.
fn words_of(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = ' ';
    for c in text.chars() {
        let begins = !before.is_alphabetic() || (before.is_lowercase() && c.is_uppercase());
        before = c;
        if !c.is_alphabetic() {
            continue;
        }
        if begins {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.extend(c.to_lowercase());
        }
    }
    words
}

impl<'a> PlainWords<'a> {
    /// `None` if a field of the line is a name rather than a value.
    pub(crate) fn of(names: &'a [String]) -> Option<Self> {
        let cells: Option<Vec<_>> = names.iter().map(|name| WordCell::of(name)).collect();
        cells.filter(|cells| !cells.is_empty()).map(|cells| Self { cells })
    }

    /// Counts a value of a column.
    pub(crate) fn add(&mut self, column: usize, value: &str) {
        if let Some(cell) = self.cells.get_mut(column) {
            cell.add(value);
        }
    }

    /// Whether the line may be a row.
    pub(crate) fn are_like_values(&self) -> bool {
        self.cells.iter().all(WordCell::is_alike) || self.cells.iter().any(WordCell::is_repeated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the first row may be one, given the others.
    fn is_doubtful(rows: &[&[&str]]) -> bool {
        let names: Vec<String> = rows[0].iter().map(|cell| (*cell).to_owned()).collect();
        let Some(mut words) = PlainWords::of(&names) else { return false };
        for row in &rows[1..] {
            row.iter().enumerate().for_each(|(at, value)| words.add(at, value));
        }
        words.are_like_values()
    }

    #[test]
    fn a_row_of_words_is_doubtful() {
        for rows in [
            &[&["Anna", "Berlin"][..], &["Bert", "Hamburg"], &["Clara", "Bad Tölz"]][..],
            &[&["anna", "rome"], &["bert", "paris"], &["clara", "oslo"]],
            &[&["abkqzr"], &["zzrtab"], &["qpwoei"]],
            &[&["ZURICH", "Anna"], &["BERN", "Bert"]],
            &[&["Jean-Luc O'Brien"], &["Anna Maria Rossi"]],
        ] {
            assert!(is_doubtful(rows), "{rows:?}");
        }
        // One value in more than a hundred equals the field.
        let others: Vec<[String; 2]> =
            (0..300).map(|n| [format!("k{n}"), "silver".to_owned()]).collect();
        let mut rows: Vec<Vec<&str>> = vec![vec!["anna", "gold"], vec!["k", "gold"]];
        rows.extend(others.iter().map(|[key, tier]| vec![key.as_str(), tier.as_str()]));
        let rows: Vec<&[&str]> = rows.iter().map(Vec::as_slice).collect();
        assert!(is_doubtful(&rows));
    }

    #[test]
    fn a_header_is_not_doubtful() {
        for rows in [
            &[&["name", "city"][..], &["anna", "rome"]][..],
            &[&["Vorname", "Ort"], &["Anna", "Berlin"]],
            &[&["First name", "Home town"], &["Anna", "Berlin"]],
            &[&["firstName"], &["Anna"]],
            &[&["user_id"], &["abcdefg"]],
            &[&["sku", "loyalty"], &["a1", "gold"]],
            &[&["sku"], &["4711"]],
            &[&["alias"], &["Anna"]],
            &[&["nickname of the user"], &["anna"]],
            &[&["internationalization", "x"], &["ann", "y"]],
            &[&["名前"], &["太郎"]],
            &[&["loyalty"]],
            &[&["", "loyalty"], &["a", "gold"]],
            // A checkbox.
            &[&["gold", "sku"], &["gold", "a1"], &["", "a2"]],
        ] {
            assert!(!is_doubtful(rows), "{rows:?}");
        }
    }

    /// The fields of a line that may be values, if it may be a row.
    fn masked(line: &[&str], rows: u64) -> Vec<String> {
        let names: Vec<String> = line.iter().map(|name| (*name).to_owned()).collect();
        let is_masked = |name: &String| !is_known_name(name);
        if may_be_row(&names, rows) {
            names.into_iter().filter(is_masked).collect()
        } else {
            Vec::new()
        }
    }

    #[test]
    fn a_line_with_values_is_masked_although_it_is_not_like_the_rows() {
        for (line, rows, wanted) in [
            (&["Meier", "Anna", "Bern"][..], 0, &["Meier", "Anna", "Bern"][..]),
            (&["Anna", "City"], 0, &["Anna"]),
            (&["Main Street 7", "Springfield"], 1, &["Main Street 7", "Springfield"]),
            (&["SW1A 1AA", "London"], 1, &["SW1A 1AA", "London"]),
            (&["user_0001", "gold", "city"], 1, &["user_0001", "gold"]),
            (&["u7", "Ann", "true"], 0, &["u7", "Ann", "true"]),
            (&["cust_0001 Anna Meier", "f"], 1, &["cust_0001 Anna Meier", "f"]),
        ] {
            assert_eq!(masked(line, rows), wanted, "{line:?}");
        }
        for (line, rows) in [
            (&["user_id", "Loyalty Tier", "q1_1"][..], 0),
            (&["id", "v7"], 0),
            (&["region", "2025", "2026-11-25"], 0),
            (&["name", "tier", "address_1"], 0),
            (&["First name", "E-mail", "Address 1"], 0),
            (&["USER_ID", "orderTotal"], 0),
            (&["Kundennummer", "Ort"], 3),
            (&["sku", "loyalty"], 3),
            (&["a", "c1"], 3),
            (&["", "loyalty"], 3),
        ] {
            assert_eq!(masked(line, rows), Vec::<String>::new(), "{line:?}");
        }
    }
}
