//! The unix socket: one process at a path, and a file that a killed process has left is replaced.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::SidecarError;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;
/// The mode of the file until it has the one that was asked for.
const PRIVATE_MODE: u32 = 0o600;

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

/// Accepts connections while there are fewer than a limit: a client that leaks connections must not use up the file
/// handles with which the node is followed.
#[derive(Debug)]
pub(crate) struct SocketListener {
    listener: UnixListener,
    free: Arc<Semaphore>,
}

impl Listener for SocketListener {
    type Io = SocketStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (SocketStream, SocketAddr) {
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        (SocketStream { stream, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection, which counts until it is dropped.
#[derive(Debug)]
pub(crate) struct SocketStream {
    stream: UnixStream,
    // Never `None`: the semaphore is not closed.
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for SocketStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for SocketStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Listens at a path with a file that only its owner can use. The mode is set before the file exists: with `chmod`
/// after `bind`, everybody whom the umask allows could connect in between.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    let handle = File::from(socket.as_fd().try_clone_to_owned()?);
    handle.set_permissions(Permissions::from_mode(PRIVATE_MODE))?;
    socket.bind(path)?;
    socket.listen(BACKLOG)
}

/// Listens at a path, with this mode of the file, for at most so many connections at a time.
///
/// # Errors
/// [`SidecarError`] if another process listens there, if another file is there, or if it cannot be created.
pub(crate) fn listen(
    path: &Path,
    mode: u32,
    most: usize,
) -> Result<(SocketListener, SocketFile), SidecarError> {
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
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(SidecarError::SocketInUse { path: path.to_owned() });
            }
            fs::remove_file(path).map_err(failed("replace"))?;
        }
    }
    let listener = bind(path).map_err(failed("create"))?;
    let file = SocketFile { path: path.to_owned(), _lock: lock };
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("set the mode of"))?;
    let free = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    Ok((SocketListener { listener, free }, file))
}

/// The mode of a socket's file as a command line has it, in octal: `0660`.
///
/// # Errors
/// If it is none, or has other bits than those of who may read, write and execute.
pub fn parse_mode(text: &str) -> Result<u32, String> {
    let parsed = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    parsed.ok_or_else(|| format!("`{text}` is not a mode: write it in octal, as 0660"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_process_listens_and_a_left_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate.sock");
        let (_listener, file) = listen(&path, 0o660, 9).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let second = listen(&path, 0o660, 9).unwrap_err();
        assert!(matches!(second, SidecarError::SocketInUse { .. }), "{second}");
        drop(file);
        assert!(!path.exists());
        // What a killed process leaves: nobody listens.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (_listener, file) = listen(&path, 0o600, 9).unwrap();
        drop(file);
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let second = listen(&path, 0o600, 9).unwrap_err();
        assert!(matches!(second, SidecarError::SocketInUse { .. }), "{second}");
        drop(other);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "text").unwrap();
        let second = listen(&path, 0o600, 9).unwrap_err();
        assert!(matches!(second, SidecarError::NotASocket { .. }), "{second}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }

    #[tokio::test]
    async fn the_file_is_private_from_the_moment_it_exists() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate.sock");
        let _listener = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE_MODE);
    }

    #[tokio::test]
    async fn more_connections_wait_until_one_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate.sock");
        let (mut listener, _file) = listen(&path, 0o600, 1).unwrap();
        let _clients =
            [UnixStream::connect(&path).await.unwrap(), UnixStream::connect(&path).await.unwrap()];
        let (first, _) = listener.accept().await;
        assert!(futures::FutureExt::now_or_never(listener.accept()).is_none());
        drop(first);
        listener.accept().await;
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(parse_mode("0660"), Ok(0o660));
        assert_eq!(parse_mode("600"), Ok(0o600));
        for wrong in ["", "0990", "1777", "rw", "-1"] {
            assert!(parse_mode(wrong).is_err(), "{wrong}");
        }
    }
}
