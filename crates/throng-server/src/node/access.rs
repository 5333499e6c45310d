//! Access to a node at its start: the admin token, and sign-in links and tokens for callers in the same
//! process.

use std::sync::Arc;

use throng_access::{Access, AccessError, Scope};
use throng_model::Secret;
use throng_store::Ledger;

use super::{Node, NodeConfig, NodeError};

/// A shorter token causes a warning, in characters.
const MIN_TOKEN_LENGTH: usize = 16;

/// Opens tokens and sessions, and makes sure that the data directory has a valid admin token.
pub(super) async fn open(
    config: &NodeConfig,
    ledger: &Arc<dyn Ledger>,
) -> Result<Access, NodeError> {
    let node = &config.spec.node;
    let token = match &node.token {
        Some(reference) => Some(throng_backends::secret(&config.env, "token", reference)?),
        None => None,
    };
    if token.as_ref().is_some_and(|token| token.expose().len() < MIN_TOKEN_LENGTH) {
        tracing::warn!(
            min_length = MIN_TOKEN_LENGTH,
            "node.token is short and can be guessed, use a longer one"
        );
    }
    let clock = Arc::clone(&config.access_clock);
    let access = Access::new(Arc::clone(ledger), clock, token.as_ref());
    access.open_admin(&config.data_dir, node.is_shared()).await?;
    Ok(access)
}

impl Node {
    /// A link that signs one browser in as the node's administrator, once, within ten minutes.
    ///
    /// # Errors
    /// [`AccessError`] if the ledger does not respond.
    pub async fn sign_in_link(&self) -> Result<String, AccessError> {
        let access = &self.ctx.access;
        let (code, _) = access.sign_in_code(&access.admin()?).await?;
        Ok(format!("{}/sign-in?code={}", self.ctx.page_url(), code.expose()))
    }

    /// Creates a token that replaces the one of this name, for a part of the same process.
    ///
    /// # Errors
    /// [`AccessError`] if the ledger does not respond.
    pub async fn replace_token(&self, name: &str, scopes: &[Scope]) -> Result<Secret, AccessError> {
        self.ctx.access.replace(name, scopes, self.ctx.clock.now()).await
    }
}
