//! Sessions of browsers, and the codes that begin them.

use std::sync::PoisonError;
use std::time::Duration;

use throng_model::{Secret, SecretHash, Timestamp, new_secret};
use throng_store::{Grant, LedgerError, SessionRow};

use super::{Access, AccessError, Caller, Credential, TTL};

/// A session ends when it was not used for so long,
const IDLE: Duration = Duration::from_secs(12 * 3_600);
/// and so long after it began in any case.
pub(crate) const LONGEST: Duration = Duration::from_secs(7 * 86_400);
/// How long a sign-in link works.
pub(crate) const CODE_LIFETIME: Duration = Duration::from_secs(600);
/// The use of a session is noted at most this often.
const NOTE_EVERY: Duration = Duration::from_secs(60);
/// Sessions that are kept in memory; more are read from the ledger for every request.
const MOST_CACHED: usize = 10_000;

/// A session as it was read from the ledger.
#[derive(Debug, Clone)]
pub(super) struct CachedSession {
    row: SessionRow,
    /// By [`Clock::elapsed`](throng_model::Clock::elapsed).
    read_at: Duration,
}

fn is_alive(row: &SessionRow, now: Timestamp) -> bool {
    now < row.expires_at && now < row.last_seen_at.plus(IDLE)
}

/// What a session or code with this secret stands for.
fn grant(secret: &Secret, credential: &Credential) -> Grant {
    match credential.id {
        Some(id) => Grant::Token(id),
        None => Grant::Binding(SecretHash::bound(secret.expose(), credential.hash)),
    }
}

impl Access {
    /// The valid token that a session or code with this secret stands for.
    fn granted(&self, secret: &str, grant: &Grant) -> Option<std::sync::Arc<Credential>> {
        match grant {
            Grant::Token(id) => {
                let found = self.known.load().by_id.get(id).cloned();
                found.filter(|token| token.is_valid(self.now()))
            }
            Grant::Binding(bound) => {
                let token = self.spec_token.clone();
                token.filter(|token| SecretHash::bound(secret, token.hash) == *bound)
            }
        }
    }

    /// Begins a session with the rights of a caller; its secret, for the cookie.
    pub(crate) async fn begin_session(&self, caller: &Caller) -> Result<Secret, AccessError> {
        let secret = new_secret("")?;
        let stands_for = grant(&secret, &caller.credential);
        let now = self.now();
        let hash = SecretHash::of(secret.expose());
        self.ledger.begin_session(hash, &stands_for, now, now.plus(LONGEST)).await?;
        Ok(secret)
    }

    /// The caller who has this session's cookie.
    pub(crate) async fn session(&self, secret: &str) -> Result<Option<Caller>, LedgerError> {
        let hash = SecretHash::of(secret);
        let cached = {
            let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.get(&hash).filter(|s| self.since(s.read_at) < TTL).map(|s| s.row.clone())
        };
        let row = match cached {
            Some(row) => Some(row),
            None => self.read_session(hash).await?,
        };
        let now = self.now();
        let Some(row) = row.filter(|row| is_alive(row, now)) else { return Ok(None) };
        let Some(credential) = self.granted(secret, &row.grant) else { return Ok(None) };
        if now.since(row.last_seen_at) >= NOTE_EVERY {
            self.ledger.session_seen(row.id, now).await?;
            self.forget_session(hash);
        }
        Ok(Some(Caller { credential, session: Some(row.id) }))
    }

    async fn read_session(&self, hash: SecretHash) -> Result<Option<SessionRow>, LedgerError> {
        let row = self.ledger.session(hash).await?;
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        match &row {
            Some(row) => {
                if sessions.len() >= MOST_CACHED {
                    sessions.retain(|_, session| self.since(session.read_at) < TTL);
                }
                if sessions.len() < MOST_CACHED {
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

    fn forget_session(&self, hash: SecretHash) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash);
    }

    /// Ends a session at once on this node, and within [`TTL`] on the others. Whether there was one.
    pub(crate) async fn end_session(&self, id: i64) -> Result<bool, LedgerError> {
        let ended = self.ledger.end_session(id).await?;
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| session.row.id != id);
        Ok(ended)
    }

    /// The sessions that are alive, newest first, each with the name of its token.
    pub(crate) async fn sessions(&self) -> Result<Vec<(SessionRow, String)>, LedgerError> {
        let now = self.now();
        let known = self.known.load_full();
        let rows = self.ledger.sessions(now).await?.into_iter();
        let named = rows.filter(|row| is_alive(row, now)).filter_map(|row| {
            let name = match &row.grant {
                Grant::Token(id) => known.by_id.get(id)?.name.clone(),
                Grant::Binding(_) => super::SPEC_TOKEN.to_owned(),
            };
            Some((row, name))
        });
        Ok(named.collect())
    }

    /// A code for one sign-in with the rights of a caller, within [`CODE_LIFETIME`].
    pub(crate) async fn sign_in_code(
        &self,
        caller: &Caller,
    ) -> Result<(Secret, Timestamp), AccessError> {
        let code = new_secret("")?;
        let stands_for = grant(&code, &caller.credential);
        let now = self.now();
        let end = now.plus(CODE_LIFETIME);
        self.ledger.put_sign_in_code(SecretHash::of(code.expose()), &stands_for, now, end).await?;
        Ok((code, end))
    }

    /// Takes a sign-in code: who it was made for, once.
    pub(crate) async fn take_code(&self, code: &str) -> Result<Option<Caller>, LedgerError> {
        let taken = self.ledger.take_sign_in_code(SecretHash::of(code), self.now()).await?;
        let Some(grant) = taken else { return Ok(None) };
        if self.granted(code, &grant).is_none() {
            // Made with a token that another node created a moment ago.
            self.reload().await?;
        }
        let credential = self.granted(code, &grant);
        Ok(credential.map(|credential| Caller { credential, session: None }))
    }
}
