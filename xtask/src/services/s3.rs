//! An S3 server over a folder: Versity S3 Gateway.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::{Server, answers, cache, free_port};

const VERSION: &str = "v1.8.0";

/// Who may do everything.
pub(crate) const ACCESS_KEY: &str = "throng";
/// Their secret; the server is on loopback and its data is thrown away.
pub(crate) const SECRET_KEY: &str = "throng-secret";

/// A server with one empty bucket, `throng`.
pub(crate) struct S3 {
    server: Server,
    port: u16,
}

impl S3 {
    /// Builds the server if need be, and starts it.
    pub(crate) fn start() -> Result<Self> {
        let module = "github.com/versity/versitygw/cmd/versitygw";
        let program = cache::go_program("versitygw", module, VERSION)?;
        let dir = tempfile::Builder::new().prefix("throng-s3-").tempdir()?;
        let data = dir.path().join("data");
        std::fs::create_dir_all(data.join("throng"))?;
        let port = free_port()?;
        let mut command = Command::new(program);
        command.env("ROOT_ACCESS_KEY", ACCESS_KEY).env("ROOT_SECRET_KEY", SECRET_KEY);
        command.args(["--quiet", "--port", &format!("127.0.0.1:{port}"), "posix"]).arg(data);
        let server = Server::start("the S3 server", &mut command, dir, |_| answers(port))?;
        Ok(Self { server, port })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A script that kills it and starts it again.
    pub(crate) fn restart(&self) -> String {
        self.server.restart()
    }

    /// Its process and its folder.
    pub(super) fn process(&self) -> (u32, PathBuf) {
        self.server.process()
    }
}
