//! The lake over small folders of every format.

#![expect(clippy::unwrap_used, reason = "tests: a panic is how a case fails")]

mod copies;
mod errors;
mod files;
mod folders;
mod headers;
mod inputs;
mod integers;
mod key_texts;
mod keys;
mod kinds;
mod limits;
mod scans;
mod shared;
mod spellings;
mod tables;
mod templates;
mod worker;
mod workspaces;

use std::collections::BTreeSet;
use std::time::Duration;

use datafusion::prelude::SessionContext;
use throng_lake::{Lake, LakeError, LakeLimits, Model, ScanPart, ScanStats, WorkerCommand};
use throng_model::{HashSeed, UserHash, UserKey};
use throng_spec::{ColumnType, Source};

pub(crate) const SEED: HashSeed = HashSeed(7);

/// A source folder `shop` and a place to spill.
pub(crate) struct Shop {
    dir: tempfile::TempDir,
    /// Declared columns, and whether text is trimmed.
    options: (Vec<(String, ColumnType)>, bool),
    /// Whether the source declares that CSV files have a header, or none.
    header: Option<bool>,
}

impl Shop {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("shop")).unwrap();
        std::fs::create_dir(dir.path().join("spill")).unwrap();
        Self { dir, options: (Vec::new(), false), header: None }
    }

    pub(crate) fn folder(&self) -> std::path::PathBuf {
        self.dir.path().join("shop")
    }

    pub(crate) fn spill(&self) -> std::path::PathBuf {
        self.dir.path().join("spill")
    }

    /// Writes a file below the folder.
    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        let path = self.folder().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    /// Declares the type of a column of all tables.
    pub(crate) fn declare(mut self, column: &str, of: &str) -> Self {
        self.options.0.push((column.to_owned(), of.parse().unwrap()));
        self
    }

    /// Declares that CSV files have a header, or none.
    pub(crate) fn header(mut self, header: bool) -> Self {
        self.header = Some(header);
        self
    }

    /// Text is read without the white space around it.
    pub(crate) fn trim(mut self) -> Self {
        self.options.1 = true;
        self
    }

    /// Writes a gzip file below the folder; several texts are several members.
    pub(crate) fn packed(self, name: &str, members: &[&str]) -> Self {
        use std::io::Write;
        let mut bytes = Vec::new();
        for member in members {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(member.as_bytes()).unwrap();
            bytes.extend(packer.finish().unwrap());
        }
        let path = self.folder().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        self
    }

    /// Writes the result of a query as Parquet under a name that the engine may not be able to
    /// write.
    pub(crate) async fn parquet(self, name: &str, sql: &str) -> Self {
        let shop = self.query("written.parquet", "PARQUET", sql).await;
        let path = shop.folder().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::rename(shop.folder().join("written.parquet"), path).unwrap();
        shop
    }

    /// Writes the result of a query; `format` is what follows STORED AS.
    pub(crate) async fn query(self, name: &str, format: &str, sql: &str) -> Self {
        let path = self.folder().join(name);
        let copy = format!("COPY ({sql}) TO '{}' STORED AS {format}", path.display());
        let context = SessionContext::new();
        context.sql(&copy).await.unwrap().collect().await.unwrap();
        self
    }

    pub(crate) fn lake(&self) -> Lake {
        self.lake_with(256 << 20)
    }

    pub(crate) fn lake_with(&self, memory_bytes: u64) -> Lake {
        let name = "shop".parse().unwrap();
        let (columns, trim) = self.options.clone();
        let path = self.folder();
        let header = self.header;
        let (root, description, bucket) = Default::default();
        let sources = [Source { name, path, root, description, columns, trim, header, bucket }];
        let limits = LakeLimits {
            memory_bytes,
            spill_dir: self.spill(),
            threads: 2,
            queries: 1,
            timeout: Duration::from_secs(600),
            worker: WorkerCommand::of(env!("CARGO_BIN_EXE_lake-query-worker")),
        };
        Lake::new(&sources, limits, None).unwrap()
    }
}

pub(crate) fn model(sql: &str) -> Model {
    Model { sql: sql.to_owned(), key: None, source: None, parameters: Vec::new() }
}

/// Runs one part.
pub(crate) async fn scan(
    lake: &Lake,
    model: &Model,
    part: &ScanPart,
) -> Result<(Vec<UserHash>, ScanStats), LakeError> {
    let mut hashes = Vec::new();
    let mut sink = |batch: throng_lake::KeyBatch| {
        hashes.extend(batch.hashes);
        Ok(())
    };
    let stats = lake.scan(model, part, SEED, &mut sink).await?;
    Ok((hashes, stats))
}

/// Runs all parts of a model: the set of users, rows, NULL keys.
pub(crate) async fn users(lake: &Lake, sql: &str) -> (BTreeSet<UserHash>, u64, u64) {
    let model = model(sql);
    let (mut users, mut rows, mut null_keys) = (BTreeSet::new(), 0, 0);
    for part in lake.plan_scan(&model, &[]).await.unwrap().1 {
        let (hashes, stats) = scan(lake, &model, &part).await.unwrap();
        assert_eq!(hashes.len() as u64, stats.rows_read - stats.null_keys);
        users.extend(hashes);
        rows += stats.rows_read;
        null_keys += stats.null_keys;
    }
    (users, rows, null_keys)
}

/// The hashes of keys.
pub(crate) fn hashes<'a>(keys: impl IntoIterator<Item = &'a str>) -> BTreeSet<UserHash> {
    keys.into_iter().map(|key| UserKey::text(key).hash(SEED)).collect()
}
