//! Tokens, sessions and sign-in links.

use serde::{Deserialize, Serialize};
use throng_model::Timestamp;
use utoipa::ToSchema;

/// A request to create a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "name": "ad-servers", "scopes": ["feed", "events"], "expires_in_secs": 7776000 }))]
pub struct CreateToken {
    /// 1 to 64 letters, digits, `-`, `_` and `.`; unique among the valid tokens.
    pub name: String,
    /// One or more of events, lookup, feed, metrics, read, operate, admin.
    pub scopes: Vec<String>,
    /// After how many seconds the token expires; never if omitted.
    #[serde(default)]
    pub expires_in_secs: Option<u64>,
    /// The workspace of the applied spec that the token is limited to. Its scopes are among lookup, read and operate.
    #[serde(default)]
    pub workspace: Option<String>,
}

/// A token that was created.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "ad-servers", "scopes": ["events", "feed"], "expires_at": null, "workspace": null,
    "token": "throng_…"
}))]
pub struct TokenCreated {
    /// The name of the token.
    pub name: String,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// When it expires; null if never.
    #[schema(value_type = Option<i64>)]
    pub expires_at: Option<Timestamp>,
    /// The workspace that it is limited to.
    pub workspace: Option<String>,
    /// The token itself, which only this response contains.
    pub token: String,
}

impl std::fmt::Debug for TokenCreated {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCreated").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "tokens": [
        {
            "name": "ad-servers", "scopes": ["events", "feed"], "workspace": null,
            "created_at": 1795536000000000_i64, "created_by": "admin", "expires_at": null,
            "last_used_at": null, "revoked_at": null, "valid": true
        }
    ]
}))]
pub struct TokenList {
    /// The tokens.
    pub tokens: Vec<TokenSummary>,
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "ad-servers", "scopes": ["events", "feed"], "workspace": null,
    "created_at": 1795536000000000_i64, "created_by": "admin", "expires_at": null,
    "last_used_at": null, "revoked_at": null, "valid": true
}))]
pub struct TokenSummary {
    /// The name of the token.
    pub name: String,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// The workspace that it is limited to.
    pub workspace: Option<String>,
    /// When it was created.
    #[schema(value_type = i64)]
    pub created_at: Timestamp,
    /// The name of the token that created it.
    pub created_by: String,
    /// When it expires; null if never.
    #[schema(value_type = Option<i64>)]
    pub expires_at: Option<Timestamp>,
    /// When it was last used.
    #[schema(value_type = Option<i64>)]
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    #[schema(value_type = Option<i64>)]
    pub revoked_at: Option<Timestamp>,
    /// Whether it is accepted now.
    pub valid: bool,
}

/// A token that was revoked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "revoked": "ad-servers" }))]
pub struct TokenRevoked {
    /// The name of the token.
    pub revoked: String,
}

/// The sessions of browsers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "sessions": [
        {
            "id": 8, "token": "ann", "created_at": 1795536000000000_i64,
            "last_seen_at": 1795536060000000_i64, "expires_at": 1795579260000000_i64
        }
    ]
}))]
pub struct SessionList {
    /// The sessions.
    pub sessions: Vec<SessionSummary>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionSummary {
    /// The id of the session.
    pub id: i64,
    /// The name of its token.
    pub token: String,
    /// When it started.
    #[schema(value_type = i64)]
    pub created_at: Timestamp,
    /// When it was last used.
    #[schema(value_type = i64)]
    pub last_seen_at: Timestamp,
    /// When it expires.
    #[schema(value_type = i64)]
    pub expires_at: Timestamp,
}

/// A session that was ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "ended": 8 }))]
pub struct SessionEnded {
    /// The id of the session.
    pub ended: i64,
}

/// A link that signs a browser in, once.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "path": "/sign-in?code=…", "url": "http://127.0.0.1:7077/sign-in?code=…",
    "expires_at": 1795536600000000_i64
}))]
pub struct SignInLink {
    /// The path with the code.
    pub path: String,
    /// The link with the address of the node.
    pub url: String,
    /// When the code expires.
    #[schema(value_type = i64)]
    pub expires_at: Timestamp,
}

impl std::fmt::Debug for SignInLink {
    /// Without the code.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignInLink").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}
