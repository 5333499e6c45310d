//! The place in a list from which a page is read, as text without a meaning for clients.

use serde::{Deserialize, Serialize};
use throng_model::{from_hex_of_any_length, to_hex};

/// A row's value of the field that a list is sorted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Key {
    /// An id, a number or a time.
    Number(i64),
    /// A name.
    Text(String),
}

/// The place of a row: its value, and its id, which decides between rows with the same value.
pub(super) type Place = (Key, String);

/// A place, and the rows that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The order of the list, as in the parameter `sort`.
    pub(super) sort: String,
    /// The row.
    pub(super) place: Place,
    /// Whether the rows before it are wanted; otherwise those after it.
    pub(super) is_backward: bool,
}

impl Cursor {
    /// Lower-case hexadecimal digits, which need no escaping in a URL.
    pub(super) fn encode(&self) -> String {
        let fields = (&self.sort, &self.place.0, &self.place.1, self.is_backward);
        let text = serde_json::to_string(&fields).unwrap_or_default();
        to_hex(text.as_bytes())
    }

    /// `None` if it is not the text of a cursor.
    pub(super) fn decode(text: &str) -> Option<Self> {
        let bytes = from_hex_of_any_length(text)?;
        let (sort, key, id, is_backward): (String, Key, String, bool) =
            serde_json::from_slice(&bytes).ok()?;
        Some(Self { sort, place: (key, id), is_backward })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back() {
        for key in [Key::Number(-1), Key::Text("a\"ü".to_owned())] {
            let place = (key, "7".to_owned());
            let cursor = Cursor { sort: "-id".to_owned(), place, is_backward: true };
            assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        }
        for text in ["", "0", "zz", "7b7d", "ü"] {
            assert_eq!(Cursor::decode(text), None, "{text}");
        }
    }
}
