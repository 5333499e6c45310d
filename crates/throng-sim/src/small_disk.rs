//! A small file system that is easily filled.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of a few MiB in memory, mounted for as long as this value lives. Linux only, and only
/// for users who may mount.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts a file system at a folder, which is created if it does not exist. If this user may not mount,
    /// prints the reason to standard error and returns `None`.
    ///
    /// # Panics
    /// If this user may not mount and the variable `CI` is set: CI skips no tests.
    pub fn mount(at: &Path, mebibytes: u32) -> Option<Self> {
        let size = format!("size={mebibytes}m");
        let mounted = std::fs::create_dir_all(at).is_ok()
            && Command::new("mount")
                .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
                .arg(at)
                .output()
                .is_ok_and(|output| output.status.success());
        if !mounted {
            let message = "a small file system cannot be mounted: run as root, or in a user \
                           namespace";
            assert!(std::env::var_os("CI").is_none(), "{message}");
            eprintln!("skipped: {message}");
            return None;
        }
        Some(Self(at.to_owned()))
    }

    /// Writes a file until the file system is full, to the last page, including space that was freed after an
    /// earlier call. Removing the file frees the space.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn fill(&self) -> io::Result<PathBuf> {
        let path = self.0.join("ballast");
        let mut file = File::options().create(true).append(true).open(&path)?;
        let mut size = 1 << 20;
        while size > 0 {
            if file.write_all(&vec![7; size]).is_err() {
                size /= 2;
            }
        }
        Ok(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may still have open files there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
