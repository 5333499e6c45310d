//! Why the objects of a bucket cannot be copied.

use std::io;
use std::path::{Path, PathBuf};

use throng_model::{Fault, Retry};
use throng_objects::ObjectsError;

/// Why the objects of a bucket cannot be copied. `bucket` is the URL of the prefix, `s3://…` or `gs://…`.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The bucket cannot be listed or read.
    #[error("cannot copy the objects below {bucket}")]
    Bucket {
        /// Where.
        bucket: String,
        /// Why.
        #[source]
        source: ObjectsError,
    },
    /// There is no object, and there never was one.
    #[error("there are no objects below {bucket}")]
    Empty {
        /// Where.
        bucket: String,
    },
    /// An object cannot be a file.
    #[error("the object `{}` of {bucket} cannot be copied: {why}", key.escape_debug())]
    Key {
        /// Where.
        bucket: String,
        /// The key of the object.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// An object was replaced or removed while it was downloaded.
    #[error("the object `{}` of {bucket} was {change} while it was downloaded", key.escape_debug())]
    Changed {
        /// Where.
        bucket: String,
        /// The key of the object.
        key: String,
        /// What has happened to it, as a participle.
        change: &'static str,
    },
    /// There are too many objects.
    #[error("there are more than {max} objects below {bucket}")]
    TooMany {
        /// Where.
        bucket: String,
        /// The allowed number.
        max: usize,
    },
    /// The objects are larger than the source may be.
    #[error(
        "the objects below {bucket} have {bytes} bytes, and `max_bytes` of the source is {max_bytes}"
    )]
    TooLarge {
        /// Where.
        bucket: String,
        /// Their size.
        bytes: u64,
        /// The allowed size.
        max_bytes: u64,
    },
    /// The disk has too little free space.
    #[error(
        "copying the objects below {bucket} takes {needed_bytes} bytes in {}, and {available_bytes} are free",
        folder.display()
    )]
    DiskFull {
        /// Where.
        bucket: String,
        /// What is downloaded, and what must stay free.
        needed_bytes: u64,
        /// What is free.
        available_bytes: u64,
        /// The folder of the copy.
        folder: PathBuf,
    },
    /// An object is in none of the buckets that the process may read.
    #[error("{object} is in none of the buckets that this process may read")]
    NoAccess {
        /// Its URL.
        object: String,
    },
    /// The objects that are read at the same time are larger than the cache.
    #[error(
        "the objects that are read at the same time have {needed_bytes} bytes, and the cache may have {max_bytes}"
    )]
    CacheFull {
        /// Their size.
        needed_bytes: u64,
        /// The allowed size.
        max_bytes: u64,
    },
    /// A system call failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
}

impl CopyError {
    /// How to fix it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Bucket { source: ObjectsError::Settings { .. }, .. } => {
                "correct the bucket or its settings in the spec"
            }
            Self::Bucket { .. } => {
                "check that this node reaches the bucket, and that its credentials may list and read it"
            }
            Self::Empty { .. } => {
                "check the bucket and the prefix: a prefix matches whole parts of keys"
            }
            Self::Key { .. } => "store the object under another key, or choose another prefix",
            Self::Changed { .. } => {
                "it is tried again; write new objects beside the old ones, and replace none while it is read"
            }
            Self::TooMany { .. } => "choose a longer prefix, or write fewer and larger objects",
            Self::TooLarge { .. } => {
                "choose a longer prefix, or a higher `max_bytes` of the source"
            }
            Self::DiskFull { .. } => {
                "free space on this disk: a source in a bucket needs as much of it as its objects have"
            }
            Self::NoAccess { .. } => "give the process the bucket and its credentials",
            Self::CacheFull { .. } => {
                "raise the limit of the cache, or read fewer objects at a time"
            }
            Self::Io { .. } => "check the disk and the permissions of the data directory",
        }
    }

    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Bucket { source, .. } => source.fault(),
            Self::Empty { .. }
            | Self::Key { .. }
            | Self::TooMany { .. }
            | Self::TooLarge { .. }
            | Self::NoAccess { .. }
            | Self::CacheFull { .. } => Fault::User,
            Self::Changed { .. } | Self::DiskFull { .. } | Self::Io { .. } => Fault::External,
        }
    }

    /// Whether the same call can succeed later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Bucket { source, .. } => source.retry(),
            Self::Key { .. }
            | Self::TooMany { .. }
            | Self::TooLarge { .. }
            | Self::NoAccess { .. } => Retry::Never,
            // Objects may be written later, as a folder may be created later.
            Self::Empty { .. }
            | Self::Changed { .. }
            | Self::DiskFull { .. }
            | Self::CacheFull { .. }
            | Self::Io { .. } => Retry::Backoff,
        }
    }

    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    /// The error of a request to a bucket.
    pub(crate) fn of_bucket(bucket: &str) -> impl FnOnce(ObjectsError) -> Self {
        let bucket = bucket.to_owned();
        move |error| match error {
            ObjectsError::Key { key, why } => Self::Key { bucket, key, why },
            ObjectsError::Replaced { name: key } => {
                Self::Changed { bucket, key, change: "replaced" }
            }
            ObjectsError::Missing { name: key } => Self::Changed { bucket, key, change: "removed" },
            ObjectsError::Io { doing, path, source } => Self::Io { doing, path, source },
            source => Self::Bucket { bucket, source },
        }
    }
}
