//! Objects in a folder of the local disk, for one node: the local file is the object.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use throng_model::Timestamp;
use xxhash_rust::xxh3::xxh3_128;

use crate::name;
use crate::{ObjectMeta, Objects, ObjectsError, Result, VersionedObject, remove_local};

/// The lock file of compare-and-swap. Its name is not a valid name of an object.
const LOCK: &str = ".swap";

/// Objects in a folder.
#[derive(Debug, Clone)]
pub struct DirectoryObjects {
    root: PathBuf,
}

impl DirectoryObjects {
    /// Opens the folder; creates it if there is none.
    ///
    /// # Errors
    /// [`ObjectsError::Io`].
    pub fn open(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(&root).map_err(ObjectsError::io("create the folder", &root))?;
        Ok(Self { root })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let this = self.clone();
        let root = self.root.clone();
        tokio::task::spawn_blocking(move || work(&this)).await.map_err(|error| {
            ObjectsError::Io { doing: "work in", path: root, source: io::Error::other(error) }
        })?
    }
}

fn version(bytes: &[u8]) -> String {
    format!("{:032x}", xxh3_128(bytes))
}

/// Reads a small file; `None` if there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match throng_fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ObjectsError::io("read", path)(error)),
    }
}

/// Replaces a small file atomically and durably.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let temporary = path.with_added_extension("tmp");
    let write = || -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(ObjectsError::io("write", path))
}

fn list_files(root: &Path, folder: &Path, found: &mut Vec<ObjectMeta>) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ObjectsError::io("list", folder)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(ObjectsError::io("list", folder))?;
        let path = entry.path();
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            list_files(root, &path, found)?;
            continue;
        }
        let modified = metadata.modified().map_err(ObjectsError::io("inspect", &path))?;
        let age = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        if let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) {
            let modified = Timestamp(i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
            found.push(ObjectMeta { name: name.to_owned(), modified });
        }
    }
    Ok(())
}

#[async_trait]
impl Objects for DirectoryObjects {
    fn root(&self) -> &Path {
        &self.root
    }

    async fn upload(&self, name: &str) -> Result<()> {
        self.download(name).await.map(|_| ())
    }

    async fn download(&self, name: &str) -> Result<PathBuf> {
        let path = name::file(&self.root, name)?;
        match tokio::fs::try_exists(&path).await {
            Ok(true) => Ok(path),
            Ok(false) => Err(ObjectsError::Missing { name: name.to_owned() }),
            Err(error) => Err(ObjectsError::io("look for", &path)(error)),
        }
    }

    fn has_copies(&self) -> bool {
        false
    }

    async fn download_again(&self, name: &str) -> Result<PathBuf> {
        self.download(name).await
    }

    async fn remove(&self, name: &str) -> Result<()> {
        remove_local(&self.root, name).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        let folder = name::file(&self.root, prefix)?;
        self.blocking(move |this| {
            let mut found = Vec::new();
            list_files(&this.root, &folder, &mut found)?;
            found.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(found)
        })
        .await
    }

    async fn load(&self, name: &str) -> Result<Option<VersionedObject>> {
        let path = name::file(&self.root, name)?;
        self.blocking(move |_| {
            Ok(read(&path)?.map(|bytes| VersionedObject { version: version(&bytes), bytes }))
        })
        .await
    }

    async fn compare_and_swap(
        &self,
        name: &str,
        bytes: Vec<u8>,
        expected: Option<&str>,
    ) -> Result<Option<String>> {
        let path = name::file(&self.root, name)?;
        let expected = expected.map(str::to_owned);
        self.blocking(move |this| {
            let lock = this.root.join(LOCK);
            let file = throng_fs::open_lock(&lock);
            let file = file.map_err(ObjectsError::io("open", &lock))?;
            // Released when the file is closed.
            file.lock().map_err(ObjectsError::io("lock", &lock))?;
            let found = read(&path)?.map(|bytes| version(&bytes));
            if found != expected {
                return Ok(None);
            }
            replace(&path, &bytes)?;
            Ok(Some(version(&bytes)))
        })
        .await
    }

    async fn evict(&self, _needed: &HashSet<String>) -> Result<()> {
        Ok(())
    }
}
