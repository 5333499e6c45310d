//! Infers the type of a column of CSV or JSON files from its values. Pure.
//!
//! A column gets a type other than text only if writing each of its values gives the text of the
//! file: `00042`, `32E01`, `1e3`, `+1` and integers of more than 64 bits are text. See
//! [`InferredType::value_type`].

use throng_model::trim_invisible;
use throng_spec::ColumnType;

use crate::moment_forms::{is_date, is_unsorted_moment, two};
use crate::number_forms::{Form, NumberForms};
use crate::text_forms::TextForms;

/// The form of numbers that are written as short as possible, such as `5` and `6.5` in one column.
pub const SHORTEST: &str = "shortest";

/// Digits of a decimal that fits 64 bits.
const SMALL_DECIMAL: u8 = 18;
/// Digits of the largest decimal.
const LARGE_DECIMAL: u8 = 38;

/// The narrowest type that all values of a column have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// Any text.
    Text,
    /// Integers of 64 bits.
    Integer,
    /// Numbers with the same count of digits after the point.
    Decimal {
        /// Digits of the longest one, at most.
        digits: u8,
        /// Digits after the point.
        scale: u8,
    },
    /// Floating-point numbers of 64 bits.
    Double,
    /// `true` and `false`.
    Boolean,
    /// Days of the calendar.
    Date,
    /// Points in time, to this unit.
    Timestamp(TimeUnit),
}

/// The unit of the last digit of a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// No digits after the second.
    Second,
    /// 3 digits after the second.
    Millisecond,
    /// 6 digits after the second.
    Microsecond,
    /// 9 digits after the second.
    Nanosecond,
}

/// The kind of value that a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// A 64-bit integer in canonical form; whether a double represents it exactly.
    Integer {
        exact: bool,
    },
    /// A decimal fraction in canonical form: digits, digits after the point, and whether the
    /// nearest double is written in the same way.
    Decimal {
        digits: u32,
        scale: u32,
        exact: bool,
    },
    Boolean,
    Date,
    Timestamp(TimestampFormat),
    Other,
}

/// The format of a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TimestampFormat {
    /// `T` or a space.
    separator: u8,
    /// Digits after the second.
    digits: usize,
    /// Ends with `Z`.
    zulu: bool,
}

/// The kinds of values that a column has. Can be merged with those of other files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InferredType {
    integers: bool,
    decimals: bool,
    booleans: bool,
    dates: bool,
    timestamps: bool,
    /// A value of no other kind, or a JSON string.
    texts: bool,
    /// A number that a double does not represent as it is written.
    inexact: bool,
    /// The number of digits after the point, if all decimals have the same.
    scale: Common<u32>,
    /// Digits of the longest decimal.
    digits: u32,
    format: Common<TimestampFormat>,
    /// A value has white space or invisible characters around it.
    pub padded: bool,
    /// A value has the form by which a spreadsheet keeps a number as text: `="00042"` or `'00042`.
    pub spreadsheet: bool,
    /// A number of a declared type has another text than the type gives it, such as `007` or `+7` of an integer.
    pub rewritten: bool,
    /// The forms of its values.
    pub forms: TextForms,
    /// Those by which they are numbers or dates, also of a declared type.
    pub number_forms: NumberForms,
}

/// The value that all have in common, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Common<T> {
    #[default]
    Unknown,
    One(T),
    Several,
}

impl<T: Copy + PartialEq> Common<T> {
    fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown, other) | (other, Self::Unknown) => other,
            (Self::One(a), Self::One(b)) if a == b => self,
            _ => Self::Several,
        }
    }
}

impl InferredType {
    /// Adds a value as it is written.
    pub fn add(&mut self, text: &str) {
        let class = classify(text.as_bytes());
        self.number_forms.add(form(class, text));
        match class {
            Class::Integer { exact } => {
                self.integers = true;
                self.inexact |= !exact;
                self.forms.add_integers();
            }
            Class::Decimal { digits, scale, exact } => {
                self.decimals = true;
                self.inexact |= !exact;
                self.digits = self.digits.max(digits);
                self.scale = self.scale.with(Common::One(scale));
                self.forms.add_number(text);
            }
            Class::Boolean => self.booleans = true,
            Class::Date => self.dates = true,
            Class::Timestamp(format) => {
                self.timestamps = true;
                self.format = self.format.with(Common::One(format));
            }
            Class::Other => self.add_other(text),
        }
    }

    /// Adds a value that is text whatever it looks like.
    pub fn add_text(&mut self, text: &str) {
        self.number_forms.add(form(classify(text.as_bytes()), text));
        self.add_other(text);
    }

    fn add_other(&mut self, text: &str) {
        self.texts = true;
        self.padded |= trim_invisible(text) != text;
        self.spreadsheet |= is_spreadsheet_text(text);
        self.forms.add(text);
    }

    /// Adds a value of a declared type.
    pub fn add_declared(&mut self, declared: ColumnType, text: &str) {
        self.add_text(text);
        self.rewritten |= match declared {
            ColumnType::Integer => !is_plain(text, 0),
            ColumnType::Decimal { scale, .. } => !is_plain(text, scale),
            _ => false,
        };
    }

    /// Merges the values of another file.
    pub fn merge(&mut self, other: &Self) {
        self.integers |= other.integers;
        self.decimals |= other.decimals;
        self.booleans |= other.booleans;
        self.dates |= other.dates;
        self.timestamps |= other.timestamps;
        self.texts |= other.texts;
        self.inexact |= other.inexact;
        self.scale = self.scale.with(other.scale);
        self.digits = self.digits.max(other.digits);
        self.format = self.format.with(other.format);
        self.padded |= other.padded;
        self.spreadsheet |= other.spreadsheet;
        self.rewritten |= other.rewritten;
        self.forms.merge(&other.forms);
        self.number_forms.merge(&other.number_forms);
    }

    /// The type of the column, and the form in which its values are written if the type has
    /// several: [`SHORTEST`], or that of timestamps (`T`, `TZ`, a space, or a space and `Z`);
    /// `None` if it has no value.
    ///
    /// | all values | type |
    /// |---|---|
    /// | integers of 64 bits | `Integer` |
    /// | decimals with the same number of digits after the point | `Decimal` |
    /// | numbers, each in its shortest form | `Double`, written in the shortest form |
    /// | `true`, `false` | `Boolean` |
    /// | dates as `2026-11-25` | `Date` |
    /// | timestamps of one format | `Timestamp` |
    /// | anything else | `Text` |
    pub fn value_type(&self) -> Option<(ValueType, Option<&'static str>)> {
        let text = Some((ValueType::Text, None));
        let kinds = [
            self.integers || self.decimals,
            self.booleans,
            self.dates,
            self.timestamps,
            self.texts,
        ];
        match kinds {
            [false, false, false, false, false] => None,
            [true, false, false, false, false] => {
                Some(self.number().unwrap_or((ValueType::Text, None)))
            }
            [false, true, false, false, false] => Some((ValueType::Boolean, None)),
            [false, false, true, false, false] => Some((ValueType::Date, None)),
            [false, false, false, true, false] => match self.format {
                Common::One(format) => {
                    Some((ValueType::Timestamp(format.unit()), Some(format.name())))
                }
                _ => text,
            },
            _ => text,
        }
    }

    fn number(&self) -> Option<(ValueType, Option<&'static str>)> {
        match (self.integers, self.decimals, self.scale) {
            (true, false, _) => Some((ValueType::Integer, None)),
            (false, true, Common::One(scale)) if self.digits <= u32::from(LARGE_DECIMAL) => {
                let small = self.digits <= u32::from(SMALL_DECIMAL);
                let digits = if small { SMALL_DECIMAL } else { LARGE_DECIMAL };
                Some((ValueType::Decimal { digits, scale: u8::try_from(scale).ok()? }, None))
            }
            _ if !self.inexact => Some((ValueType::Double, Some(SHORTEST))),
            _ => None,
        }
    }

    /// Whether every value can be read as a double without a change of the text.
    pub fn fits_double(&self) -> bool {
        !(self.booleans || self.dates || self.timestamps || self.texts || self.inexact)
    }
}

impl TimestampFormat {
    fn unit(self) -> TimeUnit {
        match self.digits {
            0 => TimeUnit::Second,
            3 => TimeUnit::Millisecond,
            6 => TimeUnit::Microsecond,
            _ => TimeUnit::Nanosecond,
        }
    }

    /// How it is written.
    fn name(self) -> &'static str {
        match (self.separator, self.zulu) {
            (b'T', false) => "T",
            (b'T', true) => "TZ",
            (_, false) => " ",
            (_, true) => " Z",
        }
    }
}

/// Whether a text has the form by which spreadsheets and their exports keep a number, or what looks like a formula, as
/// text.
fn is_spreadsheet_text(text: &str) -> bool {
    match text.as_bytes() {
        [b'=', b'"', ..] => true,
        // Apostrophes on both sides are another form.
        [b'\'', .., b'\''] => false,
        [b'\'', next, ..] => next.is_ascii_digit() || b"+-=@".contains(next),
        _ => false,
    }
}

/// Whether a number is written with so many digits after the point, and without a plus sign, leading zeros, or a sign of
/// zero.
fn is_plain(text: &str, scale: u8) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (digits, None),
    };
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let zero = digits.bytes().all(|b| matches!(b, b'0' | b'.'));
    all_digits(whole)
        && (whole.len() == 1 || !whole.starts_with('0'))
        && fraction.is_none_or(all_digits)
        && fraction.map_or(0, str::len) == usize::from(scale)
        && !(zero && digits.len() < text.len())
}

/// The form of a value of a class.
fn form(class: Class, text: &str) -> Form {
    match class {
        Class::Integer { .. } => Form::Whole,
        Class::Decimal { .. } => {
            let is_zeros = |(_, fraction): (&str, &str)| fraction.bytes().all(|b| b == b'0');
            if text.split_once('.').is_some_and(is_zeros) { Form::Pointed } else { Form::Number }
        }
        Class::Timestamp(format) if format.separator == b' ' => Form::SpacedMoment,
        Class::Date => Form::Day,
        Class::Timestamp(_) => Form::Moment,
        Class::Boolean => Form::Other,
        Class::Other => {
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            match text.parse::<i64>() {
                Ok(_) => Form::Respelled,
                _ if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                    Form::Number
                }
                _ if is_unsorted_moment(text.as_bytes()) => Form::UnsortedMoment,
                _ => Form::Other,
            }
        }
    }
}

fn classify(text: &[u8]) -> Class {
    match text {
        b"true" | b"false" => Class::Boolean,
        [b'0'..=b'9', ..] if text.len() >= 10 && text[4] == b'-' => temporal(text),
        [b'0'..=b'9' | b'-', ..] => number(text),
        _ => Class::Other,
    }
}

/// A number without an exponent, a plus sign, leading zeros, or a sign of zero.
fn number(text: &[u8]) -> Class {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let (whole, fraction) = match digits.iter().position(|b| *b == b'.') {
        Some(at) => (&digits[..at], Some(&digits[at + 1..])),
        None => (digits, None),
    };
    let all_digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    let plain = all_digits(whole) && (whole.len() == 1 || whole[0] != b'0');
    let zero = digits.iter().all(|b| matches!(b, b'0' | b'.'));
    if !plain || (zero && digits.len() < text.len()) {
        return Class::Other;
    }
    let Ok(written) = std::str::from_utf8(text) else { return Class::Other };
    match fraction {
        None => match written.parse::<i64>() {
            // A double represents integers up to 2^53 exactly.
            Ok(number) => Class::Integer { exact: number.unsigned_abs() <= 1 << 53 },
            Err(_) => Class::Other,
        },
        Some(fraction) if all_digits(fraction) => {
            let exact = written.parse::<f64>().is_ok_and(|number| number.to_string() == written);
            let (digits, scale) = (whole.len() + fraction.len(), fraction.len());
            let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            Class::Decimal { digits: small(digits), scale: small(scale), exact }
        }
        Some(_) => Class::Other,
    }
}

/// `2026-11-25`, or that with `T` or a space and `20:54:00`, 3, 6 or 9 digits after the second,
/// `Z`.
fn temporal(text: &[u8]) -> Class {
    let Some((date, time)) = text.split_at_checked(10) else { return Class::Other };
    if !is_date(date) {
        return Class::Other;
    }
    let [separator @ (b'T' | b' '), time @ ..] = time else {
        return if time.is_empty() { Class::Date } else { Class::Other };
    };
    let (time, zulu) = match time.strip_suffix(b"Z") {
        Some(time) => (time, true),
        None => (time, false),
    };
    let (clock, fraction) = time.split_at_checked(8).unwrap_or((time, b""));
    let pair = |at: usize| two(clock, at);
    let clock_fits = clock.len() == 8
        && clock[2] == b':'
        && clock[5] == b':'
        && pair(0).is_some_and(|n| n < 24)
        && pair(3).is_some_and(|n| n < 60)
        && pair(6).is_some_and(|n| n < 60);
    let digits = match fraction {
        [] => 0,
        [b'.', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => digits.len(),
        _ => return Class::Other,
    };
    // With nanoseconds, only these years fit 64 bits; others are text.
    let year = two(date, 0).unwrap_or(0);
    let fits = digits < 9 || (17..=21).contains(&year);
    if clock_fits && fits && matches!(digits, 0 | 3 | 6 | 9) && (digits > 0 || fraction.is_empty())
    {
        Class::Timestamp(TimestampFormat { separator: *separator, digits, zulu })
    } else {
        Class::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> String {
        let mut inferred = InferredType::default();
        values.iter().for_each(|value| inferred.add(value));
        match inferred.value_type() {
            None => "none".to_owned(),
            Some((value_type, written)) => {
                format!("{value_type:?}{}", written.map(|w| format!(" {w}")).unwrap_or_default())
            }
        }
    }

    #[test]
    fn a_column_has_the_common_type_of_its_values() {
        for (values, found) in [
            (&[][..], "none"),
            (&["1", "-7", "0", "9223372036854775807"], "Integer"),
            (&["1", "00042"], "Text"),
            (&["12E3", "12000"], "Text"),
            (&["1e3"], "Text"),
            (&["+1"], "Text"),
            (&["-0"], "Text"),
            (&[" 1"], "Text"),
            (&["18446744073709551615", "42"], "Text"),
            (&["12.00", "10.10"], "Decimal { digits: 18, scale: 2 }"),
            (&["-0.50"], "Decimal { digits: 18, scale: 2 }"),
            (&["15551234567.0", "1.0"], "Decimal { digits: 18, scale: 1 }"),
            (&["1234567890123456789.55"], "Decimal { digits: 38, scale: 2 }"),
            (&["10.10", "10.1"], "Text"),
            (&["5", "6.5", "2.25"], "Double shortest"),
            (&["5", "6.50"], "Text"),
            (&["9007199254740993", "0.5"], "Text"),
            (&[".5"], "Text"),
            (&["5."], "Text"),
            (&["1.2.3"], "Text"),
            (&["NaN"], "Text"),
            (&["true", "false"], "Boolean"),
            (&["True"], "Text"),
            (&["true", "1"], "Text"),
            (&["2026-02-28", "2024-02-29"], "Date"),
            (&["2026-02-29"], "Text"),
            (&["2026-02-28", "7"], "Text"),
            (&["2026-02-28T20:54:00"], "Timestamp(Second) T"),
            (&["2026-02-28 20:54:00.123Z"], "Timestamp(Millisecond)  Z"),
            (&["2026-02-28T20:54:00", "2026-02-28 20:54:00"], "Text"),
            (&["2026-02-28T20:54:00+01:00"], "Text"),
            (&["2026-02-28T24:00:00"], "Text"),
            (&["2026-02-28T20:54:00."], "Text"),
        ] {
            assert_eq!(of(values), found, "{values:?}");
        }
    }

    #[test]
    fn numbers_of_a_declared_type_may_have_another_text_than_the_file() {
        let decimal = |scale| ColumnType::Decimal { digits: 30, scale };
        for (declared, text, rewritten) in [
            (ColumnType::Integer, "0", false),
            (ColumnType::Integer, "-42", false),
            (ColumnType::Integer, "0001", true),
            (ColumnType::Integer, "+2", true),
            (ColumnType::Integer, "-0", true),
            (decimal(0), "18446744073709551615", false),
            (decimal(0), "7.", true),
            (decimal(2), "10.10", false),
            (decimal(2), "10.1", true),
            (decimal(2), "1", true),
            (decimal(2), "01.10", true),
            (decimal(2), ".50", true),
            (ColumnType::Text, "0001", false),
            (ColumnType::Double, "1.0", false),
        ] {
            let mut inferred = InferredType::default();
            inferred.add_declared(declared, text);
            assert_eq!(inferred.rewritten, rewritten, "{declared:?} {text}");
        }
    }

    #[test]
    fn padding_and_forms_of_spreadsheets_are_noticed() {
        for (text, padded, spreadsheet) in [
            ("a", false, false),
            ("a ", true, false),
            ("42\u{200b}", true, false),
            ("\u{feff}42", true, false),
            ("4\u{200b}2", false, false),
            ("=\"00042\"", false, true),
            ("'00042", false, true),
            ("'+15550100", false, true),
            ("'42'", false, false),
            ("'s-Hertogenbosch", false, false),
            ("=", false, false),
        ] {
            let mut inferred = InferredType::default();
            inferred.add(text);
            assert_eq!((inferred.padded, inferred.spreadsheet), (padded, spreadsheet), "{text:?}");
        }
    }

    #[test]
    fn files_merge_in_any_order() {
        let columns = [&["1"][..], &["2.5"], &["2.50", "1.75"], &["x "], &["true"], &[]];
        for a in columns {
            for b in columns {
                let (mut one, mut two, mut all) =
                    (InferredType::default(), InferredType::default(), InferredType::default());
                a.iter().for_each(|value| one.add(value));
                b.iter().for_each(|value| two.add(value));
                a.iter().chain(b).for_each(|value| all.add(value));
                let (mut merged, mut turned) = (one.clone(), two.clone());
                merged.merge(&two);
                turned.merge(&one);
                assert_eq!((&merged, &turned), (&all, &all), "{a:?} {b:?}");
            }
        }
    }
}
