//! A proxy that delays, cuts and stops connections on request: Toxiproxy.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Server, answers, cache, free_port};

const VERSION: &str = "v2.5.0";

/// The proxy's server. Faults are set by its HTTP API.
pub(crate) struct Toxiproxy {
    server: Server,
    port: u16,
}

impl Toxiproxy {
    /// Builds the server if need be, and starts it.
    pub(crate) fn start() -> Result<Self> {
        let module = "github.com/Shopify/toxiproxy/v2/cmd/server";
        let program = cache::go_program("toxiproxy", module, VERSION)?;
        let dir = tempfile::Builder::new().prefix("throng-toxiproxy-").tempdir()?;
        let port = free_port()?;
        let mut command = Command::new(program);
        command.args(["-host", "127.0.0.1", "-port", &port.to_string()]);
        let server = Server::start("Toxiproxy", &mut command, dir, |_| answers(port))?;
        Ok(Self { server, port })
    }

    /// Where its API is.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Forwards a port of 127.0.0.1 to another one.
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
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        let created = answer.starts_with("HTTP/1.1 201");
        ensure!(created, "Toxiproxy did not make the proxy {name}: {answer}");
        Ok(())
    }

    /// Its process and its folder.
    pub(super) fn process(&self) -> (u32, PathBuf) {
        self.server.process()
    }
}
