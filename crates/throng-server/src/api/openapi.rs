//! The OpenAPI description, generated from the handlers. `docs/reference/openapi.json` is a copy of it
//! (`cargo xtask gen`).

use axum::Json;
use throng_api::{BearerToken, CommonErrors, ErrorBody, ErrorCode};
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(title = "Throng", description = "Audiences, lookups, activation, budgets, decisions"),
    security(("token" = [])),
    modifiers(&BearerToken, &CommonErrors),
    components(schemas(ErrorBody, throng_api::ErrorDetail, ErrorCode, throng_api::SpecProblem)),
    paths(
        super::health::healthz, super::health::readyz, super::health::details, super::health::metrics, super::health::nodes, document,
        super::audiences::list, super::audiences::one, super::audiences::refresh,
        super::audiences::cancel, super::audiences::approve, super::audiences::reject, super::audiences::rollback,
        super::audiences::pause, super::audiences::resume, super::audiences::release,
        super::lookups::one, super::lookups::batch,
        super::membership::published, super::membership::segment, super::membership::snapshot,
        super::syncs::run, super::syncs::recreate, super::syncs::pause, super::syncs::resume,
        super::removals::list, super::removals::approve, super::removals::keep,
        super::stores::list, super::stores::writes, super::stores::rewrite, super::stores::remove,
        super::stores::hash_seed,
        super::sizes::of_sync, super::syncs::list, super::syncs::runs, super::syncs::approve_run, super::syncs::tasks,
        super::syncs::task_summary, super::bulk::act, super::syncs::task, super::syncs::requeue, super::syncs::enqueue_due, super::syncs::approve_destination,
        super::alerts::list, super::alerts::deliveries, super::alerts::test,
        super::events::accept, super::events::quarantine, super::budgets::list, super::budgets::report, super::budgets::one,
        super::feed::stream, super::feed::catalog, super::feed::gates, super::feed::applied,
        super::decide::decide, super::ingest::ingest, super::sources::list, super::spec::current, super::spec::plan, super::spec::apply, super::why::history,
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

    use utoipa::openapi::RefOr;

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
        let path =
            std::path::Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"))
                .join("../../docs/reference/openapi.json");
        let text = serde_json::to_string_pretty(&Api::openapi()).unwrap() + "\n";
        if std::env::var_os("THRONG_BLESS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let current = std::fs::read_to_string(path).unwrap_or_default();
        assert!(current == text, "docs/reference/openapi.json is stale: run `cargo xtask gen`");
    }

    /// No route without a scope, and no scope without a route.
    #[test]
    fn every_route_has_a_scope() {
        use throng_access::{ROUTES, RouteRequirement};
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
            let open = matches!(rule.needs, RouteRequirement::Nothing | RouteRequirement::Probe);
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
