//! The copies of sources in buckets: where they are, with which secrets they are made, and how often.

use std::convert::Infallible;
use std::fmt;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use throng_lake::{CopiedObject, Copies, CopyFailure, Wait};
use throng_model::{Clock, Fault, Retry, Secret, SystemClock, with_causes};
use throng_objects::{BucketOptions, Service};
use throng_source_copies::{
    CacheBounds, CacheUse, CopiedFile, CopyError, SourceCopies, SourceOptions, service_of,
};
use throng_spec::{Environment, SecretError, SourceBucket};

/// A copy that was made so long ago is not compared with its bucket again: many audiences have one source.
const FRESHNESS: Duration = Duration::from_secs(10);
/// For how long a caller that does not need the copy now waits for it.
const SHORT_WAIT: Duration = Duration::from_secs(20);

/// What stays of the copies of commands when they end.
const USER_CACHE: CacheBounds =
    CacheBounds { max_bytes: 10 << 30, max_unused: Duration::from_secs(7 * 86_400) };

/// The time and the result of the last update of a copy; locked while it is updated.
type LastUpdate = tokio::sync::Mutex<Option<(Duration, Result<(), CopyFailure>)>>;

/// The copies of buckets that a process keeps in a folder and updates before they are read.
pub struct BucketCopies(Arc<Shared>);

struct Shared {
    folder: PathBuf,
    copies: SourceCopies,
    env: Environment,
    clock: Arc<dyn Clock>,
    /// Of a cache, which is kept within bounds. Until a copy is used nobody is prevented from removing some.
    cache: Option<Mutex<Option<CacheUse>>>,
    /// By all settings: who has other credentials for a bucket may have no right to read its copy.
    updates: Mutex<Vec<(SourceBucket, Arc<LastUpdate>)>>,
}

impl fmt::Debug for BucketCopies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketCopies").field("folder", &self.0.folder).finish_non_exhaustive()
    }
}

impl BucketCopies {
    /// The copies of a node, in its data directory. `env`: where secrets of the kind `env:NAME` come from.
    pub fn of_node(data_dir: &Path, env: Environment, clock: Arc<dyn Clock>) -> Self {
        // Parts of a scan name files by their paths, on whichever node they run.
        let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        Self::new(data_dir.join("sources"), env, clock, false)
    }

    /// The copies of commands that this user runs: `$XDG_CACHE_HOME/throng/sources`, or the same below `~/.cache`. When
    /// they are dropped, at most 10 GiB of them stay. Those that were not used for 7 days are removed now: a command
    /// that was killed has removed nothing.
    pub fn of_user(env: Environment) -> Arc<dyn Copies> {
        let folder = user_cache(&*env).join("sources");
        Arc::new(Self::of_cache(folder, env, Arc::new(SystemClock)))
    }

    /// Compares a copy with its bucket again at its next update, however recent the last one is: this process has
    /// written to the bucket.
    pub fn expire(&self, bucket: &SourceBucket) {
        // An update that is running may have listed the bucket before.
        self.0.updates.lock().retain(|(other, _)| other != bucket);
    }

    fn of_cache(folder: PathBuf, env: Environment, clock: Arc<dyn Clock>) -> Self {
        let copies = Self::new(folder, env, clock, true);
        // What an earlier command has begun to copy is not removed for its size: maybe this one continues.
        let bounds = CacheBounds { max_bytes: u64::MAX, ..USER_CACHE };
        copies.0.copies.trim(bounds, copies.0.clock.now());
        copies
    }

    fn new(folder: PathBuf, env: Environment, clock: Arc<dyn Clock>, is_cache: bool) -> Self {
        let (copies, updates) = (SourceCopies::new(folder.clone()), Mutex::default());
        let cache = is_cache.then(Mutex::default);
        Self(Arc::new(Shared { folder, copies, env, clock, cache, updates }))
    }
}

/// The folder for what can be made again: `throng` in `$XDG_CACHE_HOME`, or in `~/.cache`.
pub(crate) fn user_cache(env: &(dyn Fn(&str) -> Option<String> + Send + Sync)) -> PathBuf {
    let absolute = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME")
        .unwrap_or_else(|| absolute("HOME").unwrap_or_else(|| PathBuf::from("/")).join(".cache"));
    cache.join("throng")
}

#[async_trait]
impl Copies for BucketCopies {
    fn folder(&self, bucket: &SourceBucket) -> PathBuf {
        let folder = self.0.folder_of(bucket);
        if let Err(error) = self.0.mark_used(bucket) {
            tracing::warn!(%error, folder = %folder.display(), "failed to record the use of a copy");
        }
        if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(&folder) {
            tracing::warn!(%error, folder = %folder.display(), "failed to create the folder of a copy");
        }
        folder
    }

    async fn update(&self, bucket: &SourceBucket, wait: Wait) -> Result<(), CopyFailure> {
        // Goes on without the caller, whose time may be limited: what was downloaded is not downloaded again.
        let update = tokio::spawn(Arc::clone(&self.0).update(bucket.clone()));
        let ended = match wait {
            Wait::ToTheEnd => update.await,
            Wait::Short => match tokio::time::timeout(SHORT_WAIT, update).await {
                Ok(ended) => ended,
                Err(_) => return Err(running(bucket)),
            },
        };
        ended.unwrap_or_else(|_| Err(broken(bucket)))
    }

    async fn objects(&self, bucket: &SourceBucket) -> Result<Vec<CopiedObject>, CopyFailure> {
        let (shared, source) = (Arc::clone(&self.0), without_secrets(bucket));
        let read = tokio::task::spawn_blocking(move || shared.copies.objects(&source)).await;
        let files = read.map_err(|_| broken(bucket))?.map_err(|error| failed(&error))?;
        let object = |file: CopiedFile| CopiedObject {
            path: file.path,
            etag: file.etag,
            bytes: file.bytes,
            modified: u64::try_from(file.modified.0).unwrap_or(0).saturating_mul(1_000),
        };
        Ok(files.into_iter().map(object).collect())
    }

    fn retain(&self, kept: &[&SourceBucket]) {
        self.0.updates.lock().retain(|(bucket, _)| kept.contains(&bucket));
        let kept: Vec<_> = kept.iter().map(|bucket| without_secrets(bucket)).collect();
        let shared = Arc::clone(&self.0);
        // Not waited for: files of many gigabytes take long.
        drop(tokio::task::spawn_blocking(move || shared.copies.retain(&kept)));
    }
}

impl Shared {
    fn folder_of(&self, bucket: &SourceBucket) -> PathBuf {
        self.copies.folder_of(&without_secrets(bucket))
    }

    /// If the copies are a cache, prevents other processes from removing them, and notes that this one is used.
    fn mark_used(&self, bucket: &SourceBucket) -> Result<(), CopyError> {
        let Some(cache) = &self.cache else { return Ok(()) };
        let mut in_use = cache.lock();
        if in_use.is_none() {
            *in_use = Some(self.copies.begin_use()?);
        }
        self.copies.mark_used(&without_secrets(bucket), self.clock.now())
    }

    /// Updates a copy, unless that was done a moment ago, also by a call that this one has waited for.
    async fn update(self: Arc<Self>, bucket: SourceBucket) -> Result<(), CopyFailure> {
        let update = self.last_update(&bucket);
        let mut last = update.lock().await;
        if let Some((at, result)) = &*last
            && self.clock.elapsed().saturating_sub(*at) < FRESHNESS
        {
            return result.clone();
        }
        let result = self.copy(&bucket).await;
        *last = Some((self.clock.elapsed(), result.clone()));
        result
    }

    fn last_update(&self, bucket: &SourceBucket) -> Arc<LastUpdate> {
        let mut updates = self.updates.lock();
        if let Some((_, update)) = updates.iter().find(|(other, _)| other == bucket) {
            return Arc::clone(update);
        }
        let update = Arc::<LastUpdate>::default();
        updates.push((bucket.clone(), Arc::clone(&update)));
        update
    }

    async fn copy(&self, bucket: &SourceBucket) -> Result<(), CopyFailure> {
        let resolve = |_, reference: &throng_spec::SecretRef| reference.resolve(&*self.env);
        let service = service_of(&bucket.service, resolve).map_err(|error: SecretError| {
            let message = format!("cannot read {}: {}", bucket.url(), with_causes(&error));
            let help = "give the secret to the process that reads the source, or correct its name in the spec";
            failure(message, help, Fault::User, Retry::Backoff)
        })?;
        let updated = self.copies.update(&options(bucket, service)).await;
        updated.map(|_| ()).map_err(|error| failed(&error))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(cache) = &self.cache {
            drop(cache.lock().take());
            self.copies.trim(USER_CACHE, self.clock.now());
        }
    }
}

/// Which copy a bucket has does not depend on secrets.
fn without_secrets(bucket: &SourceBucket) -> SourceOptions {
    let Ok(service) = service_of(&bucket.service, |_, _| Ok::<_, Infallible>(Secret::new("")));
    options(bucket, service)
}

fn options(bucket: &SourceBucket, service: Service) -> SourceOptions {
    SourceOptions {
        bucket: BucketOptions {
            service,
            bucket: bucket.name.clone(),
            prefix: bucket.prefix.clone(),
            cache_bytes: 0,
        },
        max_bytes: bucket.max_bytes,
    }
}

fn failure(message: String, help: &str, fault: Fault, retry: Retry) -> CopyFailure {
    CopyFailure { message, help: help.to_owned(), fault, retry, is_running: false }
}

fn failed(error: &CopyError) -> CopyFailure {
    failure(with_causes(error), error.help(), error.fault(), error.retry())
}

/// The failure of a task that panicked: without its text, which may have values.
fn broken(bucket: &SourceBucket) -> CopyFailure {
    let message = format!("cannot copy the objects below {}", bucket.url());
    failure(message, "see the log of the node", Fault::Internal, Retry::Backoff)
}

fn running(bucket: &SourceBucket) -> CopyFailure {
    let message = format!("the objects below {} are still being copied", bucket.url());
    let help = "ask again later: what is copied stays";
    CopyFailure { is_running: true, ..failure(message, help, Fault::External, Retry::Backoff) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use throng_model::{ManualClock, Timestamp};
    use throng_spec::{SecretRef, ServiceSettings};

    use super::*;

    fn bucket(name: &str, secret: &str) -> SourceBucket {
        SourceBucket {
            name: name.to_owned(),
            prefix: String::new(),
            max_bytes: 1,
            service: ServiceSettings::S3 {
                endpoint: Some("http://127.0.0.1:9".to_owned()),
                region: "us-east-1".to_owned(),
                keys: Some((SecretRef::Env("KEY".to_owned()), SecretRef::Env(secret.to_owned()))),
                ca_file: None,
                insecure: false,
            },
        }
    }

    /// Copies without the secret `MISSING`, and how often the secret `KEY` was read.
    fn copies(dir: &Path, clock: &Arc<ManualClock>) -> (BucketCopies, Arc<AtomicU32>) {
        let reads = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&reads);
        let env: Environment = Arc::new(move |name: &str| {
            let is_key = name == "KEY";
            counted.fetch_add(u32::from(is_key), Ordering::Relaxed);
            is_key.then(|| "k".to_owned())
        });
        let clock = Arc::clone(clock) as Arc<dyn Clock>;
        (BucketCopies::of_node(dir, env, clock), reads)
    }

    #[tokio::test]
    async fn an_update_is_tried_again_only_after_some_seconds() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let (copies, reads) = copies(dir.path(), &clock);
        let (one, other) = (bucket("lake", "MISSING"), bucket("lake", "ABSENT"));
        let failed = copies.update(&one, Wait::ToTheEnd).await.unwrap_err();
        assert!(failed.message.contains("s3://lake") && failed.message.contains("MISSING"));
        assert_eq!((failed.fault, failed.is_running), (Fault::User, false));
        assert_eq!(copies.update(&one, Wait::Short).await, Err(failed.clone()));
        assert_eq!(reads.load(Ordering::Relaxed), 1);
        // The result for other credentials says nothing about these.
        let others = copies.update(&other, Wait::ToTheEnd).await.unwrap_err();
        assert!(others.message.contains("ABSENT"), "{others}");
        assert_eq!(reads.load(Ordering::Relaxed), 2);
        clock.advance(FRESHNESS);
        assert_eq!(copies.update(&one, Wait::ToTheEnd).await, Err(failed.clone()));
        assert_eq!(reads.load(Ordering::Relaxed), 3);
        copies.expire(&other);
        assert_eq!(copies.update(&one, Wait::ToTheEnd).await, Err(failed.clone()));
        assert_eq!(reads.load(Ordering::Relaxed), 3);
        copies.expire(&one);
        assert_eq!(copies.update(&one, Wait::ToTheEnd).await, Err(failed));
        assert_eq!(reads.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn the_folder_of_a_copy_exists_and_does_not_depend_on_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let (copies, reads) = copies(dir.path(), &Arc::new(ManualClock::new(Timestamp(0))));
        let folder = copies.folder(&bucket("lake", "MISSING"));
        assert!(folder.is_dir() && folder.starts_with(dir.path().join("sources")));
        assert_eq!(folder, copies.folder(&bucket("lake", "ABSENT")));
        assert_ne!(folder, copies.folder(&bucket("other", "MISSING")));
        assert_eq!(reads.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn copies_of_commands_are_removed_if_they_are_old_and_not_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp(1_795_600_800_000_000)));
        let open = || {
            let env: Environment = Arc::new(|_: &str| None::<String>);
            let clock = Arc::clone(&clock) as Arc<dyn Clock>;
            BucketCopies::of_cache(dir.path().join("sources"), env, clock)
        };
        let (small, other) = (bucket("small", "S"), bucket("other", "S"));
        let command = open();
        let kept = command.folder(&small);
        std::fs::write(kept.join("a.csv"), "k\n1\n").unwrap();
        drop(command);
        clock.advance(USER_CACHE.max_unused);
        // Another command still has its copies, and ends.
        let (first, second) = (open(), open());
        let used = first.folder(&other);
        drop(second);
        assert!(kept.exists() && used.exists());
        drop(first);
        assert!(kept.exists() && used.exists());
        clock.advance(Duration::from_secs(1));
        drop(open());
        assert!(!kept.exists() && used.exists());
        clock.advance(USER_CACHE.max_unused);
        drop(open());
        assert!(!used.exists());
    }

    #[test]
    fn commands_have_their_copies_in_the_cache_of_the_user() {
        let folder = |variables: &'static [(&'static str, &'static str)]| {
            user_cache(&move |name: &str| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(
            folder(&[("XDG_CACHE_HOME", "/var/cache/me"), ("HOME", "/home/me")]),
            Path::new("/var/cache/me/throng")
        );
        assert_eq!(folder(&[("HOME", "/home/me")]), Path::new("/home/me/.cache/throng"));
        assert_eq!(folder(&[("XDG_CACHE_HOME", "x")]), Path::new("/.cache/throng"));
    }
}
