//! The platforms, each in one line.

use std::sync::Arc;

use throng_activation::{Destination, Note, Prepared, Schema};
use throng_model::Personal;

use crate::file::FileAccount;
use crate::meta::MetaAccount;

/// What a destination is opened with: the settings of its platform, with their secrets at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// A Meta ad account.
    Meta(MetaAccount),
    /// A folder for files.
    File(FileAccount),
}

/// Why a destination cannot be opened. For whoever wrote the spec to put right.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The account's settings make no sense to the platform.
    #[error("the account `{account}` cannot be used: {why}")]
    Account {
        /// The account.
        account: String,
        /// What is wrong, and what to do.
        why: String,
    },
}

/// Normalises and hashes one row for a platform: [`Destination::prepare`] without an account. What was
/// changed or refused is appended to the notes.
type Prepare = fn(&Schema, &[Option<Personal>], &mut Vec<Note>) -> Prepared;

struct Platform {
    name: &'static str,
    preparation: Preparation,
}

/// How a platform's rows are prepared. Needs no account and makes no call.
#[derive(Clone, Copy)]
pub struct Preparation {
    /// Normalises and hashes one row.
    pub prepare: Prepare,
    /// Every reason for which it skips a row.
    pub skip_reasons: &'static [&'static str],
    /// Every reason of a note.
    pub note_reasons: &'static [&'static str],
    /// The keys of which each names one person: what a removal may name.
    pub strong_keys: &'static [&'static str],
}

const PLATFORMS: &[Platform] = &[
    Platform { name: "meta", preparation: crate::meta::PREPARATION },
    Platform { name: "file", preparation: crate::file::PREPARATION },
];

/// The platforms that there are.
pub fn platforms() -> impl Iterator<Item = &'static str> {
    PLATFORMS.iter().map(|platform| platform.name)
}

/// How the rows of a platform are prepared; `None` if there is no such platform.
pub fn preparation(platform: &str) -> Option<Preparation> {
    PLATFORMS.iter().find(|known| known.name == platform).map(|known| known.preparation)
}

/// Opens a destination. Makes no call; what is returned keeps its connections.
///
/// # Errors
/// [`RegistryError`] if the account's settings make no sense.
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
    fn every_platform_is_known_once_and_says_all_its_reasons() {
        let names: Vec<&str> = platforms().collect();
        assert_eq!(names, ["meta", "file"]);
        for name in names {
            let known = preparation(name).unwrap();
            assert!(!known.skip_reasons.is_empty() && !known.strong_keys.is_empty(), "{name}");
            // They are written as one byte.
            assert!(known.skip_reasons.len() <= 256 && known.note_reasons.len() <= 256, "{name}");
        }
        assert!(preparation("metta").is_none());
    }
}
