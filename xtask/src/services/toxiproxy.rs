//! Toxiproxy: a proxy that delays, limits and cuts connections on request.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Server, accepts_connections, cache, free_port};

const VERSION: &str = "v2.5.0";

/// The server of the proxies. Tests set faults with its HTTP API.
pub(crate) struct Toxiproxy {
    server: Server,
    port: u16,
}

impl Toxiproxy {
    /// Builds the server if necessary, and starts it.
    pub(crate) fn start() -> Result<Self> {
        let module = "github.com/Shopify/toxiproxy/v2/cmd/server";
        let program = cache::go_program("toxiproxy", module, VERSION)?;
        let dir = tempfile::Builder::new().prefix("throng-toxiproxy-").tempdir()?;
        let port = free_port()?;
        let mut command = Command::new(program);
        command.args(["-host", "127.0.0.1", "-port", &port.to_string()]);
        let server = Server::start("Toxiproxy", &mut command, dir, |_| accepts_connections(port))?;
        Ok(Self { server, port })
    }

    /// The URL of its API.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Adds a proxy from one port of 127.0.0.1 to another one.
    pub(crate) fn proxy(&self, name: &str, from: u16, to: u16) -> Result<()> {
        let body = format!(
            r#"{{"name":"{name}","listen":"127.0.0.1:{from}","upstream":"127.0.0.1:{to}"}}"#
        );
        let mut connection =
            TcpStream::connect(("127.0.0.1", self.port)).context("cannot reach Toxiproxy")?;
        write!(
            connection,
            "POST /proxies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )?;
        let mut response = String::new();
        connection.read_to_string(&mut response)?;
        let created = response.starts_with("HTTP/1.1 201");
        ensure!(created, "Toxiproxy did not create the proxy {name}: {response}");
        Ok(())
    }

    /// Its process and its folder.
    pub(super) fn process(&self) -> (u32, PathBuf) {
        self.server.process()
    }
}
