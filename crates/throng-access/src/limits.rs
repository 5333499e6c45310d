//! What a spec that arrives over HTTP may name. The node's operator sets it at the start: on the
//! command line, in a file, and by the spec that the node is started with.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustix::fs::OFlags;
use throng_spec::{HostPort, Limits, Problem, SecretRef, Spec};

/// The largest limits file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A secret and the server that it may be sent to: `env:NAME@HOST[:PORT]` or `file:PATH@HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedSecret {
    /// The reference to the secret.
    pub secret: SecretRef,
    /// The server; port 443 unless the text has another one.
    pub host: HostPort,
}

impl std::str::FromStr for AllowedSecret {
    type Err = &'static str;

    /// The text is not repeated in errors: it may be the secret itself.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "write env:NAME@HOST or file:PATH@HOST, with :PORT if it is not 443";
        // A path may hold an @, a server does not.
        let (secret, host) = text.rsplit_once('@').ok_or(wrong)?;
        let secret = secret.parse().map_err(|_| wrong)?;
        let host = host.parse().map_err(|_| wrong)?;
        Ok(Self { secret, host })
    }
}

/// The limits as the operator configures them.
#[derive(Debug, Clone, Default)]
pub struct LimitsConfig {
    /// From the command line.
    pub flags: Limits,
    /// A file with further limits; `limits.yaml` of the data directory, if it exists, unless set.
    pub file: Option<PathBuf>,
}

/// Why the limits cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    /// The file cannot be read.
    #[error("cannot read the limits file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// Another user could have written the file.
    #[error("the limits file {} {why}", path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong with the file, and the fix.
        why: &'static str,
    },
    /// The content of the file is invalid.
    #[error("the limits file is invalid:\n{}", lines(problems))]
    Invalid {
        /// Every problem.
        problems: Vec<Problem>,
    },
    /// A secret would be read from a file that the node itself writes.
    #[error(
        "the secret's file {} is in the data directory, which backups copy: move it to another folder",
        path.display()
    )]
    InDataDir {
        /// The file.
        path: PathBuf,
    },
    /// A destination would write into the data directory.
    #[error(
        "a destination may not write to {}: it contains the data directory or is part of it; use another folder",
        path.display()
    )]
    WritesToDataDir {
        /// The folder.
        path: PathBuf,
    },
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// What changed when limits were read again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitsChange {
    /// What was not allowed and is allowed now.
    pub added: Vec<String>,
    /// What was allowed and is no longer allowed. The applied spec is not affected until another
    /// spec is applied.
    pub removed: Vec<String>,
}

/// What specs over HTTP may name on a running node. Read at the start and again at SIGHUP, for later requests.
#[derive(Debug)]
pub struct NodeLimits {
    config: LimitsConfig,
    data_dir: PathBuf,
    /// What the spec names with which the node was started.
    from_spec: Limits,
    now: ArcSwap<Limits>,
    /// Held while they are read again.
    reloading: Mutex<()>,
}

impl NodeLimits {
    /// Reads the limits, and sets the roots of the spec's sources.
    ///
    /// # Errors
    /// [`LimitsError`].
    pub fn open(
        config: LimitsConfig,
        data_dir: &Path,
        spec: &mut Spec,
    ) -> Result<Self, LimitsError> {
        let configured = configured(&config, data_dir)?;
        configured.set_roots(spec);
        let mut from_spec = Limits::default();
        from_spec.allow_spec(spec);
        let mut now = configured;
        now.extend(&from_spec);
        check_data_dir(&now, data_dir)?;
        let (now, reloading) = (ArcSwap::from_pointee(now), Mutex::default());
        Ok(Self { config, data_dir: data_dir.to_owned(), from_spec, now, reloading })
    }

    /// The current limits.
    pub fn now(&self) -> Arc<Limits> {
        self.now.load_full()
    }

    /// Reads the file again. The limits do not change if that fails.
    ///
    /// # Errors
    /// [`LimitsError`].
    pub fn reload(&self) -> Result<LimitsChange, LimitsError> {
        let _reading = self.reloading.lock();
        let mut new = configured(&self.config, &self.data_dir)?;
        new.extend(&self.from_spec);
        check_data_dir(&new, &self.data_dir)?;
        let old = self.now.swap(Arc::new(new.clone()));
        let (old, new) = (old.lines(), new.lines());
        let only = |these: &[String], those: &[String]| {
            these.iter().filter(|line| !those.contains(line)).cloned().collect()
        };
        Ok(LimitsChange { added: only(&new, &old), removed: only(&old, &new) })
    }
}

/// What the command line and the file allow.
fn configured(config: &LimitsConfig, data_dir: &Path) -> Result<Limits, LimitsError> {
    let mut limits = config.flags.clone();
    let default = throng_spec::default_limits_file(data_dir);
    let path = config.file.as_deref().unwrap_or(&default);
    match read(path) {
        Ok(text) => {
            let invalid = |problems| LimitsError::Invalid { problems };
            limits.extend(&throng_spec::check_limits(path, &text).map_err(invalid)?);
        }
        Err(LimitsError::Unreadable { source, .. })
            if config.file.is_none() && source.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(limits)
}

/// Reads a file that only its owner, who is this user or root, can have written. Whoever writes it
/// decides which files a spec can read, and where secrets are sent.
fn read(path: &Path) -> Result<String, LimitsError> {
    let unreadable = |source| LimitsError::Unreadable { path: path.to_owned(), source };
    let untrusted = |why| LimitsError::Untrusted { path: path.to_owned(), why };
    // Without it, opening a named pipe waits for a writer.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = std::fs::File::options().read(true).custom_flags(flags).open(path);
    let file = file.map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err(untrusted("is not a regular file"));
    }
    let owner = found.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(untrusted(
            "belongs to another user: chown it to the user of the node, or to root",
        ));
    }
    if found.mode() & 0o022 != 0 {
        return Err(untrusted("can be written by others: chmod go-w"));
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(untrusted("is larger than 1 MiB"));
    }
    Ok(text)
}

/// Refuses secrets in the data directory, which would leave the machine, and destinations that
/// write to it, which could overwrite the ledger.
fn check_data_dir(limits: &Limits, data_dir: &Path) -> Result<(), LimitsError> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let dir = real(data_dir);
    if let Some(path) = limits.secret_files().find(|path| real(path).starts_with(&dir)) {
        return Err(LimitsError::InDataDir { path: path.to_owned() });
    }
    let overlaps = |path: &&Path| real(path).starts_with(&dir) || dir.starts_with(real(path));
    match limits.destination_folders().find(overlaps) {
        Some(path) => Err(LimitsError::WritesToDataDir { path: path.to_owned() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::AllowedSecret;

    #[test]
    fn a_secret_is_allowed_for_a_server_and_never_shown() {
        for text in ["env:KEY@graph.example.com", "env:KEY@127.0.0.1:8443", "file:/a@b/key@c.de"] {
            assert!(text.parse::<AllowedSecret>().is_ok(), "{text}");
        }
        for text in ["s3cret", "s3cret@graph.example.com", "env:KEY@", "@graph.example.com"] {
            let refused = text.parse::<AllowedSecret>().unwrap_err();
            assert!(refused.starts_with("write env:NAME@HOST"), "{text}: {refused}");
        }
    }
}
