//! Platform name → constructor.

use std::sync::Arc;

use throng_activation::{Destination, Note, Prepared, Schema};
use throng_model::{Personal, Secret};

/// An account on a platform, with its secrets at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The platform's name in the spec: `meta`.
    pub platform: String,
    /// The account's id on the platform.
    pub account: String,
    /// The token.
    pub access_token: Secret,
    /// The app's secret, for platforms that want a proof of it.
    pub app_secret: Option<Secret>,
    /// Another server than the platform's own: a simulator.
    pub base_url: Option<String>,
    /// The version of the platform's API.
    pub api_version: String,
}

/// Why a destination cannot be opened. The user's to mend, in the spec.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Nobody knows this platform.
    #[error("there is no platform `{name}`; known are: {known}")]
    UnknownPlatform {
        /// The name in the spec.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The account's settings make no sense to the platform.
    #[error("the account `{account}` cannot be used: {why}")]
    Account {
        /// The account.
        account: String,
        /// What is wrong, and the mend.
        why: String,
    },
}

type Constructor = fn(&Account) -> Result<Arc<dyn Destination>, RegistryError>;

/// Normalises and hashes one row for a platform: [`Destination::prepare`] without an account. What was
/// changed or refused is appended to the notes.
type Prepare = fn(&Schema, &[Option<Personal>], &mut Vec<Note>) -> Prepared;

struct Platform {
    name: &'static str,
    open: Constructor,
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

const PLATFORMS: &[Platform] =
    &[Platform { name: "meta", open: crate::meta::open, preparation: crate::meta::PREPARATION }];

/// The platforms that there are.
pub fn platforms() -> impl Iterator<Item = &'static str> {
    PLATFORMS.iter().map(|platform| platform.name)
}

/// How the rows of a platform are prepared; `None` if there is no such platform.
pub fn preparation(platform: &str) -> Option<Preparation> {
    PLATFORMS.iter().find(|known| known.name == platform).map(|known| known.preparation)
}

/// Opens a destination. Makes no call; connections are pooled within what is returned.
///
/// # Errors
/// [`RegistryError`] if the platform is unknown or the account's settings make no sense.
pub fn open(account: &Account) -> Result<Arc<dyn Destination>, RegistryError> {
    match PLATFORMS.iter().find(|platform| platform.name == account.platform) {
        Some(platform) => (platform.open)(account),
        None => Err(RegistryError::UnknownPlatform {
            name: account.platform.clone(),
            known: platforms().collect::<Vec<_>>().join(", "),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_platform_is_named_with_those_that_exist() {
        let account = Account {
            platform: "metta".into(),
            account: "1".into(),
            access_token: Secret::new("t"),
            app_secret: None,
            base_url: None,
            api_version: "v25.0".into(),
        };
        let error = open(&account).err().map(|e| e.to_string());
        assert_eq!(error.as_deref(), Some("there is no platform `metta`; known are: meta"));
    }
}
