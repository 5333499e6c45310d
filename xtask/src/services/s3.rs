//! An S3 server over a folder: Versity S3 Gateway.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::certificates::Certificates;
use super::{Server, accepts_connections, cache, free_port};

const VERSION: &str = "v1.8.0";

/// The access key of the administrator.
pub(crate) const ACCESS_KEY: &str = "throng";
/// Not a secret: the server listens on loopback only and its data is temporary.
pub(crate) const SECRET_KEY: &str = "throng-secret";

/// A server with one empty bucket, `throng`.
pub(crate) struct S3 {
    server: Server,
    port: u16,
    /// The same bucket over TLS.
    secure: Server,
    secure_port: u16,
}

impl S3 {
    /// Builds the server if necessary, and starts it.
    pub(crate) fn start(certificates: &Certificates) -> Result<Self> {
        let module = "github.com/versity/versitygw/cmd/versitygw";
        let program = cache::go_program("versitygw", module, VERSION)?;
        let dir = tempfile::Builder::new().prefix("throng-s3-").tempdir()?;
        let data = dir.path().join("data");
        std::fs::create_dir_all(data.join("throng"))?;
        let gateway = |port: u16, more: &[&str]| {
            let mut command = Command::new(&program);
            command.env("ROOT_ACCESS_KEY", ACCESS_KEY).env("ROOT_SECRET_KEY", SECRET_KEY);
            command.args(["--quiet", "--port", &format!("127.0.0.1:{port}")]).args(more);
            command.arg("posix").arg(&data);
            command
        };
        let (port, secure_port) = (free_port()?, free_port()?);
        let tls_dir = tempfile::Builder::new().prefix("throng-s3-tls-").tempdir()?;
        let files = certificates.server();
        let (certificate, key) =
            (tls_dir.path().join("server.pem"), tls_dir.path().join("server.key"));
        std::fs::copy(files.0, &certificate)?;
        std::fs::copy(files.1, &key)?;
        let (certificate, key) = (certificate.to_string_lossy(), key.to_string_lossy());
        let mut over_tls = gateway(secure_port, &["--cert", &certificate, "--key", &key]);
        let name = "the S3 server with TLS";
        let secure =
            Server::start(name, &mut over_tls, tls_dir, |_| accepts_connections(secure_port))?;
        let mut plain = gateway(port, &[]);
        let server =
            Server::start("the S3 server", &mut plain, dir, |_| accepts_connections(port))?;
        Ok(Self { server, port, secure, secure_port })
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its URL over TLS.
    pub(crate) fn secure_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.secure_port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The path of a script that kills it and starts it again.
    pub(crate) fn restart(&self) -> String {
        self.server.restart()
    }

    /// Its processes and their folders.
    pub(super) fn processes(&self) -> [(u32, PathBuf); 2] {
        [self.server.process(), self.secure.process()]
    }
}
