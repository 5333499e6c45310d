//! Access control: tokens with scopes, sessions of browsers, sign-in codes. The ledger stores them
//! (hashes only), so that they are valid on every node of a cluster.
//!
//! `Access` has a clock of its own, which shows the real time: a demo on a simulated clock that
//! runs through an hour in a minute must not expire the session of its viewer.

mod admin;
mod session;
mod tokens;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use throng_model::{Clock, NoRandomness, Secret, SecretHash, Timestamp, WorkspaceName};
use throng_store::{Ledger, LedgerError};
use tokio_util::sync::CancellationToken;

use crate::scope::{Scope, Scopes};
use crate::throttle::{Throttle, ThrottleAction};

pub use admin::{ADDRESS_FILE, ADMIN_TOKEN_FILE, admin_token, write_private};
use session::CachedSession;
pub use session::SESSION_LIFETIME;
pub use tokens::{TokenRequest, is_token_name};

/// The name of the token that the spec's `node.token` refers to.
pub const SPEC_TOKEN: &str = "node.token";

/// How often the valid tokens are read from the ledger, and how long a cached session is used: a
/// token that another node revokes is accepted here for this long at most.
const CACHE_TTL: Duration = Duration::from_secs(1);
/// An unknown token causes another read, because it may just have been created on another node, but
/// not more often than this: wrong tokens must not load the ledger.
const MIN_RELOAD_INTERVAL: Duration = Duration::from_millis(250);
/// How often the last use of tokens is written to the ledger.
const LAST_USED_INTERVAL: Duration = Duration::from_secs(60);

/// Why access could not be checked or changed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The operating system has no random bytes for a secret.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The node has no admin token yet.
    #[error("the node has no admin token: restart it")]
    NoAdmin,
    /// The operating system refused a file.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
}

/// A valid token.
#[derive(Debug)]
pub(crate) struct Credential {
    /// Its id in the ledger; `None` for the spec's token.
    id: Option<i64>,
    name: String,
    scopes: Scopes,
    workspace: Option<WorkspaceName>,
    expires_at: Option<Timestamp>,
    hash: SecretHash,
}

impl Credential {
    fn is_valid(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// The sender of a request.
#[derive(Debug, Clone)]
pub struct Caller {
    credential: Arc<Credential>,
    session: Option<i64>,
}

impl Caller {
    /// The name of the token: what the history shows as the actor.
    pub fn name(&self) -> &str {
        &self.credential.name
    }

    /// What the caller may do.
    pub fn scopes(&self) -> Scopes {
        self.credential.scopes
    }

    /// The workspace that the caller is limited to; `None`: it may use everything that its scopes allow.
    pub fn workspace(&self) -> Option<&WorkspaceName> {
        self.credential.workspace.as_ref()
    }

    /// Whether the caller may know of an object of this workspace; `None`: of the default one.
    pub fn can_access(&self, workspace: Option<&str>) -> bool {
        WorkspaceName::can_access(self.workspace(), workspace)
    }

    /// The id of the session, if the request has a cookie and not a token.
    pub fn session(&self) -> Option<i64> {
        self.session
    }
}

/// The valid tokens by the hash of their secret.
#[derive(Debug, Default)]
struct ValidTokens {
    by_hash: HashMap<SecretHash, Arc<Credential>>,
    by_id: HashMap<i64, Arc<Credential>>,
}

/// Tokens, sessions and sign-in codes of a cluster.
pub struct Access {
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    spec_token: Option<Arc<Credential>>,
    admin: std::sync::OnceLock<Arc<Credential>>,
    valid_tokens: ArcSwap<ValidTokens>,
    /// When the last read of the tokens began, by [`Clock::elapsed`]. Locked during a read.
    last_read: tokio::sync::Mutex<Option<Duration>>,
    sessions: Mutex<HashMap<SecretHash, CachedSession>>,
    last_used: Mutex<HashMap<i64, Timestamp>>,
    throttle: Throttle,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

impl Access {
    /// Access with the tokens of a ledger and the spec's token.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        spec_token: Option<&Secret>,
    ) -> Self {
        let spec_token = spec_token.map(|secret| {
            Arc::new(Credential {
                id: None,
                name: SPEC_TOKEN.to_owned(),
                scopes: Scope::Admin.into(),
                workspace: None,
                expires_at: None,
                hash: SecretHash::of(secret.expose()),
            })
        });
        Self {
            ledger,
            clock,
            spec_token,
            admin: std::sync::OnceLock::new(),
            valid_tokens: ArcSwap::default(),
            last_read: tokio::sync::Mutex::default(),
            sessions: Mutex::default(),
            last_used: Mutex::default(),
            throttle: Throttle::default(),
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The time since `at`, by [`Clock::elapsed`].
    fn since(&self, at: Duration) -> Duration {
        self.clock.elapsed().saturating_sub(at)
    }

    /// Counts a wrong token of an address, and returns the response to it.
    pub fn throttle_wrong_token(&self, address: Option<IpAddr>) -> ThrottleAction {
        self.throttle.record_wrong_token(address, self.clock.elapsed())
    }

    /// Reads the valid tokens from the ledger.
    async fn reload(&self) -> Result<(), LedgerError> {
        let mut read_at = self.last_read.lock().await;
        self.read_tokens(&mut read_at).await
    }

    async fn read_tokens(&self, read_at: &mut Option<Duration>) -> Result<(), LedgerError> {
        let began = self.clock.elapsed();
        let mut tokens = ValidTokens::default();
        for row in self.ledger.valid_tokens(self.now()).await? {
            let workspace = row.workspace.map(WorkspaceName::new);
            // A scope that only newer versions know grants nothing here. Neither does a token of a workspace whose name
            // no spec can have: earlier versions did not check it.
            let scopes = match &workspace {
                Some(Err(_)) => Scopes::default(),
                _ => Scopes::parse_known(&row.scopes),
            };
            let credential = Arc::new(Credential {
                id: Some(row.id),
                scopes,
                name: row.name,
                workspace: workspace.and_then(Result::ok),
                expires_at: row.expires_at,
                hash: row.hash,
            });
            tokens.by_hash.insert(row.hash, Arc::clone(&credential));
            tokens.by_id.insert(row.id, credential);
        }
        self.valid_tokens.store(Arc::new(tokens));
        *read_at = Some(began);
        Ok(())
    }

    fn find(&self, hash: SecretHash) -> Option<Arc<Credential>> {
        if let Some(token) = self.spec_token.as_ref().filter(|token| token.hash == hash) {
            return Some(Arc::clone(token));
        }
        let found = self.valid_tokens.load().by_hash.get(&hash).cloned();
        found.filter(|token| token.is_valid(self.now()))
    }

    /// The caller with this token; `None` if it is not valid. Hashes are compared, so that the
    /// duration reveals nothing about the token.
    ///
    /// # Errors
    /// [`LedgerError`] if the token is unknown and the ledger does not respond.
    pub async fn token(&self, secret: &str) -> Result<Option<Caller>, LedgerError> {
        let hash = SecretHash::of(secret);
        let mut found = self.find(hash);
        if found.is_none() {
            self.wait_for_read_after(self.clock.elapsed()).await?;
            found = self.find(hash);
        }
        if let Some(id) = found.as_ref().and_then(|token| token.id) {
            let mut used = self.last_used.lock();
            used.insert(id, self.now());
        }
        Ok(found.map(|credential| Caller { credential, session: None }))
    }

    /// Waits for a read of the tokens that began after `at`: a token that another node has just
    /// created is valid here at once. Requests with unknown tokens wait, so that the ledger is not
    /// read more often than every [`MIN_RELOAD_INTERVAL`].
    async fn wait_for_read_after(&self, requested: Duration) -> Result<(), LedgerError> {
        let mut read_at = self.last_read.lock().await;
        match *read_at {
            Some(at) if at > requested => return Ok(()),
            Some(at) => {
                let pause = MIN_RELOAD_INTERVAL.saturating_sub(self.since(at));
                tokio::time::sleep(self.clock.wall_duration(pause)).await;
            }
            None => {}
        }
        self.read_tokens(&mut read_at).await
    }

    /// Reads the tokens periodically, and writes their last use, until `stop`. While the ledger
    /// does not respond, the tokens of the last read stay valid until they expire.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut written = self.clock.elapsed();
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(CACHE_TTL) => {}
            }
            if let Err(error) = self.reload().await {
                tracing::debug!(error = &error as &dyn std::error::Error, "failed to read tokens");
            }
            if stop.is_cancelled() || self.since(written) >= LAST_USED_INTERVAL {
                written = self.clock.elapsed();
                self.write_last_used().await;
            }
        }
    }

    async fn write_last_used(&self) {
        let used: Vec<(i64, Timestamp)> = {
            let mut used = self.last_used.lock();
            used.drain().collect()
        };
        if let Err(error) = self.ledger.record_token_use(&used).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "failed to write last use of tokens"
            );
        }
        if let Err(error) = self.extend_admin().await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "failed to extend the admin token"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use throng_ledger::SqliteLedger;
    use throng_model::ManualClock;
    use throng_store::NewToken;

    use super::*;

    #[tokio::test]
    async fn a_token_that_was_created_elsewhere_is_valid_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&dir.path().join("ledger.db")).await.unwrap();
        let ledger: Arc<dyn Ledger> = Arc::new(ledger);
        let clock = Arc::new(ManualClock::new(Timestamp(1)));
        let access = Access::new(Arc::clone(&ledger), clock, None);
        for name in ["one", "two"] {
            // The tokens have just been read.
            assert!(access.token(name).await.unwrap().is_none());
            let token = NewToken {
                name: name.to_owned(),
                hash: SecretHash::of(name),
                scopes: "read".to_owned(),
                workspace: None,
                owner: None,
                created_by: "another node".to_owned(),
                expires_at: None,
            };
            ledger.create_token(&token, Timestamp(1)).await.unwrap();
            let caller = access.token(name).await.unwrap();
            assert_eq!(caller.as_ref().map(Caller::name), Some(name));
        }
    }
}
