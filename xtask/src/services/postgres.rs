//! PostgreSQL from the system's package, with throwaway data. Ends when dropped.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::certificates::Certificates;
use crate::needs::{install, is_root, which};

/// A server with the user `throng`, who may do everything and needs no password.
pub(crate) struct Postgres {
    programs: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
}

impl Postgres {
    /// Installs PostgreSQL if it is missing, and starts a new server.
    pub(crate) fn start(certificates: &Certificates) -> Result<Self> {
        let programs = match programs() {
            Some(found) => found,
            None => {
                install("postgresql")?;
                programs().context("postgresql was installed, but its programs are not found")?
            }
        };
        // Not in a folder of root's own: the server's user must be able to reach it.
        let place = if is_root() { PathBuf::from("/tmp") } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("throng-postgres-").tempdir_in(place)?;
        let server = Self { programs, dir, port: super::free_port()? };
        let (certificate, key) = certificates.server();
        for (from, to) in [(certificate, "server.pem"), (key, "server.key")] {
            let to = server.dir.path().join(to);
            std::fs::copy(from, &to)?;
            // The server refuses a key that others can read.
            std::fs::set_permissions(&to, PermissionsExt::from_mode(0o600))?;
        }
        if is_root() {
            std::fs::set_permissions(server.dir.path(), PermissionsExt::from_mode(0o755))?;
            let mut chown = Command::new("chown");
            let owned = chown.arg("-R").arg("postgres").arg(server.dir.path()).status()?;
            ensure!(owned.success(), "the data folder could not be given to the user postgres");
        }
        server.run("initdb", &["-A", "trust", "-U", "throng", "--no-sync"])?;
        let folder = server.dir.path().display();
        let settings = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off \
             -c max_connections=300 -c ssl=on -c ssl_cert_file={folder}/server.pem \
             -c ssl_key_file={folder}/server.key",
            server.port
        );
        let log = server.dir.path().join("log");
        let log = log.to_string_lossy();
        server.run("pg_ctl", &["-w", "-l", &log, "-o", &settings, "start"])?;
        server.write_restart(&settings)?;
        Ok(server)
    }

    /// The URL without a data base; `postgres` is there and empty. It speaks TLS to who asks for it.
    pub(crate) fn url(&self) -> String {
        format!("postgres://throng@127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its process and its folder.
    pub(super) fn process(&self) -> Result<(u32, PathBuf)> {
        let pid = super::background::postmaster(self.dir.path());
        let pid = pid.context("PostgreSQL does not say which process it is")?;
        Ok((pid, self.dir.path().to_owned()))
    }

    /// A script that stops it as a crash does and starts it again.
    pub(crate) fn restart(&self) -> String {
        self.dir.path().join("restart").display().to_string()
    }

    fn write_restart(&self, settings: &str) -> Result<()> {
        let dir = self.dir.path().display();
        let user =
            if is_root() { "setpriv --reuid=postgres --regid=postgres --init-groups " } else { "" };
        let pg_ctl = format!("{user}'{}' -D '{dir}/data'", self.programs.join("pg_ctl").display());
        let script = format!(
            "cd '{dir}'\n{pg_ctl} -m immediate stop >/dev/null\n\
             {pg_ctl} -w -l '{dir}/log' -o '{settings}' start >/dev/null </dev/null\n"
        );
        std::fs::write(self.dir.path().join("restart"), script)?;
        Ok(())
    }

    /// Runs one of its programs on the data folder. As root, as the user that the package made: the
    /// server refuses to be root.
    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let path = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.arg("-D").arg(self.dir.path().join("data")).args(arguments);
        // The server inherits the output, so it must not be a pipe that somebody reads to the end.
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.status().with_context(|| format!("cannot start {program}"))?;
        ensure!(status.success(), "{program} ended with {status}");
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Err(error) = self.run("pg_ctl", &["-m", "immediate", "stop"]) {
            eprintln!("PostgreSQL was not stopped: {error:#}");
        }
    }
}

/// The folder of the newest version's programs.
fn programs() -> Option<PathBuf> {
    let complete = |dir: &Path| dir.join("initdb").is_file() && dir.join("pg_ctl").is_file();
    if let Some(dir) = which("initdb").and_then(|file| file.parent().map(Path::to_owned))
        && complete(&dir)
    {
        return Some(dir);
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, dir)| complete(dir))
        .collect();
    found.sort();
    found.pop().map(|(_, dir)| dir)
}
