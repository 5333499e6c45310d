//! The arguments of `throng gate`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["listen", "socket"]))]
pub(crate) struct GateArgs {
    /// The URL of a node with the role api, or with the role lookup and --feed
    #[arg(long, value_name = "URL", env = "THRONG_URL")]
    pub(crate) node: String,
    /// The URL of a relay, for feed and catalog; by default they are read from --node
    #[arg(long, value_name = "URL")]
    pub(crate) feed: Option<String>,
    /// A PEM file of certificate authorities to trust, besides those of the system
    #[arg(long, env = "THRONG_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// The file with the node's token, of the scopes feed and lookup, and of events to record insertions; `-`
    /// reads it from the standard input. Or set THRONG_TOKEN
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Send the token unencrypted to an http:// URL on another machine
    #[arg(long)]
    pub(crate) insecure: bool,
    /// The address to listen on
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// The unix socket to listen on
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// The mode of the socket: who may connect to it
    #[arg(long, value_name = "MODE", default_value = "0660", value_parser = throng_sidecar::parse_mode)]
    pub(crate) socket_mode: u32,
    /// The folder for copies of dictionaries and snapshots, of this gate alone
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: PathBuf,
    /// The name in the list of gates; by default a random one that is kept in --cache-dir
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// After how long without a frame the figures are stale. A node uses ten times its node.feed_interval_ms, and at
    /// least 10s: give the same if it is more
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = throng_model::parse_seconds)]
    pub(crate) stale_after: u64,
    /// The file with the token that clients of --listen must send; `-` reads it from the standard input. Or set
    /// THRONG_GATE_TOKEN. Required unless --listen is a loopback address
    #[arg(long, value_name = "FILE")]
    pub(crate) client_token_file: Option<PathBuf>,
    /// A host name that requests to --listen may have, besides its address; repeatable
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) allowed_host: Vec<String>,
}
