//! Buckets: those of sources, that of ingested rows, and the service of the bucket of a node's objects.

use std::path::{Path, PathBuf};

use super::Reader;
use super::fields::{At, Fields};
use super::tree::Value;
use crate::files::read_files;
use crate::{BucketUrl, NotABucket, Problem, ServiceSettings, SourceBucket};

/// The fields that a source in a bucket has in addition.
const BUCKET_FIELDS: [&str; 3] = ["s3", "gcs", "max_bytes"];

/// Reads a file of buckets that a process may read: below `buckets:` each has a `prefix`, `s3://bucket/prefix` or
/// `gs://bucket/prefix`, and the settings of its server, as a source in a bucket has them. No secret is read.
///
/// # Errors
/// Every problem in it.
pub fn load_buckets(path: &Path) -> Result<Vec<SourceBucket>, Vec<Problem>> {
    let files = read_files(path)?;
    let problems = files.problems();
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut reader = Reader { folder: files.base, ..Reader::default() };
    let mut buckets = Vec::new();
    for file in files.files {
        reader.parse(file, |reader, mut top| {
            reader.version(&mut top);
            reader.each(&mut top, "buckets", |reader, mut fields| {
                buckets.extend(reader.listed_bucket(&mut fields));
                fields.done(reader);
            });
            top.done(reader);
        });
    }
    reader.finish().map(|_| buckets)
}

impl Reader {
    /// The fields of a bucket on a server with the API of S3.
    pub(super) fn s3(&mut self, block: &mut Fields<'_>) -> ServiceSettings {
        let endpoint = self.optional_text(block, "endpoint");
        if let (Some(text), Some((_, at))) = (&endpoint, block.get("endpoint"))
            && !text.starts_with("http://")
            && !text.starts_with("https://")
        {
            let help = "write `https://host` or `http://host:port`".to_owned();
            self.problem(&at, "the endpoint is not an address of a server", Some(help));
        }
        let place = block.get("endpoint").map(|(_, at)| at);
        let url = endpoint.as_deref().zip(place);
        let insecure = self.insecure(block, url, "keys and objects");
        let region = self.optional_text(block, "region");
        let access = self.optional_secret(block, "access_key");
        let secret = self.optional_secret(block, "secret_key");
        let keys = match (access, secret) {
            (Some(access), Some(secret)) => Some((access, secret)),
            (None, None) => None,
            _ => {
                let help = "set both, or neither for the credentials of the machine".to_owned();
                let at = block.at.clone();
                self.problem(&at, "access_key and secret_key belong together", Some(help));
                None
            }
        };
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        let ca_file = self.optional_text(block, "ca_file");
        let ca_file = ca_file.map(|path| self.folder.join(path));
        ServiceSettings::S3 { endpoint, region, keys, ca_file, insecure }
    }

    /// The fields of a bucket on Google Cloud Storage.
    pub(super) fn gcs(&mut self, block: &mut Fields<'_>) -> ServiceSettings {
        ServiceSettings::Gcs { service_account: self.optional_secret(block, "service_account") }
    }

    /// The bucket of a source with this URL, whose place is `at`.
    pub(super) fn source_bucket(
        &mut self,
        fields: &mut Fields<'_>,
        url: BucketUrl,
        at: &At,
    ) -> SourceBucket {
        let (bucket, place) = self.bucket_of(fields, url, at);
        self.admit_bucket(&bucket, at, &place);
        bucket
    }

    /// A bucket with its settings, and the place of those of its server.
    fn bucket_of(
        &mut self,
        fields: &mut Fields<'_>,
        url: BucketUrl,
        at: &At,
    ) -> (SourceBucket, At) {
        let max_bytes = self.integer(fields, "max_bytes", 1..=1 << 60, SourceBucket::MAX_BYTES);
        let (service, place) = self.service_of(fields, &url, at);
        let BucketUrl { name, prefix, .. } = url;
        (SourceBucket { name, prefix, max_bytes, service }, place)
    }

    /// A bucket of a list.
    fn listed_bucket(&mut self, fields: &mut Fields<'_>) -> Option<SourceBucket> {
        let (node, at) = fields.required(self, "prefix")?;
        let text = self.text(node, &at)?;
        let refused = NotABucket {
            message: "this is not the URL of a bucket",
            help: "write s3://BUCKET/PREFIX or gs://BUCKET/PREFIX",
        };
        match BucketUrl::parse(text.trim()).unwrap_or(Err(refused)) {
            Ok(url) => {
                let service = self.service_of(fields, &url, &at).0;
                let BucketUrl { name, prefix, .. } = url;
                Some(SourceBucket { name, prefix, max_bytes: SourceBucket::MAX_BYTES, service })
            }
            Err(NotABucket { message, help }) => {
                self.no_bucket(fields, false);
                self.problem(&at, message, Some(help.to_owned()));
                None
            }
        }
    }

    /// The service of a bucket, and the place of its settings.
    fn service_of(
        &mut self,
        fields: &mut Fields<'_>,
        url: &BucketUrl,
        at: &At,
    ) -> (ServiceSettings, At) {
        let (own, other) = if url.is_gcs { ("gcs", "s3") } else { ("s3", "gcs") };
        if let Some((_, at)) = fields.get(other) {
            let help = format!("write `{own}`, or remove it");
            self.problem(&at, format!("`{other}` has no effect on {url}"), Some(help));
        }
        let (mut service, mut place) = (ServiceSettings::of_machine(url.is_gcs), at.clone());
        if let Some((node, section)) = fields.get(own) {
            place = section.clone();
            if let Some(mut block) = Fields::open(self, node, section) {
                service = self.service(&mut block, url.is_gcs);
                block.done(self);
            }
        }
        (service, place)
    }

    /// The folder or the bucket of ingested rows: a text, or `path` with the settings of the bucket. Which bucket that
    /// is, and its keys, are settings of the node, which a spec that was sent cannot change.
    pub(super) fn lake(
        &mut self,
        fields: &mut Fields<'_>,
    ) -> (Option<PathBuf>, Option<SourceBucket>) {
        let Some((node, at)) = fields.get("lake") else { return (None, None) };
        // In the place of one that cannot be read: that is reported once.
        let unread = (Some(self.folder.join("lake")), None);
        if !matches!(node.value, Value::Map(_)) {
            let Some(text) = self.text(node, &at) else { return unread };
            return self.lake_at(None, text, &at).unwrap_or(unread);
        }
        let Some(mut block) = Fields::open(self, node, at) else { return unread };
        let mut found = None;
        if let Some((node, at)) = block.required(self, "path")
            && let Some(text) = self.text(node, &at)
        {
            found = self.lake_at(Some(&mut block), text, &at);
        } else {
            self.no_bucket(&mut block, false);
        }
        block.done(self);
        found.unwrap_or(unread)
    }

    /// `block`: the settings of a bucket, if there are some.
    fn lake_at(
        &mut self,
        block: Option<&mut Fields<'_>>,
        text: &str,
        at: &At,
    ) -> Option<(Option<PathBuf>, Option<SourceBucket>)> {
        let url = match BucketUrl::parse(text.trim()) {
            None => {
                if let Some(block) = block {
                    self.no_bucket(block, true);
                }
                return Some((Some(self.folder.join(text)), None));
            }
            Some(Ok(url)) => url,
            Some(Err(NotABucket { message, help })) => {
                if let Some(block) = block {
                    self.no_bucket(block, false);
                }
                self.problem(at, message, Some(help.to_owned()));
                return None;
            }
        };
        // Others are written with escapes into keys.
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.=/".contains(&b);
        if !url.prefix.bytes().all(is_plain) {
            let help =
                "write letters, digits, `-`, `_`, `.` and `=`, and `/` between folders".to_owned();
            self.problem(at, "ingested rows cannot have this prefix", Some(help));
        }
        let bucket = match block {
            Some(block) => self.bucket_of(block, url, at).0,
            None => SourceBucket {
                max_bytes: SourceBucket::MAX_BYTES,
                service: ServiceSettings::of_machine(url.is_gcs),
                name: url.name,
                prefix: url.prefix,
            },
        };
        Some((Some(PathBuf::from(bucket.url().to_string())), Some(bucket)))
    }

    fn service(&mut self, block: &mut Fields<'_>, is_gcs: bool) -> ServiceSettings {
        if is_gcs {
            return self.gcs(block);
        }
        let before = self.problems.len();
        let service = self.s3(block);
        if service.server().is_err() && self.problems.len() == before {
            let place = block.get("endpoint").or_else(|| block.get("region"));
            let at = place.map_or_else(|| block.at.clone(), |(_, at)| at);
            let help = "write `endpoint: https://HOST` or `http://HOST:PORT` without user and password, and a \
                        region such as `eu-central-1`";
            self.problem(&at, "this does not name a server", Some(help.to_owned()));
        }
        service
    }

    /// The fields of buckets in a source that is a folder, or whose path is wrong. `is_folder`: they are refused.
    pub(super) fn no_bucket(&mut self, fields: &mut Fields<'_>, is_folder: bool) {
        for name in BUCKET_FIELDS {
            if let Some((_, at)) = fields.get(name)
                && is_folder
            {
                let help = "write `path: s3://BUCKET/PREFIX`, or remove it".to_owned();
                self.problem(&at, format!("`{name}` has no effect on a folder"), Some(help));
            }
        }
    }
}
