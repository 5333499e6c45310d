//! Tokens, sessions and sign-in links.

use serde::{Deserialize, Serialize};
use throng_model::Timestamp;

/// `GET /v1/tokens`.
#[derive(Debug, Deserialize)]
pub(crate) struct TokenList {
    pub(crate) tokens: Vec<Token>,
}

/// A token without its secret.
#[derive(Debug, Deserialize)]
pub(crate) struct Token {
    pub(crate) name: String,
    pub(crate) valid: bool,
    #[serde(default)]
    pub(crate) scopes: Vec<String>,
    pub(crate) created_at: Option<Timestamp>,
    #[serde(default)]
    pub(crate) created_by: String,
    /// Never if absent.
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) last_used_at: Option<Timestamp>,
    pub(crate) revoked_at: Option<Timestamp>,
}

/// `POST /v1/tokens`.
#[derive(Deserialize)]
pub(crate) struct CreatedToken {
    /// The secret, which only this answer has.
    pub(crate) token: String,
}

/// `GET /v1/sessions`.
#[derive(Debug, Deserialize)]
pub(crate) struct SessionList {
    pub(crate) sessions: Vec<Session>,
}

/// A session of a browser.
#[derive(Debug, Deserialize)]
pub(crate) struct Session {
    pub(crate) id: i64,
    /// The name of its token.
    pub(crate) token: String,
    pub(crate) created_at: Option<Timestamp>,
    pub(crate) last_seen_at: Option<Timestamp>,
    pub(crate) expires_at: Option<Timestamp>,
}

/// `POST /v1/sign-in-links`. Also printed with `--json`.
#[derive(Serialize, Deserialize)]
pub(crate) struct SignInLink {
    /// The link without the address of the node.
    pub(crate) path: String,
    pub(crate) url: String,
    pub(crate) expires_at: Option<Timestamp>,
}
