//! Opens files. To open a named pipe without a writer waits for one, and a device may never end: so what is not a regular
//! file is refused before anything is read, wherever others may have put something in the place of a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Error, ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Opens a regular file for reading. Follows symbolic links. Never waits for a writer.
///
/// # Errors
/// Those of the system; `InvalidInput` for a folder, a named pipe, a socket or a device, which it names.
pub fn open(path: &Path) -> io::Result<File> {
    open_as(File::options().read(true), path)
}

/// Opens a regular file that processes lock, and creates it if there is none. Its content stays.
///
/// # Errors
/// As [`open`].
pub fn open_lock(path: &Path) -> io::Result<File> {
    open_as(File::options().read(true).write(true).create(true).truncate(false), path)
}

fn open_as(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = options.custom_flags(flags).open(path).map_err(|error| {
        // Of a socket, or of a device without a driver: the system says that there is no such device.
        match error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) {
            true => irregular("a socket or a device"),
            false => error,
        }
    })?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        Ok(file)
    } else if kind.is_dir() {
        Err(irregular("a folder"))
    } else if kind.is_fifo() {
        Err(irregular("a named pipe"))
    } else {
        Err(irregular("a device"))
    }
}

/// Reads a regular file.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a regular file with text in UTF-8.
///
/// # Errors
/// As [`open`]; `InvalidData` if it is not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

fn irregular(kind: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("it is {kind}, not a regular file"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn regular_files_are_read_also_through_links() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "text").unwrap();
        symlink(&file, &link).unwrap();
        assert_eq!(read(&file).unwrap(), b"text");
        assert_eq!(read_to_string(&link).unwrap(), "text");
        let missing = read(&dir.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        std::fs::write(&file, b"\xff").unwrap();
        assert_eq!(read_to_string(&file).unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn what_is_not_a_regular_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |path: &Path| {
            let error = read(path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            error.to_string()
        };
        // Nobody writes to it: to open it would wait forever.
        let (pipe, link) = (dir.path().join("pipe"), dir.path().join("link"));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        symlink(&pipe, &link).unwrap();
        for path in [&pipe, &link] {
            assert_eq!(refused(path), "it is a named pipe, not a regular file");
            assert_eq!(open_lock(path).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        let socket = dir.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(refused(&socket), "it is a socket or a device, not a regular file");
        assert_eq!(refused(Path::new("/dev/zero")), "it is a device, not a regular file");
        assert_eq!(refused(dir.path()), "it is a folder, not a regular file");
    }

    #[test]
    fn a_lock_file_is_created_and_keeps_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = open_lock(&path).unwrap();
        lock.try_lock().unwrap();
        assert!(open_lock(&path).unwrap().try_lock().is_err());
        std::fs::write(&path, "17").unwrap();
        drop(open_lock(&path).unwrap());
        assert_eq!(read(&path).unwrap(), b"17");
    }
}
