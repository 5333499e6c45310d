//! Encrypted files of identifier rows. Rows that were sent to a platform are personal data, also when they
//! are hashed.
//!
//! ```text
//! "THRGSEAL", format u8 = 1, key id (8 bytes), salt (32 bytes)
//! section … : ciphertext and tag
//! index: ciphertext and tag of: meta length u32, meta JSON, then for each section
//!        kind u8, shard u8, rows u64, offset u64, length u64
//! index length u32, "THRGSEAL"
//! ```
//!
//! All numbers are little-endian. The key of a file is HMAC-SHA256 of the salt under the key that the
//! key id names; sections and index are AES-256-GCM under it with the section's number as nonce (the
//! index: 2^32 - 1). Associated data are the [`Binding`], kind, shard and number, so that no file and no
//! section can be used in place of another.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::{digest, hmac};
use throng_model::{from_hex, to_hex};

const MAGIC: &[u8; 8] = b"THRGSEAL";
const FORMAT: u8 = 1;
const SALT: usize = 32;
const HEADER: usize = 8 + 1 + 8 + SALT;
const TAG: usize = 16;
const FOOTER: usize = 4 + 8;
const INDEX: u32 = u32::MAX;

/// An error of writing or reading a sealed file. Holds no value of a row.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// The file was written with a key that is not among the keys of this node.
    #[error(
        "the file was encrypted with the key {id}, which is not among the keys of this node; restore that \
         key (identifiers.key of the data directory, or what node.identifiers_key names), or discard the \
         delivered state with `throng sync run NAME --forget-delivered`, which replaces the platform's list"
    )]
    UnknownKey {
        /// The first digits of the SHA-256 of the key.
        id: String,
    },
    /// Another version wrote the file. The file is not damaged.
    #[error(
        "{path} has the format {found}, and this version reads {FORMAT}: another version of throng wrote it; \
         upgrade the nodes with the roles schedule and activate together"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u8,
    },
    /// The file is damaged, truncated, or not the expected one.
    #[error("{path} is damaged, or is not the file that the ledger names: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damage.
        why: &'static str,
    },
    /// The file system failed.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        #[source]
        source: io::Error,
    },
    /// The text is not a list of keys.
    #[error(
        "line {line} is not a key of identifiers: a key is 64 hexadecimal digits, one per line, newest first"
    )]
    Key {
        /// The line, from 1.
        line: usize,
    },
    /// The cryptography failed.
    #[error("a section cannot be encrypted")]
    Crypto,
}

/// The encryption keys: the first for new files, the others for files that were written before the key was
/// changed.
#[derive(Clone)]
pub struct IdentifierKeys(Vec<[u8; 32]>);

impl std::fmt::Debug for IdentifierKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IdentifierKeys({})", self.0.len())
    }
}

fn id_of(key: &[u8; 32]) -> [u8; 8] {
    let mut text = b"throng identifiers key id".to_vec();
    text.extend_from_slice(key);
    let mut id = [0; 8];
    id.copy_from_slice(&digest::digest(&digest::SHA256, &text).as_ref()[..8]);
    id
}

impl IdentifierKeys {
    /// Reads keys: 64 hexadecimal digits on each non-empty line, newest first.
    ///
    /// # Errors
    /// [`SealedError::Key`] with the invalid line; line 1 if the text has no key.
    pub fn parse(text: &str) -> Result<Self, SealedError> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() {
                keys.push(from_hex(line).ok_or(SealedError::Key { line: number + 1 })?);
            }
        }
        if keys.is_empty() {
            return Err(SealedError::Key { line: 1 });
        }
        Ok(Self(keys))
    }

    fn file_key(key: &[u8; 32], salt: &[u8; SALT]) -> Option<LessSafeKey> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let mut text = b"throng identifiers 1".to_vec();
        text.extend_from_slice(salt);
        let derived = hmac::sign(&key, &text);
        UnboundKey::new(&AES_256_GCM, derived.as_ref()).ok().map(LessSafeKey::new)
    }
}

/// The owner of a file. A file that is opened with another binding is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// `delivered` or `plan`.
    pub purpose: &'static str,
    /// The account on the platform.
    pub account: String,
    /// The sync.
    pub sync: String,
    /// The name of the object, which is unique and so identifies the version.
    pub version: String,
}

impl Binding {
    fn aad(&self, kind: u8, shard: u8, number: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in [self.purpose, &self.account, &self.sync, &self.version] {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes.extend_from_slice(&[kind, shard]);
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes
    }
}

fn nonce(number: u32) -> Nonce {
    let mut bytes = [0u8; 12];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// A section of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) kind: u8,
    pub(crate) shard: u8,
    pub(crate) rows: u64,
    offset: u64,
    length: u64,
}

/// Writes a sealed file section by section to a temporary file, which is renamed when it is finished.
pub(crate) struct SealedWriter {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    key: LessSafeKey,
    binding: Binding,
    sections: Vec<Section>,
    at: u64,
    finished: bool,
}

impl SealedWriter {
    pub(crate) fn create(
        path: &Path,
        keys: &IdentifierKeys,
        binding: Binding,
        salt: [u8; SALT],
    ) -> Result<Self, SealedError> {
        let current = keys.0.first().ok_or(SealedError::Key { line: 1 })?;
        let key = IdentifierKeys::file_key(current, &salt).ok_or(SealedError::Crypto)?;
        let temporary = path.with_added_extension("tmp");
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| SealedError::Io { doing, path, source }
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed("create the folder", folder))?;
        }
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(failed("create", &temporary))?;
        let mut header = MAGIC.to_vec();
        header.push(FORMAT);
        header.extend_from_slice(&id_of(current));
        header.extend_from_slice(&salt);
        file.write_all(&header).map_err(failed("write", &temporary))?;
        let at = header.len() as u64;
        let sections = Vec::new();
        Ok(Self {
            path: path.to_owned(),
            temporary,
            file,
            key,
            binding,
            sections,
            at,
            finished: false,
        })
    }

    /// Locks the file; it stays locked as long as the result is kept, also when it has its name. `None` if another
    /// process has found it unlocked meanwhile, and removes it.
    pub(crate) fn lock(&self) -> Result<Option<File>, SealedError> {
        let file = self.file.try_clone().map_err(self.io("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(self.temporary.exists().then_some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            // A file system without locks: nobody else can lock it either, and then it is not removed.
            Err(TryLockError::Error(_)) => Ok(Some(file)),
        }
    }

    fn io(&self, doing: &'static str) -> impl FnOnce(io::Error) -> SealedError {
        let path = self.path.clone();
        move |source| SealedError::Io { doing, path, source }
    }

    fn seal(
        &mut self,
        kind: u8,
        shard: u8,
        number: u32,
        mut bytes: Vec<u8>,
    ) -> Result<u64, SealedError> {
        let aad = Aad::from(self.binding.aad(kind, shard, number));
        let sealed = self.key.seal_in_place_append_tag(nonce(number), aad, &mut bytes);
        sealed.map_err(|_| SealedError::Crypto)?;
        self.file.write_all(&bytes).map_err(self.io("write"))?;
        self.at += bytes.len() as u64;
        Ok(bytes.len() as u64)
    }

    pub(crate) fn section(
        &mut self,
        kind: u8,
        shard: u8,
        rows: u64,
        bytes: Vec<u8>,
    ) -> Result<(), SealedError> {
        let (number, offset) = (self.sections.len() as u32, self.at);
        let length = self.seal(kind, shard, number, bytes)?;
        self.sections.push(Section { kind, shard, rows, offset, length });
        Ok(())
    }

    /// Writes the index, syncs the file and renames it.
    pub(crate) fn finish(mut self, meta: &[u8]) -> Result<(), SealedError> {
        let mut index = (meta.len() as u32).to_le_bytes().to_vec();
        index.extend_from_slice(meta);
        for section in &self.sections {
            index.extend_from_slice(&[section.kind, section.shard]);
            for number in [section.rows, section.offset, section.length] {
                index.extend_from_slice(&number.to_le_bytes());
            }
        }
        let length = self.seal(0, 0, INDEX, index)?;
        let mut footer = (length as u32).to_le_bytes().to_vec();
        footer.extend_from_slice(MAGIC);
        self.file.write_all(&footer).map_err(self.io("write"))?;
        self.file.sync_all().map_err(self.io("sync"))?;
        fs::rename(&self.temporary, &self.path).map_err(self.io("rename"))?;
        self.finished = true;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        File::open(folder).and_then(|f| f.sync_all()).map_err(self.io("sync the folder of"))
    }
}

impl Drop for SealedWriter {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// An open sealed file with an authentic index.
pub(crate) struct SealedFile {
    path: PathBuf,
    file: File,
    key: LessSafeKey,
    binding: Binding,
    pub(crate) meta: Vec<u8>,
    pub(crate) sections: Vec<Section>,
}

impl SealedFile {
    pub(crate) fn open(
        path: &Path,
        keys: &IdentifierKeys,
        binding: Binding,
    ) -> Result<Self, SealedError> {
        let failed = |source| SealedError::Io { doing: "read", path: path.to_owned(), source };
        let damaged = |why| SealedError::Damaged { path: path.to_owned(), why };
        let file = throng_fs::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if length < (HEADER + FOOTER + TAG) as u64 {
            return Err(damaged("it is too short"));
        }
        let mut header = [0u8; HEADER];
        file.read_exact_at(&mut header, 0).map_err(failed)?;
        let mut footer = [0u8; FOOTER];
        file.read_exact_at(&mut footer, length - FOOTER as u64).map_err(failed)?;
        if &header[..8] != MAGIC || &footer[4..] != MAGIC {
            return Err(damaged("it does not begin or end like a sealed file"));
        }
        if header[8] != FORMAT {
            return Err(SealedError::Format { path: path.to_owned(), found: header[8] });
        }
        let known = keys.0.iter().find(|key| id_of(key) == header[9..17]);
        let key = known.ok_or_else(|| SealedError::UnknownKey { id: to_hex(&header[9..17]) })?;
        let mut salt = [0u8; SALT];
        salt.copy_from_slice(&header[17..]);
        let key = IdentifierKeys::file_key(key, &salt).ok_or(SealedError::Crypto)?;
        let index_length =
            u64::from(u32::from_le_bytes([footer[0], footer[1], footer[2], footer[3]]));
        let end = length - FOOTER as u64;
        let start = end.checked_sub(index_length).filter(|start| *start >= HEADER as u64);
        let start = start.ok_or_else(|| damaged("its index is longer than the file"))?;
        let mut this = Self {
            path: path.to_owned(),
            file,
            key,
            binding,
            meta: Vec::new(),
            sections: Vec::new(),
        };
        let index = this.unseal(0, 0, INDEX, start, index_length)?;
        let invalid_index =
            || SealedError::Damaged { path: path.to_owned(), why: "its index cannot be read" };
        let (meta_length, rest) = index.split_first_chunk::<4>().ok_or_else(invalid_index)?;
        let meta_length = u32::from_le_bytes(*meta_length) as usize;
        let (meta, entries) = rest.split_at_checked(meta_length).ok_or_else(invalid_index)?;
        this.meta = meta.to_vec();
        for entry in entries.chunks(26) {
            let number = |at: usize| -> Option<u64> {
                Some(u64::from_le_bytes(entry.get(at..at + 8)?.try_into().ok()?))
            };
            let fields =
                (entry.first().copied(), entry.get(1).copied(), number(2), number(10), number(18));
            let (Some(kind), Some(shard), Some(rows), Some(offset), Some(length)) = fields else {
                return Err(invalid_index());
            };
            this.sections.push(Section { kind, shard, rows, offset, length });
        }
        Ok(this)
    }

    fn unseal(
        &self,
        kind: u8,
        shard: u8,
        number: u32,
        offset: u64,
        length: u64,
    ) -> Result<Vec<u8>, SealedError> {
        let damaged = |why| SealedError::Damaged { path: self.path.clone(), why };
        let file_length = self.file.metadata().map(|m| m.len()).unwrap_or_default();
        if length > file_length {
            return Err(damaged("a section is longer than the file"));
        }
        let mut bytes = vec![0u8; length as usize];
        self.file.read_exact_at(&mut bytes, offset).map_err(|source| SealedError::Io {
            doing: "read",
            path: self.path.clone(),
            source,
        })?;
        let aad = Aad::from(self.binding.aad(kind, shard, number));
        let plain = self.key.open_in_place(nonce(number), aad, &mut bytes);
        let plain = plain.map_err(|_| damaged("its content is not authentic"))?.len();
        bytes.truncate(plain);
        Ok(bytes)
    }

    /// The content of a section.
    pub(crate) fn read(&self, number: usize) -> Result<Vec<u8>, SealedError> {
        let section =
            self.sections.get(number).ok_or_else(|| self.damaged("a section is missing"))?;
        self.unseal(section.kind, section.shard, number as u32, section.offset, section.length)
    }

    pub(crate) fn damaged(&self, why: &'static str) -> SealedError {
        SealedError::Damaged { path: self.path.clone(), why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> IdentifierKeys {
        IdentifierKeys::parse(text).unwrap()
    }

    fn binding(sync: &str) -> Binding {
        let text = |t: &str| t.to_owned();
        Binding { purpose: "plan", account: text("meta 1"), sync: text(sync), version: text("v") }
    }

    #[test]
    fn a_file_opens_only_with_its_key_and_binding_and_undamaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let (old, new) = ("ab".repeat(32), "cd".repeat(32));
        let mut writer = SealedWriter::create(&path, &keys(&old), binding("s"), [7; 32]).unwrap();
        writer.section(1, 7, 3, b"marked value".to_vec()).unwrap();
        writer.section(1, 8, 1, b"two".to_vec()).unwrap();
        writer.finish(b"meta").unwrap();
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(12).any(|w| w == b"marked value"));
        // The key was changed after the file was written.
        let open = |text: &str, sync: &str| SealedFile::open(&path, &keys(text), binding(sync));
        let file = open(&format!("{new}\n{old}\n"), "s").unwrap();
        assert_eq!(
            (file.meta.as_slice(), file.read(0).unwrap()),
            (&b"meta"[..], b"marked value".to_vec())
        );
        assert!(matches!(open(&new, "s"), Err(SealedError::UnknownKey { .. })));
        assert!(matches!(open(&old, "t"), Err(SealedError::Damaged { .. })));
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            fs::write(&path, &other).unwrap();
            let read = open(&old, "s").and_then(|f| Ok((f.read(0)?, f.read(1)?)));
            assert!(read.is_err(), "byte {at}");
        }
        let mut newer = bytes.clone();
        newer[8] = FORMAT + 1;
        fs::write(&path, &newer).unwrap();
        let refused = open(&old, "s").err().unwrap();
        assert!(matches!(refused, SealedError::Format { found: 2, .. }), "{refused}");
        for cut in 0..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert!(open(&old, "s").is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn an_invalid_key_is_reported_with_its_line() {
        for (text, bad) in [("", 1), ("\n\nab", 3), (&"zz".repeat(32), 1)] {
            assert!(
                matches!(IdentifierKeys::parse(text), Err(SealedError::Key { line }) if line == bad)
            );
        }
    }
}
