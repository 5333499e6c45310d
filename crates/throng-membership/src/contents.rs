//! The bytes of files: small ones in memory, larger ones mapped. The only unsafe code of the crate.
//!
//! A mapped file that shrinks kills the process with SIGBUS when a page beyond its new end is read.
//! Nothing here shrinks a file: they are write-once, read-only by their mode, and replaced only by
//! rename. Checking the length before each read would not protect against another program that does
//! it, because the file may shrink between the check and the read. So files up to [`IN_MEMORY`] are
//! read into memory, where later changes of the file have no effect, as long as all of them
//! together stay below [`IN_MEMORY_TOTAL`].

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use memmap2::Mmap;

use crate::MembershipError;

/// Files up to this many bytes are read into memory.
const IN_MEMORY: u64 = 256 << 10;
/// The most bytes of files that this process keeps in memory.
const IN_MEMORY_TOTAL: u64 = 64 << 20;
/// The mode of files of this crate: read by their owner, written by nobody.
pub(crate) const MODE: u32 = 0o400;

static RESERVED: AtomicU64 = AtomicU64::new(0);

/// A reservation of bytes of [`IN_MEMORY_TOTAL`], released when dropped.
#[derive(Debug)]
struct MemoryReservation(u64);

impl MemoryReservation {
    /// `None` if the file is too large, or the total is used up.
    fn reserve(bytes: u64) -> Option<Self> {
        if bytes > IN_MEMORY {
            return None;
        }
        let add = |reserved: u64| {
            reserved.checked_add(bytes).filter(|reserved| *reserved <= IN_MEMORY_TOTAL)
        };
        RESERVED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(Self(bytes))
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        RESERVED.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// The contents of a file as they were when it was opened.
#[derive(Debug)]
pub(crate) struct Contents {
    bytes: Bytes,
    path: PathBuf,
    device: u64,
    inode: u64,
    // `None` for a mapped file.
    _reservation: Option<MemoryReservation>,
}

impl Contents {
    /// Reads or maps a file of this crate.
    pub(crate) fn open(path: &Path) -> Result<Self, MembershipError> {
        let io = |doing| move |source| MembershipError::Io { doing, path: path.to_owned(), source };
        let mut file = throng_fs::open(path).map_err(io("open"))?;
        let metadata = file.metadata().map_err(io("stat"))?;
        let reservation = MemoryReservation::reserve(metadata.len());
        let bytes = match &reservation {
            Some(_) => {
                // One byte more than the reservation: so the decoder, which knows the right length,
                // refuses a file that grows meanwhile.
                let mut bytes = Vec::with_capacity(metadata.len() as usize);
                let mut limited = (&mut file).take(metadata.len().saturating_add(1));
                limited.read_to_end(&mut bytes).map_err(io("read"))?;
                Bytes::from(bytes)
            }
            None => {
                make_read_only(&file, &metadata);
                map(&file).map_err(io("map into memory"))?
            }
        };
        let (device, inode) = (metadata.dev(), metadata.ino());
        Ok(Self { bytes, path: path.to_owned(), device, inode, _reservation: reservation })
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same bytes, shared: they stay as they are while the file is replaced or removed.
    pub(crate) fn share(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Why the file on the disk is not the one that was opened, if so. Compares its length and
    /// inode, not its bytes.
    pub(crate) fn changed_on_disk(&self) -> Option<MembershipError> {
        let metadata = match std::fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(source) => {
                let path = self.path.clone();
                return Some(MembershipError::Io { doing: "stat", path, source });
            }
        };
        let is_same_file = metadata.dev() == self.device && metadata.ino() == self.inode;
        // A copy that was downloaded again is another file with the same contents.
        let problem = match metadata.len() == self.bytes.len() as u64 {
            true => return None,
            false if is_same_file => "it was changed while it was in use",
            false => "it was replaced by another file while it was in use",
        };
        Some(MembershipError::Damaged { path: self.path.clone(), problem: problem.to_owned() })
    }
}

/// Older versions left files writable by their owner. Best effort: the mode only protects against
/// mistakes.
fn make_read_only(file: &File, metadata: &Metadata) {
    let mut permissions = metadata.permissions();
    if permissions.mode() & 0o222 != 0 {
        permissions.set_mode(MODE);
        let _ = file.set_permissions(permissions);
    }
}

fn map(file: &File) -> std::io::Result<Bytes> {
    #[expect(
        unsafe_code,
        reason = "a map is undefined if the file shrinks or changes: files of this crate are \
                  write-once, read-only, and replaced only by rename, which leaves mapped bytes as \
                  they are"
    )]
    // SAFETY: nothing in this program writes to a file after it has its name; the module's
    // documentation says what protects against other programs.
    let map = unsafe { Mmap::map(file) }?;
    Ok(Bytes::from_owner(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_in_memory_is_not_affected_by_later_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("small");
        std::fs::write(&path, vec![7; 10_000]).unwrap();
        let contents = Contents::open(&path).unwrap();
        assert!(contents.changed_on_disk().is_none());
        // A mapped file of this size would raise SIGBUS below.
        std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        assert!(contents.bytes().iter().all(|byte| *byte == 7));
        assert!(matches!(contents.changed_on_disk(), Some(MembershipError::Damaged { .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(contents.changed_on_disk(), Some(MembershipError::Io { .. })));
    }

    #[test]
    fn a_large_file_is_mapped_and_made_read_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        std::fs::write(&path, vec![7; IN_MEMORY as usize + 1]).unwrap();
        let contents = Contents::open(&path).unwrap();
        assert_eq!(contents.bytes().len() as u64, IN_MEMORY + 1);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
    }

    #[test]
    fn reservations_are_released() {
        let first = MemoryReservation::reserve(IN_MEMORY).unwrap();
        assert!(MemoryReservation::reserve(IN_MEMORY + 1).is_none());
        drop(first);
        // More in all than the total: every reservation is released.
        for _ in 0..10_000 {
            assert!(MemoryReservation::reserve(IN_MEMORY).is_some());
        }
    }
}
