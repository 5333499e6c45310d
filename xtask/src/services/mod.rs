//! Real services on free loopback ports, each with its data in a folder of its own: PostgreSQL, an
//! Apache Kafka broker, an S3 server, and a proxy that makes connections fail.

pub(crate) mod background;
mod cache;
mod certificates;
pub(crate) mod kafka;
pub(crate) mod postgres;
pub(crate) mod s3;
pub(crate) mod toxiproxy;

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A service answers within this time, or never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// A port on 127.0.0.1 that nobody listens on.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// A running server, in a process group of its own. Ends, with its data, when dropped.
pub(crate) struct Server {
    child: Child,
    dir: tempfile::TempDir,
}

impl Server {
    /// Starts a server in its folder, keeps what it says there in `log`, and waits until `ready`.
    #[expect(clippy::disallowed_methods, reason = "another process cannot be asked to call back")]
    fn start(
        name: &str,
        command: &mut Command,
        dir: tempfile::TempDir,
        ready: impl Fn(&Path) -> bool,
    ) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let log = dir.path().join("log");
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0);
        command.current_dir(dir.path());
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        write_restart(command, dir.path(), child.id())?;
        let mut server = Self { child, dir };
        let begun = Instant::now();
        while !ready(&log) {
            let said = || {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                lines[lines.len().saturating_sub(10)..].join("\n")
            };
            if let Some(status) = server.child.try_wait()? {
                bail!("{name} ended with {status}:\n{}", said());
            }
            if begun.elapsed() > PATIENCE {
                bail!("{name} does not answer:\n{}", said());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }
}

impl Server {
    /// Its process and its folder.
    fn process(&self) -> (u32, PathBuf) {
        (self.child.id(), self.dir.path().to_owned())
    }

    /// The script of [`write_restart`].
    fn restart(&self) -> String {
        self.dir.path().join("restart").display().to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, or been started again by a test.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Ok(pid) = std::fs::read_to_string(self.dir.path().join("pid"))
            && pid.trim() != self.child.id().to_string()
        {
            let _ = Command::new("kill").args(["-9", pid.trim()]).status();
        }
    }
}

/// Writes `restart` into a server's folder: a script that kills the server as a crash does and starts
/// it again on the same data, for tests.
fn write_restart(command: &Command, dir: &Path, pid: u32) -> Result<()> {
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy());
    let mut words: Vec<String> = Vec::new();
    for (name, value) in command.get_envs() {
        words.extend(value.map(|v| format!("{}={}", name.to_string_lossy(), quoted(v))));
    }
    words.push(quoted(command.get_program()));
    words.extend(command.get_args().map(quoted));
    let (dir, words) = (dir.display(), words.join(" "));
    let script = format!(
        "cd '{dir}'\nkill -9 \"$(cat pid)\"\nenv {words} >>log 2>&1 </dev/null &\necho $! >pid\n"
    );
    std::fs::write(format!("{dir}/pid"), pid.to_string())?;
    std::fs::write(format!("{dir}/restart"), script)?;
    Ok(())
}

fn answers(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// All services, and what tests need to know to use them.
pub(crate) struct Services {
    postgres: postgres::Postgres,
    kafka: kafka::Kafka,
    s3: s3::S3,
    toxiproxy: toxiproxy::Toxiproxy,
    behind: Vec<(&'static str, String)>,
}

impl Services {
    /// Starts all of them at once, and a proxy before each.
    pub(crate) fn start() -> Result<Self> {
        let toxiproxy = toxiproxy::Toxiproxy::start()?;
        let certificates = certificates::Certificates::make()?;
        // Kafka tells its clients where it is: the proxy's port is part of its settings.
        let proxied = free_port()?;
        let (postgres, kafka, s3) = std::thread::scope(|scope| {
            let kafka = scope.spawn(|| kafka::Kafka::start(proxied, &certificates));
            let s3 = scope.spawn(|| s3::S3::start(&certificates));
            let postgres = postgres::Postgres::start(&certificates);
            (postgres, join(kafka), join(s3))
        });
        let (postgres, kafka, s3) = (postgres?, kafka?, s3?);
        toxiproxy.proxy("kafka", proxied, kafka.behind_proxy())?;
        let postgres_port = free_port()?;
        toxiproxy.proxy("postgres", postgres_port, postgres.port())?;
        let s3_port = free_port()?;
        toxiproxy.proxy("s3", s3_port, s3.port())?;
        let behind = vec![
            ("THRONG_KAFKA_PROXIED", format!("127.0.0.1:{proxied}")),
            ("THRONG_POSTGRES_PROXIED", format!("postgres://throng@127.0.0.1:{postgres_port}")),
            ("THRONG_S3_PROXIED", format!("http://127.0.0.1:{s3_port}")),
        ];
        Ok(Self { postgres, kafka, s3, toxiproxy, behind })
    }

    /// Environment variables that say where they are.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("THRONG_POSTGRES", self.postgres.url()),
            ("THRONG_KAFKA", self.kafka.bootstrap()),
            ("THRONG_S3", self.s3.url()),
            ("THRONG_S3_ACCESS_KEY", s3::ACCESS_KEY.to_owned()),
            ("THRONG_S3_SECRET_KEY", s3::SECRET_KEY.to_owned()),
            ("THRONG_TOXIPROXY", self.toxiproxy.url()),
            ("THRONG_KAFKA_RESTART", self.kafka.restart()),
            ("THRONG_S3_RESTART", self.s3.restart()),
            ("THRONG_POSTGRES_RESTART", self.postgres.restart()),
            ("THRONG_KAFKA_SECURE", self.kafka.secure_bootstrap()),
            ("THRONG_KAFKA_USER", kafka::USER.to_owned()),
            ("THRONG_KAFKA_GUEST", kafka::GUEST.to_owned()),
            ("THRONG_KAFKA_PASSWORD", kafka::PASSWORD.to_owned()),
            ("THRONG_S3_SECURE", self.s3.secure_url()),
            ("THRONG_CA", self.kafka.authority().display().to_string()),
        ];
        variables.extend(self.behind.iter().cloned());
        variables
    }

    /// Process and folder of each: all that it takes to end them.
    fn processes(&self) -> Result<Vec<(u32, PathBuf)>> {
        let mut all = vec![self.postgres.process()?, self.kafka.process()];
        all.extend(self.s3.processes());
        all.push(self.toxiproxy.process());
        Ok(all)
    }
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| bail!("starting a service panicked"))
}
