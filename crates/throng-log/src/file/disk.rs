//! The operations of the disk that a log needs. Tests replace it by one that fails on request.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The space of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Free for this process (without blocks reserved for root).
    pub available: u64,
    /// The size of the file system.
    pub total: u64,
}

/// The free space below which a log refuses appends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MinFreeDisk {
    /// 1 GiB, or 5 % of the file system if that is less.
    #[default]
    Default,
    /// A number of bytes. 0: appends are refused only when the disk is full.
    Bytes(u64),
}

impl MinFreeDisk {
    /// In bytes, for a file system of `total` bytes.
    pub fn bytes(self, total: u64) -> u64 {
        match self {
            // A share for small disks: a fixed limit could be all of their space.
            Self::Default => (total / 20).min(1 << 30),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// The operations of the disk that a log needs; each one is a system call.
pub trait Disk: Send + Sync + Debug {
    /// Writes all bytes at a position: pwrite(2).
    fn write_all_at(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()>;
    /// Truncates or extends a file: ftruncate(2).
    fn set_len(&self, file: &File, length: u64) -> io::Result<()>;
    /// Makes written data durable: fdatasync(2).
    fn sync_data(&self, file: &File) -> io::Result<()>;
    /// The space of the file system of a folder: statvfs(3).
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

/// Drops a file from the page cache, so that the next read comes from the disk. Best effort: dirty pages
/// stay.
pub(super) fn drop_page_cache(file: &File) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}
