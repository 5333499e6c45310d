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
    /// The name of the list: lists of different objects have the same orders.
    pub(super) list: String,
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
        let (key, id) = &self.place;
        let fields = (&self.list, &self.sort, key, id, self.is_backward);
        let text = serde_json::to_string(&fields).unwrap_or_default();
        to_hex(text.as_bytes())
    }

    /// `None` if it is not the text of a cursor.
    pub(super) fn decode(text: &str) -> Option<Self> {
        let bytes = from_hex_of_any_length(text)?;
        let (list, sort, key, id, is_backward): (String, String, Key, String, bool) =
            serde_json::from_slice(&bytes).ok()?;
        Some(Self { list, sort, place: (key, id), is_backward })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back() {
        for key in [Key::Number(-1), Key::Text("a\"ü".to_owned())] {
            let place = (key, "7".to_owned());
            let (list, sort) = ("runs".to_owned(), "-id".to_owned());
            let cursor = Cursor { list, sort, place, is_backward: true };
            assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        }
        for text in ["", "0", "zz", "7b7d", "ü"] {
            assert_eq!(Cursor::decode(text), None, "{text}");
        }
    }
}
