//! Who may use a node: its data directory, its admin token, links and tokens for the same process.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use throng_model::Secret;
use throng_store::{Ledger, LedgerError};

use crate::access::{Access, AccessError, Scope, TokenRequest};

use super::{Node, NodeConfig, NodeError, backends};

/// A token that is shorter is warned about.
const SHORT_TOKEN: usize = 16;

/// Makes the data directory, and lets nobody but its owner in: it holds the admin token, and what is
/// known about users.
pub(super) fn open_data_dir(dir: &Path) -> Result<(), NodeError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(NodeError::io("make the data directory", dir.display()))?;
    let mode = std::fs::metadata(dir)
        .map_err(NodeError::io("read the mode of the data directory", dir.display()))?
        .permissions()
        .mode();
    if mode & 0o077 != 0
        && let Err(error) = std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
    {
        // A volume of Kubernetes may belong to another user; the files in it are this node's.
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            dir = %dir.display(),
            "others can list the data directory, and its mode cannot be changed"
        );
    }
    Ok(())
}

/// Tokens and sessions, with the admin token of the data directory.
pub(super) async fn open(
    config: &NodeConfig,
    ledger: &Arc<dyn Ledger>,
) -> Result<Access, NodeError> {
    let node = &config.spec.node;
    let token = match &node.token {
        Some(reference) => Some(backends::secret(&config.env, "token", reference)?),
        None => None,
    };
    if token.as_ref().is_some_and(|token| token.expose().len() < SHORT_TOKEN) {
        tracing::warn!(
            "the token of node.token is shorter than {SHORT_TOKEN} characters: it can be guessed"
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
    /// [`AccessError`] if the ledger does not answer.
    pub async fn sign_in_link(&self) -> Result<String, AccessError> {
        let access = &self.ctx.access;
        let (code, _) = access.sign_in_code(&access.admin()?).await?;
        Ok(format!("{}/sign-in?code={}", self.ctx.page_url(), code.expose()))
    }

    /// Creates a token in place of the one of this name, for a part of the same process.
    ///
    /// # Errors
    /// [`AccessError`] if the ledger does not answer.
    pub async fn replace_token(&self, name: &str, scopes: &[Scope]) -> Result<Secret, AccessError> {
        let access = &self.ctx.access;
        let admin = access.admin()?;
        let at = self.ctx.clock.now();
        match access.revoke(name, &admin, at).await {
            Ok(()) | Err(LedgerError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let scopes = scopes.iter().copied().collect();
        let name = name.to_owned();
        let request = TokenRequest { name, scopes, expires_at: None, workspace: None };
        access.create(request, &admin, at).await
    }
}
