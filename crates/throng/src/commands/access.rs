//! `throng token`, `throng session`, `throng sign-in`.

use std::process::ExitCode;

use anyhow::Result;
use throng_api::{CreateToken, SessionList, SignInLink, TokenCreated, TokenList};
use throng_model::Timestamp;

use crate::args::{NodeArgs, SessionCommand, TokenCommand};
use crate::client::{Client, segment};
use crate::out::{self, Output};

fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "never".to_owned(), |at| at.to_string())
}

pub(crate) async fn token(command: TokenCommand, output: Output) -> Result<ExitCode> {
    match command {
        TokenCommand::Create { name, scopes, expires, workspace, node } => {
            let scopes = scopes.iter().map(|scope| scope.name().to_owned()).collect();
            let body = CreateToken { name, scopes, expires_in_secs: expires, workspace };
            let answer = Client::new(&node)?.post("/v1/tokens", &body).await?;
            if output.is_json() {
                answer.print();
            } else {
                out::line(answer.read::<TokenCreated>()?.token);
                out::message("the token is not shown again");
            }
        }
        TokenCommand::List { node } => {
            let answer = Client::new(&node)?.get("/v1/tokens").await?;
            if output.is_json() {
                answer.print();
            } else {
                list_tokens(answer.read()?);
            }
        }
        TokenCommand::Revoke { name, node } => {
            let path = format!("/v1/tokens/{}/revoke", segment(&name));
            let answer = Client::new(&node)?.post_empty(&path).await?;
            answer.print_or(format!("{name} is revoked"), output);
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
            token.workspace.unwrap_or_default(),
            token.created_at.to_string(),
            token.created_by,
            time(token.expires_at),
            time(token.last_used_at),
        ]
    });
    let header = ["NAME", "STATE", "SCOPES", "WORKSPACE", "CREATED", "BY", "EXPIRES", "LAST USED"];
    out::table(&header, rows.collect());
}

pub(crate) async fn session(command: SessionCommand, output: Output) -> Result<ExitCode> {
    match command {
        SessionCommand::List { node } => {
            let answer = Client::new(&node)?.get("/v1/sessions").await?;
            let Some(SessionList { sessions }) = answer.for_people(output)? else {
                return Ok(ExitCode::SUCCESS);
            };
            let rows = sessions.into_iter().map(|session| {
                vec![
                    session.id.to_string(),
                    session.token,
                    session.created_at.to_string(),
                    session.last_seen_at.to_string(),
                    session.expires_at.to_string(),
                ]
            });
            let header = ["SESSION", "TOKEN", "CREATED", "LAST USED", "EXPIRES"];
            out::table(&header, rows.collect());
        }
        SessionCommand::End { id, node } => {
            let path = format!("/v1/sessions/{id}/end");
            let answer = Client::new(&node)?.post_empty(&path).await?;
            answer.print_or(format!("session {id} has ended"), output);
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn sign_in(node: &NodeArgs, output: Output) -> Result<ExitCode> {
    let client = Client::new(node)?;
    let mut link: SignInLink = client.post_empty("/v1/sign-in-links").await?.read()?;
    // With --url the link has that address, which may be a name that the node does not know of itself.
    if node.url.is_some() {
        link.url = format!("{}{}", client.url(), link.path);
    }
    if output.is_json() {
        out::json(&link);
    } else {
        out::line(link.url);
        out::message("open it in a browser; it works once, within ten minutes");
    }
    Ok(ExitCode::SUCCESS)
}
