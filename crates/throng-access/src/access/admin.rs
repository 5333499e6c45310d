//! The admin token of a data directory. Whoever can read its file can administer the node, which is
//! no more than the access to the ledger file in the same directory gives.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use throng_model::{Secret, SecretHash, new_secret};
use throng_store::NewToken;

use super::{Access, AccessError, Caller};
use crate::scope::{Scope, Scopes};

/// The file of a data directory with the admin token.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";
/// The file of a data directory with the URL of its node.
pub const ADDRESS_FILE: &str = "node.url";
/// The file of a data directory with the name of its owner in the ledger's list of admin tokens.
const OWNER_FILE: &str = "node.id";
/// An admin token of a shared ledger expires this long after its node last ran: data directories
/// that are deleted with their machine must not leave valid tokens forever.
const ADMIN_TOKEN_LIFETIME: Duration = Duration::from_secs(7 * 86_400);

fn error(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> AccessError {
    let path = path.to_owned();
    move |source| AccessError::File { doing, path, source }
}

/// Reads a file, and makes it readable by its owner only; `None` if it does not exist or is empty.
fn read(path: &Path) -> Result<Option<String>, AccessError> {
    match throng_fs::read_to_string(path) {
        Ok(text) => {
            fs::set_permissions(path, Permissions::from_mode(0o600))
                .map_err(error("set the mode of", path))?;
            Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        // Not text, so it cannot be a token.
        Err(e) if e.kind() == ErrorKind::InvalidData => Ok(None),
        Err(e) => Err(error("read", path)(e)),
    }
}

/// Writes a file that only its owner may read, atomically.
///
/// # Errors
/// [`AccessError::File`].
pub fn write_private(path: &Path, text: &str) -> Result<(), AccessError> {
    let temporary = path.with_extension("new");
    let written = || -> std::io::Result<()> {
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    written().map_err(error("write", path))
}

/// The name of this data directory in the ledger's list of admin tokens.
fn owner_of(dir: &Path) -> Result<String, AccessError> {
    let path = dir.join(OWNER_FILE);
    if let Some(owner) = read(&path)?.filter(|owner| owner.len() == 32) {
        return Ok(owner);
    }
    let owner = new_secret("")?.expose().chars().take(32).collect::<String>();
    write_private(&path, &owner)?;
    Ok(owner)
}

impl Access {
    /// Makes sure that the data directory has a valid admin token. A lost or revoked token is
    /// replaced, because the ledger has only its hash. Other admin tokens of the same data
    /// directory are revoked: a copy of an old file must not stay valid. In an embedded ledger that
    /// is every other admin token.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn open_admin(&self, dir: &Path, shared: bool) -> Result<(), AccessError> {
        let now = self.now();
        let owner = if shared { owner_of(dir)? } else { "this data directory".to_owned() };
        let path = dir.join(ADMIN_TOKEN_FILE);
        let mut kept = None;
        if let Some(secret) = read(&path)? {
            let hash = SecretHash::of(&secret);
            let tokens = self.ledger.tokens().await?;
            let row = tokens.iter().find(|token| token.hash == hash);
            let is_own = row.is_some_and(|t| t.is_valid(now) && t.owner.as_deref() == Some(&owner));
            kept = is_own.then_some(hash);
        }
        let (hash, secret) = match kept {
            Some(hash) => (hash, None),
            None => {
                let secret = new_secret(super::tokens::TOKEN_PREFIX)?;
                (SecretHash::of(secret.expose()), Some(secret))
            }
        };
        self.ledger.revoke_owned(&owner, hash, now).await?;
        if let Some(secret) = &secret {
            self.register_admin_token(&owner, shared, hash).await?;
            write_private(&path, secret.expose())?;
            tracing::info!(file = %path.display(), "admin token created");
        }
        self.reload().await?;
        if let Some(credential) = self.valid_tokens.load().by_hash.get(&hash) {
            // Set once: a node opens its admin token once.
            let _ = self.admin.set(Arc::clone(credential));
        }
        self.extend_admin().await
    }

    async fn register_admin_token(
        &self,
        owner: &str,
        shared: bool,
        hash: SecretHash,
    ) -> Result<(), AccessError> {
        let now = self.now();
        let name = match shared {
            true => format!("admin-{}", owner.get(..8).unwrap_or(owner)),
            false => "admin".to_owned(),
        };
        let token = NewToken {
            name: name.clone(),
            hash,
            scopes: Scopes::from(Scope::Admin).to_string(),
            workspace: None,
            owner: Some(owner.to_owned()),
            created_by: name,
            expires_at: shared.then(|| now.plus(ADMIN_TOKEN_LIFETIME)),
        };
        self.ledger.create_token(&token, now).await?;
        Ok(())
    }

    /// Extends the lifetime of the admin token of a shared ledger.
    pub(super) async fn extend_admin(&self) -> Result<(), AccessError> {
        if let Some(admin) = self.admin.get()
            && admin.expires_at.is_some()
            && let Some(id) = admin.id
        {
            self.ledger.extend_token(id, self.now().plus(ADMIN_TOKEN_LIFETIME)).await?;
        }
        Ok(())
    }

    /// The node itself as a caller, with its admin token.
    ///
    /// # Errors
    /// [`AccessError::NoAdmin`] before [`Access::open_admin`].
    pub fn admin(&self) -> Result<Caller, AccessError> {
        let credential = self.admin.get().ok_or(AccessError::NoAdmin)?;
        Ok(Caller { credential: Arc::clone(credential), session: None })
    }
}

/// The admin token of a data directory, for a caller on the same machine.
///
/// # Errors
/// [`AccessError`] if it cannot be read.
pub fn admin_token(dir: &Path) -> Result<Option<Secret>, AccessError> {
    let path = dir.join(ADMIN_TOKEN_FILE);
    match throng_fs::read_to_string(&path) {
        Ok(text) => Ok(Some(Secret::new(text.trim())).filter(|s| !s.expose().is_empty())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(error("read", &path)(e)),
    }
}
