//! Redis from the system's package: a server for all tests, and one that a single test may break.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Server, accepts_connections, free_port};
use crate::needs::{install, which};

/// Two servers without a password, whose data is in memory only.
pub(crate) struct Redis {
    server: Server,
    port: u16,
    /// Of one test: it fills its memory, and makes it a replica of the other one.
    faults: Server,
    faults_port: u16,
}

impl Redis {
    /// Installs Redis if it is missing, and starts the servers.
    pub(crate) fn start() -> Result<Self> {
        let program = match program() {
            Some(found) => found,
            None => {
                install("redis-server")?;
                program().context("redis-server was installed, but cannot be found")?
            }
        };
        let start = |port: u16| {
            let dir = tempfile::Builder::new().prefix("throng-redis-").tempdir()?;
            let mut command = Command::new(&program);
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
            command.args(["--save", "", "--appendonly", "no", "--databases", "64"]);
            Server::start("Redis", &mut command, dir, |_| accepts_connections(port))
        };
        let (port, faults_port) = (free_port()?, free_port()?);
        Ok(Self { server: start(port)?, port, faults: start(faults_port)?, faults_port })
    }

    /// The URL of the server for all tests, without a database.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The URL of the server that one test may break.
    pub(crate) fn faults_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.faults_port)
    }

    /// Its processes and their folders.
    pub(super) fn processes(&self) -> [(u32, PathBuf); 2] {
        [self.server.process(), self.faults.process()]
    }
}

fn program() -> Option<PathBuf> {
    which("redis-server").or_else(|| which("valkey-server"))
}
