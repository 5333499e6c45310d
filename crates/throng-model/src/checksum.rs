//! The checksum at the end of files and messages: XXH3 of all bytes before it, 8 bytes, little-endian.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

/// Why bytes do not end with their checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumError {
    /// There are fewer bytes than a checksum has.
    Truncated,
    /// The bytes are not those that were written.
    Mismatch,
}

impl ChecksumError {
    /// What is wrong, for errors that name the file or the message themselves.
    pub const fn problem(self) -> &'static str {
        match self {
            Self::Truncated => "it is truncated",
            Self::Mismatch => "its checksum does not match",
        }
    }
}

impl fmt::Display for ChecksumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.problem())
    }
}

impl std::error::Error for ChecksumError {}

/// Appends the checksum of all bytes, and returns it.
///
/// ```
/// use throng_model::{ChecksumError, append_checksum, verify_checksum};
///
/// let mut file = b"state".to_vec();
/// append_checksum(&mut file);
/// assert_eq!(verify_checksum(&file), Ok(&b"state"[..]));
/// file[0] ^= 1;
/// assert_eq!(verify_checksum(&file), Err(ChecksumError::Mismatch));
/// assert_eq!(verify_checksum(b"short"), Err(ChecksumError::Truncated));
/// ```
pub fn append_checksum(bytes: &mut Vec<u8>) -> u64 {
    let checksum = xxh3_64(bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    checksum
}

/// The bytes before the checksum, if they are those that were written.
///
/// # Errors
/// [`ChecksumError`].
pub fn verify_checksum(bytes: &[u8]) -> Result<&[u8], ChecksumError> {
    let (body, checksum) = bytes.split_last_chunk::<8>().ok_or(ChecksumError::Truncated)?;
    match xxh3_64(body) == u64::from_le_bytes(*checksum) {
        true => Ok(body),
        false => Err(ChecksumError::Mismatch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_of_a_byte_is_detected() {
        let mut whole = b"forty-two".to_vec();
        let checksum = append_checksum(&mut whole);
        assert_eq!(whole[9..], checksum.to_le_bytes());
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            assert_eq!(verify_checksum(&changed), Err(ChecksumError::Mismatch), "at {at}");
            assert!(verify_checksum(&whole[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(verify_checksum(&whole).unwrap(), b"forty-two");
    }
}
