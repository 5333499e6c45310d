//! Types of columns that a source declares.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The type of a column of a source's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ColumnType {
    /// Text: every value as it is written.
    Text,
    /// Signed 64-bit integers.
    Integer,
    /// Decimal numbers with a fixed number of digits.
    Decimal {
        /// The number of digits, 1 to 38.
        digits: u8,
        /// The number of digits after the decimal point, 0 to `digits`.
        scale: u8,
    },
    /// 64-bit floating point numbers.
    Double,
    /// `true` and `false`.
    Boolean,
    /// Dates such as `2026-11-25`.
    Date,
    /// Points in time such as `2026-11-25 10:00:00`.
    Timestamp,
}

impl ColumnType {
    /// Names all types, for people.
    pub const HELP: &'static str = HELP;
}

/// The text does not name a [`ColumnType`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a column type: {HELP}")]
pub struct NotAColumnType;

/// The types, in a sentence.
const HELP: &str =
    "the types are text, integer, decimal(DIGITS, SCALE), double, boolean, date and timestamp";

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::Integer => f.write_str("integer"),
            Self::Decimal { digits, scale } => write!(f, "decimal({digits}, {scale})"),
            Self::Double => f.write_str("double"),
            Self::Boolean => f.write_str("boolean"),
            Self::Date => f.write_str("date"),
            Self::Timestamp => f.write_str("timestamp"),
        }
    }
}

impl FromStr for ColumnType {
    type Err = NotAColumnType;

    fn from_str(text: &str) -> Result<Self, NotAColumnType> {
        Ok(match text {
            "text" => Self::Text,
            "integer" => Self::Integer,
            "double" => Self::Double,
            "boolean" => Self::Boolean,
            "date" => Self::Date,
            "timestamp" => Self::Timestamp,
            _ => {
                let inside = text.strip_prefix("decimal(").and_then(|t| t.strip_suffix(')'));
                let (digits, scale) =
                    inside.and_then(|t| t.split_once(',')).ok_or(NotAColumnType)?;
                let number = |text: &str| text.trim().parse::<u8>().map_err(|_| NotAColumnType);
                let (digits, scale) = (number(digits)?, number(scale)?);
                if !(1..=38).contains(&digits) || scale > digits {
                    return Err(NotAColumnType);
                }
                Self::Decimal { digits, scale }
            }
        })
    }
}

impl TryFrom<String> for ColumnType {
    type Error = NotAColumnType;

    fn try_from(text: String) -> Result<Self, NotAColumnType> {
        text.parse()
    }
}

impl From<ColumnType> for String {
    fn from(of: ColumnType) -> Self {
        of.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_they_are_written() {
        for text in ["text", "integer", "decimal(12, 2)", "double", "boolean", "date", "timestamp"]
        {
            assert_eq!(text.parse::<ColumnType>().unwrap().to_string(), text);
        }
        assert!("decimal(38,38)".parse::<ColumnType>().is_ok());
        for text in
            ["", "Text", "string", "decimal", "decimal(39, 2)", "decimal(2, 3)", "decimal(0,0)"]
        {
            assert_eq!(text.parse::<ColumnType>(), Err(NotAColumnType), "{text}");
        }
    }
}
