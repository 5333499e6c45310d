//! YAML as a tree of values with their positions.

use std::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, NonFiniteFloatPolicy, Spanned};

use super::folded::line_in_comment;

/// A value and its position (behind an alias: that of its definition).
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// A YAML value.
pub(super) enum Value {
    Null,
    Bool(bool),
    /// The number as it is written: a float would change amounts of money.
    Number(String),
    Text {
        text: String,
        /// The line of its first character; for a block, the line below the `|`.
        first_line: u32,
        /// The first line of SQL that YAML has joined to the comment before it, with its first word.
        in_comment: Option<(u32, &'static str)>,
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
    /// The kind of the value, for messages.
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

/// The text is not valid YAML, or exceeds a limit.
pub(super) struct SyntaxError {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// The deepest nesting of lists and fields; a spec has five levels.
const MAX_DEPTH: usize = 24;
/// The most values of one file: more than 100,000 ad groups need.
const MAX_NODES: usize = 3_000_000;
/// The parser events that the aliases of any file may expand to.
const BASE_ALIAS_EVENTS: usize = 4_000;

/// The parser events that the aliases of a file of this size may expand to, and that may be stored
/// for them. A sync that shares `&identifiers` has 60 bytes and expands to about 30 events, so any
/// number of them is allowed; a file whose aliases multiply is not, or it could use up the memory.
fn max_alias_events(bytes: usize) -> usize {
    BASE_ALIAS_EVENTS.saturating_add(bytes)
}

/// Parses one document. Duplicate fields are kept: the reader reports them. The tree has at most
/// [`MAX_NODES`] values, and at most the number of bytes plus the events that aliases may expand
/// to.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let events = max_alias_events(text.len());
    let limits = serde_saphyr::budget! {
        max_events: 3 * MAX_NODES,
        max_nodes: MAX_NODES,
        max_depth: MAX_DEPTH,
        flow_nesting_limit: MAX_DEPTH,
        max_aliases: events,
        max_anchors: events,
        max_recorded_anchor_events: events,
        max_recorded_anchor_bytes: events,
        enforce_alias_anchor_ratio: false,
    };
    let expansion_limits = serde_saphyr::alias_limits! {
        max_total_replayed_events: events,
        max_replay_stack_depth: MAX_DEPTH,
    };
    let options = serde_saphyr::options! {
        budget: limits,
        alias_limits: expansion_limits,
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
    let location = error.location().unwrap_or(serde_saphyr::Location::UNKNOWN);
    let (message, help) = match limit_message(error) {
        Some((message, help)) => (message.to_owned(), help),
        None => {
            // Without the snippet: the line may contain a secret.
            let message = error.without_snippet().to_string();
            let message = message.lines().next().unwrap_or_default();
            let message = message.split(" at line ").next().unwrap_or_default();
            (
                format!("this is not YAML: {message}"),
                "check the indentation and the quotes here and in the line above",
            )
        }
    };
    SyntaxError {
        line: small(location.line()),
        column: small(location.column()),
        message,
        help: Some(format!("{help}; the rest of this file was not checked")),
    }
}

/// The message for a text that exceeds a limit.
fn limit_message(mut error: &serde_saphyr::Error) -> Option<(&'static str, &'static str)> {
    use serde_saphyr::Error;
    use serde_saphyr::budget::BudgetBreach;
    while let Error::AliasError { error: inner, .. } | Error::WithSnippet { error: inner, .. } =
        error
    {
        error = inner;
    }
    let aliases = (
        "the aliases of this file expand to too many values",
        "write values out instead of using `*name`",
    );
    match error {
        Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => Some(aliases),
        Error::MultipleDocuments { .. } => {
            Some(("this file contains several documents", "remove the line `---` between them"))
        }
        Error::Budget { breach, .. } => Some(match breach {
            BudgetBreach::Depth { .. } => {
                ("values are nested too deeply here", "a spec needs five levels")
            }
            BudgetBreach::Aliases { .. }
            | BudgetBreach::Anchors { .. }
            | BudgetBreach::MergeKeys { .. }
            | BudgetBreach::RecordedAnchorEvents { .. }
            | BudgetBreach::RecordedAnchorBytes { .. } => aliases,
            _ => ("this file contains too many values", "put them into several files"),
        }),
        _ => None,
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
            // The position of a block is its first line that is not blank, but blank lines above it
            // belong to the text. In quotes, line breaks at the beginning are written as `\n`.
            let quoted = written().is_some_and(|written| written.starts_with(['"', '\'']));
            let blank = text.chars().take_while(|c| *c == '\n').count();
            let above = if quoted { 0 } else { u32::try_from(blank).unwrap_or(0) };
            let line = small(place.line());
            let in_comment = written().and_then(|written| line_in_comment(&text, written, line));
            Value::Text { text, first_line: line.saturating_sub(above), in_comment }
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

#[cfg(not(test))]
fn count_node() {}

#[cfg(test)]
use tests::count_node;

/// The tree as the deserializer returns it.
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
        count_node();
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
        count_node();
        Ok(Parsed::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Parsed, E> {
        count_node();
        Ok(Parsed::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Parsed, A::Error> {
        count_node();
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Parsed::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Parsed, A::Error> {
        count_node();
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Parsed::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static NODES: Cell<usize> = const { Cell::new(0) };
    }

    /// Counts the texts, lists and maps that are created.
    pub(super) fn count_node() {
        NODES.set(NODES.get() + 1);
    }

    /// The number of values that were created before a text was refused, and the message.
    fn refused(text: &str) -> (usize, String) {
        NODES.set(0);
        match parse(text) {
            Ok(_) => panic!("not refused: {text:.60}"),
            Err(error) => (NODES.get(), error.message),
        }
    }

    #[test]
    fn aliases_that_multiply_are_refused_before_they_expand() {
        let mut lists = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        let mut maps = "a: &a { k0: x, k1: x, k2: x, k3: x }\n".to_owned();
        let mut merges = maps.clone();
        for (from, to) in "abcdefghi".chars().zip("bcdefghij".chars()) {
            lists += &format!("{to}: &{to} [{}]\n", format!("*{from}, ").repeat(10));
            let fields: String = (0..10).map(|n| format!("k{n}: *{from}, ")).collect();
            maps += &format!("{to}: &{to} {{ {fields} }}\n");
            merges += &format!(
                "{to}: &{to} {{ <<: [{}], {to}: *{from} }}\n",
                format!("*{from}, ").repeat(9)
            );
        }
        for text in [lists, maps, merges] {
            let (nodes, message) = refused(&text);
            assert!(
                nodes <= max_alias_events(text.len()),
                "{nodes} values of {} bytes",
                text.len()
            );
            assert!(message.contains("aliases"), "{message}");
        }
        let one = format!("a: &a [{}]\nb: [{}]\n", "x, ".repeat(1_000), "*a, ".repeat(1_000));
        let (nodes, message) = refused(&one);
        assert!(nodes <= 2 * max_alias_events(one.len()), "{nodes} values of {} bytes", one.len());
        assert!(message.contains("aliases"), "{message}");
    }

    #[test]
    fn many_objects_may_share_a_part() {
        let mut text = "shared: &s { a: 1, b: 2, c: [x, y, z], d: { e: f } }\nlist:\n".to_owned();
        for n in 0..3_000 {
            text += &format!("  - {{ name: number-{n}, value: *s, place: somewhere }}\n");
        }
        assert!(parse(&text).is_ok());
    }

    #[test]
    fn deep_values_and_several_documents_are_refused() {
        for deep in ["[".repeat(100_000), "a: ".repeat(100), "- ".repeat(100_000)] {
            let (nodes, message) = refused(&deep);
            assert!(nodes <= 2 * MAX_DEPTH, "{nodes}: {message}");
        }
        assert_eq!(refused("a: 1\n---\nb: 1\n").1, "this file contains several documents");
    }
}
