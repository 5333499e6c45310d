//! Clients of buckets: how they are reached, and what their errors mean.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{BackoffConfig, Certificate, ClientOptions, Error, ObjectStore, RetryConfig};
use throng_model::{Secret, host_of, is_loopback_host};

use crate::ObjectsError;

/// The timeout of one request; the client retries it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time in which the client retries the requests of one call.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Which service a bucket is on.
#[derive(Debug, Clone)]
pub enum Service {
    /// Amazon S3, or a server with its API.
    S3 {
        /// The URL of the server, such as `http://127.0.0.1:9000`; `None` for Amazon S3.
        endpoint: Option<String>,
        /// The region; servers without regions expect `us-east-1`.
        region: String,
        /// Access key and secret key; `None` for the credentials of the machine (instance role, web
        /// identity).
        keys: Option<(Secret, Secret)>,
        /// Trusted certificate authorities in addition to the system's: a PEM file.
        ca_file: Option<PathBuf>,
    },
    /// Google Cloud Storage.
    Gcs {
        /// The key of a service account, as JSON; `None` for the credentials of the machine.
        service_account: Option<Secret>,
    },
}

/// A bucket, and how to reach it, with the secrets that this takes.
#[derive(Debug, Clone)]
pub struct BucketOptions {
    /// The service.
    pub service: Service,
    /// The bucket's name.
    pub bucket: String,
    /// The prefix of the keys of all objects, without `/` at its ends; may be empty.
    pub prefix: String,
    /// The size of the cache: of the local copies that are not in use, in bytes.
    pub cache_bytes: u64,
}

/// Adds the certificate authorities of a PEM file.
fn with_authorities(mut client: ClientOptions, path: &Path) -> object_store::Result<ClientOptions> {
    let unusable = |source: Box<dyn std::error::Error + Send + Sync>| Error::Generic {
        store: "certificates",
        source: format!("{}: {source}", path.display()).into(),
    };
    let pem = throng_fs::read(path).map_err(|error| unusable(error.into()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|e| unusable(e.into()))?;
    if certificates.is_empty() {
        return Err(unusable("there is no certificate in it".into()));
    }
    for certificate in certificates {
        client = client.with_root_certificate(certificate);
    }
    Ok(client)
}

/// All hosts, as a list of those that are reached without a proxy.
const EVERY_HOST: &str = "*,0.0.0.0/0,::/0";

/// A server on this machine is not reached through the proxy of the environment (`HTTP_PROXY`), which would look for it
/// on its own machine. The client has no setting for that: it ignores the environment if it has a proxy of its own, and
/// this one is for no host.
fn without_proxy_if_local(client: ClientOptions, endpoint: &str) -> ClientOptions {
    if is_loopback_host(host_of(endpoint)) {
        client.with_proxy_url(endpoint).with_proxy_excludes(EVERY_HOST)
    } else {
        client
    }
}

/// The client of a bucket. Sends no request.
pub(crate) fn store_of(options: &BucketOptions) -> object_store::Result<Arc<dyn ObjectStore>> {
    let client = ClientOptions::new()
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_allow_http(true);
    let retry = RetryConfig {
        max_retries: 12,
        retry_timeout: RETRY_TIMEOUT,
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.,
        },
    };
    Ok(match &options.service {
        Service::S3 { endpoint, region, keys, ca_file } => {
            let client = match ca_file {
                Some(path) => with_authorities(client, path)?,
                None => client,
            };
            // Credentials of the machine come from other servers.
            let client = match endpoint {
                Some(endpoint) if keys.is_some() => without_proxy_if_local(client, endpoint),
                _ => client,
            };
            let mut builder = AmazonS3Builder::new()
                .with_bucket_name(&options.bucket)
                .with_region(region)
                .with_client_options(client)
                .with_retry(retry);
            if let Some(endpoint) = endpoint {
                builder = builder.with_endpoint(endpoint);
            }
            if let Some((key, secret)) = keys {
                builder = builder
                    .with_access_key_id(key.expose())
                    .with_secret_access_key(secret.expose());
            }
            Arc::new(builder.build()?)
        }
        Service::Gcs { service_account } => {
            let mut builder = GoogleCloudStorageBuilder::new()
                .with_bucket_name(&options.bucket)
                .with_client_options(client)
                .with_retry(retry);
            if let Some(key) = service_account {
                builder = builder.with_service_account_key(key.expose());
            }
            Arc::new(builder.build()?)
        }
    })
}

/// The error of a request; `doing` is an infinitive.
pub(crate) fn failed(doing: &'static str, name: &str) -> impl FnOnce(Error) -> ObjectsError {
    let name = name.to_owned();
    move |error| match error {
        // A write does not need the object; it needs the bucket.
        Error::NotFound { .. } if doing == UPLOAD || doing == REPLACE => ObjectsError::Settings {
            why: "there is no such bucket, or not at this endpoint".to_owned(),
        },
        Error::NotFound { .. } => ObjectsError::Missing { name },
        error => {
            // With all causes: that a certificate is not trusted is the fourth one.
            let source = Box::new(ErrorSummary(summary(&throng_model::with_causes(&error))));
            ObjectsError::Store { doing, name, source }
        }
    }
}

/// What is being done to an object, as an infinitive.
pub(crate) const UPLOAD: &str = "upload";
pub(crate) const REPLACE: &str = "replace";
pub(crate) const READ: &str = "read";
pub(crate) const LIST: &str = "list";

/// The error of a store, as text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct ErrorSummary(String);

/// The longest summary of an error.
const MAX_SUMMARY_CHARS: usize = 500;

/// A client's error in one line. Of an answer in XML it has only the code and the message: the rest is
/// long and repeats the signed request.
fn summary(text: &str) -> String {
    let part = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0)
    };
    let line = match (part("Code"), part("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => text.lines().next().unwrap_or_default().to_owned(),
    };
    line.chars().take(MAX_SUMMARY_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use object_store::ClientConfigKey;

    use super::*;

    #[test]
    fn servers_on_this_machine_need_no_proxy() {
        for local in ["http://127.0.0.1:9000", "http://localhost:9000", "https://[::1]:9000/"] {
            let client = without_proxy_if_local(ClientOptions::new(), local);
            let excluded = client.get_config_value(&ClientConfigKey::ProxyExcludes);
            assert_eq!(excluded.as_deref(), Some(EVERY_HOST), "{local}");
            let own = client.get_config_value(&ClientConfigKey::ProxyUrl);
            assert_eq!(own.as_deref(), Some(local), "the environment counts without one");
        }
        let client = without_proxy_if_local(ClientOptions::new(), "https://s3.example.com");
        assert_eq!(client.get_config_value(&ClientConfigKey::ProxyUrl), None);
    }

    #[test]
    fn the_error_of_a_store_is_summarized_in_one_line() {
        let answer = "Error performing PUT http://x - Server returned non-2xx status code: 403 \
                      Forbidden: <?xml version=\"1.0\"?>\n<Error><Code>SignatureDoesNotMatch</Code>\
                      <Message>Check your key.</Message><StringToSign>AWS4</StringToSign></Error>";
        assert_eq!(summary(answer), "SignatureDoesNotMatch: Check your key.");
        assert_eq!(summary("cannot connect\nbecause"), "cannot connect");
        assert_eq!(summary(&"x".repeat(1_000)).len(), MAX_SUMMARY_CHARS);
    }
}
