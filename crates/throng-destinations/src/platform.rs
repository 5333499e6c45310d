//! What the registry and every platform need: the preparation of rows, and the error of an invalid account.

use throng_activation::{Note, Prepared, Schema};
use throng_model::Personal;

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

/// The last year that is one, and not another number in its column. Where no clock is at hand it is the current year.
pub(crate) const LATEST_YEAR: u32 = 2100;

/// Normalises and hashes one row for a platform: [`throng_activation::Destination::prepare`] without an account. Takes the
/// current year: later years of birth are refused. Appends notes about identifiers that were changed or refused.
type Prepare = fn(&Schema, u32, &[Option<Personal>], &mut Vec<Note>) -> Prepared;

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
