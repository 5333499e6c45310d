//! A gate apart from the node, and what it is made of. An ad server in Rust links [`throng_gate`] and keeps it
//! current with the parts of this crate; any other asks a [`Sidecar`], which is such a gate behind HTTP and a unix
//! socket, with the request and response of `POST /v1/decide`.
//!
//! * [`NodeClient`] reads from a node: catalog, feed, membership.
//! * [`FeedFollower`] applies feed and catalog to a [`Gate`](throng_gate::Gate), and reconnects;
//!   [`FeedFollower::report`] reports the applied versions.
//! * [`MembershipSync`] keeps the dictionaries and snapshots that a node serves in a [`Cache`], a folder of its own.
//!   Every byte is checked. A new version is served when all of it is there; until then the old one stays.
//! * [`Sidecar`] runs these, and answers.
//!
//! A gate that has lost its node continues with what it has: the `when_stale` of each ad group says whether it wants
//! that. A gate that has never been complete since its start decides nothing.

mod cache;
mod client;
mod error;
mod follow;
mod guard;
mod http;
mod membership;
mod sidecar;
mod socket;
mod status;

pub use cache::Cache;
pub use client::{NodeClient, NodeOptions};
pub use error::{SidecarError, SyncError};
pub use follow::{FeedFollower, FeedObserver};
pub use membership::{MembershipObserver, MembershipSync};
pub use sidecar::{Sidecar, SidecarOptions};
pub use socket::parse_mode;
