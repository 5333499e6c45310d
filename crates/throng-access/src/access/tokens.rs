//! Creating, listing and revoking tokens.

use throng_model::{Secret, SecretHash, Timestamp, WorkspaceName, new_secret};
use throng_store::{HistoryEntry, HistoryEvent, LedgerError, NewToken, TokenRow};

use super::{Access, AccessError, Caller, SPEC_TOKEN};
use crate::scope::{Scope, Scopes};

/// The prefix of every token, so that secret scanners can find leaked ones.
pub(super) const TOKEN_PREFIX: &str = "throng_";

/// A token to be created.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// Its name, which [`is_token_name`] accepts.
    pub name: String,
    /// What it allows.
    pub scopes: Scopes,
    /// When it expires; `None`: it does not.
    pub expires_at: Option<Timestamp>,
    /// The workspace that it is limited to.
    pub workspace: Option<WorkspaceName>,
}

/// Whether a text is a valid name of a token that a person creates. The names of the node's own
/// tokens are reserved.
pub fn is_token_name(text: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=64).contains(&text.len())
        && text.bytes().all(is_allowed)
        && text != SPEC_TOKEN
        && text != "admin"
        && !text.starts_with("admin-")
}

impl Access {
    /// Creates a token. Its secret is not stored and cannot be shown again. `at` is its
    /// time in the history.
    ///
    /// # Errors
    /// [`AccessError`], also if a valid token has this name.
    pub async fn create(
        &self,
        request: TokenRequest,
        caller: &Caller,
        at: Timestamp,
    ) -> Result<Secret, AccessError> {
        let secret = new_secret(TOKEN_PREFIX)?;
        let token = NewToken {
            name: request.name,
            hash: SecretHash::of(secret.expose()),
            scopes: request.scopes.to_string(),
            workspace: request.workspace.map(String::from),
            owner: None,
            created_by: caller.name().to_owned(),
            expires_at: request.expires_at,
        };
        self.ledger.create_token(&token, self.now()).await?;
        let of_workspace = token.workspace.as_ref().map(|name| format!(", workspace {name}"));
        let why = format!("scopes {}{}", token.scopes, of_workspace.unwrap_or_default());
        self.record(&token.name, HistoryEvent::Created, why, caller, at).await?;
        self.reload().await?;
        Ok(secret)
    }

    /// Creates a token that replaces the one of this name, with the rights of the node itself.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn replace(
        &self,
        name: &str,
        scopes: &[Scope],
        at: Timestamp,
    ) -> Result<Secret, AccessError> {
        let admin = self.admin()?;
        match self.revoke(name, &admin, at).await {
            Ok(()) | Err(LedgerError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let scopes = scopes.iter().copied().collect();
        let name = name.to_owned();
        let request = TokenRequest { name, scopes, expires_at: None, workspace: None };
        self.create(request, &admin, at).await
    }

    /// Revokes a token and its sessions: at once on this node, and within two seconds on the
    /// others.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] if no valid token has this name; other [`LedgerError`]s.
    pub async fn revoke(
        &self,
        name: &str,
        caller: &Caller,
        at: Timestamp,
    ) -> Result<(), LedgerError> {
        self.ledger.revoke_token(name, self.now()).await?;
        let why = "it is no longer accepted".to_owned();
        self.record(name, HistoryEvent::Revoked, why, caller, at).await?;
        self.reload().await
    }

    /// All tokens, with their last use as far as this node has recorded it.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn list(&self) -> Result<Vec<TokenRow>, LedgerError> {
        self.write_last_used().await;
        self.ledger.tokens().await
    }

    /// Whether a token of the list is valid now.
    pub fn is_valid(&self, row: &TokenRow) -> bool {
        row.is_valid(self.now())
    }

    /// The time by which tokens and sessions expire.
    pub fn time(&self) -> Timestamp {
        self.now()
    }

    async fn record(
        &self,
        name: &str,
        what: HistoryEvent,
        why: String,
        caller: &Caller,
        at: Timestamp,
    ) -> Result<(), LedgerError> {
        let entry = HistoryEntry {
            subject_kind: throng_store::SubjectKind::Token,
            subject: name.to_owned(),
            what,
            why,
            at,
            actor: Some(caller.name().to_owned()),
        };
        self.ledger.record_history(&[entry]).await
    }
}
