//! The certificate of the node, and how a new one takes its place while the node runs.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use throng_model::Clock;
use throng_spec::TlsSettings;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use validity::{Concern, Validity};

use crate::{Health, ProblemClass};

mod validity;

/// How often the files are looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// No chain of certificates is longer.
const MAX_FILE: u64 = 1 << 20;
/// The owner may write and the group may read a key; nobody else may do anything.
const KEY_MODE: u32 = 0o640;
/// The key of the problem that a certificate cannot be used.
const PROBLEM: &str = "node.tls";
/// The keys of problems with its time. Each is an alert of its own.
const EXPIRES: &str = "node.tls expires";
const EXPIRED: &str = "node.tls expired";
const NOT_YET: &str = "node.tls not valid yet";

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
    /// A file does not hold what it should.
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
    /// Certificate and key do not go together, or TLS does not take them.
    #[error(
        "the certificate of {} cannot be used with the key of {}: the first certificate of the file must be the one of that key",
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

/// What lies in the two files. Compared, so that only a change is taken up.
#[derive(PartialEq, Eq)]
struct Files {
    certificates: Vec<u8>,
    key: Vec<u8>,
}

/// The certificate that new connections get.
pub(in crate::node) struct Certificates {
    settings: TlsSettings,
    /// The world's time, by which certificates expire.
    clock: Arc<dyn Clock>,
    current: ArcSwap<ServerConfig>,
    used: Mutex<Used>,
}

/// Where the certificate in use is from, and when it can be used; or the place in the file of the one
/// of which that cannot be read.
struct Used {
    files: Files,
    validity: Result<Validity, usize>,
}

impl Certificates {
    /// Reads the files of the settings.
    ///
    /// # Errors
    /// [`TlsError`] names the file and what is wrong with it.
    pub(in crate::node) fn open(
        settings: &TlsSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        let files = read(settings)?;
        let (config, validity) = server_config(settings, &files)?;
        warn_of_open_key(&settings.key_file);
        Ok(Self {
            settings: settings.clone(),
            clock,
            current: ArcSwap::from_pointee(config),
            used: Mutex::new(Used { files, validity }),
        })
    }

    /// Reports a certificate that expires soon or has expired, and clears what was reported of the one
    /// before. It is served all the same: clients that check nothing go on.
    pub(in crate::node) fn check_validity(&self, health: &Health) {
        let validity = self.used.lock().unwrap_or_else(PoisonError::into_inner).validity;
        let file = self.settings.cert_file.display().to_string();
        let problem = match validity {
            Ok(validity) => {
                let secs = validity.not_after.0 / 1_000_000;
                metrics::gauge!("throng_tls_certificate_expires_seconds").set(secs as f64);
                validity.concern(self.clock.now()).map(|concern| {
                    let key = match concern {
                        Concern::Ends => EXPIRES,
                        Concern::Ended => EXPIRED,
                        Concern::NotYet => NOT_YET,
                    };
                    (key, validity.describe(concern, &file))
                })
            }
            Err(place) => {
                let words = format!(
                    "when certificate {place} of {file} expires cannot be read, so nobody is warned \
                     before it does; issue it anew"
                );
                Some((EXPIRES, words))
            }
        };
        let open = problem.as_ref().map(|(key, _)| *key);
        for key in [EXPIRES, EXPIRED, NOT_YET] {
            if open != Some(key) {
                health.clear(ProblemClass::Certificate, key);
            }
        }
        if let Some((key, words)) = problem {
            health.report(ProblemClass::Certificate, key, words);
        }
    }

    /// SIGHUP, from now on: a process that does not handle it would end by it.
    pub(in crate::node) fn hangup() -> Option<Signal> {
        match signal(SignalKind::hangup()) {
            Ok(hangup) => Some(hangup),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "SIGHUP is not handled");
                None
            }
        }
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Takes up what changes in the files: looks at them now and then, and on SIGHUP. What cannot be
    /// used is reported, and the certificate before stays.
    pub(in crate::node) async fn follow(
        self: Arc<Self>,
        mut hangup: Option<Signal>,
        health: Arc<Health>,
        stop: CancellationToken,
    ) {
        loop {
            let hung_up = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                _ = hung_up => {}
            }
            let this = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || this.reload()).await {
                Ok(Ok(changed)) => {
                    if changed {
                        let cert_file = self.settings.cert_file.display();
                        tracing::info!(%cert_file, "new connections get the new certificate");
                    }
                    health.clear(ProblemClass::Certificate, PROBLEM);
                }
                Ok(Err(error)) => {
                    let detail = throng_model::with_causes(&error);
                    health.report(ProblemClass::Certificate, PROBLEM, detail);
                }
                // The runtime ends.
                Err(_) => return,
            }
            self.check_validity(&health);
        }
    }

    /// Uses the files if they are others than those in use. Whether they were.
    fn reload(&self) -> Result<bool, TlsError> {
        let files = read(&self.settings)?;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.files == files {
            return Ok(false);
        }
        let (config, validity) = server_config(&self.settings, &files)?;
        warn_of_open_key(&self.settings.key_file);
        self.current.store(Arc::new(config));
        *used = Used { files, validity };
        Ok(true)
    }
}

fn read(settings: &TlsSettings) -> Result<Files, TlsError> {
    let file = |field: &'static str, path: &Path| {
        let mut bytes = Vec::new();
        let failed = |source| TlsError::Read { field, path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    };
    Ok(Files {
        certificates: file("tls.cert_file", &settings.cert_file)?,
        key: file("tls.key_file", &settings.key_file)?,
    })
}

fn server_config(
    settings: &TlsSettings,
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
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&files.certificates)
        .collect::<Result<_, _>>()
        .map_err(|_| of_certificates("is damaged", "it must be a PEM file"))?;
    if chain.is_empty() {
        let hint =
            "put the node's certificate first, and those between it and its authority after it";
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
    // TLS 1.2 and 1.3: the library knows nothing older.
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

fn warn_of_open_key(path: &Path) {
    let Ok(meta) = std::fs::metadata(path) else { return };
    let mode = meta.permissions().mode() & 0o777;
    if mode & !KEY_MODE != 0 {
        tracing::warn!(
            file = %path.display(),
            mode = format!("{mode:o}"),
            "others can read or change the key of node.tls.key_file: chmod 0640 or less"
        );
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use throng_model::{ManualClock, Timestamp};

    use super::*;

    fn write(settings: &TlsSettings, until: (i32, u8, u8)) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["node.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(until.0, until.1, until.2);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(&settings.cert_file, certificate.pem()).unwrap();
        std::fs::write(&settings.key_file, key.serialize_pem()).unwrap();
    }

    #[test]
    fn a_certificate_that_expires_is_a_problem_until_it_is_renewed() {
        let dir = tempfile::tempdir().unwrap();
        let [cert_file, key_file] = ["tls.crt", "tls.key"].map(|name| dir.path().join(name));
        let settings = TlsSettings { cert_file, key_file };
        write(&settings, (2026, 4, 1));
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let clock = Arc::new(ManualClock::new(at("2026-03-01T00:00:00Z")));
        let health = Health::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let certificates =
            Certificates::open(&settings, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        // The problems, and the metric.
        let check = || {
            metrics::with_local_recorder(&recorder, || certificates.check_validity(&health));
            let open: Vec<(ProblemClass, String)> =
                health.problems().into_iter().map(|p| (p.class, p.key)).collect();
            let text = handle.render();
            let name = "throng_tls_certificate_expires_seconds ";
            let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            (open, value.parse::<f64>().unwrap())
        };
        let of = |key: &str| vec![(ProblemClass::Certificate, key.to_owned())];
        let first = 1_775_001_600.0;
        assert_eq!(check(), (vec![], first));
        clock.advance(Duration::from_secs(20 * 86_400));
        assert_eq!(check(), (of(EXPIRES), first));
        let detail = health.problems().remove(0).detail;
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
