//! The OpenAPI description, made from the handlers.

use axum::Json;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
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

#[derive(OpenApi)]
#[openapi(
    info(title = "Throng", description = "Audiences, lookups, activation, budgets, decisions"),
    security(("token" = [])),
    modifiers(&Token),
    paths(
        super::health::healthz, super::health::readyz, super::health::details, super::health::metrics, super::health::nodes, document,
        super::audiences::list, super::audiences::one, super::audiences::refresh,
        super::audiences::cancel, super::audiences::approve, super::audiences::reject, super::audiences::rollback,
        super::audiences::pause, super::audiences::resume, super::audiences::release,
        super::lookups::one, super::lookups::batch,
        super::syncs::run, super::syncs::recreate, super::syncs::pause, super::syncs::resume,
        super::syncs::list, super::syncs::runs, super::syncs::approve_run, super::syncs::tasks,
        super::syncs::task, super::syncs::requeue, super::syncs::announce, super::syncs::approve_destination,
        super::alerts::list, super::alerts::deliveries, super::alerts::test,
        super::events::accept, super::events::quarantine, super::budgets::list, super::budgets::one,
        super::feed::stream, super::feed::catalog, super::feed::gates, super::feed::applied,
        super::decide::decide, super::sources::list, super::spec::current, super::spec::plan, super::spec::apply, super::why::history,
        super::stream::changes, super::tokens::create, super::tokens::list, super::tokens::revoke,
        super::tokens::sessions, super::tokens::end_session, super::tokens::sign_in_link,
    )
)]
pub(crate) struct Api;

/// This description.
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, description = "OpenAPI 3.1")))]
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
