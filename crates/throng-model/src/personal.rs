//! Values that must not be printed: personal data and secrets.

use std::collections::HashSet;
use std::fmt;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use crate::missing::MISSING_VALUES;

/// A raw personal identifier. It cannot be serialized, and `Debug` masks it. It exists only in the
/// worker that hashes it.
#[derive(Clone, PartialEq, Eq)]
pub struct Personal(String);

impl Personal {
    /// Wraps a raw value.
    pub fn new(raw: impl Into<String>) -> Self {
        Self(raw.into())
    }

    /// The raw value, for normalization.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Personal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Personal(…)")
    }
}

/// A secret from the environment or a file: an access token, a password. `Debug` masks it, and it
/// cannot be serialized.
///
/// ```
/// use throng_model::Secret;
///
/// let token = Secret::new("s3cret");
/// assert_eq!(format!("{token:?}"), "Secret(…)");
/// assert_eq!(token.expose(), "s3cret");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(raw: impl Into<String>) -> Self {
        Self(raw.into())
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The SHA-256 of a normalized identifier, as ad platforms require it. 32 bytes here, 64 lower-case
/// hexadecimal digits on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashedIdentifier(pub [u8; 32]);

impl HashedIdentifier {
    /// Hashes a normalized value.
    ///
    /// ```
    /// use throng_model::HashedIdentifier;
    ///
    /// let hash = HashedIdentifier::of_normalised("mary@example.com");
    /// assert!(hash.to_hex().starts_with("f1904cf1a9d73a55"));
    /// ```
    pub fn of_normalised(normalised: &str) -> Self {
        Self(Sha256::digest(normalised.as_bytes()).into())
    }

    /// Whether it is the hash of an empty text, or no hash: all bits are the same.
    ///
    /// ```
    /// use throng_model::HashedIdentifier;
    ///
    /// assert!(HashedIdentifier::of_normalised("").is_of_nothing());
    /// assert!(HashedIdentifier([0; 32]).is_of_nothing());
    /// assert!(!HashedIdentifier::of_normalised("mary@example.com").is_of_nothing());
    /// ```
    pub fn is_of_nothing(&self) -> bool {
        let is_filled = self.0 == [0; 32] || self.0 == [0xff; 32];
        is_filled || *self == *HASH_OF_EMPTY
    }

    /// Whether it is the hash of a text that stands for a missing value, such as `NULL` or `n/a`, also in another case,
    /// or [`is_of_nothing`](Self::is_of_nothing). Tools that hash every cell of a column give it to all users without a
    /// value: none of these texts is an e-mail address or a phone number, but some are names.
    ///
    /// ```
    /// use throng_model::HashedIdentifier;
    ///
    /// assert!(HashedIdentifier::of_normalised("null").is_of_missing_value());
    /// assert!(!HashedIdentifier::of_normalised("mary@example.com").is_of_missing_value());
    /// ```
    pub fn is_of_missing_value(&self) -> bool {
        self.is_of_nothing() || HASHES_OF_MISSING_VALUES.contains(&self.0)
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        crate::to_hex(&self.0)
    }
}

static HASH_OF_EMPTY: LazyLock<HashedIdentifier> =
    LazyLock::new(|| HashedIdentifier::of_normalised(""));

/// Texts that stand for a missing identifier only where they are neither a key nor a name.
const OTHER_MISSING_VALUES: &[&str] =
    &[" ", "\"\"", "''", "\"null\"", "0", "n.a.", "na", "nil", "unknown", "none", "\0"];

/// The hashes of the texts that stand for a missing value: as they are, in lower case, in upper case, and with a
/// capital letter.
static HASHES_OF_MISSING_VALUES: LazyLock<HashSet<[u8; 32]>> = LazyLock::new(|| {
    let texts =
        MISSING_VALUES.iter().copied().chain(OTHER_MISSING_VALUES.iter().map(|s| s.as_bytes()));
    let mut hashes = HashSet::new();
    for text in texts {
        let mut capital = text.to_ascii_lowercase();
        if let Some(first) = capital.first_mut() {
            first.make_ascii_uppercase();
        }
        let (lower, upper) = (text.to_ascii_lowercase(), text.to_ascii_uppercase());
        for spelling in [text, lower.as_slice(), upper.as_slice(), capital.as_slice()] {
            hashes.insert(Sha256::digest(spelling).into());
        }
    }
    hashes
});

impl fmt::Debug for HashedIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashedIdentifier(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_missing_values_are_recognized() {
        let of = |text: &str| HashedIdentifier::of_normalised(text);
        for text in
            ["", "NULL", "null", "Null", "nan", "None", "N/A", "n/a", "undefined", "\\N", "-", "NA"]
        {
            assert!(of(text).is_of_missing_value(), "{text}");
            assert_eq!(of(text).is_of_nothing(), text.is_empty(), "{text}");
        }
        for filled in [[0; 32], [0xff; 32]] {
            assert!(HashedIdentifier(filled).is_of_missing_value());
        }
        for text in ["null@example.com", "491701234567", "00"] {
            assert!(!of(text).is_of_missing_value(), "{text}");
        }
    }

    #[test]
    fn hashes_as_the_platforms_documents_do() {
        assert_eq!(
            HashedIdentifier::of_normalised("mary@example.com").to_hex(),
            "f1904cf1a9d73a55fa5de0ac823c4403ded71afd4c3248d00bdcd0866552bb79"
        );
    }

    #[test]
    fn debug_shows_nothing() {
        let shown = format!("{:?} {:?}", Personal::new("ann"), Secret::new("hunter2"));
        assert!(!shown.contains("ann") && !shown.contains("hunter2"));
    }
}
