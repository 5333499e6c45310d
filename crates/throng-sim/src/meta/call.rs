//! Routes a request to a call. Pure.

use super::error::GraphError;
use super::usage::UsageHeaders;

/// The calls of the API that are simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Call {
    CreateAudience,
    ListAudiences,
    ReadAccount,
    RemoveUsersOfAnyAudience,
    ReadAudience,
    UpdateAudience,
    DeleteAudience,
    AddUsers,
    RemoveUsers,
    ReplaceUsers,
    ListSessions,
}

impl Call {
    /// The name of the call in fault rules and counts.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CreateAudience => "create_audience",
            Self::ListAudiences => "list_audiences",
            Self::ReadAccount => "read_account",
            Self::RemoveUsersOfAnyAudience => "remove_users_of_any_audience",
            Self::ReadAudience => "read_audience",
            Self::UpdateAudience => "update_audience",
            Self::DeleteAudience => "delete_audience",
            Self::AddUsers => "add_users",
            Self::RemoveUsers => "remove_users",
            Self::ReplaceUsers => "replace_users",
            Self::ListSessions => "list_sessions",
        }
    }

    /// The usage headers of the response. Known from recordings for create, list, read, delete, upload and
    /// removal; a replace is assumed to be like an upload, and the others like a read.
    pub(super) fn usage_headers(self) -> UsageHeaders {
        match self {
            Self::AddUsers | Self::ReplaceUsers => UsageHeaders::AppAndAccount,
            _ => UsageHeaders::BusinessUseCase,
        }
    }

    /// Whether the call is charged as a write.
    pub(super) fn is_write(self) -> bool {
        !matches!(
            self,
            Self::ListAudiences | Self::ReadAccount | Self::ReadAudience | Self::ListSessions
        )
    }
}

/// The object of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// An ad account: digits.
    Account(String),
    /// An audience.
    Audience(u64),
}

/// A routed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) call: Call,
    pub(super) node: Node,
}

/// The version at the start of a path, and the rest of the path. `None` if there is no version.
pub(super) fn version_of(path: &str) -> Option<((u32, u32), &str)> {
    let (version, rest) = path.strip_prefix("/v")?.split_once('/')?;
    let (major, minor) = version.split_once('.')?;
    Some(((major.parse().ok()?, minor.parse().ok()?), rest))
}

/// Finds the call for a method and a path without its version.
///
/// # Errors
/// 803 for a node that is neither an account nor an id, 2500 for an edge that is not simulated,
/// 100/33 for a method that the node does not have.
pub(super) fn route(method: &str, rest: &str) -> Result<Route, GraphError> {
    let mut segments = rest.split('/');
    let (first, edge) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
    if segments.next().is_some() {
        return Err(GraphError::unknown_path(&format!("/{edge}")));
    }
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let node = match first.strip_prefix("act_") {
        Some(account) if is_number(account) => Node::Account(account.to_owned()),
        _ => match first.parse() {
            Ok(id) if is_number(first) => Node::Audience(id),
            // An empty id leaves the edge as an alias.
            _ if first.is_empty() => return Err(GraphError::unknown_alias(edge)),
            _ => return Err(GraphError::unknown_alias(first)),
        },
    };
    let call = match (&node, edge, method) {
        (Node::Account(_), "customaudiences", "POST") => Call::CreateAudience,
        (Node::Account(_), "customaudiences", "GET") => Call::ListAudiences,
        (Node::Account(_), "", "GET") => Call::ReadAccount,
        (Node::Account(_), "usersofanyaudience", "DELETE") => Call::RemoveUsersOfAnyAudience,
        (Node::Audience(_), "", "GET") => Call::ReadAudience,
        (Node::Audience(_), "", "POST") => Call::UpdateAudience,
        (Node::Audience(_), "", "DELETE") => Call::DeleteAudience,
        (Node::Audience(_), "users", "POST") => Call::AddUsers,
        (Node::Audience(_), "users", "DELETE") => Call::RemoveUsers,
        (Node::Audience(_), "usersreplace", "POST") => Call::ReplaceUsers,
        (Node::Audience(_), "sessions", "GET") => Call::ListSessions,
        (
            _,
            "" | "customaudiences" | "usersofanyaudience" | "users" | "usersreplace" | "sessions",
            _,
        ) => return Err(GraphError::no_object(method, first)),
        _ => return Err(GraphError::unknown_path(&format!("/{edge}"))),
    };
    Ok(Route { call, node })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_calls() {
        for (method, path, call) in [
            ("POST", "act_1/customaudiences", Call::CreateAudience),
            ("GET", "act_1/customaudiences", Call::ListAudiences),
            ("GET", "act_1", Call::ReadAccount),
            ("DELETE", "act_1/usersofanyaudience", Call::RemoveUsersOfAnyAudience),
            ("GET", "23849182047670582", Call::ReadAudience),
            ("DELETE", "23849182047670582/users", Call::RemoveUsers),
            ("POST", "23849182047670582/usersreplace", Call::ReplaceUsers),
        ] {
            assert_eq!(route(method, path).unwrap().call, call, "{method} {path}");
        }
        for (method, path, code) in [
            ("POST", "/users", 803),
            ("GET", "me", 803),
            ("GET", "act_x", 803),
            ("GET", "99999999999999999999999", 803),
            ("PUT", "act_1", 100),
            ("GET", "7/users", 100),
            ("GET", "7/salts", 2500),
            ("GET", "7/users/8", 2500),
        ] {
            assert_eq!(route(method, path).unwrap_err().code, code, "{method} {path}");
        }
    }

    #[test]
    fn a_path_starts_with_its_version() {
        assert_eq!(version_of("/v25.0/act_1"), Some(((25, 0), "act_1")));
        assert_eq!(version_of("/v25.0//users"), Some(((25, 0), "/users")));
        for path in ["/act_1", "/v25/act_1", "/vx.y/act_1", "/v25.0"] {
            assert_eq!(version_of(path), None, "{path}");
        }
    }
}
