//! Forms of texts that are doubtful as keys: one number or name may be written in several of them. Pure.

/// What is doubtful about the texts of a column, as keys and identifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoubtfulForm {
    /// Whole numbers are written with and without digits after the point: `1` and `1.0`.
    TwoForms,
    /// A spreadsheet has changed values: `1.23457E+12`, `########`, `1-Mar`, `#REF!`.
    Changed,
    /// Values are between apostrophes: `'a1'`.
    Apostrophes,
}

/// Errors of the formulas of spreadsheets.
const ERRORS: [&str; 8] =
    ["#REF!", "#N/A", "#VALUE!", "#NAME?", "#DIV/0!", "#NUM!", "#NULL!", "#SPILL!"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The forms that values of a column have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TextForms {
    /// `1`
    whole: bool,
    /// `1.0`
    pointed: bool,
    changed: bool,
    apostrophes: bool,
}

impl TextForms {
    /// Adds a value, as it is written.
    pub(crate) fn add(&mut self, text: &str) {
        match text.as_bytes() {
            [b'0'..=b'9', ..] => {
                self.add_number(text);
                self.changed |= is_rounded(text) || is_day(text);
            }
            [b'-', b'0'..=b'9', ..] => self.add_number(text),
            [b'#', rest @ ..] => {
                self.changed |= (rest.len() > 1 && rest.iter().all(|byte| *byte == b'#'))
                    || ERRORS.contains(&text);
            }
            [b'A'..=b'Z', ..] => self.changed |= is_day(text),
            [b'\'', .., b'\''] => self.apostrophes |= text.len() > 2,
            _ => {}
        }
    }

    /// Adds a value that begins with a digit, or with a minus and a digit.
    pub(crate) fn add_number(&mut self, text: &str) {
        if self.whole && self.pointed {
            return;
        }
        let text = text.strip_prefix('-').unwrap_or(text);
        let all_digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        match text.split_once('.') {
            None => self.whole |= all_digits(text),
            Some((whole, zeros)) => {
                self.pointed |=
                    all_digits(whole) && !zeros.is_empty() && zeros.bytes().all(|b| b == b'0');
            }
        }
    }

    /// Adds integers of a file that states their type.
    pub fn add_integers(&mut self) {
        self.whole = true;
    }

    /// Merges the values of another file.
    pub fn merge(&mut self, other: &Self) {
        self.whole |= other.whole;
        self.pointed |= other.pointed;
        self.changed |= other.changed;
        self.apostrophes |= other.apostrophes;
    }

    /// What is doubtful about them, if they are text.
    pub fn doubts(&self) -> impl Iterator<Item = DoubtfulForm> + use<> {
        let forms = [
            (self.whole && self.pointed, DoubtfulForm::TwoForms),
            (self.changed, DoubtfulForm::Changed),
            (self.apostrophes, DoubtfulForm::Apostrophes),
        ];
        forms.into_iter().filter_map(|(is_there, form)| is_there.then_some(form))
    }
}

/// Whether a text is a long number as Excel shows it, such as `1.23457E+12`: the last digits are lost.
fn is_rounded(text: &str) -> bool {
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let Some((number, power)) = text.len().checked_sub(4).and_then(|at| text.split_at_checked(at))
    else {
        return false;
    };
    let is_power = power.strip_prefix("E+").is_some_and(all_digits);
    let mut parts = number.split('.');
    let (whole, fraction, more) = (parts.next(), parts.next(), parts.next());
    let is_digit = whole.is_some_and(|whole| whole.len() == 1 && all_digits(whole));
    is_power && is_digit && fraction.is_none_or(all_digits) && more.is_none()
}

/// Whether a text is a day or a month as Excel shows what it takes for one, such as `1-Mar` or `Mar-01`.
fn is_day(text: &str) -> bool {
    let is_number = |part: &str| {
        (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let parts = Some(text).filter(|text| text.len() <= 6).and_then(|text| text.split_once('-'));
    parts.is_some_and(|(one, other)| {
        (is_number(one) && MONTHS.contains(&other))
            || (MONTHS.contains(&one) && other.len() == 2 && is_number(other))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubts(texts: &[&str]) -> Vec<DoubtfulForm> {
        let mut forms = TextForms::default();
        texts.iter().for_each(|text| forms.add(text));
        forms.doubts().collect()
    }

    #[test]
    fn values_that_a_spreadsheet_has_changed_are_doubtful() {
        for text in
            ["1.23457E+12", "4E+11", "########", "1-Mar", "31-Dec", "Mar-01", "#REF!", "#N/A"]
        {
            assert_eq!(doubts(&[text]), [DoubtfulForm::Changed], "{text}");
        }
        assert_eq!(doubts(&["'a1'", "'b2'"]), [DoubtfulForm::Apostrophes]);
        for text in [
            "32E01",
            "1.5E+1",
            "12E+12",
            "1.2.3E+12",
            "1.23457E+12x",
            "1E-05",
            "#",
            "#42",
            "#a",
            "1-Mai",
            "1-March",
            "1-Mar-90",
            "Mar-x1",
            "Mar-1",
            "mar-01",
            "''",
            "'",
            "'s-Hertogenbosch",
            "",
        ] {
            assert!(doubts(&[text]).is_empty(), "{text}");
        }
    }

    #[test]
    fn whole_numbers_in_two_forms_are_doubtful() {
        for texts in [["1", "2.0"], ["3.00", "42"], ["00042", "42.0"], ["-1.0", "7"], ["-7", "1.0"]]
        {
            assert_eq!(doubts(&texts), [DoubtfulForm::TwoForms], "{texts:?}");
        }
        for texts in [
            ["1", "2.5"],
            ["1.0", "2.0"],
            ["1", "2."],
            ["1", "v1.0"],
            ["1", "1.0.0"],
            ["1", "--1.0"],
        ] {
            assert!(doubts(&texts).is_empty(), "{texts:?}");
        }
    }
}
