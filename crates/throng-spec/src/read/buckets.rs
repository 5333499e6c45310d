//! Buckets: those of sources, and the service of the bucket of a node's objects.

use super::Reader;
use super::fields::{At, Fields};
use crate::{BucketUrl, ServiceSettings, SourceBucket};

/// The fields that a source in a bucket has in addition.
const BUCKET_FIELDS: [&str; 3] = ["s3", "gcs", "max_bytes"];

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
        let max_bytes = self.integer(fields, "max_bytes", 1..=1 << 60, SourceBucket::MAX_BYTES);
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
        let BucketUrl { name, prefix, .. } = url;
        let bucket = SourceBucket { name, prefix, max_bytes, service };
        self.admit_bucket(&bucket, at, &place);
        bucket
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
