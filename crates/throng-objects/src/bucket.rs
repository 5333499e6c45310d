//! Objects in a bucket, with a cache on the local disk.

use std::collections::HashSet;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, Error, ObjectStore, ObjectStoreExt as _, PutMode,
    PutOptions, PutPayload, RetryConfig, UpdateVersion, WriteMultipart,
};
use parking_lot::{Mutex, MutexGuard};
use throng_model::{Secret, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::name;
use crate::{Listed, Objects, ObjectsError, Result, Versioned};

/// A file up to this size goes up in one request, a larger one in parts of this size.
const PART_BYTES: usize = 8 << 20;
/// Parts of one file on their way at the same time: at most 32 MiB in memory.
const PARTS_AT_ONCE: usize = 4;
/// A request that takes longer is given up and tried again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Tries of one call go on for so long; the caller decides what then.
const RETRY_FOR: Duration = Duration::from_secs(60);

/// The mode of local copies.
const COPY_MODE: u32 = 0o400;

static COPIES: AtomicU64 = AtomicU64::new(0);

/// Which service a bucket is on.
#[derive(Debug, Clone)]
pub enum Service {
    /// Amazon S3, or a server with its API.
    S3 {
        /// The server, such as `http://127.0.0.1:9000`; `None` for Amazon's own.
        endpoint: Option<String>,
        /// The region; `us-east-1` is what servers without regions expect.
        region: String,
        /// Key and secret; `None` for the credentials of the machine (instance role, web identity).
        keys: Option<(Secret, Secret)>,
        /// Certificates of authorities that the server's may come from, besides the system's: a PEM
        /// file.
        ca_file: Option<PathBuf>,
    },
    /// Google Cloud Storage.
    Gcs {
        /// The key of a service account, as JSON; `None` for the credentials of the machine.
        service_account: Option<Secret>,
    },
}

/// Which bucket, and how to reach it.
#[derive(Debug, Clone)]
pub struct BucketSettings {
    /// The service.
    pub service: Service,
    /// The bucket's name.
    pub bucket: String,
    /// Put before every name, without `/` at its ends; may be empty.
    pub prefix: String,
    /// Local copies may take so many bytes besides those in use.
    pub cache_bytes: u64,
}

/// Objects in a bucket on S3 or GCS. Large files go up in parts; copies are fetched once and kept
/// on the local disk, from where a node starts also when the bucket cannot be reached.
#[derive(Debug)]
pub struct BucketObjects {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    root: PathBuf,
    cache_bytes: u64,
    /// Names being fetched: a file that many ask for at once is fetched once.
    fetching: Mutex<HashSet<String>>,
    fetched: tokio::sync::Notify,
}

/// Trusts the authorities of a PEM file too.
fn trusting(mut client: ClientOptions, path: &Path) -> object_store::Result<ClientOptions> {
    let unusable = |source: Box<dyn std::error::Error + Send + Sync>| Error::Generic {
        store: "certificates",
        source: format!("{}: {source}", path.display()).into(),
    };
    let pem = std::fs::read(path).map_err(|error| unusable(error.into()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|e| unusable(e.into()))?;
    if certificates.is_empty() {
        return Err(unusable("there is no certificate in it".into()));
    }
    for certificate in certificates {
        client = client.with_root_certificate(certificate);
    }
    Ok(client)
}

fn store_of(settings: &BucketSettings) -> object_store::Result<Arc<dyn ObjectStore>> {
    let client = ClientOptions::new()
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_allow_http(true);
    let retry = RetryConfig {
        max_retries: 12,
        retry_timeout: RETRY_FOR,
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.,
        },
    };
    Ok(match &settings.service {
        Service::S3 { endpoint, region, keys, ca_file } => {
            let client = match ca_file {
                Some(path) => trusting(client, path)?,
                None => client,
            };
            let mut builder = AmazonS3Builder::new()
                .with_bucket_name(&settings.bucket)
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
                .with_bucket_name(&settings.bucket)
                .with_client_options(client)
                .with_retry(retry);
            if let Some(key) = service_account {
                builder = builder.with_service_account_key(key.expose());
            }
            Arc::new(builder.build()?)
        }
    })
}

/// What a store calls a version, in one text.
fn version(e_tag: Option<String>, version: Option<String>) -> String {
    format!("{}\n{}", e_tag.unwrap_or_default(), version.unwrap_or_default())
}

fn update(version: &str) -> UpdateVersion {
    let part = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (e_tag, version) = version.split_once('\n').unwrap_or((version, ""));
    UpdateVersion { e_tag: part(e_tag), version: part(version) }
}

fn refused(doing: &'static str, name: &str) -> impl FnOnce(Error) -> ObjectsError {
    let name = name.to_owned();
    move |error| match error {
        // What is written need not be there before: its bucket must.
        Error::NotFound { .. } if doing == TAKE || doing == REPLACE => ObjectsError::Settings {
            why: "there is no such bucket, or not at this endpoint".to_owned(),
        },
        Error::NotFound { .. } => ObjectsError::Missing { name },
        error => {
            // That a certificate is not trusted is said four levels down.
            let source = Box::new(Said(in_short(&throng_model::with_causes(&error))));
            ObjectsError::Store { doing, name, source }
        }
    }
}

/// What is being done to an object, in words.
const TAKE: &str = "take";
const REPLACE: &str = "replace";

/// The words of a store.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);

/// The longest words of a store that are told.
const WORDS: usize = 500;

/// A client's error in one line: of a store's answer in XML its code and its message only, as the
/// rest is long and repeats what was signed.
fn in_short(words: &str) -> String {
    let part = |name: &str| {
        let (_, rest) = words.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0)
    };
    let short = match (part("Code"), part("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => words.lines().next().unwrap_or_default().to_owned(),
    };
    short.chars().take(WORDS).collect()
}

impl BucketObjects {
    /// Opens a bucket, with local copies below `root`. Asks nobody yet: see
    /// [`check`](Self::check).
    ///
    /// # Errors
    /// [`ObjectsError::Settings`], [`ObjectsError::Io`].
    pub fn open(root: PathBuf, settings: &BucketSettings) -> Result<Self> {
        std::fs::create_dir_all(&root).map_err(ObjectsError::io("make the folder", &root))?;
        let store = store_of(settings)
            .map_err(|error| ObjectsError::Settings { why: error.to_string() })?;
        let (prefix, cache_bytes) = (settings.prefix.clone(), settings.cache_bytes);
        let (fetching, fetched) = Default::default();
        Ok(Self { store, prefix, root, cache_bytes, fetching, fetched })
    }

    /// Whether this node may write, replace under a condition, read, list and remove in the bucket:
    /// does all of it with a small object of its own.
    ///
    /// # Errors
    /// [`ObjectsError`] of the first that does not work; [`ObjectsError::Settings`] if the store
    /// knows no conditions.
    pub async fn check(&self, unique: &str) -> Result<()> {
        let name = format!("checks/{unique}");
        let made = self.swap(&name, b"1".to_vec(), None).await?;
        let second = self.swap(&name, b"2".to_vec(), None).await?;
        let replaced = match &made {
            Some(version) => self.swap(&name, b"3".to_vec(), Some(version)).await?,
            None => None,
        };
        let listed = self.list("checks").await?;
        self.remove(&name).await?;
        if made.is_none() || second.is_some() || replaced.is_none() {
            let why = "the store does not obey conditions (If-None-Match, If-Match) on writes; \
                       use one that does";
            return Err(ObjectsError::Settings { why: why.to_owned() });
        }
        if listed.iter().all(|l| l.name != name) {
            let why = "what is written does not appear in listings".to_owned();
            return Err(ObjectsError::Settings { why });
        }
        Ok(())
    }

    fn key(&self, name: &str) -> Key {
        if self.prefix.is_empty() {
            Key::from(name)
        } else {
            Key::from(format!("{}/{name}", self.prefix))
        }
    }

    async fn upload(&self, name: &str, path: &Path) -> Result<()> {
        let io = |source| ObjectsError::Io { doing: "read", path: path.to_owned(), source };
        let mut file = tokio::fs::File::open(path).await.map_err(io)?;
        let length = file.metadata().await.map_err(io)?.len();
        if length <= PART_BYTES as u64 {
            let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
            file.read_to_end(&mut bytes).await.map_err(io)?;
            let options = PutOptions::from(PutMode::Create);
            let put = self.store.put_opts(&self.key(name), PutPayload::from(bytes), options).await;
            return match put {
                // A try before this one, or one of which the answer got lost.
                Ok(_) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(()),
                Err(error) => Err(refused(TAKE, name)(error)),
            };
        }
        let upload =
            self.store.put_multipart(&self.key(name)).await.map_err(refused(TAKE, name))?;
        let mut parts = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let mut buffer = vec![0; PART_BYTES];
        loop {
            let read = match file.read(&mut buffer).await {
                Ok(read) => read,
                Err(source) => {
                    // What is up already costs money until it is given up.
                    let _ = parts.abort().await;
                    return Err(io(source));
                }
            };
            if read == 0 {
                break;
            }
            parts.wait_for_capacity(PARTS_AT_ONCE).await.map_err(refused(TAKE, name))?;
            parts.write(&buffer[..read]);
        }
        parts.finish().await.map_err(refused(TAKE, name))?;
        Ok(())
    }

    async fn download(&self, name: &str, path: &Path) -> Result<()> {
        let got = self.store.get(&self.key(name)).await.map_err(refused("give", name))?;
        let expected = got.meta.size;
        let folder = path.parent().unwrap_or(Path::new("."));
        tokio::fs::create_dir_all(folder)
            .await
            .map_err(ObjectsError::io("make the folder", folder))?;
        let number = COPIES.fetch_add(1, Ordering::Relaxed);
        let aside = path.with_added_extension(format!("{}-{number}.tmp", std::process::id()));
        let copied = async {
            let io = |source| ObjectsError::Io { doing: "write", path: aside.clone(), source };
            let mut file = tokio::fs::File::create(&aside).await.map_err(io)?;
            let mut stream = got.into_stream();
            let mut length = 0;
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.map_err(refused("give", name))?;
                length += chunk.len() as u64;
                file.write_all(&chunk).await.map_err(io)?;
            }
            if length != expected {
                return Err(ObjectsError::CutShort {
                    name: name.to_owned(),
                    expected,
                    got: length,
                });
            }
            // Objects are written once: a copy is only read.
            file.set_permissions(Permissions::from_mode(COPY_MODE)).await.map_err(io)?;
            file.sync_all().await.map_err(io)?;
            tokio::fs::rename(&aside, path).await.map_err(io)
        };
        let copied = copied.await;
        if copied.is_err() {
            // Only garbage; the next try makes another one.
            let _ = tokio::fs::remove_file(&aside).await;
        }
        copied
    }

    fn fetching(&self) -> MutexGuard<'_, HashSet<String>> {
        // A set of names is right after every statement.
        self.fetching.lock()
    }

    /// The turn to fetch this name; or else waits until somebody's turn ends.
    async fn take_turn<'a>(&'a self, name: &'a str) -> Option<Turn<'a>> {
        let ended = self.fetched.notified();
        tokio::pin!(ended);
        // Registered before looking, so that the end of a turn is not missed.
        ended.as_mut().enable();
        if self.fetching().insert(name.to_owned()) {
            return Some(Turn { objects: self, name });
        }
        ended.await;
        None
    }
}

/// The right to fetch a name; given back also when the caller goes away.
struct Turn<'a> {
    objects: &'a BucketObjects,
    name: &'a str,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.objects.fetching().remove(self.name);
        self.objects.fetched.notify_waiters();
    }
}

#[async_trait]
impl Objects for BucketObjects {
    fn root(&self) -> &Path {
        &self.root
    }

    async fn keep(&self, name: &str) -> Result<()> {
        let path = name::file(&self.root, name)?;
        self.upload(name, &path).await
    }

    async fn fetch(&self, name: &str) -> Result<PathBuf> {
        let path = name::file(&self.root, name)?;
        loop {
            if tokio::fs::try_exists(&path).await.unwrap_or(false) {
                return Ok(path);
            }
            if let Some(_turn) = self.take_turn(name).await {
                self.download(name, &path).await?;
                return Ok(path);
            }
        }
    }

    fn has_copies(&self) -> bool {
        true
    }

    async fn fetch_again(&self, name: &str) -> Result<PathBuf> {
        let path = name::file(&self.root, name)?;
        if let Some(_turn) = self.take_turn(name).await {
            self.download(name, &path).await?;
        }
        Ok(path)
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let path = name::file(&self.root, name)?;
        match self.store.delete(&self.key(name)).await {
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(refused("remove", name)(error)),
        }
        match tokio::fs::remove_file(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ObjectsError::io("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        name::file(&self.root, prefix)?;
        let cut = if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 };
        let mut found: Vec<Listed> = self
            .store
            .list(Some(&self.key(prefix)))
            .map_ok(|meta| Listed {
                name: meta.location.as_ref().get(cut..).unwrap_or_default().to_owned(),
                modified: Timestamp(meta.last_modified.timestamp_micros()),
            })
            .try_collect()
            .await
            .map_err(refused("list", prefix))?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    async fn load(&self, name: &str) -> Result<Option<Versioned>> {
        name::file(&self.root, name)?;
        let got = match self.store.get(&self.key(name)).await {
            Ok(got) => got,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(refused("give", name)(error)),
        };
        let version = version(got.meta.e_tag.clone(), got.meta.version.clone());
        let bytes = got.bytes().await.map_err(refused("give", name))?.to_vec();
        Ok(Some(Versioned { bytes, version }))
    }

    async fn swap(
        &self,
        name: &str,
        bytes: Vec<u8>,
        expected: Option<&str>,
    ) -> Result<Option<String>> {
        name::file(&self.root, name)?;
        let mode = expected.map_or(PutMode::Create, |seen| PutMode::Update(update(seen)));
        let payload = PutPayload::from(bytes.clone());
        match self.store.put_opts(&self.key(name), payload, PutOptions::from(mode)).await {
            Ok(put) => Ok(Some(version(put.e_tag, put.version))),
            // `NotFound`: there is nothing of any version.
            Err(Error::NotFound { .. }) if expected.is_some() => Ok(None),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
                // A write of which the answer got lost is tried again by the client, and fails on
                // what it wrote itself.
                let there = self.load(name).await?;
                Ok(there.filter(|there| there.bytes == bytes).map(|there| there.version))
            }
            Err(error) => Err(refused(REPLACE, name)(error)),
        }
    }

    async fn trim(&self, needed: &HashSet<String>) -> Result<()> {
        let (root, needed, room) = (self.root.clone(), needed.clone(), self.cache_bytes);
        let trimmed = tokio::task::spawn_blocking(move || crate::cache::trim(&root, &needed, room));
        trimmed.await.map_err(|error| ObjectsError::Io {
            doing: "trim",
            path: self.root.clone(),
            source: io::Error::other(error),
        })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stores_answer_is_told_in_one_line() {
        let answer = "Error performing PUT http://x - Server returned non-2xx status code: 403 \
                      Forbidden: <?xml version=\"1.0\"?>\n<Error><Code>SignatureDoesNotMatch</Code>\
                      <Message>Check your key.</Message><StringToSign>AWS4</StringToSign></Error>";
        assert_eq!(in_short(answer), "SignatureDoesNotMatch: Check your key.");
        assert_eq!(in_short("cannot connect\nbecause"), "cannot connect");
        assert_eq!(in_short(&"x".repeat(1_000)).len(), WORDS);
    }
}
