//! The unix socket: one process at a path, and a file that a killed process has left is replaced.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use crate::error::SidecarError;

/// A path that this process listens at. The file is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    // Beside the socket: a socket cannot be locked itself.
    _lock: File,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A file that stays is replaced by the next start.
        let _ = fs::remove_file(&self.path);
    }
}

/// Listens at a path, with this mode of the file.
///
/// # Errors
/// [`SidecarError`] if another process listens there, if another file is there, or if it cannot be created.
pub(crate) fn listen(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), SidecarError> {
    let failed = |doing: &'static str| {
        let path = path.to_owned();
        move |source: io::Error| SidecarError::Socket { doing, path, source }
    };
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let lock = options.open(&lock_path).map_err(failed("lock"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(SidecarError::SocketInUse { path: path.to_owned() });
        }
        Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("inspect")(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SidecarError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {
            // Another program may listen there without the lock.
            if UnixStream::connect(path).is_ok() {
                return Err(SidecarError::SocketInUse { path: path.to_owned() });
            }
            fs::remove_file(path).map_err(failed("replace"))?;
        }
    }
    let listener = UnixListener::bind(path).map_err(failed("create"))?;
    let file = SocketFile { path: path.to_owned(), _lock: lock };
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("set the mode of"))?;
    Ok((listener, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_process_listens_and_a_left_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate.sock");
        let (_listener, file) = listen(&path, 0o660).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let second = listen(&path, 0o660).unwrap_err();
        assert!(matches!(second, SidecarError::SocketInUse { .. }), "{second}");
        drop(file);
        assert!(!path.exists());
        // What a killed process leaves: nobody listens.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (_listener, file) = listen(&path, 0o600).unwrap();
        drop(file);
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let second = listen(&path, 0o600).unwrap_err();
        assert!(matches!(second, SidecarError::SocketInUse { .. }), "{second}");
        drop(other);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "text").unwrap();
        let second = listen(&path, 0o600).unwrap_err();
        assert!(matches!(second, SidecarError::NotASocket { .. }), "{second}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }
}
