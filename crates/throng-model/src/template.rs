//! Values of templates: one object for every row of a query, whose names and texts have columns of the row.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A text with columns of a row in braces, such as `{region}-buyers`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Piece {
    Literal(String),
    Column(String),
}

/// A text is not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a brace of the pattern is not closed, or names no column")]
pub struct NotAPattern;

impl Pattern {
    /// The pattern as it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The workspace in front of a pattern of names, as in `acme:{region}-buyers`; `None` for the default one.
    pub fn workspace(&self) -> Option<&str> {
        match self.pieces.first() {
            Some(Piece::Literal(text)) => text.split_once(':').map(|(workspace, _)| workspace),
            _ => None,
        }
    }

    /// The columns that it names, in their order.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Column(column) => Some(column.as_str()),
            Piece::Literal(_) => None,
        })
    }

    /// The text with each column replaced by its value. If a column has no value, returns the column.
    ///
    /// # Errors
    /// The column.
    pub fn fill(&self, value: impl Fn(&str) -> Option<String>) -> Result<String, &str> {
        let mut filled = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => filled.push_str(text),
                Piece::Column(column) => filled.push_str(&value(column).ok_or(column.as_str())?),
            }
        }
        Ok(filled)
    }

    /// Whether some values could make this name of the pattern. No value adds a workspace.
    pub fn could_make(&self, text: &str) -> bool {
        if text.split_once(':').map(|(workspace, _)| workspace) != self.workspace() {
            return false;
        }
        let Some(Piece::Literal(first)) = self.pieces.first() else {
            return !text.is_empty() && self.ends_like(text);
        };
        text.starts_with(first.as_str()) && text.len() > first.len() && self.ends_like(text)
    }

    fn ends_like(&self, text: &str) -> bool {
        match self.pieces.last() {
            Some(Piece::Literal(last)) => text.ends_with(last.as_str()),
            _ => true,
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = NotAPattern;

    fn try_from(text: String) -> Result<Self, NotAPattern> {
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while let Some(open) = rest.find(['{', '}']) {
            let (literal, braced) = rest.split_at(open);
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.to_owned()));
            }
            let inner = braced.strip_prefix('{').ok_or(NotAPattern)?;
            let (column, after) = inner.split_once('}').ok_or(NotAPattern)?;
            if column.trim().is_empty() || column.contains('{') {
                return Err(NotAPattern);
            }
            pieces.push(Piece::Column(column.trim().to_owned()));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        Ok(Self { text, pieces })
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A value of a row, with its type. It is bound as a literal of this type, never as text of the SQL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParameterValue {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A decimal number of at most 18 digits: `unscaled` divided by ten to the power of `scale`.
    Decimal {
        /// All digits.
        unscaled: i64,
        /// Digits after the point, 0 to 18.
        scale: u8,
    },
    /// True or false.
    Boolean(bool),
    /// A date as `2026-01-31`.
    Date(String),
}

impl fmt::Display for ParameterValue {
    /// The form in names and descriptions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Date(text) => f.write_str(text),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Decimal { unscaled, scale: 0 } => write!(f, "{unscaled}"),
            Self::Decimal { unscaled, scale } => {
                let scale = usize::from(*scale);
                let sign = if *unscaled < 0 { "-" } else { "" };
                let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = scale + 1);
                let (whole, fraction) = digits.split_at(digits.len() - scale);
                write!(f, "{sign}{whole}.{fraction}")
            }
        }
    }
}

/// Rows that an error lists, at most.
const MAX_SHOWN_ROWS: usize = 5;

/// The rows of a template's query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateRows {
    /// The columns.
    pub columns: Vec<String>,
    /// A value of each column for each row.
    pub rows: Vec<Vec<ParameterValue>>,
}

impl TemplateRows {
    /// Rows as errors name them: by their numbers in the order of the query's result, from 1. Lists five at most.
    ///
    /// ```
    /// use throng_model::TemplateRows;
    ///
    /// assert_eq!(TemplateRows::shown(&[7]), "row 7 of the query's result");
    /// assert_eq!(TemplateRows::shown(&[1, 2]), "rows 1, 2 of the query's result");
    /// let many = TemplateRows::shown(&[2, 3, 5, 7, 11, 13]);
    /// assert_eq!(many, "6 rows of the query's result: 2, 3, 5, 7, 11, …");
    /// ```
    pub fn shown(numbers: &[usize]) -> String {
        let listed = numbers.iter().take(MAX_SHOWN_ROWS).map(ToString::to_string);
        let listed = listed.collect::<Vec<_>>().join(", ");
        match numbers.len() {
            1 => format!("row {listed} of the query's result"),
            count if count <= MAX_SHOWN_ROWS => format!("rows {listed} of the query's result"),
            count => format!("{count} rows of the query's result: {listed}, …"),
        }
    }
}

/// What happens to the object of a row that vanishes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenRemoved {
    /// It stays in the spec.
    #[default]
    Hold,
    /// It leaves the spec, as an object that is no longer written there.
    Archive,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Result<Pattern, NotAPattern> {
        Pattern::try_from(text.to_owned())
    }

    #[test]
    fn columns_are_replaced_by_their_values() {
        let found = pattern("{region}-buyers-{ tier }").unwrap();
        assert_eq!(found.columns().collect::<Vec<_>>(), ["region", "tier"]);
        let value = |column: &str| Some(column.to_uppercase());
        assert_eq!(found.fill(value).unwrap(), "REGION-buyers-TIER");
        assert_eq!(found.fill(|column| (column == "region").then(String::new)), Err("tier"));
        assert_eq!(pattern("plain").unwrap().fill(|_| None).unwrap(), "plain");
    }

    #[test]
    fn braces_that_name_no_column_are_refused() {
        for text in ["{", "}", "a}", "{}", "{ }", "{a{b}", "{a}}"] {
            assert_eq!(pattern(text), Err(NotAPattern), "{text}");
        }
    }

    #[test]
    fn a_pattern_could_make_what_begins_and_ends_like_it() {
        let found = pattern("{region}-buyers").unwrap();
        assert!(found.could_make("emea-buyers"));
        assert!(!found.could_make("emea-visitors"));
        let found = pattern("top-{region}").unwrap();
        assert!(found.could_make("top-emea"));
        assert!(!found.could_make("top-") && !found.could_make("emea"));
    }

    #[test]
    fn a_pattern_makes_names_of_its_workspace_only() {
        let plain = pattern("{region}-buyers").unwrap();
        assert_eq!(plain.workspace(), None);
        assert!(!plain.could_make("acme:emea-buyers"));
        let acme = pattern("acme:{region}-buyers").unwrap();
        assert_eq!(acme.workspace(), Some("acme"));
        assert!(acme.could_make("acme:emea-buyers"));
        assert!(!acme.could_make("emea-buyers") && !acme.could_make("globex:emea-buyers"));
    }

    #[test]
    fn decimals_are_written_with_their_digits() {
        for (unscaled, scale, text) in
            [(1250, 2, "12.50"), (-5, 2, "-0.05"), (7, 0, "7"), (0, 1, "0.0")]
        {
            assert_eq!(ParameterValue::Decimal { unscaled, scale }.to_string(), text);
        }
    }
}
