//! Buckets on S3 or Google Cloud Storage, and those whose objects are files of a source.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{HostPort, NotAHost, SecretRef, is_plain_remote};

/// The bucket that a source's objects are in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceBucket {
    /// Its name.
    pub name: String,
    /// The folder of the objects' keys, without leading and trailing `/`; empty for the whole bucket.
    pub prefix: String,
    /// A bucket with more bytes below the prefix is refused; 100 GiB unless set.
    pub max_bytes: u64,
    /// Its service.
    pub service: ServiceSettings,
}

impl SourceBucket {
    /// [`SourceBucket::max_bytes`] unless set.
    pub const MAX_BYTES: u64 = 100 << 30;

    /// Its URL, which is the path of the source.
    pub fn url(&self) -> BucketUrl {
        let is_gcs = matches!(self.service, ServiceSettings::Gcs { .. });
        BucketUrl { is_gcs, name: self.name.clone(), prefix: self.prefix.clone() }
    }

    /// The part of the bucket with the objects of a folder.
    #[must_use]
    pub fn in_folder(&self, folder: &str) -> Self {
        Self { prefix: self.url().in_folder(folder).prefix, ..self.clone() }
    }

    /// What is wrong with the settings by themselves; nothing in a checked spec.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let is_url = BucketUrl::parse(&self.url().to_string()) == Some(Ok(self.url()));
        if !is_url {
            return Some("its bucket or prefix is not allowed");
        }
        if self.max_bytes == 0 {
            return Some("its max_bytes is 0");
        }
        if self.service.server().is_err() {
            return Some("its endpoint or region does not name a server");
        }
        self.service.is_exposed().then_some("its server is on another machine and not encrypted")
    }
}

/// `s3://bucket/prefix` or `gs://bucket/prefix`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BucketUrl {
    /// Whether it is on Google Cloud Storage, and not on a server with the API of S3.
    pub is_gcs: bool,
    /// The name of the bucket.
    pub name: String,
    /// The prefix, without leading and trailing `/`; may be empty.
    pub prefix: String,
}

/// Why a URL is not that of a bucket, with the fix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotABucket {
    /// What is wrong.
    pub message: &'static str,
    /// How to fix it.
    pub help: &'static str,
}

impl BucketUrl {
    /// Reads the path of a source. `None` for a folder: a text without `scheme://`.
    pub fn parse(text: &str) -> Option<Result<Self, NotABucket>> {
        let (scheme, rest) = text.split_once("://")?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        is_scheme.then(|| Self::of_parts(scheme, rest))
    }

    /// As [`BucketUrl::parse`], of a path that may be no text.
    pub fn of_path(path: &Path) -> Option<Result<Self, NotABucket>> {
        Self::parse(path.to_str()?)
    }

    fn of_parts(scheme: &str, rest: &str) -> Result<Self, NotABucket> {
        const FORM: &str = "write s3://BUCKET/PREFIX or gs://BUCKET/PREFIX";
        let refuse = |message, help| Err(NotABucket { message, help });
        let is_gcs = match scheme {
            "s3" => false,
            "gs" => true,
            _ => return refuse("the path is neither a folder nor the URL of a bucket", FORM),
        };
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if name.is_empty() {
            return refuse("the URL has no bucket", FORM);
        }
        if name.contains(['@', ':']) {
            let help =
                "keys are named by `access_key` and `secret_key`, and another server by `endpoint`";
            return refuse("the URL has a user, a password or a port", help);
        }
        if rest.contains(['?', '#']) {
            return refuse("the URL has a query or a fragment", FORM);
        }
        let is_name = name.len() <= 222
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            && !name.bytes().all(|b| b == b'.');
        if !is_name {
            let help = "buckets have names of letters, digits, `-`, `_` and `.`";
            return refuse("the URL does not have the name of a bucket", help);
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let is_key = |part: &str| !part.is_empty() && part != "." && part != "..";
        if !prefix.is_empty() && !prefix.split('/').all(is_key) {
            let help = "a prefix has folders between single `/`, and none of them is `.` or `..`";
            return refuse("the prefix in the URL is not a folder of keys", help);
        }
        if prefix.len() > 1024 || prefix.contains(|c: char| c.is_control() || c == '\\') {
            let help = "a prefix has at most 1,024 bytes, no `\\` and no control characters";
            return refuse("the prefix in the URL is not a folder of keys", help);
        }
        Ok(Self { is_gcs, name: name.to_owned(), prefix: prefix.to_owned() })
    }

    /// The URL of a folder below it.
    #[must_use]
    pub fn in_folder(&self, folder: &str) -> Self {
        let prefix = match self.prefix.as_str() {
            "" => folder.to_owned(),
            prefix => format!("{prefix}/{folder}"),
        };
        Self { prefix, ..self.clone() }
    }

    /// Whether every object below `other` is below this URL too.
    pub fn contains(&self, other: &Self) -> bool {
        let within =
            |rest: &str| self.prefix.is_empty() || rest.is_empty() || rest.starts_with('/');
        self.is_gcs == other.is_gcs
            && self.name == other.name
            && other.prefix.strip_prefix(&self.prefix).is_some_and(within)
    }
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_gcs { "gs" } else { "s3" };
        write!(f, "{scheme}://{}", self.name)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// The service that a bucket is on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceSettings {
    /// Amazon S3, or a server with its API.
    S3 {
        /// The server; `None` for Amazon's own.
        endpoint: Option<String>,
        /// The region; `us-east-1` unless set.
        region: String,
        /// Access key and secret key; `None` for the credentials of the machine.
        keys: Option<(SecretRef, SecretRef)>,
        /// A PEM file of certificate authorities for the server's certificate, besides the
        /// system's.
        ca_file: Option<PathBuf>,
        /// Whether the server may be on another machine without TLS.
        #[serde(default)]
        insecure: bool,
    },
    /// Google Cloud Storage.
    Gcs {
        /// The JSON key of a service account; `None` for the credentials of the machine.
        service_account: Option<SecretRef>,
    },
}

impl ServiceSettings {
    /// Amazon S3, or Google Cloud Storage, with the credentials of the machine.
    pub fn of_machine(is_gcs: bool) -> Self {
        match is_gcs {
            true => Self::Gcs { service_account: None },
            false => Self::S3 {
                endpoint: None,
                region: "us-east-1".to_owned(),
                keys: None,
                ca_file: None,
                insecure: false,
            },
        }
    }

    /// The server that is called.
    ///
    /// # Errors
    /// [`NotAHost`] if the endpoint or the region is invalid.
    pub fn server(&self) -> Result<HostPort, NotAHost> {
        match self {
            Self::S3 { endpoint: Some(endpoint), .. } => HostPort::of_url(endpoint),
            Self::S3 { endpoint: None, region, .. } => {
                let is_region = !region.is_empty()
                    && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
                if !is_region {
                    return Err(NotAHost);
                }
                HostPort::of_url(&format!("https://s3.{region}.amazonaws.com"))
            }
            Self::Gcs { .. } => HostPort::of_url("https://storage.googleapis.com"),
        }
    }

    /// The references to all its secrets; none means the credentials of the machine.
    pub fn secrets(&self) -> Vec<&SecretRef> {
        match self {
            Self::S3 { keys, .. } => {
                keys.iter().flat_map(|(access, secret)| [access, secret]).collect()
            }
            Self::Gcs { service_account } => service_account.iter().collect(),
        }
    }

    /// The file of further certificate authorities.
    pub fn ca_file(&self) -> Option<&Path> {
        match self {
            Self::S3 { ca_file, .. } => ca_file.as_deref(),
            Self::Gcs { .. } => None,
        }
    }

    /// Whether keys and objects would be sent between machines unencrypted, although that is not allowed.
    fn is_exposed(&self) -> bool {
        match self {
            Self::S3 { endpoint: Some(endpoint), insecure, .. } => {
                !insecure && is_plain_remote(endpoint)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_bucket_and_a_prefix_of_whole_folders() {
        let read = |text: &str| BucketUrl::parse(text).unwrap().map(|url| url.to_string());
        for (written, normal) in [
            ("s3://shop", "s3://shop"),
            ("s3://shop/", "s3://shop"),
            ("s3://shop/exports/users/", "s3://shop/exports/users"),
            ("gs://my_shop.example/a=1/b c", "gs://my_shop.example/a=1/b c"),
        ] {
            assert_eq!(read(written), Ok(normal.to_owned()));
        }
        let refused = [
            "s3://",
            "s3:///a",
            "s3://a/../b",
            "s3://a/./b",
            "s3://a//b",
            "s3://a/b//",
            "s3://key:secret@a/b",
            "s3://a:9000/b",
            "s3://a?x",
            "s3://a/b?x",
            "s3://a/b#x",
            "s3://a b/c",
            "s3://../b",
            "s3://a/b\nc",
            "s3a://a/b",
            "https://a/b",
            "S3://a",
        ];
        for text in refused {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_folder_is_no_url() {
        for text in ["data", "/data", "./s3", "s3:/a", "://a", "a b://c", "C:\\data"] {
            assert_eq!(BucketUrl::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_url_contains_what_is_below_it() {
        let url = |text: &str| BucketUrl::parse(text).unwrap().unwrap();
        let contains = |outer: &str, inner: &str| url(outer).contains(&url(inner));
        assert!(contains("s3://a", "s3://a") && contains("s3://a", "s3://a/b"));
        assert!(contains("s3://a/b", "s3://a/b") && contains("s3://a/b", "s3://a/b/c"));
        assert!(!contains("s3://a/b", "s3://a/bc") && !contains("s3://a/b", "s3://a"));
        assert!(!contains("s3://a", "s3://ab") && !contains("s3://a", "gs://a"));
        assert_eq!(url("s3://a").in_folder("acme").to_string(), "s3://a/acme");
        assert_eq!(url("s3://a/b").in_folder("acme").to_string(), "s3://a/b/acme");
    }

    #[test]
    fn the_server_of_a_service_is_its_endpoint_or_that_of_its_region() {
        let s3 = |endpoint: Option<&str>, region: &str| ServiceSettings::S3 {
            endpoint: endpoint.map(str::to_owned),
            region: region.to_owned(),
            keys: None,
            ca_file: None,
            insecure: false,
        };
        let server = |service: ServiceSettings| service.server().map(|host| host.to_string());
        assert_eq!(
            server(s3(None, "eu-central-1")),
            Ok("s3.eu-central-1.amazonaws.com".to_owned())
        );
        assert_eq!(server(s3(Some("http://[::1]:9000"), "x")), Ok("[::1]:9000".to_owned()));
        assert_eq!(server(s3(None, "x.evil.example/")), Err(NotAHost));
        assert_eq!(server(s3(Some("http://user@host"), "x")), Err(NotAHost));
        let gcs = ServiceSettings::of_machine(true);
        assert_eq!(server(gcs), Ok("storage.googleapis.com".to_owned()));
    }
}
