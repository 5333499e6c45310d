//! Serves HTTP connections, and knows nothing of what is served: a [`Server`] takes any [`Router`](axum::Router).
//!
//! It limits what a client can hold: connections in total and per address, the time of a TLS handshake, of a
//! request's head and between two requests, the rate at which a body arrives, and the time in which a peer
//! reads nothing of its response. Some file handles are left for the rest of the process. A certificate is
//! replaced while connections are open ([`Certificates`]).
//!
//! Beside the server are the parts of a handler that belong to HTTP alone: reading a body and its content
//! encoding ([`read_body`], [`decoded`]), the timeout of a request ([`within`]), and whether a client wants a page
//! ([`prefers_html`]).
//!
//! Messages name the settings that people change: `node.tls` and `node.connections` of a spec.

mod accept;
mod activity;
mod body;
mod encoding;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod handles;
mod read;
mod requests;
mod server;
mod stream;
mod table;
mod timeout;
mod tls;

pub use accept::prefers_html;
pub use body::{BodyWait, SlowBody};
pub use encoding::{DecodeError, decoded, is_encoded};
pub use handles::caps_within_open_files;
pub use read::{BodyError, content_type, read_body, slow_body};
pub use server::Server;
pub use table::ConnectionLimits;
pub use timeout::within;
pub use tls::{CertificateFiles, CertificateReporter, Certificates, TlsError};
