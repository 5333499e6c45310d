//! What specs that arrive over HTTP may name, from this node's own start-up configuration: the
//! command line, a file, and the spec that it was started with.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustix::fs::OFlags;
use throng_spec::{Limits, Problem, Spec};

/// No limits file is larger, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What a node's operator allows.
#[derive(Debug, Clone, Default)]
pub struct LimitsConfig {
    /// From the command line.
    pub flags: Limits,
    /// The file with more; `limits.yaml` of the data directory, if it exists, unless set.
    pub file: Option<PathBuf>,
}

/// Why the limits are not known.
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
    /// Others could have written it.
    #[error("the limits file {} {why}", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// Whose it is, and what to do.
        why: &'static str,
    },
    /// What is written in it is wrong.
    #[error("the limits file is wrong:\n{}", shown(problems))]
    Wrong {
        /// Every mistake.
        problems: Vec<Problem>,
    },
    /// A secret would be read from a file that the node itself writes.
    #[error(
        "the secret's file {} lies in the data directory, which is copied by backups: put it elsewhere",
        path.display()
    )]
    InDataDir {
        /// The file.
        path: PathBuf,
    },
    /// A destination would write into the data directory.
    #[error(
        "a destination may not write to {}: the data directory lies in it or around it; use another folder",
        path.display()
    )]
    WritesToDataDir {
        /// The folder.
        path: PathBuf,
    },
}

fn shown(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// What changed when limits were read again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitsChange {
    /// What is allowed now and was not.
    pub added: Vec<String>,
    /// What was allowed and is not any more. What the applied spec names goes on until another spec
    /// is applied.
    pub removed: Vec<String>,
}

/// The limits of a running node.
#[derive(Debug)]
pub(crate) struct NodeLimits {
    config: LimitsConfig,
    data_dir: PathBuf,
    /// What the spec names that the node was started with.
    from_spec: Limits,
    now: ArcSwap<Limits>,
    /// Held while they are read again.
    reading: Mutex<()>,
}

impl NodeLimits {
    /// Reads the limits, and sets in the spec what its sources must not lead out of.
    pub(crate) fn open(
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
        outside(&now, data_dir)?;
        let (now, reading) = (ArcSwap::from_pointee(now), Mutex::default());
        Ok(Self { config, data_dir: data_dir.to_owned(), from_spec, now, reading })
    }

    /// What is allowed now.
    pub(crate) fn now(&self) -> Arc<Limits> {
        self.now.load_full()
    }

    /// Reads the file again. What was allowed stays if that fails.
    pub(crate) fn reload(&self) -> Result<LimitsChange, LimitsError> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = configured(&self.config, &self.data_dir)?;
        new.extend(&self.from_spec);
        outside(&new, &self.data_dir)?;
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
            let wrong = |problems| LimitsError::Wrong { problems };
            limits.extend(&throng_spec::check_limits(path, &text).map_err(wrong)?);
        }
        Err(LimitsError::Unreadable { source, .. })
            if config.file.is_none() && source.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(limits)
}

/// The text of a file that nobody else could have written.
fn read(path: &Path) -> Result<String, LimitsError> {
    let unreadable = |source| LimitsError::Unreadable { path: path.to_owned(), source };
    let not_ours = |why| LimitsError::NotOurs { path: path.to_owned(), why };
    // A pipe would be waited for.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = std::fs::File::options().read(true).custom_flags(flags).open(path);
    let file = file.map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err(not_ours("is not a regular file"));
    }
    let owner = found.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(not_ours(
            "belongs to another user: chown it to the user of the node, or to root",
        ));
    }
    if found.mode() & 0o022 != 0 {
        return Err(not_ours("can be written by others: chmod go-w"));
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(not_ours("is larger than 1 MiB"));
    }
    Ok(text)
}

/// No secret that is sent is read from the data directory, and no destination writes to it.
fn outside(limits: &Limits, data_dir: &Path) -> Result<(), LimitsError> {
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
