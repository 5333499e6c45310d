//! One Apache Kafka broker that is its own controller (KRaft).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::certificates::Certificates;
use super::{Server, accepts_connections, cache, free_port};
use crate::needs::{install, which};

const VERSION: &str = "4.1.0";
/// The version of Kafka's Log4j, for the SLF4J binding, which is not a dependency of Kafka.
const LOG4J: &str = "2.24.3";

/// The last line in the log of a start.
const STARTED: &str = "Kafka Server started";

/// A broker with its data.
pub(crate) struct Kafka {
    server: Server,
    ports: Ports,
}

/// The user of the TLS listener, with all rights.
pub(crate) const USER: &str = "throng";
pub(crate) const PASSWORD: &str = "throng-password";
/// A user with the same password and without any rights.
pub(crate) const GUEST: &str = "guest";
const SCRAM: [&str; 2] = ["SCRAM-SHA-256", "SCRAM-SHA-512"];

impl Kafka {
    /// Downloads Kafka if necessary, and starts a new broker. It has a second listener behind a proxy,
    /// which advertises `proxy_port`.
    pub(crate) fn start(proxy_port: u16, certificates: &Certificates) -> Result<Self> {
        let jars = jars()?;
        let dir = tempfile::Builder::new().prefix("throng-kafka-").tempdir()?;
        let ports = Ports {
            plain: free_port()?,
            proxied: free_port()?,
            proxy: proxy_port,
            secure: free_port()?,
            controller: free_port()?,
        };
        certificates.write_joined(&dir.path().join("server.pem"))?;
        std::fs::copy(certificates.authority(), dir.path().join("ca.pem"))?;
        let settings = dir.path().join("server.properties");
        std::fs::write(&settings, properties(dir.path(), &ports))?;
        let mut format = java(&jars, "128m", dir.path());
        format
            .args(["kafka.tools.StorageTool", "format", "-t", "dGhyb25nLXRlc3RzLTAwMQ", "-c"])
            .arg(&settings);
        for mechanism in SCRAM {
            let user = format!("{mechanism}=[name={USER},password={PASSWORD}]");
            format.args(["--add-scram", &user]);
        }
        let formatted = format
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("cannot start java")?;
        ensure!(formatted.success(), "Kafka's storage was not formatted: {formatted}");
        let mut broker = java(&jars, "512m", dir.path());
        broker.arg("kafka.Kafka").arg(&settings);
        let server = Server::start("Kafka", &mut broker, dir, |log| {
            // Its ports are open shortly before it serves requests.
            accepts_connections(ports.plain)
                && std::fs::read_to_string(log).is_ok_and(|text| text.contains(STARTED))
        })?;
        Ok(Self { server, ports })
    }

    /// `host:port` of the broker.
    pub(crate) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.ports.plain)
    }

    /// `host:port` for clients with TLS and SASL.
    pub(crate) fn secure_bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.ports.secure)
    }

    /// The certificate of the authority that issued its certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.process().1.join("ca.pem")
    }

    /// The port that a proxy forwards to.
    pub(crate) fn behind_proxy(&self) -> u16 {
        self.ports.proxied
    }

    /// The path of a script that kills it and starts it again.
    pub(crate) fn restart(&self) -> String {
        self.server.restart()
    }

    /// Its process and its folder.
    pub(super) fn process(&self) -> (u32, PathBuf) {
        self.server.process()
    }
}

/// The ports of a broker.
struct Ports {
    plain: u16,
    /// The listener that a proxy forwards to.
    proxied: u16,
    /// The port of the proxy, which the listener advertises.
    proxy: u16,
    /// TLS and SASL.
    secure: u16,
    controller: u16,
}

/// `auto.create.topics.enable` is on, as it is by default: no client of Throng may let the broker create a topic.
fn properties(dir: &Path, ports: &Ports) -> String {
    let Ports { plain, proxied, proxy, secure, controller } = ports;
    let dir = dir.display();
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{plain},PROXIED://127.0.0.1:{proxied},SECURE://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},PROXIED://127.0.0.1:{proxy},SECURE://127.0.0.1:{secure}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT
listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location={dir}/server.pem
listener.name.secure.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.secure.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\" user_{GUEST}=\"{PASSWORD}\";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:{USER}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={dir}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=true
log.retention.ms=-1
num.partitions=4
"
    )
}

fn java(jars: &Path, heap: &str, dir: &Path) -> Command {
    let mut java = Command::new("java");
    // A fast start matters more here than throughput.
    java.arg(format!("-Xmx{heap}")).args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    // It unpacks libraries there and leaves them when it is killed.
    java.arg(format!("-Djava.io.tmpdir={}", dir.display())).arg("-XX:-UsePerfData");
    java.arg("-Dlog4j2.level=INFO").arg("-cp").arg(jars.join("*"));
    java
}

/// The folder with Kafka's jars.
fn jars() -> Result<PathBuf> {
    require("java", "default-jdk-headless")?;
    cache::provide(&format!("kafka-{VERSION}-log4j-{LOG4J}"), |temporary| {
        require("mvn", "maven")?;
        let project = tempfile::tempdir()?;
        std::fs::write(project.path().join("pom.xml"), pom())?;
        let mut maven = Command::new("mvn");
        maven.current_dir(project.path()).args(["-q", "-B", "dependency:copy-dependencies"]);
        maven.arg(format!("-DoutputDirectory={}", temporary.display()));
        // The standard output of `services up` is for a shell.
        crate::run(maven.stdout(std::io::stderr()))
    })
}

fn require(program: &str, package: &str) -> Result<()> {
    if which(program).is_some() { Ok(()) } else { install(package) }
}

fn pom() -> String {
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>"
        )
    };
    format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>throng</groupId>\
         <artifactId>services</artifactId><version>1</version><packaging>pom</packaging>\
         <dependencies>{}{}{}</dependencies></project>",
        dependency("org.apache.kafka", "kafka_2.13", VERSION),
        dependency("org.apache.kafka", "kafka-tools", VERSION),
        dependency("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J)
    )
}
