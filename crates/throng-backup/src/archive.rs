//! Writes a backup: to a folder, or to one tar file, compressed or not.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use throng_model::to_hex;

use crate::error::BackupError;
use crate::files::failed;
use crate::manifest::{FileEntry, MANIFEST, MANIFEST_SUM, Manifest};

/// Zstandard's default level.
const ZSTD_LEVEL: i32 = 3;
/// The most bytes of one read.
const CHUNK_BYTES: usize = 256 << 10;

/// The format of a backup, by the extension of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArchiveFormat {
    Folder,
    Tar,
    TarZstd,
}

impl ArchiveFormat {
    pub(crate) fn of(path: &Path) -> Self {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.ends_with(".tar.zst") {
            Self::TarZstd
        } else if name.ends_with(".tar") {
            Self::Tar
        } else {
            Self::Folder
        }
    }
}

/// The path of an incomplete backup, beside the target, which is renamed when it is complete.
fn partial_path(to: &Path) -> PathBuf {
    to.with_added_extension("partial")
}

/// The path of the folder for the copy of the ledger, beside the target.
pub(crate) fn staging_path(to: &Path) -> PathBuf {
    to.with_added_extension("staging")
}

/// Removes the temporary files beside the target.
pub(crate) fn remove_temporary_files(to: &Path) {
    for path in [partial_path(to), staging_path(to)] {
        let removed = match path.is_dir() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "failed to remove incomplete backup");
            }
            _ => {}
        }
    }
}

/// Creates a folder that only its owner can read.
pub(crate) fn create_folder(path: &Path) -> Result<(), BackupError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed("create the folder", path))
}

/// Creates a file that only its owner can read.
pub(crate) fn create_file(path: &Path) -> Result<File, BackupError> {
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(failed("create", path))
}

pub(crate) fn sync_folder(path: &Path) -> Result<(), BackupError> {
    let folder = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(folder).and_then(|file| file.sync_all()).map_err(failed("sync", folder))
}

/// Reads at most a number of bytes, hashes and counts them, and reports progress.
pub(crate) struct HashingReader<'a, R> {
    inner: R,
    remaining: u64,
    sum: Sha256,
    on_read: &'a mut dyn FnMut(u64),
}

impl<'a, R: Read> HashingReader<'a, R> {
    pub(crate) fn new(inner: R, bytes: u64, on_read: &'a mut dyn FnMut(u64)) -> Self {
        Self { inner, remaining: bytes, sum: Sha256::new(), on_read }
    }

    /// The number of missing bytes, and the SHA-256 of those that were read.
    pub(crate) fn finish(self) -> (u64, String) {
        (self.remaining, to_hex(&self.sum.finalize()))
    }
}

impl<R: Read> Read for HashingReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let limit = buffer
            .len()
            .min(usize::try_from(self.remaining).unwrap_or(usize::MAX))
            .min(CHUNK_BYTES);
        let read = self.inner.read(&mut buffer[..limit])?;
        self.sum.update(&buffer[..read]);
        self.remaining -= read as u64;
        (self.on_read)(read as u64);
        Ok(read)
    }
}

/// The target of a backup.
enum Inner {
    Folder,
    Tar(Box<tar::Builder<Output>>),
}

/// The file of an archive, compressed or not.
enum Output {
    Plain(BufWriter<File>),
    Zstd(zstd::Encoder<'static, BufWriter<File>>),
}

impl Output {
    fn finish(self) -> io::Result<()> {
        let buffered = match self {
            Self::Plain(file) => file,
            Self::Zstd(encoder) => encoder.finish()?,
        };
        buffered.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

/// Writes a backup. Nothing is at the target before [`BackupWriter::finish`].
pub(crate) struct BackupWriter {
    to: PathBuf,
    partial: PathBuf,
    inner: Inner,
}

impl BackupWriter {
    pub(crate) fn create(to: &Path) -> Result<Self, BackupError> {
        let partial = partial_path(to);
        for path in [to.to_owned(), partial.clone(), staging_path(to)] {
            if fs::symlink_metadata(&path).is_ok() {
                return Err(BackupError::Exists { path });
            }
        }
        create_folder(&staging_path(to))?;
        let inner = match ArchiveFormat::of(to) {
            ArchiveFormat::Folder => {
                create_folder(&partial)?;
                Inner::Folder
            }
            format => {
                let file = BufWriter::with_capacity(CHUNK_BYTES, create_file(&partial)?);
                let output = match format {
                    ArchiveFormat::TarZstd => Output::Zstd(
                        zstd::Encoder::new(file, ZSTD_LEVEL).map_err(failed("write", &partial))?,
                    ),
                    _ => Output::Plain(file),
                };
                Inner::Tar(Box::new(tar::Builder::new(output)))
            }
        };
        Ok(Self { to: to.to_owned(), partial, inner })
    }

    /// Adds the first `bytes` of a file under a name. A file that has fewer by now is an error.
    pub(crate) fn add(
        &mut self,
        name: &str,
        source: &Path,
        file: File,
        bytes: u64,
        on_read: &mut dyn FnMut(u64),
    ) -> Result<FileEntry, BackupError> {
        let mut reader = HashingReader::new(file, bytes, on_read);
        let written = match &mut self.inner {
            Inner::Folder => {
                let path = self.partial.join(name);
                let mut target = create_file(&path)?;
                io::copy(&mut reader, &mut target).and_then(|_| target.sync_all())
            }
            Inner::Tar(builder) => append(builder, name, bytes, &mut reader),
        };
        written.map_err(failed("write to the backup", source))?;
        let (missing, sha256) = reader.finish();
        if missing > 0 {
            return Err(BackupError::Truncated { path: source.to_owned() });
        }
        Ok(FileEntry { path: name.to_owned(), bytes, sha256 })
    }

    /// Adds the manifest, syncs everything to the disk, and only then renames it to the target: an
    /// incomplete backup must never have the name of a complete one.
    pub(crate) fn finish(
        mut self,
        mut manifest: Manifest,
        files: Vec<FileEntry>,
    ) -> Result<Manifest, BackupError> {
        manifest.files = files;
        let partial = self.partial.clone();
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| failed("write", &partial)(error.into()))?;
        let sum = format!("{}  {MANIFEST}\n", to_hex(&Sha256::digest(&text)));
        for (name, content) in [(MANIFEST, text.as_slice()), (MANIFEST_SUM, sum.as_bytes())] {
            let written = match &mut self.inner {
                Inner::Folder => {
                    let mut file = create_file(&partial.join(name))?;
                    file.write_all(content).and_then(|()| file.sync_all())
                }
                Inner::Tar(builder) => append(builder, name, content.len() as u64, content),
            };
            written.map_err(failed("write to", &partial))?;
        }
        match self.inner {
            Inner::Folder => sync_folders(&partial)?,
            Inner::Tar(builder) => {
                builder.into_inner().and_then(Output::finish).map_err(failed("write", &partial))?
            }
        }
        fs::rename(&partial, &self.to).map_err(failed("rename to", &self.to))?;
        sync_folder(self.to.parent().unwrap_or(Path::new(".")))?;
        Ok(manifest)
    }
}

fn append(
    builder: &mut tar::Builder<Output>,
    name: &str,
    bytes: u64,
    reader: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_cksum();
    builder.append_data(&mut header, name, reader)
}

/// Syncs a folder and the folders in it.
pub(crate) fn sync_folders(folder: &Path) -> Result<(), BackupError> {
    for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
        let path = entry.map_err(failed("list", folder))?.path();
        if path.is_dir() {
            sync_folders(&path)?;
        }
    }
    sync_folder(folder)
}
