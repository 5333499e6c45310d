//! A file system that is soon full.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of a few MiB in memory, mounted for as long as this value lives. Linux only, and only
/// for users who may mount.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one at a folder, which is created if it is not there. `None`, after a line on standard
    /// error that says what is missing, where this user may not mount.
    ///
    /// # Panics
    /// Where the variable `CI` is set and this user may not mount: CI skips nothing.
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

    /// Writes a file until nothing more fits, to the last page; what has become free since the last
    /// call is taken too. Removing the file gives the room back.
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
        // Lazily: a process that is being killed may still have files open there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
