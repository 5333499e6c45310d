//! What a log asks of the disk. Tests put one in its place that fails when they want it to.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// What this process may still use.
    pub available: u64,
    /// All of it.
    pub total: u64,
}

/// How much room must be left for a log to take new records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DiskFloor {
    /// 1 GiB, or 5 % of the file system if that is less.
    #[default]
    Default,
    /// So many bytes. 0: records are taken as long as the disk takes them.
    Bytes(u64),
}

impl DiskFloor {
    /// In bytes, on a file system of so many.
    pub fn bytes(self, total: u64) -> u64 {
        match self {
            Self::Default => (total / 20).min(1 << 30),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// See the module. Each method does what the system call of its name does.
pub trait Disk: Send + Sync + Debug {
    /// Writes all bytes from a position on.
    fn write_all_at(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()>;
    /// Cuts or extends a file.
    fn set_len(&self, file: &File, length: u64) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync_data(&self, file: &File) -> io::Result<()>;
    /// Room on the file system of a folder.
    fn space(&self, folder: &Path) -> io::Result<DiskSpace>;
}

/// The machine's own disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn write_all_at(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        file.write_all_at(bytes, position)
    }

    fn set_len(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn space(&self, folder: &Path) -> io::Result<DiskSpace> {
        let found = rustix::fs::statvfs(folder)?;
        Ok(DiskSpace {
            available: found.f_bavail.saturating_mul(found.f_frsize),
            total: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }
}

/// Makes the system forget what it keeps of a file in memory, so that the next read comes from the disk.
/// Best effort: pages that are not written yet stay.
pub(super) fn forget_cached(file: &File) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}
