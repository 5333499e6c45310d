//! The platforms, one line each.

use std::sync::Arc;

use throng_activation::{Destination, SizeLimits};

use crate::calls::AccountCalls;
use crate::file::FileAccount;
use crate::meta::MetaAccount;
use crate::pacing::CallLimits;
use crate::platform::{Preparation, RegistryError};

/// The settings that a destination is opened with, including resolved secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// A Meta ad account.
    Meta(MetaAccount),
    /// A folder of files.
    File(FileAccount),
}

struct Platform {
    name: &'static str,
    preparation: Preparation,
    sizes: Option<SizeLimits>,
    calls: Option<CallLimits>,
}

const PLATFORMS: &[Platform] = &[
    Platform {
        name: "meta",
        preparation: crate::meta::PREPARATION,
        sizes: crate::meta::SIZES,
        calls: crate::meta::CALLS,
    },
    Platform {
        name: "file",
        preparation: crate::file::PREPARATION,
        sizes: crate::file::SIZES,
        calls: None,
    },
];

/// The names of all platforms.
pub fn platforms() -> impl Iterator<Item = &'static str> {
    PLATFORMS.iter().map(|platform| platform.name)
}

/// The preparation of a platform's rows; `None` if the platform does not exist.
pub fn preparation(platform: &str) -> Option<Preparation> {
    PLATFORMS.iter().find(|known| known.name == platform).map(|known| known.preparation)
}

/// What a platform documents about the sizes of its audiences, as [`Destination::limits`] without an account. `None` if
/// the platform does not exist, or if its sizes are not numbers of people.
pub fn size_limits(platform: &str) -> Option<SizeLimits> {
    PLATFORMS.iter().find(|known| known.name == platform).and_then(|known| known.sizes)
}

/// What a platform documents about the calls of an account per rolling hour. `None` if the platform does not exist, or
/// has no such quota.
pub fn call_limits(platform: &str) -> Option<CallLimits> {
    PLATFORMS.iter().find(|known| known.name == platform).and_then(|known| known.calls)
}

/// Opens a destination. Makes no call; the returned destination keeps its connections. It makes calls whatever the
/// account's quota is.
///
/// # Errors
/// [`RegistryError`] if the account's settings are invalid.
pub fn open(account: &Account) -> Result<Arc<dyn Destination>, RegistryError> {
    open_paced(account, None)
}

/// Opens a destination as [`open`] does. `calls` paces its calls, if its platform has [`call_limits`]: all destinations of
/// one account need the same value.
///
/// # Errors
/// [`RegistryError`] if the account's settings are invalid.
pub fn open_paced(
    account: &Account,
    calls: Option<Arc<AccountCalls>>,
) -> Result<Arc<dyn Destination>, RegistryError> {
    match account {
        Account::Meta(account) => crate::meta::open(account, calls),
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
