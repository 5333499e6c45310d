//! The place in a list from which a page is read, as text without a meaning for clients.

use serde::{Deserialize, Serialize};

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
        text.bytes().map(|byte| format!("{byte:02x}")).collect()
    }

    /// `None` if it is not the text of a cursor.
    pub(super) fn decode(text: &str) -> Option<Self> {
        let digits: Vec<u32> =
            text.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
        if !digits.len().is_multiple_of(2) {
            return None;
        }
        let bytes = digits.chunks(2).map(|pair| {
            let byte = pair.iter().fold(0, |byte: u32, digit| byte * 16 + digit);
            u8::try_from(byte).ok()
        });
        let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
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
