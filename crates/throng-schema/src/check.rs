//! The checks of a declared schema.

use std::collections::BTreeSet;

use crate::{Anonymise, DAY_COLUMN, Field, FieldType, Schema};

/// Fields of a schema, at most.
pub const MAX_FIELDS: usize = 500;
/// Characters of the name of a field, at most.
const MAX_NAME_CHARS: usize = 128;

/// A problem of a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaProblem {
    /// The place in `fields` of the field that is wrong; `None` for the schema itself.
    pub field: Option<usize>,
    /// The name of the setting that is wrong.
    pub setting: &'static str,
    /// What is wrong.
    pub message: String,
    /// How to fix it.
    pub help: &'static str,
}

impl Schema {
    /// Everything that is wrong with the schema, in the order of its fields.
    pub fn problems(&self) -> Vec<SchemaProblem> {
        let mut problems = Vec::new();
        let mut add = |field, setting, message: String, help| {
            problems.push(SchemaProblem { field, setting, message, help });
        };
        if self.fields.is_empty() || self.fields.len() > MAX_FIELDS {
            let message = format!("a schema has 1 to {MAX_FIELDS} fields");
            add(None, "fields", message, "write `fields:` and below it one `- name: …` per column");
        }
        let mut names = BTreeSet::new();
        for (at, field) in self.fields.iter().enumerate() {
            for (setting, message, help) in field_problems(field) {
                add(Some(at), setting, message, help);
            }
            if !names.insert(field.name.to_lowercase()) {
                let help = "columns that differ in case only are one column in SQL: rename one";
                add(
                    Some(at),
                    "name",
                    format!("the field `{}` is declared twice", field.name),
                    help,
                );
            }
        }
        if let Some(message) = self.key_problem() {
            let help = "name a field that is `required`, not dropped, and not of the type boolean or decimal";
            add(None, "key", message, help);
        }
        if let Some(message) = self.day_problem() {
            let help = "name a field of the type date or timestamp that is `required`; or remove the line, and the \
                        day of arrival counts";
            add(None, "day", message, help);
        }
        let is_country =
            |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase());
        if self.default_country.as_deref().is_some_and(|text| !is_country(text)) {
            let message = "this is not a country".to_owned();
            add(None, "default_country", message, "write two capital letters such as US");
        }
        if !(1..=365).contains(&self.quarantine_days) {
            let message = "`quarantine_days` is not from 1 to 365".to_owned();
            add(None, "quarantine_days", message, "write a number of days such as 30");
        }
        problems
    }

    fn key_problem(&self) -> Option<String> {
        let name = &self.key;
        let Some((_, field)) = self.field(name) else {
            return Some(format!("there is no field `{name}`"));
        };
        if field.anonymise == Some(Anonymise::Drop) {
            return Some(format!("the key `{name}` is dropped"));
        }
        if !field.required {
            return Some(format!("the key `{name}` is not required"));
        }
        (!field.of.is_key())
            .then(|| format!("rows cannot be sorted by `{name}`, which is {}", field.of))
    }

    fn day_problem(&self) -> Option<String> {
        let name = self.day.as_ref()?;
        let Some((_, field)) = self.field(name) else {
            return Some(format!("there is no field `{name}`"));
        };
        if field.anonymise.is_some() {
            return Some(format!("the day `{name}` is dropped or hashed"));
        }
        if !field.required {
            return Some(format!("the day `{name}` is not required"));
        }
        let is_day = matches!(field.of, FieldType::Date | FieldType::Timestamp);
        (!is_day).then(|| format!("the day `{name}` is {}", field.of))
    }
}

type FieldProblem = (&'static str, String, &'static str);

fn field_problems(field: &Field) -> Vec<FieldProblem> {
    let name = &field.name;
    let mut problems: Vec<FieldProblem> = Vec::new();
    let is_name = (1..=MAX_NAME_CHARS).contains(&name.chars().count())
        && !name.chars().any(char::is_control)
        && name.trim() == name;
    if !is_name {
        let message = "this is not a name of a column".to_owned();
        problems.push((
            "name",
            message,
            "write 1 to 128 characters without white space around them",
        ));
    }
    if name.to_lowercase() == DAY_COLUMN {
        let message = "the column `day` is that of the partitions".to_owned();
        problems.push(("name", message, "rename the column in the files"));
    }
    match field.anonymise {
        Some(Anonymise::Hash) if !field.of.is_hashable() => {
            let message = format!("values of the type {} cannot be hashed", field.of);
            problems.push(("anonymise", message, "hash text, email and phone; drop the rest"));
        }
        Some(Anonymise::Drop) if field.required || field.min.is_some() || field.max.is_some() => {
            let message = "a field that is dropped is not checked".to_owned();
            problems.push(("anonymise", message, "remove `required`, `min` and `max`"));
        }
        _ => {}
    }
    let mut bounds = [None, None];
    for (at, (setting, text)) in [("min", &field.min), ("max", &field.max)].into_iter().enumerate()
    {
        let Some(text) = text else { continue };
        bounds[at] = field.of.bound(text);
        if !field.of.has_bounds() {
            let message = format!("values of the type {} have no bounds", field.of);
            problems.push((setting, message, "remove the line"));
        } else if bounds[at].is_none() {
            let message = format!("`{setting}` is not a value of the type {}", field.of);
            let help = "write a value of the type; of text a number of characters";
            problems.push((setting, message, help));
        }
    }
    if let [Some(min), Some(max)] = bounds
        && min > max
    {
        let message = "`min` is more than `max`, so that no value is accepted".to_owned();
        problems.push(("min", message, "exchange them"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(fields: &str) -> Schema {
        let text =
            format!(r#"{{"name": "s", "description": null, "key": "id", "fields": {fields}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    fn settings(schema: &Schema) -> Vec<(Option<usize>, &'static str)> {
        schema.problems().into_iter().map(|problem| (problem.field, problem.setting)).collect()
    }

    #[test]
    fn a_right_schema_has_no_problems() {
        let mut schema = schema(
            r#"[{"name": "id", "type": "text", "required": true, "anonymise": "hash", "max": "64"},
                {"name": "seen", "type": "timestamp", "required": true, "min": "2020-01-01"},
                {"name": "ssn", "type": "text", "anonymise": "drop"}]"#,
        );
        schema.day = Some("seen".to_owned());
        schema.default_country = Some("US".to_owned());
        assert_eq!(settings(&schema), []);
        assert_eq!(schema.quarantine_days, 30);
        assert_eq!(schema.stored().count(), 2);
    }

    #[test]
    fn every_problem_is_found_with_its_place() {
        let mut schema = schema(
            r#"[{"name": "id", "type": "decimal(5, 2)", "min": "2", "max": "1"},
                {"name": "Day", "type": "email", "min": "1"},
                {"name": "ID", "type": "integer", "anonymise": "hash", "max": "x"},
                {"name": " x", "type": "date", "required": true, "anonymise": "drop"}]"#,
        );
        schema.day = Some("ID".to_owned());
        schema.default_country = Some("usa".to_owned());
        schema.quarantine_days = 0;
        let expected = [
            (Some(0), "min"),
            (Some(1), "name"),
            (Some(1), "min"),
            (Some(2), "anonymise"),
            (Some(2), "max"),
            (Some(2), "name"),
            (Some(3), "name"),
            (Some(3), "anonymise"),
            (None, "key"),
            (None, "day"),
            (None, "default_country"),
            (None, "quarantine_days"),
        ];
        assert_eq!(settings(&schema), expected);
    }

    #[test]
    fn a_schema_needs_its_key_and_some_fields() {
        assert_eq!(settings(&schema("[]")), [(None, "fields"), (None, "key")]);
    }
}
