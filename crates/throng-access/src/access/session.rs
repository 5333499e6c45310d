//! Sessions of browsers, and the sign-in codes that start them.

use std::time::Duration;

use throng_model::{Secret, SecretHash, Timestamp, new_secret};
use throng_store::{Grant, LedgerError, SessionRow};

use super::{Access, AccessError, CACHE_TTL, Caller, Credential};

/// A session expires when it is not used for this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(12 * 3_600);
/// A session expires this long after its start, even if it is used.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// How long a sign-in link is valid.
const CODE_LIFETIME: Duration = Duration::from_secs(600);
/// The last use of a session is written to the ledger at most this often.
const LAST_SEEN_INTERVAL: Duration = Duration::from_secs(60);
/// Sessions in the cache; further ones are read from the ledger for every request.
const MAX_CACHED: usize = 10_000;

/// A session as it was read from the ledger.
#[derive(Debug, Clone)]
pub(super) struct CachedSession {
    row: SessionRow,
    /// By [`Clock::elapsed`](throng_model::Clock::elapsed).
    read_at: Duration,
}

fn is_active(row: &SessionRow, now: Timestamp) -> bool {
    now < row.expires_at && now < row.last_seen_at.plus(IDLE_TIMEOUT)
}

/// The grant of a session or code with this secret. The spec's token has no id, so the grant is
/// bound to its hash: when the spec gets another token, sessions of the previous one end.
fn grant_of(secret: &Secret, credential: &Credential) -> Grant {
    match credential.id {
        Some(id) => Grant::Token(id),
        None => Grant::Binding(SecretHash::bound(secret.expose(), credential.hash)),
    }
}

impl Access {
    /// The valid token behind a session or code with this secret.
    fn credential_of(&self, secret: &str, grant: &Grant) -> Option<std::sync::Arc<Credential>> {
        match grant {
            Grant::Token(id) => {
                let found = self.valid_tokens.load().by_id.get(id).cloned();
                found.filter(|token| token.is_valid(self.now()))
            }
            Grant::Binding(bound) => {
                let token = self.spec_token.clone();
                token.filter(|token| SecretHash::bound(secret, token.hash) == *bound)
            }
        }
    }

    /// Starts a session with the rights of a caller. Returns its secret, for the cookie.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn begin_session(&self, caller: &Caller) -> Result<Secret, AccessError> {
        let secret = new_secret("")?;
        let grant = grant_of(&secret, &caller.credential);
        let now = self.now();
        let hash = SecretHash::of(secret.expose());
        self.ledger.begin_session(hash, &grant, now, now.plus(SESSION_LIFETIME)).await?;
        Ok(secret)
    }

    /// The caller with the cookie of this session; `None` if it has ended or expired.
    ///
    /// # Errors
    /// [`LedgerError`] if the ledger does not respond.
    pub async fn session(&self, secret: &str) -> Result<Option<Caller>, LedgerError> {
        let hash = SecretHash::of(secret);
        let cached = {
            let sessions = self.sessions.lock();
            sessions.get(&hash).filter(|s| self.since(s.read_at) < CACHE_TTL).map(|s| s.row.clone())
        };
        let row = match cached {
            Some(row) => Some(row),
            None => self.read_session(hash).await?,
        };
        let now = self.now();
        let Some(row) = row.filter(|row| is_active(row, now)) else { return Ok(None) };
        let Some(credential) = self.credential_of(secret, &row.grant) else { return Ok(None) };
        if now.since(row.last_seen_at) >= LAST_SEEN_INTERVAL {
            self.ledger.record_session_use(row.id, now).await?;
            self.remove_cached(hash);
        }
        Ok(Some(Caller { credential, session: Some(row.id) }))
    }

    async fn read_session(&self, hash: SecretHash) -> Result<Option<SessionRow>, LedgerError> {
        let row = self.ledger.session(hash).await?;
        let mut sessions = self.sessions.lock();
        match &row {
            Some(row) => {
                if sessions.len() >= MAX_CACHED {
                    sessions.retain(|_, session| self.since(session.read_at) < CACHE_TTL);
                }
                if sessions.len() < MAX_CACHED {
                    let read_at = self.clock.elapsed();
                    sessions.insert(hash, CachedSession { row: row.clone(), read_at });
                }
            }
            None => {
                sessions.remove(&hash);
            }
        }
        Ok(row)
    }

    fn remove_cached(&self, hash: SecretHash) {
        self.sessions.lock().remove(&hash);
    }

    /// Ends a session at once on this node, and within a second on the others. Whether there was
    /// one.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn end_session(&self, id: i64) -> Result<bool, LedgerError> {
        let ended = self.ledger.end_session(id).await?;
        let mut sessions = self.sessions.lock();
        sessions.retain(|_, session| session.row.id != id);
        Ok(ended)
    }

    /// The active sessions, newest first, each with the name of its token.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn sessions(&self) -> Result<Vec<(SessionRow, String)>, LedgerError> {
        let now = self.now();
        let tokens = self.valid_tokens.load_full();
        let rows = self.ledger.sessions(now).await?.into_iter();
        let named = rows.filter(|row| is_active(row, now)).filter_map(|row| {
            let name = match &row.grant {
                Grant::Token(id) => tokens.by_id.get(id)?.name.clone(),
                Grant::Binding(_) => super::SPEC_TOKEN.to_owned(),
            };
            Some((row, name))
        });
        Ok(named.collect())
    }

    /// Creates a code for one sign-in with the rights of a caller, valid for ten minutes. Returns
    /// it with the time when it expires.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn sign_in_code(&self, caller: &Caller) -> Result<(Secret, Timestamp), AccessError> {
        let code = new_secret("")?;
        let grant = grant_of(&code, &caller.credential);
        let now = self.now();
        let end = now.plus(CODE_LIFETIME);
        self.ledger.put_sign_in_code(SecretHash::of(code.expose()), &grant, now, end).await?;
        Ok((code, end))
    }

    /// Redeems a sign-in code. Returns the caller for whom it was created; `None` the second time.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn redeem_code(&self, code: &str) -> Result<Option<Caller>, LedgerError> {
        let redeemed = self.ledger.redeem_sign_in_code(SecretHash::of(code), self.now()).await?;
        let Some(grant) = redeemed else { return Ok(None) };
        if self.credential_of(code, &grant).is_none() {
            // Its token may have been created on another node just now.
            self.reload().await?;
        }
        let credential = self.credential_of(code, &grant);
        Ok(credential.map(|credential| Caller { credential, session: None }))
    }
}
