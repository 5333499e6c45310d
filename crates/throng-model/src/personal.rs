//! Values that must not be printed: personal data and secrets.

use std::fmt;

use sha2::{Digest, Sha256};

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

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        crate::to_hex(&self.0)
    }
}

impl fmt::Debug for HashedIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashedIdentifier(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
