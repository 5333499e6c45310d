//! Meta custom audiences, through the Marketing API of the Graph API.

mod config;
mod countries;
mod damage;
mod destination;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod normalise;
mod phone;
mod places;
mod request;
mod response;
mod text;

use std::sync::Arc;

use throng_activation::{Destination, SizeLimits};

use crate::{AccountCalls, CallLimits, Preparation, RegistryError};

pub use config::MetaAccount;
pub use destination::MetaDestination;

/// The preparation of rows for Meta.
pub(crate) const PREPARATION: Preparation = Preparation {
    prepare: normalise::prepare,
    skip_reasons: normalise::SKIP_REASONS,
    note_reasons: normalise::NOTE_REASONS,
    strong_keys: normalise::STRONG_KEYS,
};

/// Sizes are numbers of matched people.
pub(crate) const SIZES: Option<SizeLimits> = Some(response::SIZES);

/// The documented calls of an account per rolling hour: those of the tiers "Limited" and "Full", without the 40 more for
/// each active audience.
pub(crate) const CALLS: Option<CallLimits> = Some(CallLimits { lowest: 5_000, assumed: 190_000 });

/// An e-mail address in the form that is hashed.
///
/// # Errors
/// The reason why there is none: a stable word without the value.
pub fn normalised_email(raw: &str) -> Result<String, &'static str> {
    let mut notes = Vec::new();
    text::email(&text::clean(raw, false, &mut notes), &mut notes)
}

/// A phone number in the form that is hashed: its digits with the calling code. `country` has two capital letters;
/// numbers without a calling code belong to it.
///
/// # Errors
/// The reason why there is none: a stable word without the value.
pub fn normalised_phone(raw: &str, country: Option<&str>) -> Result<String, &'static str> {
    let mut notes = Vec::new();
    phone::normalised(&text::clean(raw, false, &mut notes), country, &mut notes)
}

/// Whether a phone number says that it begins with a calling code, by `+` or `00`. Without it, and without a country, its
/// digits may be read as a number of another country.
pub fn phone_has_calling_code(raw: &str) -> bool {
    phone::has_calling_code(&text::clean(raw, false, &mut Vec::new()))
}

/// Opens a Meta ad account. `calls` paces its calls.
///
/// # Errors
/// [`RegistryError::Account`] if its settings are invalid.
pub fn open(
    account: &MetaAccount,
    calls: Option<Arc<AccountCalls>>,
) -> Result<Arc<dyn Destination>, RegistryError> {
    let destination = MetaDestination::new(account)?;
    Ok(Arc::new(match calls {
        Some(calls) => destination.with_calls(calls),
        None => destination,
    }))
}
