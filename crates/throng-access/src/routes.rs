//! The scope that every route needs, the bodies that it accepts, and whether callers that are limited to a workspace
//! may use it. A route that is missing here needs `admin`, accepts JSON and is closed to them; a test compares the
//! table with the OpenAPI description.

use std::fmt;

use http::Method;

use crate::scope::{Scope, Scopes};

/// What a route requires of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteRequirement {
    /// Nothing: the response contains nothing about the cluster.
    Nothing,
    /// Nothing: for probes, which may use any address as the host name.
    Probe,
    /// Any valid token or session.
    Caller,
    /// One of these scopes.
    One(&'static [Scope]),
}

impl RouteRequirement {
    /// Whether a caller with these scopes may send the request.
    pub fn allow(self, scopes: Scopes) -> bool {
        match self {
            Self::Nothing | Self::Probe => true,
            Self::Caller => !scopes.is_empty(),
            Self::One(any) => any.iter().any(|scope| scopes.allow(*scope)),
        }
    }
}

impl fmt::Display for RouteRequirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing | Self::Probe => f.write_str("nothing"),
            Self::Caller => f.write_str("any scope"),
            Self::One(any) => {
                let names: Vec<&str> = any.iter().map(|scope| scope.name()).collect();
                f.write_str(&names.join(" or "))
            }
        }
    }
}

/// The bodies that a route accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptedBody {
    /// JSON, or none.
    Json,
    /// Events: NDJSON, JSON or protobuf.
    Events,
    /// Records: CSV, NDJSON or Parquet.
    Records,
    /// A form of the pages of this node.
    Form,
}

impl AcceptedBody {
    /// Whether the route accepts a body of this content type; empty: the request has none. A page of another site can
    /// send forms and `text/plain` without a preflight request, so no route of the API accepts them.
    pub fn allows(self, kind: &str, is_empty_body: bool) -> bool {
        self.matches(kind)
            || (is_empty_body && kind.is_empty() && !matches!(self, Self::Events | Self::Records))
    }

    fn matches(self, kind: &str) -> bool {
        match self {
            Self::Json => kind == "application/json",
            Self::Events => matches!(
                kind,
                "application/x-ndjson"
                    | "application/ndjson"
                    | "application/json"
                    | "application/x-protobuf"
                    | "application/protobuf"
            ),
            Self::Records => matches!(
                kind,
                "text/csv"
                    | "application/x-ndjson"
                    | "application/ndjson"
                    | "application/vnd.apache.parquet"
            ),
            Self::Form => kind == "application/x-www-form-urlencoded",
        }
    }

    /// What to send instead.
    pub fn help(self) -> &'static str {
        match self {
            Self::Json => "send JSON with `content-type: application/json`",
            Self::Events => {
                "send application/x-ndjson (one JSON object a line) or application/x-protobuf"
            }
            Self::Records => {
                "send text/csv, application/x-ndjson or application/vnd.apache.parquet"
            }
            Self::Form => "send application/x-www-form-urlencoded",
        }
    }
}

/// The requirements of one route.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The scopes.
    pub needs: RouteRequirement,
    /// The body.
    pub accepts: AcceptedBody,
    /// Whether a caller that is limited to a workspace may use it: its handler shows and changes objects of that
    /// workspace only. A route that concerns the whole deployment is closed to them.
    pub in_workspaces: bool,
}

/// A method, a path and its rule.
type Entry = (&'static str, &'static str, Rule);

const fn rule(method: &'static str, path: &'static str, needs: RouteRequirement) -> Entry {
    (method, path, Rule { needs, accepts: AcceptedBody::Json, in_workspaces: false })
}

/// The same route with another body.
const fn taking(accepts: AcceptedBody, (method, path, rule): Entry) -> Entry {
    (method, path, Rule { accepts, ..rule })
}

/// The same route, also for callers that are limited to a workspace.
const fn in_workspace((method, path, rule): Entry) -> Entry {
    (method, path, Rule { in_workspaces: true, ..rule })
}

const fn get(path: &'static str, scopes: &'static [Scope]) -> Entry {
    rule("GET", path, RouteRequirement::One(scopes))
}

const fn post(path: &'static str, scopes: &'static [Scope]) -> Entry {
    rule("POST", path, RouteRequirement::One(scopes))
}

const READ: &[Scope] = &[Scope::Read];
const OPERATE: &[Scope] = &[Scope::Operate];
const ADMIN: &[Scope] = &[Scope::Admin];
const LOOKUP: &[Scope] = &[Scope::Lookup];
const FEED: &[Scope] = &[Scope::Feed];

/// Every route.
pub const ROUTES: &[Entry] = &[
    in_workspace(rule("GET", "/healthz", RouteRequirement::Probe)),
    in_workspace(rule("GET", "/readyz", RouteRequirement::Probe)),
    get("/metrics", &[Scope::Metrics, Scope::Read]),
    in_workspace(rule("GET", "/openapi.json", RouteRequirement::Caller)),
    // Pages and their parts.
    in_workspace(rule("GET", "/assets/throng.css", RouteRequirement::Nothing)),
    in_workspace(rule("GET", "/assets/throng.js", RouteRequirement::Nothing)),
    in_workspace(rule("GET", "/sign-in", RouteRequirement::Nothing)),
    taking(AcceptedBody::Form, in_workspace(rule("POST", "/sign-in", RouteRequirement::Nothing))),
    taking(AcceptedBody::Form, in_workspace(rule("POST", "/sign-out", RouteRequirement::Caller))),
    in_workspace(get("/", READ)),
    in_workspace(get("/audiences", READ)),
    in_workspace(get("/audiences/{name}", READ)),
    in_workspace(get("/activation", READ)),
    in_workspace(get("/alerts", READ)),
    in_workspace(get("/activation/syncs", READ)),
    in_workspace(get("/activation/runs", READ)),
    in_workspace(get("/activation/tasks", READ)),
    in_workspace(get("/activation/tasks/{id}", READ)),
    in_workspace(get("/activation/syncs/{name}", READ)),
    get("/budgets", READ),
    get("/budgets/report", READ),
    get("/budgets/{name}", READ),
    in_workspace(get("/sources", READ)),
    get("/access", ADMIN),
    // The page shows the audiences of a user, as lookups do.
    get("/decide", LOOKUP),
    // Users.
    in_workspace(get("/v1/users/{key}/audiences", LOOKUP)),
    in_workspace(post("/v1/lookups", LOOKUP)),
    post("/v1/decide", LOOKUP),
    // All users of all audiences, hashed, with the seed of the hashes.
    get("/v1/membership", LOOKUP),
    get("/v1/membership/dictionary/{shard}/{segment}", LOOKUP),
    get("/v1/membership/snapshots/{name}/{version}", LOOKUP),
    // Gates.
    get("/v1/feed", FEED),
    get("/v1/catalog", &[Scope::Feed, Scope::Read]),
    get("/v1/gates", READ),
    post("/v1/gates/{id}/applied", FEED),
    // Events.
    taking(AcceptedBody::Events, post("/v1/events", &[Scope::Events])),
    get("/v1/events/quarantine", READ),
    // Records.
    taking(AcceptedBody::Records, in_workspace(post("/v1/ingest/{schema}", OPERATE))),
    // Other routes.
    get("/v1/node/health", READ),
    get("/v1/nodes", READ),
    in_workspace(get("/v1/stream", READ)),
    in_workspace(get("/v1/audiences", READ)),
    in_workspace(get("/v1/audiences/{name}", READ)),
    in_workspace(post("/v1/audiences/{name}/refresh", OPERATE)),
    in_workspace(post("/v1/audiences/{name}/cancel", OPERATE)),
    in_workspace(post("/v1/audiences/{name}/pause", OPERATE)),
    in_workspace(post("/v1/audiences/{name}/resume", OPERATE)),
    in_workspace(post("/v1/audiences/{name}/approve", OPERATE)),
    in_workspace(post("/v1/audiences/{name}/reject", OPERATE)),
    in_workspace(post("/v1/audiences/{name}/rollback", OPERATE)),
    in_workspace(post("/v1/audiences/{name}/release", OPERATE)),
    in_workspace(get("/v1/syncs", READ)),
    in_workspace(get("/v1/syncs/{name}/sizes", READ)),
    in_workspace(post("/v1/syncs/{name}/run", OPERATE)),
    in_workspace(post("/v1/syncs/{name}/recreate", OPERATE)),
    in_workspace(post("/v1/syncs/{name}/pause", OPERATE)),
    in_workspace(post("/v1/syncs/{name}/resume", OPERATE)),
    in_workspace(get("/v1/removals", READ)),
    in_workspace(post("/v1/removals/{name}/approve", OPERATE)),
    in_workspace(post("/v1/removals/{name}/keep", OPERATE)),
    in_workspace(get("/v1/stores", READ)),
    // With it users can be looked up in a store.
    get("/v1/stores/hash-seed", LOOKUP),
    in_workspace(get("/v1/stores/{name}/writes", READ)),
    in_workspace(post("/v1/stores/{name}/rewrite", OPERATE)),
    in_workspace(post("/v1/stores/{name}/audiences/{audience}/remove", OPERATE)),
    in_workspace(get("/v1/runs", READ)),
    in_workspace(post("/v1/runs/{id}/approve", OPERATE)),
    in_workspace(post("/v1/destinations/{name}/approve", OPERATE)),
    in_workspace(get("/v1/tasks", READ)),
    in_workspace(get("/v1/tasks/summary", READ)),
    post("/v1/tasks/enqueue", OPERATE),
    in_workspace(get("/v1/tasks/{id}", READ)),
    in_workspace(post("/v1/tasks/{id}/requeue", OPERATE)),
    in_workspace(post("/v1/bulk/{operation}", OPERATE)),
    in_workspace(get("/v1/alerts", READ)),
    in_workspace(get("/v1/alerts/deliveries", READ)),
    // It sends requests to the receivers.
    post("/v1/alerts/test", OPERATE),
    get("/v1/budgets", READ),
    get("/v1/budgets/report", READ),
    get("/v1/budgets/{ad_group}", READ),
    // The columns of the sources, without values.
    in_workspace(get("/v1/sources", READ)),
    get("/v1/spec", READ),
    // It reads the columns of the sources that the spec in the request names.
    post("/v1/spec/plan", ADMIN),
    post("/v1/spec/apply", ADMIN),
    in_workspace(get("/v1/why/{kind}/{name}", READ)),
    // Access.
    get("/v1/tokens", ADMIN),
    post("/v1/tokens", ADMIN),
    post("/v1/tokens/{name}/revoke", ADMIN),
    get("/v1/sessions", ADMIN),
    post("/v1/sessions/{id}/end", ADMIN),
    in_workspace(rule("POST", "/v1/sign-in-links", RouteRequirement::Caller)),
];

/// The rule of a route. An unknown path requires a valid caller, so that strangers cannot find out which paths
/// exist.
pub fn rule_of(method: &Method, path: Option<&str>) -> Rule {
    let Some(path) = path else {
        // There is nothing to see: the path does not exist.
        return Rule {
            needs: RouteRequirement::Caller,
            accepts: AcceptedBody::Json,
            in_workspaces: true,
        };
    };
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let found = ROUTES.iter().find(|(m, p, _)| *m == method && *p == path);
    if let Some((_, _, rule)) = found {
        return *rule;
    }
    let known = ROUTES.iter().any(|(_, p, _)| *p == path);
    // The router refuses another method of a known path. A route that is missing here exists in the router, so it
    // needs the highest scope.
    let needs = if known { RouteRequirement::Caller } else { RouteRequirement::One(ADMIN) };
    Rule { needs, accepts: AcceptedBody::Json, in_workspaces: known }
}

/// Whether the path of a request is one of the API, existing or not: its errors are JSON for browsers too.
pub fn is_api_path(path: &str) -> bool {
    path.split('/').nth(1) == Some("v1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_api_are_below_its_version() {
        for path in ["/v1", "/v1/", "/v1/runs", "/v1/none"] {
            assert!(is_api_path(path), "{path}");
        }
        for path in ["/", "", "/v10", "/activation/v1", "/openapi.json", "*"] {
            assert!(!is_api_path(path), "{path}");
        }
    }

    #[test]
    fn a_route_without_a_rule_needs_admin() {
        let needs = |method: Method, path| rule_of(&method, path).needs;
        assert_eq!(needs(Method::GET, Some("/v1/new")), RouteRequirement::One(ADMIN));
        assert_eq!(needs(Method::GET, None), RouteRequirement::Caller);
        assert_eq!(needs(Method::DELETE, Some("/healthz")), RouteRequirement::Caller);
        assert_eq!(needs(Method::HEAD, Some("/v1/runs")), RouteRequirement::One(READ));
    }

    /// What concerns a whole deployment, and what has no rule, is closed to callers of one workspace.
    #[test]
    fn a_route_is_closed_to_workspaces_unless_it_is_listed() {
        let open = |method: Method, path| rule_of(&method, path).in_workspaces;
        assert!(open(Method::GET, Some("/v1/audiences")) && open(Method::HEAD, Some("/")));
        assert!(open(Method::GET, None), "no such path");
        assert!(!open(Method::GET, Some("/v1/new")));
        let closed = [
            "feed",
            "catalog",
            "budgets",
            "events",
            "decide",
            "membership",
            "metrics",
            "spec",
            "node",
            "nodes",
            "tokens",
            "sessions",
            "gates",
            "access",
            "enqueue",
            "test",
            "hash-seed",
        ];
        for (method, path, rule) in ROUTES {
            let is_closed = path.split('/').any(|part| closed.contains(&part));
            assert_eq!(rule.in_workspaces, !is_closed, "{method} {path}");
        }
    }
}
