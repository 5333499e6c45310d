//! `throng token`, `throng session`, `throng sign-in`.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use throng_model::Timestamp;

use crate::answers::{CreatedToken, SessionList, SignInLink, TokenList};
use crate::args::{NodeArgs, SessionCommand, TokenCommand};
use crate::client::{Client, segment};
use crate::out;

fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "never".to_owned(), |at| at.to_string())
}

/// The body of `POST /v1/tokens`.
#[derive(Serialize)]
struct NewToken<'a> {
    name: &'a str,
    scopes: Vec<&'static str>,
    expires_in_secs: Option<u64>,
    workspace: Option<&'a str>,
}

pub(crate) async fn token(command: TokenCommand, json: bool) -> Result<ExitCode> {
    match command {
        TokenCommand::Create { name, scopes, expires, workspace, node } => {
            let body = NewToken {
                name: &name,
                scopes: scopes.iter().map(|scope| scope.name()).collect(),
                expires_in_secs: expires,
                workspace: workspace.as_deref(),
            };
            let answer = Client::new(&node)?.post("/v1/tokens", &body).await?;
            if json {
                answer.print();
            } else {
                out::line(answer.read::<CreatedToken>()?.token);
                out::message("the token is not shown again");
            }
        }
        TokenCommand::List { node } => {
            let answer = Client::new(&node)?.get("/v1/tokens").await?;
            if json {
                answer.print();
            } else {
                list_tokens(answer.read()?);
            }
        }
        TokenCommand::Revoke { name, node } => {
            let path = format!("/v1/tokens/{}/revoke", segment(&name));
            let answer = Client::new(&node)?.post_empty(&path).await?;
            if json {
                answer.print();
            } else {
                out::line(format!("{name} is revoked"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list_tokens(list: TokenList) {
    let rows = list.tokens.into_iter().map(|token| {
        let state = match (token.valid, token.revoked_at) {
            (true, _) => "valid",
            (false, Some(_)) => "revoked",
            (false, None) => "expired",
        };
        vec![
            token.name,
            state.to_owned(),
            token.scopes.join(","),
            time(token.created_at),
            token.created_by,
            time(token.expires_at),
            time(token.last_used_at),
        ]
    });
    let header = ["NAME", "STATE", "SCOPES", "CREATED", "BY", "EXPIRES", "LAST USED"];
    out::table(&header, rows.collect());
}

pub(crate) async fn session(command: SessionCommand, json: bool) -> Result<ExitCode> {
    match command {
        SessionCommand::List { node } => {
            let answer = Client::new(&node)?.get("/v1/sessions").await?;
            if json {
                answer.print();
                return Ok(ExitCode::SUCCESS);
            }
            let SessionList { sessions } = answer.read()?;
            let rows = sessions.into_iter().map(|session| {
                vec![
                    session.id.to_string(),
                    session.token,
                    time(session.created_at),
                    time(session.last_seen_at),
                    time(session.expires_at),
                ]
            });
            let header = ["SESSION", "TOKEN", "CREATED", "LAST USED", "EXPIRES"];
            out::table(&header, rows.collect());
        }
        SessionCommand::End { id, node } => {
            let path = format!("/v1/sessions/{id}/end");
            let answer = Client::new(&node)?.post_empty(&path).await?;
            if json {
                answer.print();
            } else {
                out::line(format!("session {id} has ended"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn sign_in(node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let client = Client::new(node)?;
    let mut link: SignInLink = client.post_empty("/v1/sign-in-links").await?.read()?;
    // With --url the link has that address, which may be a name that the node does not know of itself.
    if node.url.is_some() {
        link.url = format!("{}{}", client.url(), link.path);
    }
    if json {
        out::json(&link);
    } else {
        out::line(link.url);
        out::message("open it in a browser; it works once, within ten minutes");
    }
    Ok(ExitCode::SUCCESS)
}
