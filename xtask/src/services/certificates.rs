//! A certificate authority for tests, and a certificate for servers on 127.0.0.1.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::needs::{install, which};

/// Created at each start; only the tests trust it.
pub(crate) struct Certificates {
    dir: tempfile::TempDir,
}

impl Certificates {
    pub(crate) fn create() -> Result<Self> {
        if which("openssl").is_none() {
            install("openssl")?;
        }
        let dir = tempfile::Builder::new().prefix("throng-certificates-").tempdir()?;
        let created = Self { dir };
        created.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
             -subj /CN=throng-tests -keyout ca.key -out ca.pem",
        )?;
        created.openssl(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=127.0.0.1 \
             -keyout server.key -out server.csr",
        )?;
        std::fs::write(
            created.dir.path().join("names"),
            "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n",
        )?;
        created.openssl(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 \
             -extfile names -out server.pem",
        )?;
        Ok(created)
    }

    fn openssl(&self, arguments: &str) -> Result<()> {
        let mut openssl = Command::new("openssl");
        openssl.args(arguments.split_whitespace()).current_dir(self.dir.path());
        let status = openssl.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let status = status.context("cannot start openssl")?;
        ensure!(status.success(), "openssl {arguments} ended with {status}");
        Ok(())
    }

    /// The certificate of the authority, for clients.
    pub(crate) fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The certificate of the servers and its key.
    pub(crate) fn server(&self) -> (PathBuf, PathBuf) {
        (self.dir.path().join("server.pem"), self.dir.path().join("server.key"))
    }

    /// Writes certificate and key to one file, which Kafka requires.
    pub(crate) fn write_joined(&self, to: &Path) -> Result<()> {
        let (certificate, key) = self.server();
        let mut text = std::fs::read_to_string(key)?;
        text.push_str(&std::fs::read_to_string(certificate)?);
        Ok(std::fs::write(to, text)?)
    }
}
