//! Tokens, sessions and sign-in codes in SQL.

use async_trait::async_trait;
use throng_model::{SecretHash, Timestamp};

use crate::backend::{Backend, SqlLedger, read_one, write_one, write_tx};
use crate::rows::{Cells, DbRow};
use crate::{AccessLedger, Grant, LedgerError, NewToken, Result, SessionRow, TokenRow};

/// SELECT of tokens, with these clauses.
macro_rules! tokens {
    ($clauses:literal) => {
        concat!(
            "SELECT id, name, hash, scopes, workspace, owner, created_at, created_by, expires_at,
                last_used_at, revoked_at
             FROM tokens ",
            $clauses
        )
    };
}

/// SELECT of sessions, with these clauses.
macro_rules! sessions {
    ($clauses:literal) => {
        concat!(
            "SELECT id, hash, token, binding, created_at, last_seen_at, expires_at FROM sessions ",
            $clauses
        )
    };
}

fn token_of(row: &DbRow) -> Result<TokenRow> {
    let cells = Cells::new(row, "token");
    Ok(TokenRow {
        id: cells.int("id")?,
        name: cells.text("name")?,
        hash: cells.name("hash")?,
        scopes: cells.text("scopes")?,
        workspace: cells.maybe_text("workspace")?,
        owner: cells.maybe_text("owner")?,
        created_at: cells.time("created_at")?,
        created_by: cells.text("created_by")?,
        expires_at: cells.maybe_time("expires_at")?,
        last_used_at: cells.maybe_time("last_used_at")?,
        revoked_at: cells.maybe_time("revoked_at")?,
    })
}

fn grant_of(row: &DbRow) -> Result<Grant> {
    let cells = Cells::new(row, "grant");
    match cells.maybe_int("token")? {
        Some(token) => Ok(Grant::Token(token)),
        None => Ok(Grant::Binding(cells.name("binding")?)),
    }
}

fn session_of(row: &DbRow) -> Result<SessionRow> {
    let cells = Cells::new(row, "session");
    Ok(SessionRow {
        id: cells.int("id")?,
        hash: cells.name("hash")?,
        grant: grant_of(row)?,
        created_at: cells.time("created_at")?,
        last_seen_at: cells.time("last_seen_at")?,
        expires_at: cells.time("expires_at")?,
    })
}

/// The columns of a grant.
fn columns(grant: &Grant) -> (Option<i64>, Option<SecretHash>) {
    match grant {
        Grant::Token(id) => (Some(*id), None),
        Grant::Binding(hash) => (None, Some(*hash)),
    }
}

#[async_trait]
impl<B: Backend> AccessLedger for SqlLedger<B> {
    async fn create_token(&self, token: &NewToken, now: Timestamp) -> Result<i64> {
        write_tx!(self, Full, "creating a token", |tx| {
            tx.execute(
                "UPDATE tokens SET revoked_at = expires_at
                 WHERE name = $1 AND revoked_at IS NULL AND expires_at <= $2",
                (&token.name, now),
            )
            .await?;
            let created: Option<i64> = tx
                .maybe_scalar(
                    "INSERT INTO tokens
                        (name, hash, scopes, workspace, owner, created_at, created_by, expires_at)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                     ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING
                     RETURNING id",
                    (
                        &token.name,
                        token.hash,
                        &token.scopes,
                        token.workspace.as_deref(),
                        token.owner.as_deref(),
                        now,
                        &token.created_by,
                        token.expires_at,
                    ),
                )
                .await?;
            created.ok_or_else(|| {
                LedgerError::wrong_state("token", &token.name, "already valid", "created")
            })?
        })
    }

    async fn tokens(&self) -> Result<Vec<TokenRow>> {
        read_one!(self, "reading the tokens", |tx| {
            tx.all(tokens!("ORDER BY name, id DESC"), (), token_of).await?
        })
    }

    async fn valid_tokens(&self, now: Timestamp) -> Result<Vec<TokenRow>> {
        read_one!(self, "reading the valid tokens", |tx| {
            let text =
                tokens!("WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1)");
            tx.all(text, now, token_of).await?
        })
    }

    async fn revoke_token(&self, name: &str, now: Timestamp) -> Result<()> {
        write_tx!(self, Full, "revoking a token", |tx| {
            let text = "UPDATE tokens SET revoked_at = $2 WHERE name = $1 AND revoked_at IS NULL";
            if tx.execute(text, (name, now)).await? == 0 {
                return Err(LedgerError::not_found("token", name).into());
            }
        })
    }

    async fn revoke_owned(&self, owner: &str, keep: SecretHash, now: Timestamp) -> Result<u64> {
        write_one!(self, Full, "revoking the tokens of a data directory", |tx| {
            let text = "UPDATE tokens SET revoked_at = $3
                 WHERE owner = $1 AND hash <> $2 AND revoked_at IS NULL";
            tx.execute(text, (owner, keep, now)).await?
        })
    }

    async fn extend_token(&self, id: i64, expires_at: Timestamp) -> Result<()> {
        write_one!(self, Relaxed, "extending a token", |tx| {
            let text = "UPDATE tokens SET expires_at = $2 WHERE id = $1 AND expires_at < $2";
            tx.execute(text, (id, expires_at)).await?;
        })
    }

    async fn record_token_use(&self, used: &[(i64, Timestamp)]) -> Result<()> {
        if used.is_empty() {
            return Ok(());
        }
        write_tx!(self, Relaxed, "recording the use of tokens", |tx| {
            for (id, at) in used {
                let text = "UPDATE tokens SET last_used_at = $2
                     WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)";
                tx.execute(text, (*id, *at)).await?;
            }
        })
    }

    async fn begin_session(
        &self,
        hash: SecretHash,
        grant: &Grant,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<i64> {
        let (token, binding) = columns(grant);
        write_tx!(self, Full, "creating a session", |tx| {
            tx.execute("DELETE FROM sessions WHERE expires_at <= $1", now).await?;
            let text =
                "INSERT INTO sessions (hash, token, binding, created_at, last_seen_at, expires_at)
                 VALUES ($1, $2, $3, $4, $4, $5) RETURNING id";
            tx.scalar(text, (hash, token, binding, now, expires_at)).await?
        })
    }

    async fn session(&self, hash: SecretHash) -> Result<Option<SessionRow>> {
        read_one!(self, "reading a session", |tx| {
            tx.optional(sessions!("WHERE hash = $1"), hash, session_of).await?
        })
    }

    async fn record_session_use(&self, id: i64, now: Timestamp) -> Result<()> {
        write_one!(self, Relaxed, "recording the use of a session", |tx| {
            let text = "UPDATE sessions SET last_seen_at = $2 WHERE id = $1 AND last_seen_at < $2";
            tx.execute(text, (id, now)).await?;
        })
    }

    async fn end_session(&self, id: i64) -> Result<bool> {
        write_one!(self, Full, "ending a session", |tx| {
            tx.execute("DELETE FROM sessions WHERE id = $1", id).await? > 0
        })
    }

    async fn sessions(&self, now: Timestamp) -> Result<Vec<SessionRow>> {
        read_one!(self, "reading the sessions", |tx| {
            tx.all(sessions!("WHERE expires_at > $1 ORDER BY id DESC"), now, session_of).await?
        })
    }

    async fn put_sign_in_code(
        &self,
        hash: SecretHash,
        grant: &Grant,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<()> {
        let (token, binding) = columns(grant);
        write_tx!(self, Full, "storing a sign-in code", |tx| {
            tx.execute("DELETE FROM sign_in_codes WHERE expires_at <= $1", now).await?;
            let text = "INSERT INTO sign_in_codes (hash, token, binding, expires_at)
                 VALUES ($1, $2, $3, $4)";
            tx.execute(text, (hash, token, binding, expires_at)).await?;
        })
    }

    async fn redeem_sign_in_code(&self, hash: SecretHash, now: Timestamp) -> Result<Option<Grant>> {
        write_one!(self, Full, "redeeming a sign-in code", |tx| {
            let text = "DELETE FROM sign_in_codes WHERE hash = $1 AND expires_at > $2
                 RETURNING token, binding";
            // All rows are fetched: only then is it certain that the statement was committed.
            tx.all(text, (hash, now), grant_of).await?.pop()
        })
    }
}
