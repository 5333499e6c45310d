//! The certificate of the server, and its replacement while the server runs.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use throng_model::Clock;
use throng_telemetry::metrics;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use validity::{Validity, ValidityProblem};

mod validity;

/// How often the files are read.
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// The largest file of certificates.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The widest mode of a key file without a warning: the owner may write, the group may read.
const KEY_MODE: u32 = 0o640;
/// The key of the problem that a certificate cannot be used.
const UNUSABLE: &str = "node.tls";
/// The keys of problems with its validity. Each is an alert of its own.
const EXPIRES_SOON: &str = "node.tls expires";
const EXPIRED: &str = "node.tls expired";
const NOT_YET_VALID: &str = "node.tls not valid yet";

/// The files of a certificate and its key, in PEM form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate of the server first, and the intermediate certificates after it.
    pub cert_file: PathBuf,
    /// The private key of the first certificate.
    pub key_file: PathBuf,
}

/// Receives the problems of the certificate in use.
pub trait CertificateReporter: Send + Sync {
    /// A problem exists since now, or has another detail. `key`: which problem; there are several at once.
    fn report(&self, key: &str, detail: String);

    /// A problem is resolved. Does nothing if it was not reported.
    fn clear(&self, key: &str);
}

/// Why the certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}, which node.{field} names", path.display())]
    Read {
        /// `tls.cert_file` or `tls.key_file`.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The content of a file is not usable.
    #[error("{}, which node.{field} names, {what}: {hint}", path.display())]
    Content {
        /// `tls.cert_file` or `tls.key_file`.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
        /// How to fix it.
        hint: &'static str,
    },
    /// Certificate and key do not match, or the TLS library refuses them.
    #[error(
        "the certificate of {} cannot be used with the key of {}: the first certificate of the file must belong to that key",
        cert_file.display(), key_file.display()
    )]
    Pair {
        /// The certificates.
        cert_file: PathBuf,
        /// The key.
        key_file: PathBuf,
        /// The TLS library's reason.
        #[source]
        source: rustls::Error,
    },
}

/// The content of the two files. It is compared, so that only a changed file is loaded.
#[derive(PartialEq, Eq)]
struct Files {
    certificates: Vec<u8>,
    key: Vec<u8>,
}

/// The certificate that new connections get.
pub struct Certificates {
    settings: CertificateFiles,
    /// The real time, by which certificates expire.
    clock: Arc<dyn Clock>,
    current: ArcSwap<ServerConfig>,
    in_use: Mutex<InUse>,
}

/// The files of the certificate in use, and its validity, or the position in the file of a
/// certificate whose validity cannot be read.
struct InUse {
    files: Files,
    validity: Result<Validity, usize>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads the files. `clock`: the real time, by which certificates expire.
    ///
    /// # Errors
    /// [`TlsError`] names the file and what is wrong with it.
    pub fn open(settings: CertificateFiles, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let files = read(&settings)?;
        let (config, validity) = server_config(&settings, &files)?;
        warn_if_key_is_accessible(&settings.key_file);
        Ok(Self {
            settings,
            clock,
            current: ArcSwap::from_pointee(config),
            in_use: Mutex::new(InUse { files, validity }),
        })
    }

    /// Reports a certificate that expires soon or has expired, and clears the problems of the
    /// previous one. An expired certificate stays in use: clients that do not check it keep
    /// working.
    pub fn check_validity(&self, reporter: &dyn CertificateReporter) {
        let validity = self.in_use.lock().validity;
        let file = self.settings.cert_file.display().to_string();
        let problem = match validity {
            Ok(validity) => {
                let secs = validity.not_after.0 / 1_000_000;
                metrics::gauge!(metrics::TLS_CERTIFICATE_EXPIRES_SECONDS).set(secs as f64);
                validity.problem_at(self.clock.now()).map(|problem| {
                    let key = match problem {
                        ValidityProblem::ExpiresSoon => EXPIRES_SOON,
                        ValidityProblem::Expired => EXPIRED,
                        ValidityProblem::NotYetValid => NOT_YET_VALID,
                    };
                    (key, validity.describe(problem, &file))
                })
            }
            Err(place) => {
                let words = format!(
                    "the expiry of certificate {place} of {file} cannot be read, so there is no warning \
                     before it; issue a new one"
                );
                Some((EXPIRES_SOON, words))
            }
        };
        let open = problem.as_ref().map(|(key, _)| *key);
        for key in [EXPIRES_SOON, EXPIRED, NOT_YET_VALID] {
            if open != Some(key) {
                reporter.clear(key);
            }
        }
        if let Some((key, words)) = problem {
            reporter.report(key, words);
        }
    }

    /// Handles SIGHUP from now on; unhandled, it terminates the process.
    pub fn sighup() -> Option<Signal> {
        match signal(SignalKind::hangup()) {
            Ok(sighup) => Some(sighup),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "failed to handle SIGHUP");
                None
            }
        }
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Reads the files periodically and on SIGHUP, and uses a changed certificate for new
    /// connections. One that cannot be used is reported, and the previous one stays in use.
    pub async fn reload_on_change(
        self: Arc<Self>,
        mut sighup: Option<Signal>,
        reporter: Arc<dyn CertificateReporter>,
        stop: CancellationToken,
    ) {
        loop {
            let signalled = async {
                match &mut sighup {
                    Some(sighup) => sighup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                _ = signalled => {}
            }
            let certificates = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || certificates.reload()).await {
                Ok(Ok(changed)) => {
                    if changed {
                        let cert_file = self.settings.cert_file.display();
                        tracing::info!(%cert_file, "certificate reloaded");
                    }
                    reporter.clear(UNUSABLE);
                }
                Ok(Err(error)) => {
                    reporter.report(UNUSABLE, throng_model::with_causes(&error));
                }
                // The runtime shuts down.
                Err(_) => return,
            }
            self.check_validity(&*reporter);
        }
    }

    /// Uses the files if they have changed. Whether they had.
    fn reload(&self) -> Result<bool, TlsError> {
        let files = read(&self.settings)?;
        let mut in_use = self.in_use.lock();
        if in_use.files == files {
            return Ok(false);
        }
        let (config, validity) = server_config(&self.settings, &files)?;
        warn_if_key_is_accessible(&self.settings.key_file);
        self.current.store(Arc::new(config));
        *in_use = InUse { files, validity };
        Ok(true)
    }
}

fn read(settings: &CertificateFiles) -> Result<Files, TlsError> {
    let file = |field: &'static str, path: &Path| {
        let mut bytes = Vec::new();
        let failed = |source| TlsError::Read { field, path: path.to_owned(), source };
        let file = throng_fs::open(path).map_err(failed)?;
        file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    };
    Ok(Files {
        certificates: file("tls.cert_file", &settings.cert_file)?,
        key: file("tls.key_file", &settings.key_file)?,
    })
}

fn server_config(
    settings: &CertificateFiles,
    files: &Files,
) -> Result<(ServerConfig, Result<Validity, usize>), TlsError> {
    let of_certificates = |what, hint| {
        let (field, path) = ("tls.cert_file", settings.cert_file.clone());
        TlsError::Content { field, path, what, hint }
    };
    let of_key = |what, hint| {
        let (field, path) = ("tls.key_file", settings.key_file.clone());
        TlsError::Content { field, path, what, hint }
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&files.certificates).collect::<Result<_, _>>().map_err(
            |_| of_certificates("is not valid PEM", "export the certificates as a PEM file"),
        )?;
    if chain.is_empty() {
        let hint = "put the node's certificate first, and the intermediate certificates after it";
        return Err(of_certificates("holds no certificate in PEM form", hint));
    }
    let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(|_| {
        let encrypted = b"ENCRYPTED PRIVATE KEY";
        match files.key.windows(encrypted.len()).any(|window| window == encrypted) {
            true => of_key("is encrypted", "decrypt it with `openssl pkey -in FILE -out FILE`"),
            false => of_key(
                "holds no private key in PEM form",
                "a key begins with -----BEGIN PRIVATE KEY-----",
            ),
        }
    })?;
    let pair = |source| TlsError::Pair {
        cert_file: settings.cert_file.clone(),
        key_file: settings.key_file.clone(),
        source,
    };
    let validity = Validity::of(&chain);
    // TLS 1.2 and 1.3: the library supports nothing older.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((config, validity))
}

fn warn_if_key_is_accessible(path: &Path) {
    let Ok(meta) = std::fs::metadata(path) else { return };
    let mode = meta.permissions().mode() & 0o777;
    if mode & !KEY_MODE != 0 {
        tracing::warn!(
            file = %path.display(),
            mode = format!("{mode:o}"),
            "key of node.tls.key_file is accessible to other users, set its mode to 0640 or less"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use metrics_exporter_prometheus::PrometheusBuilder;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use throng_model::{ManualClock, Timestamp};

    use super::*;

    fn write(settings: &CertificateFiles, until: (i32, u8, u8)) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["node.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(until.0, until.1, until.2);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(&settings.cert_file, certificate.pem()).unwrap();
        std::fs::write(&settings.key_file, key.serialize_pem()).unwrap();
    }

    /// The open problems with their details.
    #[derive(Default)]
    struct Problems(Mutex<BTreeMap<String, String>>);

    impl CertificateReporter for Problems {
        fn report(&self, key: &str, detail: String) {
            self.0.lock().insert(key.to_owned(), detail);
        }

        fn clear(&self, key: &str) {
            self.0.lock().remove(key);
        }
    }

    #[test]
    fn a_certificate_that_expires_is_a_problem_until_it_is_renewed() {
        let dir = tempfile::tempdir().unwrap();
        let [cert_file, key_file] = ["tls.crt", "tls.key"].map(|name| dir.path().join(name));
        let settings = CertificateFiles { cert_file, key_file };
        write(&settings, (2026, 4, 1));
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let clock = Arc::new(ManualClock::new(at("2026-03-01T00:00:00Z")));
        let problems = Problems::default();
        let certificates =
            Certificates::open(settings.clone(), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        // The problems, and the metric.
        let check = || {
            ::metrics::with_local_recorder(&recorder, || certificates.check_validity(&problems));
            let open: Vec<String> = problems.0.lock().keys().cloned().collect();
            let text = handle.render();
            let name = "throng_tls_certificate_expires_seconds ";
            let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            (open, value.parse::<f64>().unwrap())
        };
        let of = |key: &str| vec![key.to_owned()];
        let first = 1_775_001_600.0;
        assert_eq!(check(), (vec![], first));
        clock.advance(Duration::from_secs(20 * 86_400));
        assert_eq!(check(), (of(EXPIRES_SOON), first));
        let detail = problems.0.lock()[EXPIRES_SOON].clone();
        assert!(detail.contains("tls.crt expires at 2026-04-01T00:00:00Z"), "{detail}");
        // Another problem, so that there is another alert.
        clock.advance(Duration::from_secs(20 * 86_400));
        assert_eq!(check(), (of(EXPIRED), first));
        write(&settings, (2026, 7, 1));
        assert!(certificates.reload().unwrap());
        assert_eq!(check(), (vec![], 1_782_864_000.0));
        assert!(!certificates.reload().unwrap());
    }
}
