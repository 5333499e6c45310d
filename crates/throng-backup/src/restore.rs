//! Restores a backup to a data directory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use throng_model::to_hex;

use crate::archive::{
    ArchiveFormat, HashingReader, create_file, create_folder, sync_folder, sync_folders,
};
use crate::error::BackupError;
use crate::files::{LEDGER, LOG, OBJECTS, Progress, blocking, failed};
use crate::manifest::{FORMAT, MANIFEST, MANIFEST_SUM, Manifest};
use crate::stores::Stores;
use crate::target::check_restore;

/// The largest manifest: one of ten million files is smaller.
const MAX_MANIFEST_BYTES: u64 = 2 << 30;

/// Restores a backup to a new or empty directory, after the checksum of every file was verified.
/// The directory gets its name when it is complete and synced to the disk. Returns the manifest.
///
/// # Errors
/// [`BackupError`]; the directory is unchanged then.
pub async fn restore(
    stores: Arc<dyn Stores>,
    from: &Path,
    dir: &Path,
    progress: Progress,
) -> Result<Manifest, BackupError> {
    let (from, dir) = (from.to_owned(), dir.to_owned());
    blocking(move || {
        match fs::read_dir(&dir) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(BackupError::NotEmpty { dir });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("list", &dir)(error)),
        }
        check_restore(&from, &dir)?;
        let temporary = dir.with_added_extension("restoring");
        if fs::symlink_metadata(&temporary).is_ok() {
            return Err(BackupError::Exists { path: temporary });
        }
        let restored = restore_to(&*stores, &from, &temporary, &dir, &progress);
        if restored.is_err()
            && let Err(error) = fs::remove_dir_all(&temporary)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %temporary.display(), "failed to remove incomplete restore");
        }
        restored
    })
    .await
}

fn restore_to(
    stores: &dyn Stores,
    from: &Path,
    temporary: &Path,
    dir: &Path,
    progress: &Progress,
) -> Result<Manifest, BackupError> {
    create_folder(temporary)?;
    let mut unpacked =
        Unpacked { from, temporary, files: BTreeMap::new(), done: 0, total: 0, progress };
    match ArchiveFormat::of(from) {
        ArchiveFormat::Folder if from.is_file() => {
            let why = "it is a file whose name does not end in .tar or .tar.zst: rename it";
            return Err(unpacked.not_a_backup(why));
        }
        ArchiveFormat::Folder => unpacked.folder(from, from)?,
        format => unpacked.archive(format)?,
    }
    let manifest = unpacked.verify()?;
    for name in [MANIFEST, MANIFEST_SUM] {
        let path = temporary.join(name);
        fs::remove_file(&path).map_err(failed("remove", &path))?;
    }
    // All stores are of one moment, so all get the ledger's stamp.
    if let Some(stamp) = &manifest.stamp {
        for folder in stores.stamped_folders(temporary) {
            stores.write_stamp(&folder, stamp).map_err(failed("stamp", &folder))?;
        }
    }
    sync_folders(temporary)?;
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("replace", dir)(error));
        }
        _ => {}
    }
    fs::rename(temporary, dir).map_err(failed("rename to", dir))?;
    sync_folder(dir.parent().unwrap_or(Path::new(".")))?;
    Ok(manifest)
}

/// Whether a backup can hold a file of this name. An archive may be crafted: a name must not lead
/// out of the directory, nor to a file that no backup has, such as the admin token.
fn is_allowed(name: &str) -> bool {
    let path = Path::new(name);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let known = [LEDGER, MANIFEST, MANIFEST_SUM].contains(&name)
        || name.starts_with(&format!("{OBJECTS}/"))
        || name.starts_with(&format!("{LOG}/"));
    plain && known && !name.contains("//") && !name.ends_with('/')
}

/// The files that were unpacked to the temporary directory.
struct Unpacked<'a> {
    from: &'a Path,
    temporary: &'a Path,
    /// By name: length and SHA-256.
    files: BTreeMap<String, (u64, String)>,
    done: u64,
    total: u64,
    progress: &'a Progress,
}

impl Unpacked<'_> {
    fn not_a_backup(&self, why: impl Into<String>) -> BackupError {
        BackupError::NotABackup { path: self.from.to_owned(), why: why.into() }
    }

    /// Writes a file to the temporary directory.
    fn unpack(&mut self, name: &str, reader: impl Read, bytes: u64) -> Result<(), BackupError> {
        if !is_allowed(name) {
            return Err(self.not_a_backup("it contains a file that no backup has"));
        }
        if self.files.contains_key(name) {
            return Err(self.not_a_backup(format!("it contains {name} twice")));
        }
        let path = self.temporary.join(name);
        let mut file = create_file(&path)?;
        let (progress, total, mut done) = (self.progress, self.total, self.done);
        let mut on_read = |read: u64| {
            done += read;
            progress(done, total.max(done));
        };
        let mut reader = HashingReader::new(reader, bytes, &mut on_read);
        let copied = io::copy(&mut reader, &mut file).and_then(|_| file.sync_all());
        copied.map_err(|error| match error.raw_os_error() {
            Some(_) => failed("write", &path)(error),
            // Of the archive: its compressed content ends early, or is damaged.
            None => self.not_a_backup(format!("it cannot be unpacked: {error}")),
        })?;
        let (missing, sum) = reader.finish();
        self.done = done;
        if missing > 0 {
            return Err(BackupError::Damaged { file: name.to_owned(), why: "it is truncated" });
        }
        self.files.insert(name.to_owned(), (bytes, sum));
        Ok(())
    }

    fn folder(&mut self, top: &Path, folder: &Path) -> Result<(), BackupError> {
        if folder == top {
            let manifest = top.join(MANIFEST);
            let text = match fs::read(&manifest) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let why = if top.exists() { "it has no manifest" } else { "it does not exist" };
                    return Err(self.not_a_backup(why));
                }
                Err(error) => return Err(failed("read", &manifest)(error)),
            };
            // Only for the progress; the manifest is verified at the end.
            self.total = serde_json::from_slice::<Manifest>(&text).map_or(0, |m| m.bytes());
        }
        for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
            let path = entry.map_err(failed("list", folder))?.path();
            let facts = fs::symlink_metadata(&path).map_err(failed("read", &path))?;
            if facts.is_dir() {
                self.folder(top, &path)?;
                continue;
            }
            let name = path.strip_prefix(top).ok().and_then(Path::to_str).map(str::to_owned);
            let Some(name) = name.filter(|_| facts.is_file()) else {
                return Err(self.not_a_backup("it contains something that is not a file"));
            };
            let file = File::open(&path).map_err(failed("open", &path))?;
            self.unpack(&name, file, facts.len())?;
        }
        Ok(())
    }

    fn archive(&mut self, format: ArchiveFormat) -> Result<(), BackupError> {
        let file = File::open(self.from).map_err(failed("open", self.from))?;
        self.total = file.metadata().map_or(0, |facts| facts.len());
        let reader: Box<dyn Read> = match format {
            ArchiveFormat::TarZstd => {
                Box::new(zstd::Decoder::new(file).map_err(failed("read", self.from))?)
            }
            _ => Box::new(BufReader::new(file)),
        };
        let mut archive = tar::Archive::new(reader);
        let unreadable = |error: io::Error| BackupError::NotABackup {
            path: self.from.to_owned(),
            why: format!("it cannot be unpacked: {error}"),
        };
        let from = self.from;
        let entries = archive.entries().map_err(unreadable)?;
        for entry in entries {
            let unreadable = |error: io::Error| BackupError::NotABackup {
                path: from.to_owned(),
                why: format!("it cannot be unpacked: {error}"),
            };
            let entry = entry.map_err(unreadable)?;
            let name = entry.path().map_err(unreadable)?.to_str().map(str::to_owned);
            let (kind, bytes) = (entry.header().entry_type(), entry.size());
            let Some(name) = name.filter(|_| kind.is_file()) else {
                return Err(self.not_a_backup("it contains something that is not a file"));
            };
            self.unpack(&name, entry, bytes)?;
        }
        Ok(())
    }

    /// Verifies every file against the manifest, and the manifest against its checksum.
    fn verify(&mut self) -> Result<Manifest, BackupError> {
        let (Some((bytes, sum)), Some(_)) =
            (self.files.remove(MANIFEST), self.files.remove(MANIFEST_SUM))
        else {
            return Err(
                self.not_a_backup("its manifest, or the checksum of the manifest, is missing")
            );
        };
        let damaged = |file: &str, why| BackupError::Damaged { file: file.to_owned(), why };
        if bytes > MAX_MANIFEST_BYTES {
            return Err(damaged(MANIFEST, "it is too large"));
        }
        let (text, expected) = (self.read(MANIFEST)?, self.read(MANIFEST_SUM)?);
        debug_assert_eq!(sum, to_hex(&Sha256::digest(&text)));
        if expected != format!("{sum}  {MANIFEST}\n").into_bytes() {
            return Err(damaged(MANIFEST, "its checksum does not match"));
        }
        let json = serde_json::from_slice::<serde_json::Value>(&text)
            .map_err(|_| damaged(MANIFEST, "it is not JSON"))?;
        // The version first: a newer manifest may have other fields.
        if json["format"].as_u64().is_none_or(|format| format > u64::from(FORMAT)) {
            let version = json["version"].as_str().unwrap_or("unknown").to_owned();
            return Err(BackupError::Newer { version });
        }
        let manifest: Manifest = serde_json::from_value(json)
            .map_err(|_| damaged(MANIFEST, "a field is missing or invalid"))?;
        for entry in &manifest.files {
            match self.files.remove(&entry.path) {
                None => return Err(damaged(&entry.path, "it is missing")),
                Some((bytes, sum)) if bytes != entry.bytes || sum != entry.sha256 => {
                    return Err(damaged(&entry.path, "its checksum does not match"));
                }
                Some(_) => {}
            }
        }
        match self.files.first_key_value() {
            Some((name, _)) => Err(damaged(name, "the manifest does not name it")),
            None => Ok(manifest),
        }
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, BackupError> {
        let path: PathBuf = self.temporary.join(name);
        fs::read(&path).map_err(failed("read", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_a_manifest_and_a_missing_one_are_different_errors() {
        let progress: Progress = Arc::new(|_, _| {});
        let reason = |from: &Path| {
            let (files, progress) = (BTreeMap::new(), &progress);
            let mut unpacked =
                Unpacked { from, temporary: from, files, done: 0, total: 0, progress };
            unpacked.folder(from, from).unwrap_err().to_string()
        };
        let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(reason(sources).ends_with("it has no manifest"), "{}", reason(sources));
        let missing = sources.join("none");
        assert!(reason(&missing).ends_with("it does not exist"), "{}", reason(&missing));
    }

    #[test]
    fn only_names_of_a_backup_are_allowed() {
        for name in ["ledger.db", "manifest.json", "objects/snapshots/a/1.throng", "log/0/1.log"] {
            assert!(is_allowed(name), "{name}");
        }
        for name in [
            "",
            "/etc/passwd",
            "../x",
            "objects/../../x",
            "admin.token",
            "log",
            "log/",
            "objects//x",
        ] {
            assert!(!is_allowed(name), "{name}");
        }
    }
}
