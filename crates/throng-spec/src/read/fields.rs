//! Reads the fields of an object one by one. A field that is not read is unknown.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use super::tree::{Entry, Node, Value};
use super::{Reader, suggest};
use crate::SecretRef;

/// A position in a file, and the path of the field there.
#[derive(Clone, Debug)]
pub(super) struct At {
    pub(super) file: Arc<Path>,
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) path: String,
}

impl At {
    /// The same path at the position of `node`.
    pub(super) fn at(&self, node: &Node) -> Self {
        Self { line: node.line, column: node.column, ..self.clone() }
    }

    pub(super) fn index(&self, index: usize, node: &Node) -> Self {
        Self { path: format!("{}[{index}]", self.path), ..self.at(node) }
    }

    /// The path of a field, at the position of its key.
    pub(super) fn key(&self, entry: &Entry) -> Self {
        let path = if self.path.is_empty() {
            entry.key.clone()
        } else {
            format!("{}.{}", self.path, entry.key)
        };
        Self { line: entry.line, column: entry.column, path, ..self.clone() }
    }
}

/// The fields of one object.
pub(super) struct Fields<'n> {
    entries: &'n [Entry],
    pub(super) at: At,
    known: Vec<&'static str>,
}

/// Names of fields in other tools.
const SYNONYMS: [(&str, &str); 10] = [
    ("query", "sql"),
    ("model", "sql"),
    ("cron", "schedule"),
    ("timezone", "time_zone"),
    ("budget", "daily_budget"),
    ("bid", "price"),
    ("account_id", "account"),
    ("user_key", "key"),
    ("batch_size", "batch_rows"),
    ("targeting", "include"),
];

impl<'n> Fields<'n> {
    /// `None` (and a problem) if `node` is not a map.
    pub(super) fn open(reader: &mut Reader, node: &'n Node, at: At) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            let message = format!("expected fields, found {}", node.value.kind());
            let help = "write `field: value` lines here".to_owned();
            reader.problem(&at, message, Some(help));
            return None;
        };
        let mut first_lines = BTreeMap::new();
        for entry in entries {
            if let Some(first) = first_lines.insert(entry.key.as_str(), entry.line) {
                let key: String = entry.key.chars().take(60).collect();
                let help = format!("the first is in line {first}: keep one of them");
                reader.problem(&at.key(entry), format!("`{key}` is given twice"), Some(help));
            }
        }
        Some(Self { entries, at, known: Vec::new() })
    }

    /// The fields as they are written.
    pub(super) fn entries(&self) -> &'n [Entry] {
        self.entries
    }

    /// The field's value and its position; `None` if it is missing or null.
    pub(super) fn get(&mut self, name: &'static str) -> Option<(&'n Node, At)> {
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        let at = self.at.key(entry).at(&entry.node);
        (!matches!(entry.node.value, Value::Null)).then_some((&entry.node, at))
    }

    /// Like `get`; reports a problem if it is missing or null.
    pub(super) fn required(
        &mut self,
        reader: &mut Reader,
        name: &'static str,
    ) -> Option<(&'n Node, At)> {
        let found = self.get(name);
        if found.is_none() {
            match self.entries.iter().find(|entry| entry.key == name) {
                Some(entry) => {
                    let at = self.at.key(entry);
                    let help = format!("write a value after `{name}:`");
                    reader.problem(&at, format!("`{name}` is empty"), Some(help));
                }
                None if self.has_misspelling_of(name) => {}
                None => {
                    let help = format!("add `{name}: …`");
                    let message = format!("missing field `{name}`");
                    reader.problem(&self.at.clone(), message, Some(help));
                }
            }
        }
        found
    }

    /// Whether an unknown field will be reported with `name` as its hint, so that "missing field"
    /// would repeat it.
    fn has_misspelling_of(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| {
            SYNONYMS.iter().any(|(other, meant)| *other == entry.key && *meant == name)
                || (suggest::nearest(&entry.key, [name]).is_some()
                    && !self.known.contains(&entry.key.as_str()))
        })
    }

    /// Reports the fields that were not read.
    pub(super) fn done(self, reader: &mut Reader) {
        for entry in self.entries {
            if reader.is_full() {
                return;
            }
            if self.known.contains(&entry.key.as_str()) {
                continue;
            }
            let synonym = SYNONYMS
                .iter()
                .find(|(other, meant)| *other == entry.key && self.known.contains(meant))
                .map(|(_, meant)| format!("did you mean `{meant}`?"));
            let help = synonym.or_else(|| suggest::help(&entry.key, &self.known));
            let key: String = entry.key.chars().take(60).collect();
            reader.problem(&self.at.key(entry), format!("unknown field `{key}`"), help);
        }
    }
}

/// Text as written; a number counts as text.
pub(super) fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::Text { text, .. } | Value::Number(text) => Some(text),
        _ => None,
    }
}

impl Reader {
    /// The text of a node; a problem if it is not a text, or blank.
    pub(super) fn text<'n>(&mut self, node: &'n Node, at: &At) -> Option<&'n str> {
        match text_of(&node.value) {
            Some(text) if text.trim().is_empty() => {
                self.problem(at, "this text is empty", Some("write a text".to_owned()));
                None
            }
            Some(text) => Some(text),
            None => {
                let message = format!("expected text, found {}", node.value.kind());
                self.problem(at, message, Some("write a text in quotes".to_owned()));
                None
            }
        }
    }

    pub(super) fn optional_text(
        &mut self,
        fields: &mut Fields<'_>,
        name: &'static str,
    ) -> Option<String> {
        let (node, at) = fields.get(name)?;
        self.text(node, &at).map(str::to_owned)
    }

    /// A required text; empty after a problem.
    pub(super) fn required_text(&mut self, fields: &mut Fields<'_>, name: &'static str) -> String {
        let found = fields.required(self, name);
        found.and_then(|(node, at)| self.text(node, &at)).unwrap_or_default().to_owned()
    }

    /// A required text that parses as `T`, whose error contains a hint.
    pub(super) fn required_as<T: FromStr<Err: Display>>(
        &mut self,
        fields: &mut Fields<'_>,
        name: &'static str,
    ) -> Option<T> {
        let (node, at) = fields.required(self, name)?;
        self.parsed(node, &at)
    }

    /// A text as `T`. The error's text up to the last `: ` is the message, the rest is the help.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self, node: &Node, at: &At) -> Option<T> {
        let text = self.text(node, at)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                let error = error.to_string();
                match error.rsplit_once(": ") {
                    Some((message, help)) => self.problem(at, message, Some(help.to_owned())),
                    None => self.problem(at, error, None),
                }
                None
            }
        }
    }

    /// A whole number within `range`, or `default`.
    pub(super) fn integer<T>(
        &mut self,
        fields: &mut Fields<'_>,
        name: &'static str,
        range: RangeInclusive<T>,
        default: T,
    ) -> T
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        let Some((node, at)) = fields.get(name) else { return default };
        self.whole(node, &at, name, &range).unwrap_or(default)
    }

    pub(super) fn whole<T>(
        &mut self,
        node: &Node,
        at: &At,
        name: &str,
        range: &RangeInclusive<T>,
    ) -> Option<T>
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        let found = match &node.value {
            Value::Number(text) => text.replace('_', "").parse().ok(),
            _ => None,
        };
        if let Some(number) = found.filter(|number| range.contains(number)) {
            return Some(number);
        }
        let found = match &node.value {
            Value::Number(text) => text.chars().take(40).collect(),
            Value::Text { text, .. } => format!("`{}`", text.chars().take(20).collect::<String>()),
            other => other.kind().to_owned(),
        };
        let message = format!("`{name}` cannot be {found}");
        let help = format!("write a whole number from {} to {}", range.start(), range.end());
        self.problem(at, message, Some(help));
        None
    }

    /// A share from 0 to 1, or `default`.
    pub(super) fn share(
        &mut self,
        fields: &mut Fields<'_>,
        name: &'static str,
        default: f64,
    ) -> f64 {
        let Some((node, at)) = fields.get(name) else { return default };
        let number = match &node.value {
            Value::Number(text) => text.parse::<f64>().ok(),
            _ => None,
        };
        match number {
            Some(share) if (0.0..=1.0).contains(&share) => return share,
            Some(percent) if percent > 1.0 && percent <= 100.0 => {
                let help = format!(
                    "rates are shares from 0 to 1: {percent} percent is {}",
                    percent / 100.0
                );
                self.problem(&at, format!("`{name}` is more than 1"), Some(help));
            }
            Some(_) => {
                let help = "write a share from 0 to 1, such as 0.95".to_owned();
                self.problem(&at, format!("`{name}` is not between 0 and 1"), Some(help));
            }
            None => {
                let help = "write a number from 0 to 1, without quotes".to_owned();
                // Such as `.nan`, which YAML calls a number.
                let message = match &node.value {
                    Value::Number(_) => format!("`{name}` is not between 0 and 1"),
                    other => format!("`{name}` cannot be {}", other.kind()),
                };
                self.problem(&at, message, Some(help));
            }
        }
        default
    }

    /// One of a few words, or `default`.
    pub(super) fn word<T: Copy>(
        &mut self,
        fields: &mut Fields<'_>,
        name: &'static str,
        words: &[(&str, T)],
        default: T,
    ) -> T {
        let Some((node, at)) = fields.get(name) else { return default };
        let Some(text) = self.text(node, &at) else { return default };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return *value;
        }
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let text: String = text.chars().take(40).collect();
        let message = format!("`{name}` cannot be `{text}`");
        let help = match suggest::nearest(&text, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.len() == 1 => format!("write `{}`", known[0]),
            None => format!("write one of {}", known.join(", ")),
        };
        self.problem(&at, message, Some(help));
        default
    }

    /// A reference to a secret. Messages never contain the value: it may be the secret itself.
    pub(super) fn secret(&mut self, node: &Node, at: &At, name: &str) -> Option<SecretRef> {
        let reference = text_of(&node.value).and_then(|text| text.parse().ok());
        match reference {
            Some(SecretRef::File(path)) => Some(SecretRef::File(self.folder.join(path))),
            Some(reference) => Some(reference),
            None => {
                let message = format!("`{name}` must refer to a secret, not contain it");
                let help = "write env:NAME (a variable) or file:PATH (a file), and if this is a real \
                            secret, replace it on the platform";
                self.problem(at, message, Some(help.to_owned()));
                None
            }
        }
    }

    pub(super) fn optional_secret(
        &mut self,
        fields: &mut Fields<'_>,
        name: &'static str,
    ) -> Option<SecretRef> {
        let (node, at) = fields.get(name)?;
        self.secret(node, &at, name)
    }
}
