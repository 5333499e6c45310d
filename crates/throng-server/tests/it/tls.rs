//! HTTPS, and refused configurations without it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use throng_backends::BackendError;
use throng_server::{Node, NodeConfig, NodeError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{SPEC, noon, spec, start, until};

/// A certificate authority for tests.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes a certificate for 127.0.0.1 and its key.
    fn write(&self, dir: &Path) {
        self.write_until(dir, (4096, 1, 1));
    }

    /// Writes one that expires on this day.
    fn write_until(&self, dir: &Path, (year, month, day): (i32, u8, u8)) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, month, day);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(dir.join("node.pem"), certificate.pem()).unwrap();
        std::fs::write(dir.join("node.key"), key.serialize_pem()).unwrap();
    }

    fn client(&self) -> reqwest::Client {
        let authority = reqwest::Certificate::from_pem(self.0.pem().as_bytes()).unwrap();
        reqwest::Client::builder().tls_certs_only([authority]).build().unwrap()
    }

    /// The protocol that is negotiated with a client that supports these, and the beginning of the
    /// response.
    async fn negotiate(&self, node: &Node, protocols: &[&str]) -> (Option<String>, String) {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.0.pem().as_bytes()).unwrap()).unwrap();
        let mut config =
            rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address(node)).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let protocol = protocol.map(|p| String::from_utf8(p).unwrap());
        let request = match protocol.as_deref() {
            Some("h2") => &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..],
            _ => &b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"[..],
        };
        stream.write_all(request).await.unwrap();
        let mut answer = vec![0; 9];
        stream.read_exact(&mut answer).await.unwrap();
        (protocol, String::from_utf8_lossy(&answer).into_owned())
    }
}

fn address(node: &Node) -> String {
    node.url().replace("https://", "")
}

fn config(dir: &Path, text: &str, listen: [u8; 4]) -> NodeConfig {
    NodeConfig {
        data_dir: dir.join("data"),
        spec: spec(text),
        join: false,
        roles: None,
        listen: Some(SocketAddr::from((listen, 0))),
        clock: noon(),
        access_clock: noon(),
        recovery: throng_server::Recovery::default(),
        accept_log_loss: Vec::new(),
        query_worker: crate::query_worker(),
        limits: Default::default(),
        env: Arc::new(|name: &str| (name == "TOKEN").then(|| "s3cret".to_owned())),
    }
}

fn with_tls(dir: &Path) -> String {
    let [cert, key] = ["node.pem", "node.key"].map(|file| dir.join(file).display().to_string());
    format!(
        "{SPEC}node: {{ token: \"env:TOKEN\", tls: {{ cert_file: \"{cert}\", key_file: \"{key}\" }} }}\n"
    )
}

/// Replaces a file at once: the node, which polls its files, must not read a half of it.
fn replace(path: &Path, bytes: &[u8]) {
    let aside = path.with_extension("aside");
    std::fs::write(&aside, bytes).unwrap();
    std::fs::rename(aside, path).unwrap();
}

fn install_crypto_provider() {
    // Only the first test of the process installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

async fn certificate_problems(http: &reqwest::Client, node: &Node) -> Vec<Value> {
    let request = http.get(format!("{}/v1/node/health", node.url())).bearer_auth("s3cret");
    let health: Value = request.send().await.unwrap().json().await.unwrap();
    health["problems"].as_array().unwrap().clone()
}

/// SIGHUP to this process, in which a node with a certificate handles it.
fn hang_up() {
    let own = rustix::process::getpid();
    rustix::process::kill_process(own, rustix::process::Signal::HUP).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_serves_https_and_loads_a_new_certificate() {
    install_crypto_provider();
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Authority::new(), Authority::new());
    first.write(dir.path());
    let node =
        Node::start(config(dir.path(), &with_tls(dir.path()), [127, 0, 0, 1])).await.unwrap();
    assert!(node.url().starts_with("https://127.0.0.1:"), "{}", node.url());
    let old = first.client();
    let ready: Value =
        old.get(format!("{}/readyz", node.url())).send().await.unwrap().json().await.unwrap();
    assert_eq!(ready, json!({ "ready": true, "degraded": false, "problems": [] }));
    assert!(second.client().get(format!("{}/readyz", node.url())).send().await.is_err());

    let (protocol, answer) = first.negotiate(&node, &["h2", "http/1.1"]).await;
    // A frame of the type SETTINGS.
    assert_eq!((protocol.as_deref(), answer.as_bytes()[3]), (Some("h2"), 4));
    for protocols in [&["http/1.1"][..], &[][..]] {
        let (protocol, answer) = first.negotiate(&node, protocols).await;
        assert_eq!(protocol.as_deref(), protocols.first().copied());
        assert_eq!(answer, "HTTP/1.1 ");
    }
    // Without TLS there is no response.
    let mut plain = TcpStream::connect(address(&node)).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    let _ = plain.read_to_end(&mut bytes).await;
    assert!(!String::from_utf8_lossy(&bytes).contains("HTTP/"), "{bytes:?}");

    // The key of another certificate: the previous one stays in use, and a problem is reported.
    // In another folder, because the node polls its own: it must not find both files of the new one there.
    let elsewhere = tempfile::tempdir().unwrap();
    second.write(elsewhere.path());
    let [new_cert, new_key] =
        ["node.pem", "node.key"].map(|file| std::fs::read(elsewhere.path().join(file)).unwrap());
    replace(&dir.path().join("node.pem"), &new_cert);
    hang_up();
    let mut problem = Value::Null;
    until("the problem is reported", async || {
        let problems = certificate_problems(&old, &node).await;
        problem = problems.first().cloned().unwrap_or_default();
        !problem.is_null()
    })
    .await;
    assert_eq!(
        (&problem["class"], &problem["impact"]),
        (&json!("certificate"), &json!("degraded"))
    );
    assert!(problem["detail"].as_str().unwrap().contains("node.key"), "{problem}");
    let ready: Value =
        old.get(format!("{}/readyz", node.url())).send().await.unwrap().json().await.unwrap();
    assert_eq!(ready, json!({ "ready": true, "degraded": true, "problems": ["certificate"] }));

    replace(&dir.path().join("node.key"), &new_key);
    hang_up();
    let new = second.client();
    let url = format!("{}/readyz", node.url());
    until("the new certificate is in use", async || new.get(&url).send().await.is_ok()).await;
    let ready: Value = new.get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(ready["ready"], json!(true));
    until("the problem has ended", async || certificate_problems(&new, &node).await.is_empty())
        .await;
    node.shutdown().await;
}

/// The node's clock shows noon of 2026-11-23, whatever that of the machine shows.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_expires_is_served_and_reported_until_it_is_renewed() {
    install_crypto_provider();
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let problems = |node: &Node| -> Vec<String> {
        let open = node.context().health.problems().into_iter();
        let of_certificate = open.filter(|p| p.class == throng_server::ProblemClass::Certificate);
        of_certificate.map(|problem| problem.detail).collect()
    };
    for (expiry, words) in
        [((2026, 12, 1), "expires at 2026-12-01"), ((2026, 11, 1), "expired at 2026-11-01")]
    {
        authority.write_until(dir.path(), expiry);
        let config = config(dir.path(), &with_tls(dir.path()), [127, 0, 0, 1]);
        let node = Node::start(config).await.unwrap();
        let open = problems(&node);
        assert_eq!(open.len(), 1, "{open:?}");
        assert!(open[0].contains(words) && open[0].contains("node.pem"), "{open:?}");
        authority.write(dir.path());
        hang_up();
        until("the problem has ended", async || problems(&node).is_empty()).await;
        let (_, answer) = authority.negotiate(&node, &["http/1.1"]).await;
        assert_eq!(answer, "HTTP/1.1 ");
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_of_an_unusable_certificate_names_the_file() {
    install_crypto_provider();
    let dir = tempfile::tempdir().unwrap();
    let error = async |what: &str| {
        let config = config(dir.path(), &with_tls(dir.path()), [127, 0, 0, 1]);
        let error = Node::start(config).await.expect_err(what);
        assert!(matches!(error, NodeError::Tls(_)), "{error}");
        throng_model::with_causes(&error)
    };
    let words = error("no files").await;
    assert!(words.contains("node.pem") && words.contains("node.tls.cert_file"), "{words}");
    Authority::new().write(dir.path());
    let [cert, key] = ["node.pem", "node.key"].map(|file| dir.path().join(file));
    let (right_cert, right_key) = (std::fs::read(&cert).unwrap(), std::fs::read(&key).unwrap());

    std::fs::write(&cert, "hello").unwrap();
    let words = error("no certificate").await;
    assert!(words.contains("node.pem") && words.contains("holds no certificate"), "{words}");
    std::fs::write(&cert, &right_cert).unwrap();

    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    std::fs::write(&key, encrypted).unwrap();
    let words = error("an encrypted key").await;
    assert!(words.contains("node.key") && words.contains("openssl pkey"), "{words}");

    Authority::new().write(dir.path());
    std::fs::write(&key, &right_key).unwrap();
    let words = error("another's key").await;
    assert!(words.contains("node.pem") && words.contains("node.key"), "{words}");
    let secret = String::from_utf8(right_key).unwrap();
    assert!(!secret.lines().any(|line| words.contains(line)), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_on_a_public_address_must_be_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{SPEC}node: {{ token: \"env:TOKEN\" }}\n");
    let error = Node::start(config(dir.path(), &text, [0, 0, 0, 0])).await.unwrap_err();
    assert!(matches!(error, NodeError::Unencrypted { .. }), "{error}");
    let words = error.to_string();
    assert!(words.contains("node.tls") && words.contains("node.insecure"), "{words}");

    let text = format!("{SPEC}node: {{ token: \"env:TOKEN\", insecure: true }}\n");
    let node = Node::start(config(dir.path(), &text, [0, 0, 0, 0])).await.unwrap();
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_not_sent_to_another_machine_unencrypted() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "{SPEC}node: {{ ledger: postgres, ledger_url: \"file:{}\" }}\n",
        dir.path().join("url").display()
    );
    std::fs::write(dir.path().join("url"), "postgres://u:s3cret@db.invalid/throng").unwrap();
    let error = start(&dir.path().join("data"), spec(&text), &noon()).await.unwrap_err();
    assert!(matches!(error, NodeError::Backend(BackendError::UnencryptedLedger)), "{error}");
    let words = throng_model::with_causes(&error);
    assert!(words.contains("ledger_insecure") && !words.contains("s3cret"), "{words}");
}
