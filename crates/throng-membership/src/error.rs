//! Errors of dictionaries and snapshots.

use std::path::{Path, PathBuf};

use throng_model::{AudienceName, Fault, Retry};

/// Why a dictionary, a snapshot or an index could not be used.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// An error of the file system.
    #[error("could not {doing} `{path}`; check the disk, its free space and the permissions", path = path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The bytes of a file are not those that were written.
    #[error(
        "`{path}` is damaged: {problem}; restore it from a backup{without}",
        path = path.display(),
        without = without_backup(path)
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A dictionary's manifest in the ledger is invalid.
    #[error("a dictionary's manifest is invalid: {problem}; restore the ledger from a backup")]
    Manifest {
        /// What is wrong.
        problem: String,
    },
    /// A caller broke the contract of a function: a bug of Throng.
    #[error("invalid argument: {0}")]
    Misuse(String),
    /// A shard has 2^32 - 1 users.
    #[error("user shard {shard} is full: it has 4,294,967,295 users")]
    Full {
        /// The shard.
        shard: u8,
    },
    /// A snapshot of another deployment.
    #[error(
        "the snapshot of `{audience}` was made with another hash seed: it belongs to another data directory"
    )]
    OtherSeed {
        /// The audience.
        audience: AudienceName,
    },
    /// The dictionary is older than the snapshot.
    #[error(
        "the snapshot of `{audience}` needs {needs} users in shard {shard}, the dictionary has only {has}; open the dictionary again"
    )]
    DictionaryTooOld {
        /// The audience.
        audience: AudienceName,
        /// The shard.
        shard: u8,
        /// Users in the dictionary.
        has: u32,
        /// Users when the snapshot was made.
        needs: u32,
    },
}

/// What else than a backup helps. The ordinals of a segment of a dictionary are in the snapshots: no refresh makes it
/// again.
fn without_backup(path: &Path) -> &'static str {
    match path.extension().is_some_and(|extension| extension == "dict") {
        true => {
            "; audiences with users of its shard can neither be served nor refreshed without it"
        }
        false => ", or refresh the audiences that use it",
    }
}

impl MembershipError {
    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Io { .. } | Self::Damaged { .. } | Self::Manifest { .. } => Fault::External,
            Self::OtherSeed { .. } => Fault::User,
            Self::Misuse(_) | Self::Full { .. } | Self::DictionaryTooOld { .. } => Fault::Internal,
        }
    }

    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Io { .. } | Self::DictionaryTooOld { .. } => Retry::Backoff,
            _ => Retry::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_is_a_hint_for_snapshots_only() {
        let text = |path: &str| {
            let problem = "its checksum does not match".to_owned();
            MembershipError::Damaged { path: path.into(), problem }.to_string()
        };
        assert!(text("snapshots/a/1-0.throng").ends_with("or refresh the audiences that use it"));
        assert!(!text("dictionary/00/00000000-00000001-0.dict").contains(", or refresh"));
    }
}
