//! References to secrets. A spec never holds the secret itself.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use throng_model::Secret;

/// Where a secret is: `env:NAME` or `file:PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum SecretRef {
    /// A variable of the environment.
    Env(String),
    /// A file; blanks and line breaks at the end of its text do not count.
    File(PathBuf),
}

/// Why there is no secret. Never holds the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Neither `env:` nor `file:`. The text is not repeated: it may be the secret itself.
    #[error("a secret is named by reference only: write env:NAME or file:PATH")]
    NotAReference,
    /// The variable is not set.
    #[error("the environment variable {name} is not set: set it, then start again")]
    NoSuchVariable {
        /// The variable.
        name: String,
    },
    /// The file cannot be read.
    #[error("the secret's file {} cannot be read: check that it exists and who may read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The variable or the file is empty.
    #[error("{reference} is empty: put the secret there")]
    Empty {
        /// The reference, `env:NAME` or `file:PATH`.
        reference: String,
    },
}

impl SecretRef {
    /// Fetches the secret. `env` looks up a variable; a file is read from disk.
    ///
    /// # Errors
    /// [`SecretError`] if there is no such variable or file, or nothing in it.
    pub fn resolve(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Secret, SecretError> {
        let text = match self {
            Self::Env(name) => {
                env(name).ok_or_else(|| SecretError::NoSuchVariable { name: name.clone() })?
            }
            Self::File(path) => std::fs::read_to_string(path)
                .map_err(|source| SecretError::Unreadable { path: path.clone(), source })?,
        };
        let text = text.trim_end();
        if text.is_empty() {
            return Err(SecretError::Empty { reference: self.to_string() });
        }
        Ok(Secret::new(text))
    }
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
            let fits = name.len() <= 64
                && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if fits {
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
    fn a_literal_is_refused_and_not_repeated() {
        for literal in ["EAABsecret", "env:EAAB|x", "env:", "file:", "Env:A"] {
            let error = literal.parse::<SecretRef>().unwrap_err();
            assert!(!error.to_string().contains("EAAB"), "{error}");
        }
    }
}
