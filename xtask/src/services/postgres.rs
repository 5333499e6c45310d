//! PostgreSQL from the system's package, with temporary data.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::certificates::Certificates;
use crate::needs::{install, is_root, which};

/// A server with the superuser `throng`, without a password. A role `needs_password`, which a test creates,
/// needs one. Drop stops it and removes its data.
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
                programs().context("postgresql was installed, but its programs cannot be found")?
            }
        };
        // As root, not in a folder that only root can read: the server's user needs access.
        let parent = if is_root() { PathBuf::from("/tmp") } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("throng-postgres-").tempdir_in(parent)?;
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
            ensure!(owned.success(), "cannot change the owner of the data folder to postgres");
        }
        // Not the locale of this process: it may be missing, and it decides the order of names.
        let locale = ["--locale=C.UTF-8", "--encoding=UTF8"];
        let access = ["-A", "trust", "-U", "throng", "--no-sync"];
        server.run("initdb", &[&access[..], &locale[..]].concat())?;
        let access = server.dir.path().join("data/pg_hba.conf");
        let trusted = std::fs::read_to_string(&access)?;
        std::fs::write(&access, format!("host all needs_password all md5\n{trusted}"))?;
        let folder = server.dir.path().display();
        let settings = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off \
             -c max_connections=300 -c ssl=on -c ssl_cert_file={folder}/server.pem \
             -c ssl_key_file={folder}/server.key",
            server.port
        );
        let log = server.dir.path().join("log");
        let log = log.to_string_lossy();
        let timeout = super::START_TIMEOUT.as_secs().to_string();
        server.run("pg_ctl", &["-w", "-t", &timeout, "-l", &log, "-o", &settings, "start"])?;
        server.write_restart(&settings)?;
        Ok(server)
    }

    /// The URL without a database; `postgres` exists and is empty. TLS is optional.
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
        let pid = pid.context("PostgreSQL has not written its process id")?;
        Ok((pid, self.dir.path().to_owned()))
    }

    /// The path of a script that stops it as a crash does and starts it again.
    pub(crate) fn restart(&self) -> String {
        self.dir.path().join("restart").display().to_string()
    }

    fn write_restart(&self, settings: &str) -> Result<()> {
        let dir = self.dir.path().display();
        let user =
            if is_root() { "setpriv --reuid=postgres --regid=postgres --init-groups " } else { "" };
        let (pg_ctl, timeout) = (self.programs.join("pg_ctl"), super::START_TIMEOUT.as_secs());
        let pg_ctl = format!("{user}'{}' -D '{dir}/data' -t {timeout}", pg_ctl.display());
        let script = format!(
            "cd '{dir}'\n{pg_ctl} -m immediate stop >/dev/null\n\
             {pg_ctl} -w -l '{dir}/log' -o '{settings}' start >/dev/null </dev/null\n"
        );
        std::fs::write(self.dir.path().join("restart"), script)?;
        Ok(())
    }

    /// Runs one of its programs on the data folder. If this process is root, as the user of the package:
    /// the server refuses to run as root.
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
        // The server inherits the output: a pipe would stay open until the server ends.
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.status().with_context(|| format!("cannot start {program}"))?;
        ensure!(status.success(), "{program} ended with {status}");
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Err(error) = self.run("pg_ctl", &["-m", "immediate", "stop"]) {
            eprintln!("cannot stop PostgreSQL: {error:#}");
        }
    }
}

/// The folder of the programs of the newest version.
fn programs() -> Option<PathBuf> {
    let is_complete = |dir: &Path| dir.join("initdb").is_file() && dir.join("pg_ctl").is_file();
    if let Some(dir) = which("initdb").and_then(|file| file.parent().map(Path::to_owned))
        && is_complete(&dir)
    {
        return Some(dir);
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, dir)| is_complete(dir))
        .collect();
    found.sort();
    found.pop().map(|(_, dir)| dir)
}
