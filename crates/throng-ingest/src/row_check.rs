//! Checks the cells of a row against the schema, and makes the values that are stored.

use throng_model::{is_missing_value, trim_invisible};
use throng_schema::value::{self, MICROS_PER_DAY};
use throng_schema::{Anonymise, Field, FieldType, Schema};

use crate::cells::Cells;
use crate::normalise;
use crate::reason::{Reason, RowFault};

/// A value that is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value {
    Null,
    Boolean(bool),
    /// Integers, days and microseconds.
    Integer(i64),
    Decimal(i128),
    /// A part of [`RowValues::text`].
    Text(usize, usize),
}

/// The values of a row, whose memory is used again for the next one.
#[derive(Debug, Default)]
pub(crate) struct RowValues {
    /// One for each field of the schema; of dropped fields NULL.
    pub(crate) values: Vec<Value>,
    /// The texts of all values.
    pub(crate) text: String,
    /// The day of the partition, in days since 1970-01-01.
    pub(crate) day: i32,
}

/// A field with its bounds as numbers.
#[derive(Debug)]
struct FieldRule {
    of: FieldType,
    required: bool,
    min: Option<i128>,
    max: Option<i128>,
    anonymise: Option<Anonymise>,
}

/// The checks of a schema.
#[derive(Debug)]
pub(crate) struct RowChecks {
    fields: Vec<FieldRule>,
    country: Option<String>,
    day: Option<usize>,
    /// The day of rows if no field decides it.
    today: i32,
}

impl RowChecks {
    pub(crate) fn new(schema: &Schema, today: i32) -> Self {
        let rule = |field: &Field| FieldRule {
            of: field.of,
            required: field.required,
            min: field.min.as_deref().and_then(|text| field.of.bound(text)),
            max: field.max.as_deref().and_then(|text| field.of.bound(text)),
            anonymise: field.anonymise,
        };
        let day = schema.day.as_deref().and_then(|name| schema.field(name)).map(|(at, _)| at);
        Self {
            fields: schema.fields.iter().map(rule).collect(),
            country: schema.default_country.clone(),
            day,
            today,
        }
    }

    /// Checks a row. `places` has the place of each field's cell.
    pub(crate) fn check(
        &self,
        cells: &Cells,
        block: &[u8],
        places: &[Option<usize>],
        out: &mut RowValues,
    ) -> Result<(), RowFault> {
        out.values.clear();
        out.text.clear();
        for (at, (rule, place)) in self.fields.iter().zip(places).enumerate() {
            let cell = place.and_then(|place| cells.get(place, block)).unwrap_or_default();
            let value = if rule.anonymise == Some(Anonymise::Drop) {
                Value::Null
            } else if is_blank(cell) || (rule.has_markers() && is_missing(cell)) {
                if rule.required {
                    return Err(RowFault::of_field(at, Reason::Missing));
                }
                Value::Null
            } else {
                self.value(rule, cell, &mut out.text)
                    .map_err(|reason| RowFault::of_field(at, reason))?
            };
            out.values.push(value);
        }
        let value = self.day.and_then(|day| Some((self.fields.get(day)?, out.values.get(day)?)));
        out.day = match value {
            Some((rule, Value::Integer(number))) => {
                let days = match rule.of {
                    FieldType::Timestamp => number.div_euclid(MICROS_PER_DAY),
                    _ => *number,
                };
                i32::try_from(days).unwrap_or(self.today)
            }
            _ => self.today,
        };
        Ok(())
    }

    fn value(&self, rule: &FieldRule, cell: &[u8], out: &mut String) -> Result<Value, Reason> {
        let bare = cell.trim_ascii();
        match rule.of {
            FieldType::Integer => {
                let number = value::integer(bare).ok_or(Reason::NotAnInteger)?;
                rule.within(i128::from(number))?;
                Ok(Value::Integer(number))
            }
            FieldType::Decimal { digits, scale } => {
                let number = value::decimal(bare, digits, scale).ok_or(Reason::NotADecimal)?;
                rule.within(number)?;
                Ok(Value::Decimal(number))
            }
            FieldType::Boolean => {
                value::boolean(bare).map(Value::Boolean).ok_or(Reason::NotABoolean)
            }
            FieldType::Timestamp => {
                let micros = value::timestamp(bare).ok_or(Reason::NotATimestamp)?;
                rule.within(i128::from(micros))?;
                Ok(Value::Integer(micros))
            }
            FieldType::Date => {
                let days = i64::from(value::date(bare).ok_or(Reason::NotADate)?);
                rule.within(i128::from(days))?;
                Ok(Value::Integer(days))
            }
            FieldType::Text | FieldType::Email | FieldType::Phone => {
                let text = std::str::from_utf8(cell).map_err(|_| Reason::NotUtf8)?;
                self.text(rule, text, out)
            }
        }
    }

    fn text(&self, rule: &FieldRule, text: &str, out: &mut String) -> Result<Value, Reason> {
        let start = out.len();
        let bare = trim_invisible(text);
        let is_hashed = rule.anonymise == Some(Anonymise::Hash);
        if is_hashed && rule.of != FieldType::Text && normalise::is_hash(bare) {
            if normalise::is_hash_of_missing(bare) {
                return if rule.required { Err(Reason::Missing) } else { Ok(Value::Null) };
            }
            out.extend(bare.bytes().map(|byte| char::from(byte.to_ascii_lowercase())));
            return Ok(Value::Text(start, out.len()));
        }
        match rule.of {
            FieldType::Email if !normalise::email(bare, out) => return Err(Reason::NotAnEmail),
            FieldType::Phone => normalise::phone(bare, self.country.as_deref(), out)?,
            FieldType::Email => {}
            _ => {
                let text = if is_hashed { bare } else { text };
                if rule.min.is_some() || rule.max.is_some() {
                    rule.within(text.chars().count() as i128)?;
                }
                out.push_str(text);
            }
        }
        if is_hashed {
            normalise::hash_since(start, out);
        }
        Ok(Value::Text(start, out.len()))
    }
}

impl FieldRule {
    /// Whether a text that exports write for a missing value is one in this field. In others it is stored as any other
    /// text, or fails the check of its type. A hash would hide it: all users without an identifier would have one.
    fn has_markers(&self) -> bool {
        self.required || (self.anonymise == Some(Anonymise::Hash) && self.of == FieldType::Text)
    }

    fn within(&self, number: i128) -> Result<(), Reason> {
        if self.min.is_some_and(|min| number < min) {
            return Err(Reason::BelowMin);
        }
        if self.max.is_some_and(|max| number > max) { Err(Reason::AboveMax) } else { Ok(()) }
    }
}

/// Whether a cell has no value: spreadsheets also write white space that is not ASCII.
fn is_blank(cell: &[u8]) -> bool {
    let bare = cell.trim_ascii();
    match bare.first() {
        None => true,
        Some(byte) if byte.is_ascii_graphic() => false,
        Some(_) => std::str::from_utf8(bare).is_ok_and(|text| text.trim().is_empty()),
    }
}

/// Whether a cell has a text for a missing value, also with white space and invisible characters around it.
fn is_missing(cell: &[u8]) -> bool {
    let bare = cell.trim_ascii();
    let is_plain = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_graphic);
    match is_plain(bare.first()) && is_plain(bare.last()) {
        true => is_missing_value(bare),
        false => std::str::from_utf8(bare)
            .is_ok_and(|text| is_missing_value(trim_invisible(text).as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csv;

    fn checks() -> RowChecks {
        let schema: Schema = serde_json::from_str(
            r#"{"name": "s", "description": null, "key": "id", "day": "at", "default_country": "US", "fields": [
                {"name": "id", "type": "email", "required": true, "anonymise": "hash"},
                {"name": "at", "type": "timestamp", "required": true, "min": "2026-01-01"},
                {"name": "n", "type": "decimal(6, 2)", "max": "10"},
                {"name": "t", "type": "text", "max": "3"},
                {"name": "x", "type": "text", "anonymise": "drop"}]}"#,
        )
        .unwrap();
        assert_eq!(schema.problems(), []);
        RowChecks::new(&schema, 7)
    }

    fn check(line: &str) -> Result<RowValues, RowFault> {
        let (mut cells, mut values) = (Cells::default(), RowValues::default());
        csv::record(line.as_bytes(), 0, &mut cells);
        let places: Vec<_> = (0..5).map(Some).collect();
        checks().check(&cells, line.as_bytes(), &places, &mut values)?;
        Ok(values)
    }

    #[test]
    fn a_row_has_typed_values_and_a_day() {
        let row = check("Mary@Example.com ,2026-11-25T23:00:00-02:00,9.5, ä ,secret").unwrap();
        assert_eq!(row.day, 20_783);
        assert_eq!(row.values[2..], [Value::Decimal(950), Value::Text(64, 68), Value::Null]);
        assert!(row.text.starts_with("f1904cf1a9d73a55") && row.text.ends_with(" ä "));
        assert!(!row.text.contains("secret"));
        let hash = "F1904CF1A9D73A55FA5DE0AC823C4403DED71AFD4C3248D00BDCD0866552BB79";
        let row = check(&format!("{hash},2026-11-25,,,")).unwrap();
        assert_eq!(row.text, hash.to_lowercase());
        assert_eq!(row.values[2..], [Value::Null; 3]);
    }

    fn hash_of(schema: &Schema, text: &str) -> String {
        let (mut cells, mut values) = (Cells::default(), RowValues::default());
        csv::record(text.as_bytes(), 0, &mut cells);
        let checks = RowChecks::new(schema, 7);
        checks.check(&cells, text.as_bytes(), &[Some(0), None], &mut values).unwrap();
        values.text
    }

    #[test]
    fn white_space_and_texts_for_missing_values_have_no_hash() {
        let schema: Schema = serde_json::from_str(
            r#"{"name": "s", "description": null, "key": "id", "fields": [
                {"name": "id", "type": "text", "required": true, "anonymise": "hash"},
                {"name": "t", "type": "text", "anonymise": "hash"}]}"#,
        )
        .unwrap();
        let (mut cells, mut values) = (Cells::default(), RowValues::default());
        let mut check = |line: &str| {
            csv::record(line.as_bytes(), 0, &mut cells);
            let places = [Some(0), Some(1)];
            let checked =
                RowChecks::new(&schema, 7).check(&cells, line.as_bytes(), &places, &mut values);
            checked.map(|()| values.values.clone())
        };
        for blank in [
            "\u{a0}",
            "\u{b}",
            "\t\u{3000}\u{a0}",
            "NULL",
            "\\N",
            " nan ",
            "\u{a0}NULL",
            "NULL\u{a0}",
            "\u{feff}n/a",
            "\u{200b}",
            " \u{200b}None\u{a0} ",
        ] {
            let fault = RowFault::of_field(0, Reason::Missing);
            assert_eq!(check(&format!("{blank},a")), Err(fault), "{blank:?}");
            let row = check(&format!("a,{blank}")).unwrap();
            assert_eq!(row[1], Value::Null, "{blank:?}");
        }
        // Characters that show nothing change no hash.
        let shown = ["abc", "\u{feff}abc", "abc\u{200b} "].map(|text| hash_of(&schema, text));
        assert!(shown.iter().all(|hash| *hash == shown[0]), "{shown:?}");
    }

    #[test]
    fn the_hash_of_a_missing_value_is_no_value() {
        let schema: Schema = serde_json::from_str(
            r#"{"name": "s", "description": null, "key": "id", "fields": [
                {"name": "id", "type": "email", "required": true, "anonymise": "hash"},
                {"name": "phone", "type": "phone", "anonymise": "hash"}]}"#,
        )
        .unwrap();
        let checks = RowChecks::new(&schema, 7);
        let (mut cells, mut values) = (Cells::default(), RowValues::default());
        let mut check = |line: &str| {
            csv::record(line.as_bytes(), 0, &mut cells);
            let places = [Some(0), Some(1)];
            let checked = checks.check(&cells, line.as_bytes(), &places, &mut values);
            checked.map(|()| values.values.clone())
        };
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let null = {
            let mut text = "NULL".to_owned();
            normalise::hash_since(0, &mut text);
            text
        };
        let around = format!(" {nothing}\u{a0}");
        for nothing in [nothing.to_owned(), nothing.to_uppercase(), around, null, "0".repeat(64)] {
            let fault = RowFault::of_field(0, Reason::Missing);
            assert_eq!(check(&format!("{nothing},")), Err(fault), "{nothing:?}");
            let row = check(&format!("mary@example.com,{nothing}")).unwrap();
            assert_eq!(row, [Value::Text(0, 64), Value::Null], "{nothing:?}");
        }
        // Another hash is an identifier, whatever it is of.
        let hash = "f1904cf1a9d73a55fa5de0ac823c4403ded71afd4c3248d00bdcd0866552bb79";
        let row = check(&format!("{hash},{hash}")).unwrap();
        assert_eq!(row, [Value::Text(0, 64), Value::Text(64, 128)]);
    }

    #[test]
    fn the_first_fault_of_a_row_names_its_field() {
        let fault =
            |line: &str| check(line).err().map(|fault| (fault.field.unwrap(), fault.reason));
        for (line, field, reason) in [
            (",2026-11-25,,,", 0, Reason::Missing),
            (" ,2026-11-25,,,", 0, Reason::Missing),
            (" \u{a0}\u{2003} ,2026-11-25,,,", 0, Reason::Missing),
            ("NULL,2026-11-25,,,", 0, Reason::Missing),
            ("a@example.com, \\N ,,,", 1, Reason::Missing),
            ("a@example.com,2026-11-25,NULL,,", 2, Reason::NotADecimal),
            ("a@b,2026-11-25,,,", 0, Reason::NotAnEmail),
            ("a@example.com,25.11.2026,,,", 1, Reason::NotATimestamp),
            ("a@example.com,2025-12-31,,,", 1, Reason::BelowMin),
            ("a@example.com,2026-11-25,x,,", 2, Reason::NotADecimal),
            ("a@example.com,2026-11-25,10.01,,", 2, Reason::AboveMax),
            ("a@example.com,2026-11-25,,abcd,", 3, Reason::AboveMax),
        ] {
            assert_eq!(fault(line), Some((field, reason)), "{line}");
        }
    }
}
