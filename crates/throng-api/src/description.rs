//! What all operations of the OpenAPI description share: the token, ids, tags, and the errors.

use std::collections::BTreeMap;

use utoipa::Modify;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr, Response};

use crate::error::ErrorCode;

/// Adds the bearer token to a description.
#[derive(Debug)]
pub struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme =
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        openapi.components.get_or_insert_default().add_security_scheme("token", scheme);
    }
}

/// Gives every operation of a description a unique id, the tag of its resource and the errors that every
/// operation of its kind can have, and all errors the same schema.
#[derive(Debug)]
pub struct CommonErrors;

/// The resource of a path: `audiences` of `/v1/audiences/{name}`; `node` of the paths of the node itself.
fn resource(path: &str) -> &str {
    path.strip_prefix("/v1/").and_then(|rest| rest.split('/').next()).unwrap_or("node")
}

/// The id of an operation: its method and its path, such as `get_v1_audiences_name`.
fn operation_id(method: &str, path: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("_")
}

/// The codes that an operation can respond with, besides those that it declares, each with its meaning.
fn common_errors(
    method: &str,
    path: &str,
    operation: &Operation,
) -> Vec<(ErrorCode, &'static str)> {
    use ErrorCode::{
        BadRequest, Forbidden, ForeignOrigin, Internal, Timeout, TooLarge, TooManyWrongTokens,
        Unauthorized, Unavailable, UnknownHost, UnsupportedMediaType, WrongToken,
    };
    let mut errors = vec![(UnknownHost, "the host name of the request is not a name of the node")];
    // Probes need no token, and read only memory.
    if operation.security.is_some() {
        return errors;
    }
    errors.extend([
        (Unauthorized, "the request has no token and no session"),
        (WrongToken, "the token is wrong, expired or revoked"),
        (Forbidden, "the token lacks a scope"),
        (Timeout, "the request took longer than `node.request_timeout_secs`"),
        (TooManyWrongTokens, "too many wrong tokens from this address"),
        (Internal, "a bug; the log of the node has the cause, with the request id"),
        (Unavailable, "a component is unavailable; with `Retry-After` if a retry may succeed"),
    ]);
    let has_parameters = operation.parameters.as_ref().is_some_and(|all| !all.is_empty());
    // Every route of the API refuses parameters that it does not have.
    if path.starts_with("/v1/") || has_parameters || operation.request_body.is_some() {
        errors.push((BadRequest, "a parameter or the body is invalid"));
    }
    if method == "post" {
        errors.extend([
            (ForeignOrigin, "a page of another site sent the request"),
            (TooLarge, "the body is larger than `node.max_request_bytes`"),
            (UnsupportedMediaType, "the path does not accept the content type or encoding"),
        ]);
    }
    errors
}

/// The description of the errors of one status.
fn describe(errors: &[(ErrorCode, &str)]) -> String {
    let parts: Vec<String> =
        errors.iter().map(|(code, meaning)| format!("`{code}`: {meaning}")).collect();
    parts.join("; ")
}

/// The code of an error that an operation declares. An operation with another code of the status names it at
/// the beginning of the description.
fn declared_code(status: u16) -> Option<ErrorCode> {
    match status {
        409 => Some(ErrorCode::WrongState),
        _ => ErrorCode::ALL.into_iter().find(|code| code.status() == status),
    }
}

/// The description of an error that an operation declares, with its code, and with the common errors of the
/// status.
fn describe_declared(status: u16, declared: &str, common: &[(ErrorCode, &str)]) -> String {
    let is_named = |text: &str, code: ErrorCode| text.starts_with(&format!("`{code}`"));
    let has_code = ErrorCode::ALL.into_iter().any(|code| is_named(declared, code));
    let described = match declared_code(status).filter(|_| !has_code) {
        Some(code) => format!("`{code}`: {declared}"),
        None => declared.to_owned(),
    };
    let others = common.iter().copied().filter(|(code, _)| !is_named(&described, *code));
    let others: Vec<(ErrorCode, &str)> = others.collect();
    match others.as_slice() {
        [] => described,
        others => format!("{described}; {}", describe(others)),
    }
}

impl Modify for CommonErrors {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut openapi.paths.paths {
            for (method, operation) in [("get", &mut item.get), ("post", &mut item.post)] {
                let Some(operation) = operation else { continue };
                operation.operation_id = Some(operation_id(method, path));
                operation.tags = Some(vec![resource(path).to_owned()]);
                let mut errors: BTreeMap<u16, Vec<(ErrorCode, &str)>> = BTreeMap::new();
                for (code, meaning) in common_errors(method, path, operation) {
                    errors.entry(code.status()).or_default().push((code, meaning));
                }
                let responses = &mut operation.responses.responses;
                for (status, response) in responses.iter_mut() {
                    let RefOr::T(response) = response else { continue };
                    let Ok(status) = status.parse::<u16>() else { continue };
                    // A response that has a body of its own describes it itself.
                    if status >= 400 && response.content.is_empty() {
                        let common = errors.remove(&status).unwrap_or_default();
                        response.description =
                            describe_declared(status, &response.description, &common);
                    }
                }
                for (status, errors) in errors {
                    let common = RefOr::T(Response::new(describe(&errors)));
                    responses.entry(status.to_string()).or_insert(common);
                }
                let any_error = RefOr::T(Response::new("all other responses are errors"));
                responses.entry("default".to_owned()).or_insert(any_error);
                for (status, response) in responses.iter_mut() {
                    let RefOr::T(response) = response else { continue };
                    let is_error = status == "default" || status.starts_with(['4', '5']);
                    if is_error && response.content.is_empty() {
                        let body = Content::new(Some(Ref::from_schema_name("ErrorBody")));
                        response.content.insert("application/json".to_owned(), RefOr::T(body));
                    }
                }
            }
        }
    }
}
