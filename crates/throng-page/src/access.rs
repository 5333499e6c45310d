//! Tokens and sessions, for administrators.

use askama::Template;
use throng_api::{SessionSummary, TokenSummary};
use throng_model::Timestamp;

use crate::{Rendered, show};

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
    workspace: String,
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
    fn of(token: TokenSummary) -> Self {
        let (state, tone) = match (token.valid, token.revoked_at) {
            (true, _) => ("valid", "good"),
            (false, Some(_)) => ("revoked", "bad"),
            (false, None) => ("expired", "warn"),
        };
        Self {
            name: token.name,
            state,
            tone,
            scopes: token.scopes.join(", "),
            workspace: token.workspace.unwrap_or_else(|| "all".to_owned()),
            created: show::when(token.created_at),
            by: token.created_by,
            expires: when_or_never(token.expires_at),
            used: when_or_never(token.last_used_at),
        }
    }
}

/// All tokens and sessions.
///
/// # Errors
/// [`RenderError`](crate::RenderError).
pub fn page(tokens: Vec<TokenSummary>, sessions: Vec<SessionSummary>) -> Rendered {
    let sessions = sessions.into_iter().map(|session| SessionView {
        id: session.id,
        token: session.token,
        started: show::when(session.created_at),
        used: show::when(session.last_seen_at),
        expires: show::when(session.expires_at),
    });
    let tokens = tokens.into_iter().map(TokenView::of).collect();
    AccessPage { tokens, sessions: sessions.collect() }.render()
}
