//! Secrets that Throng creates, and their hashes.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::{Secret, from_hex, to_hex};

/// The SHA-256 of a secret of high entropy, such as a token, which is stored instead of it. Not for
/// passwords that people choose, which need a slow hash.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// Hashes a secret.
    ///
    /// ```
    /// use throng_model::SecretHash;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // What is stored of a token is enough to recognise it, and not enough to use it.
    /// let stored = SecretHash::of("throng_0123").to_hex();
    /// assert_eq!(stored.parse::<SecretHash>()?, SecretHash::of("throng_0123"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// Hashes a secret together with another hash.
    pub fn bound(secret: &str, to: Self) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(to.0);
        hasher.update(secret.as_bytes());
        Self(hasher.finalize().into())
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        to_hex(&self.0)
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

/// The text is not a hash of 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a SHA-256 of 64 hexadecimal digits")]
pub struct NotAHash;

impl FromStr for SecretHash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, NotAHash> {
        from_hex(text).map(Self).ok_or(NotAHash)
    }
}

/// The operating system has no random bytes.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the operating system has no random bytes: {0}")]
pub struct NoRandomness(String);

/// A new secret: a prefix and 256 random bits of the operating system, as 64 hexadecimal digits.
///
/// # Errors
/// [`NoRandomness`] if the operating system has none, such as early at boot.
pub fn new_secret(prefix: &str) -> Result<Secret, NoRandomness> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| NoRandomness(error.to_string()))?;
    Ok(Secret::new(format!("{prefix}{}", to_hex(&bytes))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_and_differ() {
        let (a, b) = (new_secret("throng_").unwrap(), new_secret("throng_").unwrap());
        assert_ne!(a, b);
        assert_eq!(a.expose().len(), 7 + 64);
    }

    #[test]
    fn hashes_are_read_back_and_not_shown() {
        let hash = SecretHash::of("abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((hash.to_hex().as_str(), text.parse()), (text, Ok(hash)));
        assert_eq!("ba78".parse::<SecretHash>(), Err(NotAHash));
        assert_eq!("x".repeat(64).parse::<SecretHash>(), Err(NotAHash));
        assert!(!format!("{hash:?}").contains("ba"));
    }

    #[test]
    fn a_bound_hash_depends_on_both() {
        let (one, two) = (SecretHash::of("1"), SecretHash::of("2"));
        assert_eq!(SecretHash::bound("s", one), SecretHash::bound("s", one));
        assert_ne!(SecretHash::bound("s", one), SecretHash::bound("s", two));
        assert_ne!(SecretHash::bound("s", one), SecretHash::bound("t", one));
    }
}
