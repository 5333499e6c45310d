//! The OpenAPI description, generated from the handlers. `docs/reference/openapi.json` is a copy of it
//! (`cargo xtask gen`).

use std::collections::BTreeMap;

use axum::Json;
use throng_api::{ErrorBody, ErrorCode};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr, Response};
use utoipa::{Modify, OpenApi};

/// Adds the bearer token.
struct Token;

impl Modify for Token {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme =
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        openapi.components.get_or_insert_default().add_security_scheme("token", scheme);
    }
}

/// Gives every operation a unique id, the tag of its resource and the errors that every operation of its kind
/// can have, and all errors the same schema.
struct Common;

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
fn common_errors(method: &str, operation: &Operation) -> Vec<(ErrorCode, &'static str)> {
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
    if has_parameters || operation.request_body.is_some() {
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

impl Modify for Common {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut openapi.paths.paths {
            for (method, operation) in [("get", &mut item.get), ("post", &mut item.post)] {
                let Some(operation) = operation else { continue };
                operation.operation_id = Some(operation_id(method, path));
                operation.tags = Some(vec![resource(path).to_owned()]);
                let mut errors: BTreeMap<u16, Vec<(ErrorCode, &str)>> = BTreeMap::new();
                for (code, meaning) in common_errors(method, operation) {
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

#[derive(OpenApi)]
#[openapi(
    info(title = "Throng", description = "Audiences, lookups, activation, budgets, decisions"),
    security(("token" = [])),
    modifiers(&Token, &Common),
    components(schemas(ErrorBody, throng_api::ErrorDetail, ErrorCode, throng_api::SpecProblem)),
    paths(
        super::health::healthz, super::health::readyz, super::health::details, super::health::metrics, super::health::nodes, document,
        super::audiences::list, super::audiences::one, super::audiences::refresh,
        super::audiences::cancel, super::audiences::approve, super::audiences::reject, super::audiences::rollback,
        super::audiences::pause, super::audiences::resume, super::audiences::release,
        super::lookups::one, super::lookups::batch,
        super::syncs::run, super::syncs::recreate, super::syncs::pause, super::syncs::resume,
        super::removals::list, super::removals::approve, super::removals::keep,
        super::sizes::of_sync, super::syncs::list, super::syncs::runs, super::syncs::approve_run, super::syncs::tasks,
        super::syncs::task, super::syncs::requeue, super::syncs::enqueue_due, super::syncs::approve_destination,
        super::alerts::list, super::alerts::deliveries, super::alerts::test,
        super::events::accept, super::events::quarantine, super::budgets::list, super::budgets::one,
        super::feed::stream, super::feed::catalog, super::feed::gates, super::feed::applied,
        super::decide::decide, super::sources::list, super::spec::current, super::spec::plan, super::spec::apply, super::why::history,
        super::stream::changes, super::tokens::create, super::tokens::list, super::tokens::revoke,
        super::tokens::sessions, super::tokens::end_session, super::tokens::sign_in_link,
    )
)]
pub(crate) struct Api;

/// The OpenAPI description of the API.
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, body = throng_api::Description, description = "OpenAPI 3.1")))]
pub(crate) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Api::openapi())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every `.route("…")` of the API's sources is described, and nothing else is.
    #[test]
    fn every_route_is_described() {
        let sources = [include_str!("mod.rs"), include_str!("health.rs")];
        let routes: BTreeSet<String> = sources
            .iter()
            .flat_map(|text| text.split(".route(\"").skip(1))
            .filter_map(|rest| rest.split('"').next())
            .map(str::to_owned)
            .collect();
        let described: BTreeSet<String> = Api::openapi().paths.paths.keys().cloned().collect();
        assert_eq!(routes, described);
    }

    /// Every operation has a unique id, and declares the parameters of its path.
    #[test]
    fn operations_are_well_formed() {
        let mut ids = BTreeSet::new();
        for (path, item) in Api::openapi().paths.paths {
            for operation in [item.get, item.post].into_iter().flatten() {
                let id = operation.operation_id.unwrap();
                assert!(ids.insert(id.clone()), "{id} twice");
                let declared: BTreeSet<String> = operation
                    .parameters
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(|parameter| match parameter {
                        RefOr::T(parameter) => Some(parameter.name),
                        RefOr::Ref(_) => None,
                    })
                    .collect();
                let in_path = path.split('/').filter_map(|part| part.strip_prefix('{'));
                for name in in_path.filter_map(|part| part.strip_suffix('}')) {
                    assert!(declared.contains(name), "{id}: {name} is not declared");
                }
            }
        }
    }

    /// Every response has a schema and a description, and every schema that is named exists.
    #[test]
    fn every_response_has_a_schema() {
        let document = serde_json::to_value(Api::openapi()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                for (status, response) in operation["responses"].as_object().unwrap() {
                    let place = format!("{method} {path} {status}");
                    assert!(!response["description"].as_str().unwrap().is_empty(), "{place}");
                    let content = response["content"].as_object();
                    let content = content.unwrap_or_else(|| panic!("{place}: no schema"));
                    assert!(content.values().all(|one| one["schema"].is_object()), "{place}");
                }
            }
        }
        let text = document.to_string();
        for rest in text.split("\"$ref\":\"#").skip(1) {
            let pointer = rest.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer} is missing");
        }
    }

    /// Every operation declares the errors of its kind, and no code of an error is missing.
    #[test]
    fn every_operation_declares_its_errors() {
        let document = serde_json::to_value(Api::openapi()).unwrap();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let is_probe = ["/healthz", "/readyz"].contains(&path.as_str());
                let needed: &[&str] = match (is_probe, method.as_str()) {
                    (true, _) => &["421"],
                    (false, "post") => &["401", "403", "413", "415", "421", "429", "500", "503"],
                    (false, _) => &["401", "403", "421", "429", "500", "503"],
                };
                for status in needed {
                    let schema = operation["responses"][*status]["content"]["application/json"]
                        ["schema"]["$ref"]
                        .as_str();
                    // The events have a body of their own for some errors.
                    assert!(schema.is_some(), "{method} {path} {status}");
                }
            }
        }
        let codes = document["components"]["schemas"]["ErrorCode"]["enum"].as_array().unwrap();
        let codes: BTreeSet<&str> = codes.iter().filter_map(|code| code.as_str()).collect();
        let all: BTreeSet<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes, all);
    }

    /// Clients are generated from the file, and a change of the API shows in its diff.
    #[test]
    fn the_checked_in_document_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/openapi.json");
        let text = serde_json::to_string_pretty(&Api::openapi()).unwrap() + "\n";
        if std::env::var_os("THRONG_BLESS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let current = std::fs::read_to_string(path).unwrap_or_default();
        assert!(current == text, "docs/reference/openapi.json is stale: run `cargo xtask gen`");
    }

    /// No route without a scope, and no scope without a route.
    #[test]
    fn every_route_has_a_scope() {
        use super::super::auth::{Needs, ROUTES};
        let described: BTreeSet<(String, String)> = Api::openapi()
            .paths
            .paths
            .iter()
            .flat_map(|(path, item)| {
                let methods = [("GET", item.get.is_some()), ("POST", item.post.is_some())];
                let others = [&item.put, &item.delete, &item.patch, &item.head, &item.options];
                assert!(others.iter().all(|method| method.is_none()), "{path}: another method");
                let path = path.clone();
                methods
                    .into_iter()
                    .filter(|(_, there)| *there)
                    .map(move |(method, _)| (method.to_owned(), path.clone()))
            })
            .collect();
        let pages: BTreeSet<&str> = include_str!("../page/mod.rs")
            .split(".route(\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        let sign_in = ["/sign-in", "/sign-out"];
        let mut ruled = BTreeSet::new();
        for (method, path, rule) in ROUTES {
            let key = ((*method).to_owned(), (*path).to_owned());
            let page = pages.contains(path) || sign_in.contains(path);
            assert!(page || described.contains(&key), "no route {method} {path}");
            assert!(ruled.insert(key), "{method} {path} twice");
            let open = matches!(rule.needs, Needs::Nothing | Needs::Probe);
            let may =
                path.starts_with("/assets/") || ["/sign-in", "/healthz", "/readyz"].contains(path);
            assert_eq!(open, may, "{method} {path}");
        }
        for key in &described {
            assert!(ruled.contains(key), "{key:?} has no scope");
        }
        for page in pages {
            assert!(ruled.contains(&("GET".to_owned(), page.to_owned())), "{page} has no scope");
        }
    }
}
