//! Who may send which request to a node, and what a spec from a request may name.
//!
//! [`Access`] has the tokens, sessions and sign-in codes of a cluster. A request passes these checks, in this order:
//! its host name is one of the node's ([`HostNames`]); no page of another site sent it ([`RequestOrigin`]); its token or
//! session is valid ([`SessionCookie`], [`Access::authenticate`]); the token has a scope that the route needs, and the
//! route accepts the content type ([`rule_of`]). [`NodeLimits`] has the folders, secrets and servers that a spec over
//! HTTP may name.
//!
//! Decides only: the server counts and logs what is refused, and responds. Commands on the same machine find a node and
//! its admin token by [`url_of`], [`token_of`] and [`token_at`].

mod access;
mod credentials;
mod headers;
mod hosts;
mod limits;
mod local_nodes;
mod origin;
mod routes;
mod scope;
mod throttle;

pub use access::{
    ADDRESS_FILE, ADMIN_TOKEN_FILE, Access, AccessError, Caller, SESSION_LIFETIME, SPEC_TOKEN,
    TokenRequest, admin_token, is_token_name, write_private,
};
pub use credentials::{Authentication, Credentials, SessionCookie, bearer_token};
pub use hosts::{HostNames, HostRefusal};
pub use limits::{AllowedSecret, LimitsChange, LimitsConfig, LimitsError, NodeLimits};
pub use local_nodes::{LocalNodeError, Registration, is_loopback, token_at, token_of, url_of};
pub use origin::{RequestOrigin, is_opened_by_hand, own_path};
pub use routes::{AcceptedBody, ROUTES, RouteRequirement, Rule, is_api_path, rule_of};
pub use scope::{Scope, Scopes, UnknownScope};
pub use throttle::ThrottleAction;
