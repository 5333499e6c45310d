//! Access tokens of Google Cloud: for a service account, which signs requests for them (`account`), or for the
//! machine or pod, whose tokens a metadata server returns. [`AccessTokens`] keeps one until shortly before it
//! expires. Knows no product of Google.

mod account;
mod tokens;

pub use tokens::{AccessTokens, TokenError, TokenOptions};
