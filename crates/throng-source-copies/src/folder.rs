//! The folder of one copy: its name, and what is in it.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use throng_model::to_hex;
use throng_objects::{BucketOptions, Service};

use crate::CopyError;

/// The schemes of URLs, and what the names of folders begin with.
const S3: &str = "s3";
const GS: &str = "gs";
/// Copies are for this user only: they have what a bucket gives only to those who have its credentials.
const MODE: u32 = 0o700;
/// Bytes of the hash in the name of a folder. Whoever writes specs chooses what is hashed, so it must not be possible
/// to find two buckets with one name.
const HASH_BYTES: usize = 20;

/// The folder of one copy. Only `files` is read as a source: the rest is outside of it, so that none of it is ever
/// taken for data.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CopyFolder(PathBuf);

impl CopyFolder {
    /// Below the folder of all copies. The same for the same service, bucket and prefix, whatever the credentials.
    pub(crate) fn of(copies: &Path, options: &BucketOptions) -> Self {
        let (kind, endpoint, region) = match &options.service {
            Service::S3 { endpoint, region, keys: _, ca_file: _ } => {
                (S3, endpoint.as_deref().unwrap_or_default(), region.as_str())
            }
            Service::Gcs { service_account: _ } => (GS, "", ""),
        };
        let BucketOptions { bucket, prefix, .. } = options;
        let mut hasher = Sha256::new();
        let endpoint = endpoint.trim_end_matches('/');
        for part in [kind, endpoint, region, bucket.as_str(), prefix.as_str()] {
            // With its length: `a` and `bc` are not `ab` and `c`.
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let digest: [u8; 32] = hasher.finalize().into();
        let hash = to_hex(&digest[..HASH_BYTES]);
        // The bucket's name is for people.
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(c);
        let shown: String = bucket.chars().filter(is_plain).take(63).collect();
        Self(copies.join(format!("{kind}-{shown}-{hash}")))
    }

    /// One that exists.
    pub(crate) fn at(root: PathBuf) -> Self {
        Self(root)
    }

    /// All of it.
    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    /// The copied objects.
    pub(crate) fn files(&self) -> PathBuf {
        self.0.join("files")
    }

    /// Objects that are being downloaded, and those that are downloaded and not yet in place.
    pub(crate) fn staging(&self) -> PathBuf {
        self.0.join("staging")
    }

    /// What is known of the copied objects.
    pub(crate) fn index(&self) -> PathBuf {
        self.0.join("index.json")
    }

    /// A file whose time is that of the last use, in a cache.
    pub(crate) fn used(&self) -> PathBuf {
        self.0.join("used")
    }

    /// The lock file.
    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Creates the folder and those in it.
    pub(crate) fn create(&self) -> Result<(), CopyError> {
        for folder in [self.files(), self.staging()] {
            create(&folder)?;
        }
        Ok(())
    }
}

/// Whether a folder of this name is a copy.
pub(crate) fn is_copy(name: &str) -> bool {
    name.split_once('-').is_some_and(|(kind, _)| [S3, GS].contains(&kind))
}

/// Creates a folder and those above it.
pub(crate) fn create(folder: &Path) -> Result<(), CopyError> {
    let created = DirBuilder::new().recursive(true).mode(MODE).create(folder);
    created.map_err(CopyError::io("create the folder", folder))
}

/// The URL of a prefix, for messages.
pub(crate) fn url(options: &BucketOptions) -> String {
    let scheme = match options.service {
        Service::S3 { .. } => S3,
        Service::Gcs { .. } => GS,
    };
    match options.prefix.as_str() {
        "" => format!("{scheme}://{}", options.bucket),
        prefix => format!("{scheme}://{}/{prefix}", options.bucket),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use throng_model::Secret;

    use super::*;

    fn s3(endpoint: Option<&str>, bucket: &str, prefix: &str, secret: &str) -> BucketOptions {
        BucketOptions {
            service: Service::S3 {
                endpoint: endpoint.map(str::to_owned),
                region: "us-east-1".to_owned(),
                keys: Some((Secret::new("key"), Secret::new(secret))),
                ca_file: None,
            },
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            cache_bytes: 0,
        }
    }

    #[test]
    fn a_folder_is_named_by_service_bucket_and_prefix_and_not_by_secrets() {
        let name = |options: &BucketOptions| CopyFolder::of(Path::new("/copies"), options).0;
        let first = name(&s3(None, "lake", "a/b", "one"));
        assert!(first.starts_with("/copies/"), "{}", first.display());
        assert_eq!(first, name(&s3(None, "lake", "a/b", "two")));
        let google = BucketOptions {
            service: Service::Gcs { service_account: None },
            ..s3(None, "lake", "a/b", "one")
        };
        for other in [
            s3(Some("http://127.0.0.1:9000"), "lake", "a/b", "one"),
            s3(None, "lake", "a", "one"),
            s3(None, "lakea", "/b", "one"),
            google,
        ] {
            assert_ne!(first, name(&other), "{other:?}");
        }
        let slash = |endpoint: &str| name(&s3(Some(endpoint), "lake", "", "one"));
        assert_eq!(slash("http://127.0.0.1:9000"), slash("http://127.0.0.1:9000/"));
        // A name never leads out of the folder.
        let odd = name(&s3(None, "../..", "../..", "one"));
        assert_eq!(odd.parent(), Some(Path::new("/copies")));
    }

    #[test]
    fn folders_are_for_their_user_only() {
        let dir = tempfile::tempdir().unwrap();
        let copies = dir.path().join("copies");
        CopyFolder::of(&copies, &s3(None, "lake", "", "one")).create().unwrap();
        let mode = std::fs::metadata(&copies).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
    }
}
