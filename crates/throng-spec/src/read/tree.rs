//! YAML as a tree in which every value knows its place.

use std::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, NonFiniteFloatPolicy, Spanned};

/// A value and where it is written (behind an alias: where it is defined).
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// What is written.
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As written: amounts of money must not pass through a float.
    Number(String),
    Text {
        text: String,
        /// The line of its first character; of a block, the line below the `|`.
        first_line: u32,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One field of a map.
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) node: Node,
}

impl Value {
    /// For messages: what was found instead of what was expected.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(true) => "`true`",
            Self::Bool(false) => "`false`",
            Self::Number(_) => "a number",
            Self::Text { .. } => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "fields",
        }
    }
}

/// Why a text is not YAML.
pub(super) struct SyntaxError {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// Parses one document. Repeated fields are kept: the reader reports them.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    // A thousand syncs may share one `&identifiers`, and a spec of 100,000 ad groups is fine;
    // the limits on what aliases may unfold to stay as they are.
    let limits = serde_saphyr::budget! {
        max_events: 20_000_000,
        max_nodes: 10_000_000,
        enforce_alias_anchor_ratio: false,
    };
    let options = serde_saphyr::options! {
        budget: limits,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Parsed>>(text, options) {
        Ok(parsed) => Ok(node(parsed, text)),
        Err(error) => Err(syntax_error(&error)),
    }
}

fn syntax_error(error: &serde_saphyr::Error) -> SyntaxError {
    // Without the snippet: the line may hold a secret that was pasted there.
    let message = error.without_snippet().to_string();
    let message = message.lines().next().unwrap_or_default();
    let message = message.split(" at line ").next().unwrap_or_default();
    let location = error.location().unwrap_or(serde_saphyr::Location::UNKNOWN);
    SyntaxError {
        line: small(location.line()),
        column: small(location.column()),
        message: format!("this is not YAML: {message}"),
        help: Some(
            "look at the indentation and the quotes here and in the line above; \
             the rest of this file was not checked"
                .to_owned(),
        ),
    }
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn node(parsed: Spanned<Parsed>, source: &str) -> Node {
    let place = parsed.defined;
    let written = || {
        let from = usize::try_from(place.span().byte_offset()?).ok()?;
        source.get(from..)
    };
    let value = match parsed.value {
        Parsed::Null => Value::Null,
        Parsed::Bool(value) => Value::Bool(value),
        Parsed::Number(number) => {
            let text = place.span().byte_len().and_then(|length| {
                let text = written()?.get(..usize::try_from(length).ok()?)?.trim();
                text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
                    .then(|| text.to_owned())
            });
            Value::Number(text.unwrap_or(number))
        }
        Parsed::Text(text) => {
            // The place of a block is its first line that is not blank, but blank lines above it
            // belong to the text. In quotes, line breaks at the beginning are written as `\n`.
            let quoted = written().is_some_and(|written| written.starts_with(['"', '\'']));
            let blank = text.chars().take_while(|c| *c == '\n').count();
            let above = if quoted { 0 } else { u32::try_from(blank).unwrap_or(0) };
            Value::Text { text, first_line: small(place.line()).saturating_sub(above) }
        }
        Parsed::List(items) => {
            Value::List(items.into_iter().map(|item| node(item, source)).collect())
        }
        Parsed::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| Entry {
                    line: small(key.defined.line()),
                    column: small(key.defined.column()),
                    key: key.value,
                    node: node(value, source),
                })
                .collect(),
        ),
    };
    Node { value, line: small(place.line()), column: small(place.column()) }
}

/// The tree as the deserialiser hands it over.
enum Parsed {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Spanned<Parsed>>),
    Map(Vec<(Spanned<String>, Spanned<Parsed>)>),
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ParsedVisitor)
    }
}

struct ParsedVisitor;

impl<'de> Visitor<'de> for ParsedVisitor {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Parsed, E> {
        Ok(Parsed::Null)
    }

    fn visit_none<E>(self) -> Result<Parsed, E> {
        Ok(Parsed::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Parsed, E> {
        Ok(Parsed::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Parsed, E> {
        Ok(Parsed::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Parsed, E> {
        Ok(Parsed::Number(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Parsed, E> {
        Ok(Parsed::Number(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Parsed, E> {
        Ok(Parsed::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Parsed, E> {
        Ok(Parsed::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Parsed, E> {
        Ok(Parsed::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Parsed, E> {
        Ok(Parsed::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Parsed, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Parsed::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Parsed, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Parsed::Map(map))
    }
}
