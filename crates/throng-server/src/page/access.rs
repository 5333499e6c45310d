//! Tokens and sessions, for administrators.

use askama::Template;
use axum::extract::State;
use throng_model::Timestamp;
use throng_store::TokenRow;

use super::show;
use super::{Context, Page, render};

#[derive(Template)]
#[template(path = "access.html")]
struct AccessPage {
    tokens: Vec<TokenView>,
    sessions: Vec<SessionView>,
}

impl AccessPage {
    fn menu_path(&self) -> &'static str {
        "/access"
    }
}

struct TokenView {
    name: String,
    state: &'static str,
    tone: &'static str,
    scopes: String,
    created: String,
    by: String,
    expires: String,
    used: String,
}

struct SessionView {
    id: i64,
    token: String,
    started: String,
    used: String,
    expires: String,
}

fn when_or_never(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "never".to_owned(), show::when)
}

impl TokenView {
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
            expires: when_or_never(row.expires_at),
            used: when_or_never(row.last_used_at),
        }
    }
}

pub(super) async fn page(State(ctx): Context) -> Page {
    let access = &ctx.access;
    let tokens = access.list().await?;
    let tokens = tokens.into_iter().map(|row| {
        let valid = access.is_valid(&row);
        TokenView::of(row, valid)
    });
    let sessions = access.sessions().await?.into_iter().map(|(row, token)| SessionView {
        id: row.id,
        token,
        started: show::when(row.created_at),
        used: show::when(row.last_seen_at),
        expires: show::when(row.expires_at),
    });
    render(&AccessPage { tokens: tokens.collect(), sessions: sessions.collect() })
}
