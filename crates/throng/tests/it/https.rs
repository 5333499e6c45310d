//! The command line and a node with HTTPS.

use std::net::SocketAddr;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::process::{NodeProcess, throng};

/// Writes an authority, and a certificate for 127.0.0.1 with its key.
fn certificates(dir: &Path) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
    let authority = authority.expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
    let certificate = params.signed_by(&key, &authority).expect("signed");
    for (file, text) in [
        ("ca.pem", authority.pem()),
        ("node.pem", certificate.pem()),
        ("node.key", key.serialize_pem()),
    ] {
        std::fs::write(dir.join(file), text).expect("written");
    }
}

#[test]
fn the_command_line_uses_https_and_trusts_the_given_authority() {
    let dir = tempfile::tempdir().expect("a folder");
    certificates(dir.path());
    let spec = dir.path().join("throng.yaml");
    let text = "version: 1\nnode:\n  token: env:NODE_TOKEN\n  tls: { cert_file: node.pem, key_file: node.key }\n";
    std::fs::write(&spec, text).expect("written");
    let token = [("NODE_TOKEN", "s3cret".to_owned())];
    let log = dir.path().join("log");
    let node = NodeProcess::with(&dir.path().join("data"), &spec, &log, &[], &token);
    assert!(node.url.starts_with("https://127.0.0.1:"), "{}", node.url);
    let lookup = |more: &[&str]| {
        let mut command = throng();
        command.args(["lookup", "nobody", "--json", "--url", &node.url]).args(more);
        command.env_remove("THRONG_CA_FILE").env("THRONG_TOKEN", "s3cret");
        command.output().expect("throng starts")
    };
    let ca = dir.path().join("ca.pem");
    let trusted = lookup(&["--ca-file", ca.to_str().expect("UTF-8")]);
    assert!(trusted.status.success(), "{}", String::from_utf8_lossy(&trusted.stderr));
    let untrusted = lookup(&[]);
    let stderr = String::from_utf8_lossy(&untrusted.stderr).into_owned();
    assert!(!untrusted.status.success() && stderr.contains("--ca-file"), "{stderr}");
    let key = dir.path().join("node.key");
    let wrong = lookup(&["--ca-file", key.to_str().expect("UTF-8")]);
    let stderr = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && stderr.contains("holds no certificate"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_does_not_follow_a_redirect() {
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let to: SocketAddr = other.local_addr().expect("its address");
    let router = axum::Router::new().fallback(async move || {
        let location = format!("http://{to}/elsewhere");
        (axum::http::StatusCode::TEMPORARY_REDIRECT, [("location", location)])
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let running = tokio::task::spawn_blocking(move || {
        let mut command = throng();
        command.args(["lookup", "nobody", "--url", &url]).env("THRONG_TOKEN", "s3cret");
        command.output().expect("throng starts")
    });
    let output = running.await.expect("ended");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{stderr}");
    assert!(stderr.contains(&to.to_string()) && stderr.contains("not sent there"), "{stderr}");
    let no_connection =
        std::future::poll_fn(|cx| std::task::Poll::Ready(other.poll_accept(cx).is_pending()));
    assert!(no_connection.await, "a request followed the redirect");
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_not_sent_unencrypted_to_another_machine() {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    // Not a loopback address, although this machine answers.
    let url = format!("http://0.0.0.0:{port}");
    let run = async |more: &'static [&'static str], token: Option<&'static str>| {
        let mut command = throng();
        command.args(["lookup", "nobody", "--url", &url]).args(more).env("NO_PROXY", "*");
        command.envs(token.map(|token| ("THRONG_TOKEN", token)));
        let running = tokio::task::spawn_blocking(move || command.output());
        let output = running.await.expect("ended").expect("throng starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, stderr) = run(&[], Some("s3cret")).await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("--insecure") && !stderr.contains("s3cret"), "{stderr}");
    let no_connection =
        std::future::poll_fn(|cx| std::task::Poll::Ready(listener.poll_accept(cx).is_pending()));
    assert!(no_connection.await, "it connected");
    let router = axum::Router::new().fallback(|| async { "<html>It works!</html>" });
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let sent: [(&[&str], Option<&str>); 2] = [(&["--insecure"], Some("s3cret")), (&[], None)];
    for (more, token) in sent {
        let (code, stderr) = run(more, token).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains("is not JSON"), "{stderr}");
    }
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_is_not_an_answer_of_a_node() {
    let router = axum::Router::new().fallback(|| async { "<html>It works!</html>" });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let commands: [&[&str]; 3] =
        [&["sync", "pause", "a"], &["token", "revoke", "a"], &["audience", "list"]];
    for arguments in commands {
        let mut command = throng();
        command.args(arguments).args(["--url", &url]);
        let running = tokio::task::spawn_blocking(move || command.output());
        let output = running.await.expect("ended").expect("throng starts");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let outcome = (output.status.code(), output.stdout.is_empty());
        assert_eq!(outcome, (Some(1), true), "{arguments:?}: {stderr}");
        assert!(stderr.contains("is not JSON") && stderr.contains(&url), "{stderr}");
    }
    server.abort();
}
