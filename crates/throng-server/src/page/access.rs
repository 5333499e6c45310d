//! Who may call the node: tokens and sessions, for administrators.

use askama::Template;
use axum::extract::State;
use throng_model::Timestamp;
use throng_store::TokenRow;

use super::show;
use super::{Context, Page, render};

#[derive(Template)]
#[template(path = "access.html")]
struct AccessPage {
    tokens: Vec<TokenLine>,
    sessions: Vec<SessionLine>,
}

impl AccessPage {
    fn place(&self) -> &'static str {
        "/access"
    }
}

struct TokenLine {
    name: String,
    state: &'static str,
    tone: &'static str,
    scopes: String,
    created: String,
    by: String,
    expires: String,
    used: String,
}

struct SessionLine {
    id: i64,
    token: String,
    began: String,
    used: String,
    ends: String,
}

fn when(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "never".to_owned(), show::when)
}

impl TokenLine {
    fn of(row: TokenRow, valid: bool) -> Self {
        let (state, tone) = match (valid, row.revoked_at) {
            (true, _) => ("valid", "good"),
            (false, Some(_)) => ("revoked", "bad"),
            (false, None) => ("expired", "warn"),
        };
        Self {
            name: row.name,
            state,
            tone,
            scopes: row.scopes.replace(',', ", "),
            created: show::when(row.created_at),
            by: row.created_by,
            expires: when(row.expires_at),
            used: when(row.last_used_at),
        }
    }
}

pub(super) async fn page(State(ctx): Context) -> Page {
    let access = &ctx.access;
    let tokens = access.list().await?;
    let tokens = tokens.into_iter().map(|row| {
        let valid = access.is_valid(&row);
        TokenLine::of(row, valid)
    });
    let sessions = access.sessions().await?.into_iter().map(|(row, token)| SessionLine {
        id: row.id,
        token,
        began: show::when(row.created_at),
        used: show::when(row.last_seen_at),
        ends: show::when(row.expires_at),
    });
    render(&AccessPage { tokens: tokens.collect(), sessions: sessions.collect() })
}
