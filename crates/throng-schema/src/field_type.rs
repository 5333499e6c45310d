//! Types of fields.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use throng_model::ColumnType;

use crate::value;

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum FieldType {
    /// Text as it is written.
    Text,
    /// Signed 64-bit integers.
    Integer,
    /// Decimal numbers with a fixed number of digits.
    Decimal {
        /// The number of digits, 1 to 38.
        digits: u8,
        /// The number of digits after the point, 0 to `digits`.
        scale: u8,
    },
    /// `true` and `false`, or 1 and 0.
    Boolean,
    /// Points in time such as `2026-11-25T10:00:00Z`; without an offset in UTC.
    Timestamp,
    /// Dates such as `2026-11-25`.
    Date,
    /// E-mail addresses.
    Email,
    /// Phone numbers.
    Phone,
}

/// The text does not name a [`FieldType`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a type of a field: {TYPES_HELP}")]
pub struct NotAFieldType;

/// The types, for people.
pub const TYPES_HELP: &str = "the types are text, integer, decimal(DIGITS, SCALE), boolean, timestamp, date, email \
                              and phone";

impl FieldType {
    /// Whether rows can be sorted by it.
    pub fn is_key(self) -> bool {
        !matches!(self, Self::Boolean | Self::Decimal { .. })
    }

    /// Whether its values can be hashed.
    pub fn is_hashable(self) -> bool {
        matches!(self, Self::Text | Self::Email | Self::Phone)
    }

    /// A bound as a number that values of the type are compared with: integers, unscaled decimals, days or
    /// microseconds since 1970, and the number of characters of text. `None` if the text is not a value, or the
    /// type has no bounds.
    pub fn bound(self, text: &str) -> Option<i128> {
        let bytes = text.as_bytes();
        match self {
            Self::Integer => value::integer(bytes).map(i128::from),
            Self::Decimal { digits, scale } => value::decimal(bytes, digits, scale),
            Self::Date => value::date(bytes).map(i128::from),
            Self::Timestamp => value::timestamp(bytes).map(i128::from),
            Self::Text => value::integer(bytes).filter(|count| *count >= 0).map(i128::from),
            Self::Boolean | Self::Email | Self::Phone => None,
        }
    }

    /// Whether its values can have bounds.
    pub fn has_bounds(self) -> bool {
        !matches!(self, Self::Boolean | Self::Email | Self::Phone)
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::Integer => f.write_str("integer"),
            Self::Decimal { digits, scale } => write!(f, "decimal({digits}, {scale})"),
            Self::Boolean => f.write_str("boolean"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Date => f.write_str("date"),
            Self::Email => f.write_str("email"),
            Self::Phone => f.write_str("phone"),
        }
    }
}

impl FromStr for FieldType {
    type Err = NotAFieldType;

    fn from_str(text: &str) -> Result<Self, NotAFieldType> {
        Ok(match text {
            "text" => Self::Text,
            "integer" => Self::Integer,
            "boolean" => Self::Boolean,
            "timestamp" => Self::Timestamp,
            "date" => Self::Date,
            "email" => Self::Email,
            "phone" => Self::Phone,
            // Decimals are those of sources' columns.
            _ => match text.parse::<ColumnType>() {
                Ok(ColumnType::Decimal { digits, scale }) => Self::Decimal { digits, scale },
                _ => return Err(NotAFieldType),
            },
        })
    }
}

impl TryFrom<String> for FieldType {
    type Error = NotAFieldType;

    fn try_from(text: String) -> Result<Self, NotAFieldType> {
        text.parse()
    }
}

impl From<FieldType> for String {
    fn from(of: FieldType) -> Self {
        of.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_they_are_written() {
        for text in
            ["text", "integer", "decimal(12, 2)", "boolean", "timestamp", "date", "email", "phone"]
        {
            assert_eq!(text.parse::<FieldType>().unwrap().to_string(), text);
        }
        for text in ["", "Text", "string", "decimal", "decimal(39, 2)", "decimal(2, 3)"] {
            assert_eq!(text.parse::<FieldType>(), Err(NotAFieldType), "{text}");
        }
    }

    #[test]
    fn bounds_are_values_of_the_type() {
        let decimal = FieldType::Decimal { digits: 6, scale: 2 };
        for (of, text, bound) in [
            (FieldType::Integer, "-5", Some(-5)),
            (FieldType::Integer, "5.5", None),
            (decimal, "1.5", Some(150)),
            (FieldType::Date, "1970-01-02", Some(1)),
            (FieldType::Timestamp, "1970-01-01T00:00:01Z", Some(1_000_000)),
            (FieldType::Text, "3", Some(3)),
            (FieldType::Text, "-3", None),
            (FieldType::Email, "3", None),
        ] {
            assert_eq!(of.bound(text), bound, "{of} {text}");
        }
    }
}
