//! Errors of synchronisation, and of starting a sidecar.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use throng_membership::MembershipError;
use throng_model::Retry;

/// Why something could not be read from the node, or kept in the cache.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The node does not answer, or the connection ended.
    #[error("cannot read from {url}")]
    Connection {
        /// The address, without a query.
        url: String,
        /// The client's error.
        #[source]
        source: reqwest::Error,
    },
    /// The node has ended the feed: it stops, or the gate was too slow.
    #[error("{url} has closed the connection")]
    Closed {
        /// The address.
        url: String,
    },
    /// The node does not accept the token.
    #[error("{url} does not accept the token: {message}")]
    WrongToken {
        /// The address.
        url: String,
        /// The node's message.
        message: String,
    },
    /// The token lacks a scope.
    #[error("{url} refuses the request: {message}")]
    Forbidden {
        /// The address.
        url: String,
        /// The node's message, which names the scope.
        message: String,
    },
    /// A file is not served now: another version has been published.
    #[error("{url} no longer exists: another version has been published")]
    NotServed {
        /// The address.
        url: String,
    },
    /// The node refuses the request for another reason.
    #[error("{url} answers {status}: {message}")]
    Refused {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The node's message.
        message: String,
    },
    /// The response is not what was expected.
    #[error("the response of {url} cannot be used: {problem}")]
    Response {
        /// The address.
        url: String,
        /// The problem.
        problem: String,
    },
    /// The node belongs to another deployment than the files of the cache.
    #[error("the node is of another deployment than the files in {}", folder.display())]
    OtherDeployment {
        /// The folder of the cache.
        folder: PathBuf,
    },
    /// The feed belongs to another deployment than the dictionaries and snapshots.
    #[error("the feed at {url} is of another deployment than the snapshots")]
    OtherFeed {
        /// The address of the feed.
        url: String,
    },
    /// The clock of this machine is behind the node's.
    #[error("the clock of this machine is {secs} s behind the node's")]
    ClockBehind {
        /// By how much.
        secs: u64,
    },
    /// The cache cannot be read or written.
    #[error("cannot {doing} {}", path.display())]
    Cache {
        /// What was being done.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A dictionary or snapshot is damaged, or does not fit.
    #[error(transparent)]
    Membership(#[from] MembershipError),
}

impl SyncError {
    /// A stable word for readiness, logs and metrics.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Connection { .. } => "node_unreachable",
            Self::Closed { .. } => "connection_closed",
            Self::WrongToken { .. } => "wrong_token",
            Self::Forbidden { .. } => "forbidden",
            Self::NotServed { .. } => "not_served",
            Self::Refused { .. } => "refused",
            Self::Response { .. } => "invalid_response",
            Self::OtherDeployment { .. } => "other_deployment",
            Self::OtherFeed { .. } => "other_feed",
            Self::ClockBehind { .. } => "clock_behind",
            Self::Cache { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "cache_full"
            }
            Self::Cache { .. } => "cache",
            Self::Membership(_) => "damaged_file",
        }
    }

    /// Whether a retry can succeed without somebody acting.
    pub fn retry(&self) -> Retry {
        match self {
            Self::WrongToken { .. }
            | Self::Forbidden { .. }
            | Self::OtherDeployment { .. }
            | Self::OtherFeed { .. } => Retry::Never,
            _ => Retry::Backoff,
        }
    }

    /// Whether the node may have carried out the request that failed: only a refusal says that it has not, and a
    /// connection that was never made. A proxy answers with 502 or 504 for a node that has the request.
    pub(crate) fn may_have_arrived(&self) -> bool {
        match self {
            Self::Connection { source, .. } => !source.is_connect(),
            Self::Refused { status, .. } => !(300..500).contains(status) || *status == 408,
            Self::Closed { .. } | Self::Response { .. } => true,
            Self::WrongToken { .. }
            | Self::Forbidden { .. }
            | Self::NotServed { .. }
            | Self::OtherDeployment { .. }
            | Self::OtherFeed { .. }
            | Self::ClockBehind { .. }
            | Self::Cache { .. }
            | Self::Membership(_) => false,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Connection { .. } => "check the address of the node, and that it runs",
            Self::Closed { .. } => {
                "the node stops, or the gate was too slow: the connection is made again by itself"
            }
            Self::WrongToken { .. } | Self::Forbidden { .. } => {
                "create a token with `throng token create NAME --scope feed,lookup`, and with the scope events to \
                 record insertions"
            }
            Self::NotServed { .. } => "the files are read again at the next try",
            Self::Refused { status: 404, .. } => {
                "use a node with the role api; one with the role lookup has snapshots only, and needs --feed"
            }
            Self::Refused { .. } => "the node's log has the cause",
            Self::Response { .. } => {
                "use the same version of throng as the node, and check proxies in between"
            }
            Self::OtherDeployment { .. } => {
                "name the node of this deployment, or another folder for the cache: its users have other hashes"
            }
            Self::OtherFeed { .. } => {
                "name a node or relay of the same deployment with --feed: the ad groups of another one may have the \
                 same names, and other budgets"
            }
            Self::ClockBehind { .. } => {
                "synchronize the clock, for example with NTP; until then decisions have the node's time"
            }
            Self::Cache { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free space on the disk of the cache; it needs twice the size of the largest new snapshot besides \
                 what it has"
            }
            Self::Cache { .. } => "check the folder of the cache and its rights",
            Self::Membership(_) => "the file is read again at the next try",
        }
    }
}

/// Why a sidecar does not start.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// The node refuses the token, or is of another deployment.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The options of the node are invalid.
    #[error("{0}")]
    Options(String),
    /// Another process uses the cache.
    #[error("the cache {} is in use{}", folder.display(), by.map_or_else(String::new, |id| format!(" by process {id}")))]
    CacheInUse {
        /// Its folder.
        folder: PathBuf,
        /// The process, if it is known.
        by: Option<u32>,
    },
    /// Another process answers at the socket.
    #[error("another process answers at the socket {}", path.display())]
    SocketInUse {
        /// The path.
        path: PathBuf,
    },
    /// There is a file of another kind at the path of the socket.
    #[error("{} exists and is not a socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The socket cannot be created.
    #[error("cannot {doing} the socket {}", path.display())]
    Socket {
        /// What was being done.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl SidecarError {
    /// What to do about it, if there is more to say than the error does.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Sync(error) => Some(error.hint()),
            Self::Options(_) => None,
            Self::CacheInUse { .. } => Some("give every sidecar a folder of its own"),
            Self::SocketInUse { .. } => Some("stop that process, or choose another path"),
            Self::NotASocket { .. } => Some("choose another path: the file is left as it is"),
            Self::Socket { .. } => Some("check the folder of the socket and its rights"),
            Self::Listen { .. } => Some("choose another address"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_says_that_a_request_was_not_carried_out() {
        let refused = |status| SyncError::Refused {
            url: "http://node".to_owned(),
            status,
            message: String::new(),
        };
        for (status, expected) in [
            (301, false),
            (400, false),
            (408, true),
            (413, false),
            (429, false),
            (500, true),
            (502, true),
            (503, true),
            (504, true),
        ] {
            assert_eq!(refused(status).may_have_arrived(), expected, "{status}");
        }
        let (url, text) = ("http://node".to_owned(), String::new());
        let cut = SyncError::Response { url: url.clone(), problem: text.clone() };
        assert!(cut.may_have_arrived());
        assert!(!SyncError::Forbidden { url, message: text }.may_have_arrived());
        assert!(refused(404).hint().contains("role api"), "a node without this path");
    }
}
