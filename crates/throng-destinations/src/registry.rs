//! The platforms, one line each.

use std::sync::Arc;

use throng_activation::{Destination, Note, Prepared, Schema};
use throng_model::Personal;

use crate::file::FileAccount;
use crate::meta::MetaAccount;

/// The settings that a destination is opened with, including resolved secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// A Meta ad account.
    Meta(MetaAccount),
    /// A folder of files.
    File(FileAccount),
}

/// A destination cannot be opened. The author of the spec has to correct it.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The account's settings are invalid for the platform.
    #[error("the account `{account}` cannot be used: {why}")]
    Account {
        /// The account.
        account: String,
        /// What is invalid, and a hint.
        why: String,
    },
}

/// Normalises and hashes one row for a platform: [`Destination::prepare`] without an account. Appends notes
/// about identifiers that were changed or refused.
type Prepare = fn(&Schema, &[Option<Personal>], &mut Vec<Note>) -> Prepared;

struct Platform {
    name: &'static str,
    preparation: Preparation,
}

/// The preparation of a platform's rows. Needs no account and makes no call.
#[derive(Clone, Copy)]
pub struct Preparation {
    /// Normalises and hashes one row.
    pub prepare: Prepare,
    /// Every reason for a skipped row.
    pub skip_reasons: &'static [&'static str],
    /// Every reason of a note.
    pub note_reasons: &'static [&'static str],
    /// The keys of which each identifies one person: only these may be named in a removal.
    pub strong_keys: &'static [&'static str],
}

const PLATFORMS: &[Platform] = &[
    Platform { name: "meta", preparation: crate::meta::PREPARATION },
    Platform { name: "file", preparation: crate::file::PREPARATION },
];

/// The names of all platforms.
pub fn platforms() -> impl Iterator<Item = &'static str> {
    PLATFORMS.iter().map(|platform| platform.name)
}

/// The preparation of a platform's rows; `None` if the platform does not exist.
pub fn preparation(platform: &str) -> Option<Preparation> {
    PLATFORMS.iter().find(|known| known.name == platform).map(|known| known.preparation)
}

/// Opens a destination. Makes no call; the returned destination keeps its connections.
///
/// # Errors
/// [`RegistryError`] if the account's settings are invalid.
pub fn open(account: &Account) -> Result<Arc<dyn Destination>, RegistryError> {
    match account {
        Account::Meta(account) => crate::meta::open(account),
        Account::File(account) => crate::file::open(account),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_platform_is_registered_once_with_all_its_reasons() {
        let names: Vec<&str> = platforms().collect();
        assert_eq!(names, ["meta", "file"]);
        for name in names {
            let known = preparation(name).unwrap();
            assert!(!known.skip_reasons.is_empty() && !known.strong_keys.is_empty(), "{name}");
            // A reason is encoded as one byte.
            assert!(known.skip_reasons.len() <= 256 && known.note_reasons.len() <= 256, "{name}");
        }
        assert!(preparation("metta").is_none());
    }
}
