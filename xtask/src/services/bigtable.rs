//! The Bigtable emulator of Google's Go client: the API with gRPC, over data in memory.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::{Server, accepts_connections, cache, free_port};

const VERSION: &str = "v1.58.0";

/// A server with any project and instance; tests create their tables.
pub(crate) struct Bigtable {
    server: Server,
    port: u16,
}

impl Bigtable {
    /// Builds the emulator if necessary, and starts it.
    pub(crate) fn start() -> Result<Self> {
        let module = "cloud.google.com/go/bigtable/cmd/emulator";
        let program = cache::go_program("bigtable", module, VERSION)?;
        let dir = tempfile::Builder::new().prefix("throng-bigtable-").tempdir()?;
        let port = free_port()?;
        let mut command = Command::new(program);
        command.args(["-host", "127.0.0.1", "-port", &port.to_string()]);
        let server = Server::start("Bigtable", &mut command, dir, |_| accepts_connections(port))?;
        Ok(Self { server, port })
    }

    /// The URL of the API, without TLS.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its process and its folder.
    pub(super) fn process(&self) -> (u32, PathBuf) {
        self.server.process()
    }
}
