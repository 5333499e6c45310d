//! References to secrets. A spec never contains the secret itself.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use throng_model::Secret;

/// The longest secret, in bytes. The key of a service account has 2,400.
const MAX_BYTES: u64 = 64 << 10;

/// A reference to a secret: `env:NAME` or `file:PATH`.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum SecretRef {
    /// An environment variable.
    Env(String),
    /// A regular file of at most 64 KiB with an absolute path; trailing blanks and line breaks are
    /// removed.
    File(PathBuf),
}

/// Looks up an environment variable by its name, for secrets of the kind `env:NAME`. Passed in, so that tests and the
/// demo have variables of their own.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Why a secret cannot be read. Never contains the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Neither `env:` nor `file:`. The text is not repeated: it may be the secret itself.
    #[error("a secret is given by reference only: write env:NAME or file:PATH")]
    NotAReference,
    /// The variable is not set.
    #[error("the environment variable {name} is not set: set it, then start again")]
    NoSuchVariable {
        /// The variable.
        name: String,
    },
    /// The file cannot be read.
    #[error("the secret's file {} cannot be read: check that it exists and that this user may read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The path is relative.
    #[error("the secret's file {} has a relative path: write an absolute one", path.display())]
    Relative {
        /// The file.
        path: PathBuf,
    },
    /// The path is a folder, a pipe or a device.
    #[error("the secret's file {} is not a regular file: put the secret in one", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is too large for a secret.
    #[error("the secret's file {} is larger than 64 KiB: put only the secret there", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The variable or the file is empty.
    #[error("{reference} is empty: put the secret there")]
    Empty {
        /// The reference, `env:NAME` or `file:PATH`.
        reference: String,
    },
}

impl SecretRef {
    /// Reads the secret. `env` looks up an environment variable.
    ///
    /// # Errors
    /// [`SecretError`] if there is no such variable or file, or it is empty.
    pub fn resolve(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Secret, SecretError> {
        let text = match self {
            Self::Env(name) => {
                env(name).ok_or_else(|| SecretError::NoSuchVariable { name: name.clone() })?
            }
            Self::File(path) => read(path)?,
        };
        let text = text.trim_end();
        if text.is_empty() {
            return Err(SecretError::Empty { reference: self.to_string() });
        }
        Ok(Secret::new(text))
    }

    /// The path of the file, if it refers to one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Env(_) => None,
            Self::File(path) => Some(path),
        }
    }
}

/// Reads a small regular file. Never blocks: opening a pipe without a writer would.
fn read(path: &Path) -> Result<String, SecretError> {
    let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
    if !path.is_absolute() {
        return Err(SecretError::Relative { path: path.to_owned() });
    }
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = std::fs::File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
        .map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(SecretError::NotAFile { path: path.to_owned() });
    }
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(SecretError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl FromStr for SecretRef {
    type Err = SecretError;
    fn from_str(text: &str) -> Result<Self, SecretError> {
        if let Some(name) = text.strip_prefix("env:") {
            let is_valid = name.len() <= 64
                && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if is_valid {
                return Ok(Self::Env(name.to_owned()));
            }
        }
        match text.strip_prefix("file:") {
            Some(path) if !path.trim().is_empty() => Ok(Self::File(PathBuf::from(path))),
            _ => Err(SecretError::NotAReference),
        }
    }
}

impl TryFrom<String> for SecretRef {
    type Error = SecretError;
    fn try_from(text: String) -> Result<Self, SecretError> {
        text.parse()
    }
}

impl From<SecretRef> for String {
    fn from(reference: SecretRef) -> String {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_resolved_and_trimmed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "t0p\n").unwrap();
        let env = |name: &str| (name == "A").then(|| "abc".to_owned());
        let from_env: SecretRef = "env:A".parse().unwrap();
        assert_eq!(from_env.resolve(&env).unwrap().expose(), "abc");
        let from_file: SecretRef = format!("file:{}", path.display()).parse().unwrap();
        assert_eq!(from_file.resolve(&env).unwrap().expose(), "t0p");
        let missing: SecretRef = "env:B".parse().unwrap();
        assert!(matches!(missing.resolve(&env), Err(SecretError::NoSuchVariable { .. })));
    }

    #[test]
    fn everything_but_a_small_regular_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("large"), "x".repeat(64 << 10 | 1)).unwrap();
        let made = std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap();
        assert!(made.success());
        let resolve = |path: PathBuf| SecretRef::File(path).resolve(&|_| None).unwrap_err();
        assert!(matches!(resolve(path("large")), SecretError::TooLarge { .. }));
        assert!(matches!(resolve(path("pipe")), SecretError::NotAFile { .. }));
        assert!(matches!(resolve(dir.path().into()), SecretError::NotAFile { .. }));
        assert!(matches!(resolve("/dev/zero".into()), SecretError::NotAFile { .. }));
        assert!(matches!(resolve("large".into()), SecretError::Relative { .. }));
        assert!(matches!(resolve(path("none")), SecretError::Unreadable { .. }));
    }

    #[test]
    fn a_literal_is_refused_and_not_repeated() {
        for literal in ["EAABsecret", "env:EAAB|x", "env:", "file:", "Env:A"] {
            let error = literal.parse::<SecretRef>().unwrap_err();
            assert!(!error.to_string().contains("EAAB"), "{error}");
        }
    }
}
