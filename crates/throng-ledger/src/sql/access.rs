//! Tokens, sessions and sign-in codes in SQL.

use async_trait::async_trait;
use throng_model::{SecretHash, Timestamp};

use super::{Backend, DbRow, read_one, write_one, write_tx};
use crate::rows::Cells;
use crate::{AccessLedger, Grant, LedgerError, NewToken, Result, SessionRow, TokenRow};

/// The columns of a token.
macro_rules! token_columns {
    () => {
        "id, name, hash, scopes, workspace, owner, created_at, created_by, expires_at, \
         last_used_at, revoked_at"
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
fn columns(grant: &Grant) -> (Option<i64>, Option<String>) {
    match grant {
        Grant::Token(id) => (Some(*id), None),
        Grant::Binding(hash) => (None, Some(hash.to_hex())),
    }
}

#[async_trait]
impl AccessLedger for Backend {
    async fn create_token(&self, token: &NewToken, now: Timestamp) -> Result<i64> {
        write_tx!(self, Full, "creating a token", |tx| {
            sqlx::query(
                "UPDATE tokens SET revoked_at = expires_at
                 WHERE name = $1 AND revoked_at IS NULL AND expires_at <= $2",
            )
            .bind(&token.name)
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
            let created: Option<i64> = sqlx::query_scalar(
                "INSERT INTO tokens
                    (name, hash, scopes, workspace, owner, created_at, created_by, expires_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                 ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING
                 RETURNING id",
            )
            .bind(&token.name)
            .bind(token.hash.to_hex())
            .bind(&token.scopes)
            .bind(&token.workspace)
            .bind(&token.owner)
            .bind(now.0)
            .bind(&token.created_by)
            .bind(token.expires_at.map(|end| end.0))
            .fetch_optional(&mut *tx)
            .await?;
            created.ok_or_else(|| LedgerError::WrongState {
                what: "token",
                name: token.name.clone(),
                state: "already valid".to_owned(),
                wanted: "created",
            })?
        })
    }

    async fn tokens(&self) -> Result<Vec<TokenRow>> {
        read_one!(self, "reading the tokens", |tx| {
            let rows = sqlx::query(concat!(
                "SELECT ",
                token_columns!(),
                " FROM tokens ORDER BY name, id DESC"
            ))
            .fetch_all(tx)
            .await?;
            rows.iter().map(token_of).collect::<Result<_>>()?
        })
    }

    async fn valid_tokens(&self, now: Timestamp) -> Result<Vec<TokenRow>> {
        read_one!(self, "reading the valid tokens", |tx| {
            let rows = sqlx::query(concat!(
                "SELECT ",
                token_columns!(),
                " FROM tokens
                 WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1)"
            ))
            .bind(now.0)
            .fetch_all(tx)
            .await?;
            rows.iter().map(token_of).collect::<Result<_>>()?
        })
    }

    async fn revoke_token(&self, name: &str, now: Timestamp) -> Result<()> {
        write_tx!(self, Full, "revoking a token", |tx| {
            let done = sqlx::query(
                "UPDATE tokens SET revoked_at = $2 WHERE name = $1 AND revoked_at IS NULL",
            )
            .bind(name)
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
            if done.rows_affected() == 0 {
                let name = name.to_owned();
                return Err(LedgerError::NotFound { what: "token", name }.into());
            }
        })
    }

    async fn revoke_owned(&self, owner: &str, keep: SecretHash, now: Timestamp) -> Result<u64> {
        write_one!(self, Full, "revoking the tokens of a data directory", |tx| {
            sqlx::query(
                "UPDATE tokens SET revoked_at = $3
                 WHERE owner = $1 AND hash <> $2 AND revoked_at IS NULL",
            )
            .bind(owner)
            .bind(keep.to_hex())
            .bind(now.0)
            .execute(tx)
            .await?
            .rows_affected()
        })
    }

    async fn extend_token(&self, id: i64, expires_at: Timestamp) -> Result<()> {
        write_one!(self, Relaxed, "extending a token", |tx| {
            sqlx::query("UPDATE tokens SET expires_at = $2 WHERE id = $1 AND expires_at < $2")
                .bind(id)
                .bind(expires_at.0)
                .execute(tx)
                .await?;
        })
    }

    async fn record_token_use(&self, used: &[(i64, Timestamp)]) -> Result<()> {
        if used.is_empty() {
            return Ok(());
        }
        write_tx!(self, Relaxed, "recording the use of tokens", |tx| {
            for (id, at) in used {
                sqlx::query(
                    "UPDATE tokens SET last_used_at = $2
                     WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)",
                )
                .bind(*id)
                .bind(at.0)
                .execute(&mut *tx)
                .await?;
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
            sqlx::query("DELETE FROM sessions WHERE expires_at <= $1")
                .bind(now.0)
                .execute(&mut *tx)
                .await?;
            sqlx::query_scalar(
                "INSERT INTO sessions (hash, token, binding, created_at, last_seen_at, expires_at)
                 VALUES ($1, $2, $3, $4, $4, $5) RETURNING id",
            )
            .bind(hash.to_hex())
            .bind(token)
            .bind(&binding)
            .bind(now.0)
            .bind(expires_at.0)
            .fetch_one(&mut *tx)
            .await?
        })
    }

    async fn session(&self, hash: SecretHash) -> Result<Option<SessionRow>> {
        read_one!(self, "reading a session", |tx| {
            let row = sqlx::query(
                "SELECT id, hash, token, binding, created_at, last_seen_at, expires_at
                 FROM sessions WHERE hash = $1",
            )
            .bind(hash.to_hex())
            .fetch_optional(tx)
            .await?;
            row.map(|row| session_of(&row)).transpose()?
        })
    }

    async fn record_session_use(&self, id: i64, now: Timestamp) -> Result<()> {
        write_one!(self, Relaxed, "recording the use of a session", |tx| {
            sqlx::query(
                "UPDATE sessions SET last_seen_at = $2 WHERE id = $1 AND last_seen_at < $2",
            )
            .bind(id)
            .bind(now.0)
            .execute(tx)
            .await?;
        })
    }

    async fn end_session(&self, id: i64) -> Result<bool> {
        write_one!(self, Full, "ending a session", |tx| {
            let done =
                sqlx::query("DELETE FROM sessions WHERE id = $1").bind(id).execute(tx).await?;
            done.rows_affected() > 0
        })
    }

    async fn sessions(&self, now: Timestamp) -> Result<Vec<SessionRow>> {
        read_one!(self, "reading the sessions", |tx| {
            let rows = sqlx::query(
                "SELECT id, hash, token, binding, created_at, last_seen_at, expires_at
                 FROM sessions WHERE expires_at > $1 ORDER BY id DESC",
            )
            .bind(now.0)
            .fetch_all(tx)
            .await?;
            rows.iter().map(session_of).collect::<Result<_>>()?
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
            sqlx::query("DELETE FROM sign_in_codes WHERE expires_at <= $1")
                .bind(now.0)
                .execute(&mut *tx)
                .await?;
            sqlx::query(
                "INSERT INTO sign_in_codes (hash, token, binding, expires_at)
                 VALUES ($1, $2, $3, $4)",
            )
            .bind(hash.to_hex())
            .bind(token)
            .bind(&binding)
            .bind(expires_at.0)
            .execute(&mut *tx)
            .await?;
        })
    }

    async fn redeem_sign_in_code(&self, hash: SecretHash, now: Timestamp) -> Result<Option<Grant>> {
        write_one!(self, Full, "redeeming a sign-in code", |tx| {
            let row = sqlx::query(
                "DELETE FROM sign_in_codes WHERE hash = $1 AND expires_at > $2
                 RETURNING token, binding",
            )
            .bind(hash.to_hex())
            .bind(now.0)
            .fetch_optional(tx)
            .await?;
            row.map(|row| grant_of(&row)).transpose()?
        })
    }
}
