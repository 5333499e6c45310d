//! Sources in buckets. Their objects are copied to the local disk before files of them are read: query workers have no
//! network and no secrets. What is shown to people has the URL of the bucket, and not the folder of the copy.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use throng_files::{FileError, sql_name};
use throng_model::{Fault, Retry};
use throng_spec::{BucketUrl, Source, SourceBucket};

use crate::inputs::{InputQuery, InputState};
use crate::listing::{Refused, SourceListing};

/// The local copies of the buckets of sources: a source in a bucket is read as the folder of its copy.
#[async_trait]
pub trait Copies: Send + Sync + Debug {
    /// The folder of a bucket's copy. Creates it, because a query worker can only read folders that exist when it
    /// starts; [`Copies::update`] reports a failure.
    fn folder(&self, bucket: &SourceBucket) -> PathBuf;

    /// Makes a copy equal to its bucket, unless that was done some seconds ago.
    ///
    /// # Errors
    /// [`CopyFailure`]. With [`Wait::Short`] also if it takes long; it continues without the caller.
    async fn update(&self, bucket: &SourceBucket, wait: Wait) -> Result<(), CopyFailure>;

    /// The objects that a copy had at its last update. None, if they are not known: then other machines cannot read
    /// them instead of the copy.
    ///
    /// # Errors
    /// [`CopyFailure`].
    async fn objects(&self, bucket: &SourceBucket) -> Result<Vec<CopiedObject>, CopyFailure> {
        let _ = bucket;
        Ok(Vec::new())
    }

    /// Removes all other copies, in the background. Needs a Tokio runtime.
    fn retain(&self, kept: &[&SourceBucket]);
}

/// For how long a caller waits for a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// For a request of a person, and for a poll of many sources.
    Short,
    /// Until it is complete.
    ToTheEnd,
}

/// The objects of a source could not be copied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CopyFailure {
    /// What was being done, and why it failed. Names the bucket and no secret.
    pub message: String,
    /// How to fix it.
    pub help: String,
    /// Who has to act.
    pub fault: Fault,
    /// Whether to try again.
    pub retry: Retry,
    /// Whether nothing has failed: the copy is not complete yet.
    pub is_running: bool,
}

/// An object of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedObject {
    /// The path of its file in the folder of the copy, and its key below the prefix.
    pub path: String,
    /// The store's identifier of its content; `None` if the store has none.
    pub etag: Option<String>,
    /// Its size.
    pub bytes: u64,
    /// The time of its file, in nanoseconds since 1970.
    pub modified: u64,
}

/// A copy, with the objects that its files are copies of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedFolder {
    /// The folder of the copy.
    pub folder: PathBuf,
    /// The URL of the bucket, without the prefix.
    pub bucket: String,
    /// The prefix; may be empty.
    pub prefix: String,
    /// Its objects.
    pub objects: Vec<CopiedObject>,
}

impl CopiedFolder {
    /// About how long its message is, in bytes.
    pub fn message_bytes(&self) -> usize {
        let of_object = |object: &CopiedObject| {
            2 * object.path.len() + object.etag.as_ref().map_or(0, String::len) + 100
        };
        self.objects.iter().map(of_object).fold(0, usize::saturating_add)
    }
}

/// A source in a bucket.
#[derive(Debug, Clone)]
struct CopiedSource {
    /// Its name in SQL.
    name: String,
    folder: PathBuf,
    bucket: SourceBucket,
}

impl CopiedSource {
    /// Whether a query may read it: whether one of its words is the source's name.
    fn is_named_by(&self, sql: &str) -> bool {
        let mut words = sql.split(|c: char| !c.is_alphanumeric() && c != '_');
        // As the engine compares names, or more freely: an update that is not needed does no harm.
        words.any(|word| word.len() <= 4 * self.name.len() && word.to_lowercase() == self.name)
    }
}

/// The sources in buckets of one workspace.
#[derive(Debug, Clone, Default)]
pub struct CopiedSources {
    sources: Arc<[CopiedSource]>,
    copies: Option<Arc<dyn Copies>>,
}

/// Sources whose copies are not up to date, by name, each with the cause.
#[derive(Debug, Clone, Default)]
pub struct FailedCopies(Vec<(String, CopyFailure)>);

impl CopiedSources {
    /// Those of `sources` that are in buckets. Their paths become the folders of the copies.
    pub fn of(sources: &mut [Source], copies: Option<&Arc<dyn Copies>>) -> Self {
        let mut found = Vec::new();
        for source in sources {
            let Some(bucket) = source.bucket.clone() else { continue };
            if let Some(copies) = copies {
                source.path = copies.folder(&bucket);
            }
            let name = sql_name(source.name.local());
            found.push(CopiedSource { name, folder: source.path.clone(), bucket });
        }
        Self { sources: found.into(), copies: copies.cloned() }
    }

    /// Whether a query may read one of them.
    pub fn are_named_by(&self, sql: &str) -> bool {
        self.sources.iter().any(|source| source.is_named_by(sql))
    }

    /// Updates the copies that a query reads.
    ///
    /// # Errors
    /// [`CopyFailure`] of the first that fails.
    pub async fn update(&self, sql: &str) -> Result<(), CopyFailure> {
        let named = self.sources.iter().filter(|source| source.is_named_by(sql)).collect();
        let failed = self.update_each(named, Wait::ToTheEnd).await;
        failed.0.into_iter().next().map_or(Ok(()), |(_, failure)| Err(failure))
    }

    /// The copies that a query reads, with their objects.
    ///
    /// # Errors
    /// [`CopyFailure`] of the first whose objects cannot be found out.
    pub async fn objects(&self, sql: &str) -> Result<Vec<CopiedFolder>, CopyFailure> {
        let Some(copies) = &self.copies else { return Ok(Vec::new()) };
        let mut folders = Vec::new();
        for source in self.sources.iter().filter(|source| source.is_named_by(sql)) {
            let objects = copies.objects(&source.bucket).await?;
            let BucketUrl { is_gcs, name, prefix } = source.bucket.url();
            let bucket = BucketUrl { is_gcs, name, prefix: String::new() }.to_string();
            folders.push(CopiedFolder { folder: source.folder.clone(), bucket, prefix, objects });
        }
        Ok(folders)
    }

    /// Updates the copies that some queries read.
    pub async fn update_for(&self, queries: &[InputQuery], wait: Wait) -> FailedCopies {
        let is_named =
            |source: &&CopiedSource| queries.iter().any(|query| source.is_named_by(&query.sql));
        let named = self.sources.iter().filter(is_named).collect();
        self.update_each(named, wait).await
    }

    /// Updates all copies, and does not wait for those that take long.
    pub async fn update_all(&self) -> FailedCopies {
        self.update_each(self.sources.iter().collect(), Wait::Short).await
    }

    async fn update_each(&self, sources: Vec<&CopiedSource>, wait: Wait) -> FailedCopies {
        // At the same time: a short wait is one for all.
        let mut updates = Vec::with_capacity(sources.len());
        for source in &sources {
            updates.push(self.update_one(source, wait));
        }
        let updated = futures::future::join_all(updates).await;
        let failed = sources.iter().zip(updated).filter_map(|(source, updated)| {
            updated.err().map(|failure| (source.name.clone(), failure))
        });
        FailedCopies(failed.collect())
    }

    async fn update_one(&self, source: &CopiedSource, wait: Wait) -> Result<(), CopyFailure> {
        let bucket = &source.bucket;
        match &self.copies {
            Some(copies) => copies.update(bucket, wait).await,
            None => Err(CopyFailure {
                message: format!(
                    "cannot read {}: no copies of objects are made here",
                    bucket.url()
                ),
                help: "name a folder with the same files".to_owned(),
                fault: Fault::User,
                retry: Retry::Never,
                is_running: false,
            }),
        }
    }

    /// The states of the files of some queries, in their order. A query that reads a copy which is not up to date has
    /// the cause as its state.
    pub fn states(
        &self,
        queries: &[InputQuery],
        states: Vec<InputState>,
        failed: &FailedCopies,
    ) -> Vec<InputState> {
        let state = |(query, state): (&InputQuery, InputState)| {
            let mut read = self.sources.iter().filter(|source| source.is_named_by(&query.sql));
            match (read.find_map(|source| failed.of(&source.name)), state) {
                (Some(failure), _) if failure.is_running => {
                    InputState::Incomplete(failure.message.clone())
                }
                (Some(failure), _) => InputState::Refused(failure.message.clone()),
                (None, InputState::Incomplete(why)) => InputState::Incomplete(self.shown_text(why)),
                (None, InputState::Refused(why)) => InputState::Refused(self.shown_text(why)),
                (None, ready) => ready,
            }
        };
        queries.iter().zip(states).map(state).collect()
    }

    /// The listed sources as they are shown. One whose copy is not up to date has the cause and no tables: whoever
    /// lists it may have no right to read the bucket.
    pub fn listed(
        &self,
        mut listed: Vec<SourceListing>,
        failed: &FailedCopies,
    ) -> Vec<SourceListing> {
        for source in self.sources.iter() {
            let Some(listing) = listed.iter_mut().find(|listing| listing.name == source.name)
            else {
                continue;
            };
            listing.path = PathBuf::from(source.bucket.url().to_string());
            if let Some(failure) = failed.of(&source.name) {
                let (message, help) = (failure.message.clone(), Some(failure.help.clone()));
                listing.refused = Some(Refused { message, help });
                listing.tables.clear();
                listing.passed_over.clear();
                (listing.passed_over_count, listing.warnings) = (0, Vec::new());
                continue;
            }
            self.show(listing);
        }
        listed
    }

    fn show(&self, listing: &mut SourceListing) {
        let refused = |refused: &mut Option<Refused>| {
            if let Some(refused) = refused {
                self.show_in(std::slice::from_mut(&mut refused.message));
            }
        };
        refused(&mut listing.refused);
        self.show_in(&mut listing.warnings);
        for table in &mut listing.tables {
            refused(&mut table.refused);
            self.show_in(&mut table.warnings);
            let passed_over = table.passed_over.iter_mut().map(|file| &mut file.path);
            let files = table.files.iter_mut().map(|file| &mut file.path);
            passed_over.chain(files).for_each(|path| *path = self.shown_path(path));
        }
        for file in &mut listing.passed_over {
            file.path = self.shown_path(&file.path);
        }
    }

    /// Replaces folders of copies in texts that are shown.
    pub fn show_in(&self, texts: &mut [String]) {
        texts.iter_mut().for_each(|text| *text = self.shown_text(std::mem::take(text)));
    }

    /// An error of files as it is shown.
    #[must_use]
    pub fn shown_error(&self, error: FileError) -> FileError {
        match error {
            FileError::Source { path, source } => {
                FileError::Source { path: self.shown_path(&path), source }
            }
            FileError::Table { message, help } => {
                FileError::Table { message: self.shown_text(message), help }
            }
            FileError::Changed { path } => FileError::Changed { path: self.shown_path(&path) },
            error @ FileError::LeadsOut { .. } => error,
        }
    }

    fn shown_path(&self, path: &Path) -> PathBuf {
        let within = |source: &CopiedSource| {
            let rest = path.strip_prefix(&source.folder).ok()?;
            // Not joined: that would remove the `//`.
            let url = source.bucket.url();
            let is_folder = rest.as_os_str().is_empty();
            Some(if is_folder { url.to_string() } else { format!("{url}/{}", rest.display()) })
        };
        let shown = self.sources.iter().find_map(within);
        shown.map_or_else(|| path.to_owned(), PathBuf::from)
    }

    fn shown_text(&self, text: String) -> String {
        self.sources.iter().fold(text, |text, source| {
            text.replace(&*source.folder.to_string_lossy(), &source.bucket.url().to_string())
        })
    }
}

impl FailedCopies {
    fn of(&self, name: &str) -> Option<&CopyFailure> {
        self.0.iter().find(|(failed, _)| failed == name).map(|(_, failure)| failure)
    }
}

#[cfg(test)]
mod tests {
    use throng_spec::ServiceSettings;

    use super::*;

    /// Copies below `/copies`; that of the bucket `gone` fails.
    #[derive(Debug)]
    struct TestCopies;

    #[async_trait]
    impl Copies for TestCopies {
        fn folder(&self, bucket: &SourceBucket) -> PathBuf {
            Path::new("/copies").join(&bucket.name)
        }

        async fn update(&self, bucket: &SourceBucket, wait: Wait) -> Result<(), CopyFailure> {
            match bucket.name.as_str() {
                "gone" => Err(CopyFailure {
                    message: "cannot copy".to_owned(),
                    help: "create it".to_owned(),
                    fault: Fault::User,
                    retry: Retry::Backoff,
                    is_running: wait == Wait::Short,
                }),
                _ => Ok(()),
            }
        }

        async fn objects(&self, _: &SourceBucket) -> Result<Vec<CopiedObject>, CopyFailure> {
            Ok(vec![object()])
        }

        fn retain(&self, _: &[&SourceBucket]) {}
    }

    fn object() -> CopiedObject {
        CopiedObject { path: "t/1.csv".to_owned(), etag: None, bytes: 5, modified: 7 }
    }

    fn source(name: &str, bucket: Option<&str>) -> Source {
        Source {
            name: name.parse().unwrap(),
            path: "/data".into(),
            root: None,
            description: None,
            columns: Vec::new(),
            trim: false,
            header: None,
            bucket: bucket.map(|bucket| SourceBucket {
                name: bucket.to_owned(),
                prefix: "a/b".to_owned(),
                max_bytes: 1,
                service: ServiceSettings::of_machine(false),
            }),
        }
    }

    fn opened() -> (Vec<Source>, CopiedSources) {
        let mut sources =
            vec![source("shop", None), source("web-log", Some("web")), source("old", Some("gone"))];
        let copies: Arc<dyn Copies> = Arc::new(TestCopies);
        let copied = CopiedSources::of(&mut sources, Some(&copies));
        (sources, copied)
    }

    fn query(sql: &str) -> InputQuery {
        InputQuery { sql: sql.to_owned(), refuses_time: false, success_file: None }
    }

    /// The result of a future that never waits.
    fn ready<T>(future: impl Future<Output = T>) -> T {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            std::task::Poll::Ready(value) => value,
            std::task::Poll::Pending => panic!("the future waits"),
        }
    }

    #[test]
    fn the_path_of_a_source_in_a_bucket_becomes_the_folder_of_its_copy() {
        let (sources, _) = opened();
        let paths: Vec<&Path> = sources.iter().map(|source| source.path.as_path()).collect();
        assert_eq!(
            paths,
            [Path::new("/data"), Path::new("/copies/web"), Path::new("/copies/gone")]
        );
    }

    #[test]
    fn only_copies_that_a_query_names_are_updated() {
        let (_, copied) = opened();
        for sql in [
            "SELECT id FROM shop.older",
            "SELECT 'o-l-d' FROM web_log.t",
            "SELECT cold FROM shop.t",
        ] {
            assert_eq!(ready(copied.update(sql)), Ok(()), "{sql}");
        }
        for sql in ["SELECT id FROM old.t", "SELECT id FROM \"old\".t", "SELECT id FROM OLD . t"] {
            let failure = ready(copied.update(sql)).unwrap_err();
            assert_eq!((failure.message.as_str(), failure.is_running), ("cannot copy", false));
        }
        assert!(copied.are_named_by("SELECT 1 FROM Web_Log.t"));
        assert!(!copied.are_named_by("SELECT 1 FROM shop.t"));
    }

    #[test]
    fn a_query_has_the_objects_of_the_copies_that_it_names() {
        let (_, copied) = opened();
        assert_eq!(ready(copied.objects("SELECT 1 FROM shop.t")), Ok(Vec::new()));
        let web = CopiedFolder {
            folder: "/copies/web".into(),
            bucket: "s3://web".to_owned(),
            prefix: "a/b".to_owned(),
            objects: vec![object()],
        };
        assert_eq!(ready(copied.objects("SELECT 1 FROM web_log.t")), Ok(vec![web]));
    }

    #[test]
    fn a_failure_is_the_state_of_the_queries_that_read_the_copy() {
        let (_, copied) = opened();
        let queries =
            ["SELECT 1 FROM shop.t", "SELECT 1 FROM old.t", "SELECT 1 FROM web_log.t"].map(query);
        let found = vec![
            InputState::Ready("f".to_owned()),
            InputState::Ready("f".to_owned()),
            InputState::Incomplete("no _SUCCESS is newer than /copies/web/t/1.csv".to_owned()),
        ];
        let shown = |wait: Wait| {
            let failed = ready(copied.update_for(&queries, wait));
            copied.states(&queries, found.clone(), &failed)
        };
        let states = shown(Wait::ToTheEnd);
        assert_eq!(states[0], found[0]);
        assert_eq!(states[1], InputState::Refused("cannot copy".to_owned()));
        let why = "no _SUCCESS is newer than s3://web/a/b/t/1.csv";
        assert_eq!(states[2], InputState::Incomplete(why.to_owned()));
        assert_eq!(shown(Wait::Short)[1], InputState::Incomplete("cannot copy".to_owned()));
    }

    #[test]
    fn listings_and_errors_name_the_bucket() {
        let (sources, copied) = opened();
        let listing = |source: &Source| SourceListing {
            name: sql_name(source.name.local()),
            path: source.path.clone(),
            refused: None,
            tables: Vec::new(),
            passed_over: vec![throng_files::PassedOver {
                path: source.path.join("x.zip"),
                reason: "no table".to_owned(),
            }],
            passed_over_count: 1,
            warnings: vec![format!("{} is odd", source.path.join("t").display())],
        };
        let failed = ready(copied.update_all());
        let listed = copied.listed(sources.iter().map(listing).collect(), &failed);
        assert_eq!(listed[0], listing(&sources[0]));
        assert_eq!(listed[1].path, Path::new("s3://web/a/b"));
        assert_eq!(listed[1].passed_over[0].path, Path::new("s3://web/a/b/x.zip"));
        assert_eq!(listed[1].warnings, ["s3://web/a/b/t is odd"]);
        assert_eq!(listed[2].refused.as_ref().unwrap().message, "cannot copy");
        assert_eq!((listed[2].passed_over.len(), listed[2].passed_over_count), (0, 0));
        let error = FileError::Changed { path: "/copies/web/t/1.csv".into() };
        let shown = copied.shown_error(error).to_string();
        assert_eq!(shown, "s3://web/a/b/t/1.csv has changed while it was scanned");
    }

    #[test]
    fn without_copies_a_bucket_cannot_be_read() {
        let mut sources = vec![source("old", Some("web"))];
        let copied = CopiedSources::of(&mut sources, None);
        assert_eq!(ready(copied.update("SELECT 1 FROM old.t")).unwrap_err().retry, Retry::Never);
    }
}
