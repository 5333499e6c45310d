//! Services on free loopback ports, each with its data in a folder of its own: PostgreSQL, an Apache Kafka
//! broker, an S3 server, Redis, a Bigtable emulator, and a proxy that makes connections fail.

pub(crate) mod background;
mod bigtable;
pub(crate) mod cache;
mod certificates;
pub(crate) mod kafka;
pub(crate) mod postgres;
mod redis;
pub(crate) mod s3;
pub(crate) mod toxiproxy;

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The timeout for the start of a service. All start at the same time, and some are compiled then.
const START_TIMEOUT: Duration = Duration::from_secs(300);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The ports of services. Below those that Linux gives to sockets which ask for any port, from 32,768 on: another
/// process would get the port of a service that is not started yet, or that a test restarts.
const FIRST_PORT: u32 = 20_000;
const PORTS: u32 = 12_000;

/// A free port on 127.0.0.1, another one at each call.
fn free_port() -> Result<u16> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    // Far from the ports of other processes that start services at the same time.
    let first = std::process::id().wrapping_mul(101);
    for _ in 0..PORTS {
        let number = first.wrapping_add(CALLS.fetch_add(1, Ordering::Relaxed)) % PORTS;
        let port = u16::try_from(FIRST_PORT + number)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port from {FIRST_PORT} to {}", FIRST_PORT + PORTS - 1)
}

/// A running server, in a process group of its own. Drop ends it and removes its data.
pub(crate) struct Server {
    child: Child,
    dir: tempfile::TempDir,
}

impl Server {
    /// Starts a server in its folder, with its output in the file `log`, and waits until `is_ready`.
    #[expect(
        clippy::disallowed_methods,
        reason = "the state of another process can only be polled"
    )]
    fn start(
        name: &str,
        command: &mut Command,
        dir: tempfile::TempDir,
        is_ready: impl Fn(&Path) -> bool,
    ) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let log = dir.path().join("log");
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0);
        command.current_dir(dir.path());
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        write_restart(command, dir.path(), child.id())?;
        let mut server = Self { child, dir };
        let started = Instant::now();
        while !is_ready(&log) {
            let last_lines = || {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                lines[lines.len().saturating_sub(10)..].join("\n")
            };
            if let Some(status) = server.child.try_wait()? {
                bail!("{name} ended with {status}:\n{}", last_lines());
            }
            if started.elapsed() > START_TIMEOUT {
                bail!("{name} does not start:\n{}", last_lines());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(server)
    }
}

impl Server {
    /// Its process and its folder.
    fn process(&self) -> (u32, PathBuf) {
        (self.child.id(), self.dir.path().to_owned())
    }

    /// The path of the script of [`write_restart`].
    fn restart(&self) -> String {
        self.dir.path().join("restart").display().to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, or a test may have restarted it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Ok(pid) = std::fs::read_to_string(self.dir.path().join("pid"))
            && pid.trim() != self.child.id().to_string()
        {
            let _ = Command::new("kill").args(["-9", pid.trim()]).status();
        }
    }
}

/// Waits until a killed process has no thread that runs, and so no port and no lock. It may stay in the list of
/// processes: nobody waits for it.
const WAIT_FOR_END: &str = r#"while [ "$(ls /proc/$old/task 2>/dev/null | wc -l)" -gt 1 ] ||
    grep -qs '^State:.[^ZX]' /proc/$old/status
do sleep 0.05
done"#;

/// Writes the script `restart` into a server's folder: it kills the server, as a crash does, and starts it
/// again on the same data. For tests.
fn write_restart(command: &Command, dir: &Path, pid: u32) -> Result<()> {
    let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_string_lossy());
    let mut parts: Vec<String> = Vec::new();
    for (name, value) in command.get_envs() {
        parts.extend(value.map(|v| format!("{}={}", name.to_string_lossy(), quoted(v))));
    }
    parts.push(quoted(command.get_program()));
    parts.extend(command.get_args().map(quoted));
    let (dir, parts) = (dir.display(), parts.join(" "));
    let script = format!(
        "cd '{dir}'\nold=$(cat pid)\nkill -9 \"$old\"\n{WAIT_FOR_END}\n\
         env {parts} >>log 2>&1 </dev/null &\necho $! >pid\n"
    );
    std::fs::write(format!("{dir}/pid"), pid.to_string())?;
    std::fs::write(format!("{dir}/restart"), script)?;
    Ok(())
}

fn accepts_connections(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// All services, with the environment variables that tests use.
pub(crate) struct Services {
    postgres: postgres::Postgres,
    kafka: kafka::Kafka,
    s3: s3::S3,
    redis: redis::Redis,
    bigtable: bigtable::Bigtable,
    toxiproxy: toxiproxy::Toxiproxy,
    proxied: Vec<(&'static str, String)>,
}

impl Services {
    /// Starts all of them concurrently, with a proxy for each.
    pub(crate) fn start() -> Result<Self> {
        let toxiproxy = toxiproxy::Toxiproxy::start()?;
        let certificates = certificates::Certificates::create()?;
        // Chosen before the start, because Kafka advertises the port of the proxy to its clients.
        let kafka_proxy = free_port()?;
        let (postgres, redis, kafka, go) = std::thread::scope(|scope| {
            let kafka = scope.spawn(|| kafka::Kafka::start(kafka_proxy, &certificates));
            // One after the other: both may build a Go program.
            let go = scope.spawn(|| -> Result<_> {
                Ok((s3::S3::start(&certificates)?, bigtable::Bigtable::start()?))
            });
            // One after the other: both may install a package.
            let postgres = postgres::Postgres::start(&certificates);
            let redis = redis::Redis::start();
            (postgres, redis, join(kafka), join(go))
        });
        let (postgres, redis, kafka, (s3, bigtable)) = (postgres?, redis?, kafka?, go?);
        toxiproxy.proxy("kafka", kafka_proxy, kafka.behind_proxy())?;
        let postgres_proxy = free_port()?;
        toxiproxy.proxy("postgres", postgres_proxy, postgres.port())?;
        let s3_proxy = free_port()?;
        toxiproxy.proxy("s3", s3_proxy, s3.port())?;
        let proxied = vec![
            ("THRONG_KAFKA_PROXIED", format!("127.0.0.1:{kafka_proxy}")),
            ("THRONG_POSTGRES_PROXIED", format!("postgres://throng@127.0.0.1:{postgres_proxy}")),
            ("THRONG_S3_PROXIED", format!("http://127.0.0.1:{s3_proxy}")),
        ];
        Ok(Self { postgres, kafka, s3, redis, bigtable, toxiproxy, proxied })
    }

    /// Environment variables with their addresses and credentials.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("THRONG_POSTGRES", self.postgres.url()),
            ("THRONG_KAFKA", self.kafka.bootstrap()),
            ("THRONG_S3", self.s3.url()),
            ("THRONG_S3_ACCESS_KEY", s3::ACCESS_KEY.to_owned()),
            ("THRONG_S3_SECRET_KEY", s3::SECRET_KEY.to_owned()),
            ("THRONG_REDIS", self.redis.url()),
            ("THRONG_REDIS_FAULTS", self.redis.faults_url()),
            ("THRONG_BIGTABLE", self.bigtable.url()),
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
        variables.extend(self.proxied.iter().cloned());
        variables
    }

    /// Process and folder of each, to stop them later.
    fn processes(&self) -> Result<Vec<(u32, PathBuf)>> {
        let mut all = vec![self.postgres.process()?, self.kafka.process()];
        all.extend(self.s3.processes());
        all.extend(self.redis.processes());
        all.push(self.bigtable.process());
        all.push(self.toxiproxy.process());
        Ok(all)
    }
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| bail!("the start of a service panicked"))
}
