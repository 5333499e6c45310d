//! Tokens, sessions and sign-in codes. The ledger holds the hashes of secrets only.

use async_trait::async_trait;
use throng_model::{SecretHash, Timestamp};

use crate::Result;

/// A token to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// Unique among the tokens that are valid.
    pub name: String,
    /// The hash of the secret.
    pub hash: SecretHash,
    /// The scopes, with commas between them.
    pub scopes: String,
    /// The workspace that it is limited to; `None` for all.
    pub workspace: Option<String>,
    /// The data directory whose admin token it is; `None` for a token that a person created.
    pub owner: Option<String>,
    /// The name of the caller who created it.
    pub created_by: String,
    /// When it expires; `None` for a token that does not expire.
    pub expires_at: Option<Timestamp>,
}

/// A token as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// The hash of the secret; never shown.
    pub hash: SecretHash,
    /// The scopes, with commas between them.
    pub scopes: String,
    /// The workspace that it is limited to; `None` for all.
    pub workspace: Option<String>,
    /// The data directory whose admin token it is.
    pub owner: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// The name of the caller who created it.
    pub created_by: String,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// When a node last accepted it, to about a minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl TokenRow {
    /// Whether it is accepted at this time.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// The token that a session or a sign-in code was created with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// A token of the ledger.
    Token(i64),
    /// The token of the spec, which is not in the ledger: a hash of the secret of the session or
    /// code together with the hash of that token. It ends when the spec's token changes, and nobody
    /// can search for that token with what is stored here.
    Binding(SecretHash),
}

/// A session of a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Its number.
    pub id: i64,
    /// The hash of the secret in the cookie; never shown.
    pub hash: SecretHash,
    /// The token that it was created with.
    pub grant: Grant,
    /// When it began.
    pub created_at: Timestamp,
    /// When it was last used, to about a minute.
    pub last_seen_at: Timestamp,
    /// When it ends at the latest.
    pub expires_at: Timestamp,
}

/// Tokens, sessions and sign-in codes.
#[async_trait]
pub trait AccessLedger: Send + Sync {
    /// Stores a token and returns its number. An expired token of the same name is revoked.
    ///
    /// # Errors
    /// [`crate::LedgerError::WrongState`] if a valid token has this name.
    async fn create_token(&self, token: &NewToken, now: Timestamp) -> Result<i64>;

    /// All tokens by name, newest first among equal names; those that were revoked or have expired
    /// too.
    async fn tokens(&self) -> Result<Vec<TokenRow>>;

    /// The tokens that are accepted at this time.
    async fn valid_tokens(&self, now: Timestamp) -> Result<Vec<TokenRow>>;

    /// Revokes the token of this name.
    ///
    /// # Errors
    /// [`crate::LedgerError::NotFound`] if no token of this name is unrevoked.
    async fn revoke_token(&self, name: &str, now: Timestamp) -> Result<()>;

    /// Revokes the tokens of a data directory except the one with this hash. Returns how many.
    async fn revoke_owned(&self, owner: &str, keep: SecretHash, now: Timestamp) -> Result<u64>;

    /// Moves the end of a token's validity to a later time.
    async fn extend_token(&self, id: i64, expires_at: Timestamp) -> Result<()>;

    /// Records when tokens were last used. A later time that is already stored stays.
    async fn record_token_use(&self, used: &[(i64, Timestamp)]) -> Result<()>;

    /// Creates a session and returns its number. Sessions that have expired are deleted.
    async fn begin_session(
        &self,
        hash: SecretHash,
        grant: &Grant,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<i64>;

    /// The session with this hash, if there is one.
    async fn session(&self, hash: SecretHash) -> Result<Option<SessionRow>>;

    /// Records that a session was used.
    async fn record_session_use(&self, id: i64, now: Timestamp) -> Result<()>;

    /// Ends a session. Returns whether there was one.
    async fn end_session(&self, id: i64) -> Result<bool>;

    /// The sessions that have not expired, newest first.
    async fn sessions(&self, now: Timestamp) -> Result<Vec<SessionRow>>;

    /// Stores a sign-in code. Codes that have expired are deleted.
    async fn put_sign_in_code(
        &self,
        hash: SecretHash,
        grant: &Grant,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<()>;

    /// Redeems a sign-in code: of any number of callers exactly one succeeds, before the code
    /// expires.
    async fn redeem_sign_in_code(&self, hash: SecretHash, now: Timestamp) -> Result<Option<Grant>>;
}
