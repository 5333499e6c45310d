//! Folders and files. Every path is opened component by component relative to open folders, and no symbolic
//! link is followed: a link that is created later has no effect.

use std::ffi::OsStr;
use std::fs::{File, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};

use super::names;
use super::response::Failure;

/// Permissions of the group on a folder; on a file, without `x`.
const GROUP_READS: u32 = 0o050;

/// Where a destination's folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    /// Opened as it is, also through links: the operator has chosen it.
    pub(super) root: PathBuf,
    /// The path below it, without links.
    pub(super) below: PathBuf,
}

impl Location {
    /// The path, for messages.
    pub(super) fn path(&self) -> PathBuf {
        self.root.join(&self.below)
    }

    /// Opens the folder. A missing folder is not created: its file system may not be mounted.
    pub(super) fn open(&self) -> io::Result<Folder> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::open(&self.root, flags, Mode::empty())?);
        for part in self.below.components() {
            file = folder_in(&file, part.as_os_str())?;
        }
        Folder::of(file)
    }
}

fn folder_in(folder: &File, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(folder, name, flags, Mode::empty())?))
}

/// `None` if nothing has the name.
fn if_exists<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// An open folder. Its functions take names, not paths.
#[derive(Debug)]
pub(super) struct Folder {
    file: File,
    /// The permissions of the folder's group, which apply to everything that is created in it.
    group: u32,
}

impl Folder {
    fn of(file: File) -> io::Result<Self> {
        let group = file.metadata()?.mode() & GROUP_READS;
        Ok(Self { file, group })
    }

    /// The folder of this name; `None` if there is none.
    pub(super) fn folder(&self, name: &str) -> io::Result<Option<Self>> {
        if_exists(folder_in(&self.file, OsStr::new(name)).and_then(Self::of))
    }

    /// Opens the folder of this name, or creates it.
    pub(super) fn create_folder(&self, name: &str) -> io::Result<Self> {
        if let Some(found) = self.folder(name)? {
            return Ok(found);
        }
        match rustix::fs::mkdirat(&self.file, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(error) if error == rustix::io::Errno::EXIST => {}
            Err(error) => return Err(error.into()),
        }
        let created = folder_in(&self.file, OsStr::new(name))?;
        // Independent of the umask of the process.
        created.set_permissions(Permissions::from_mode(0o700 | self.group))?;
        self.file.sync_all()?;
        Self::of(created)
    }

    /// Renames a folder. Fails if there is a folder of the new name that is not empty.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        rustix::fs::renameat(&self.file, from, &self.file, to)?;
        self.file.sync_all()
    }

    /// Removes a folder if it is empty.
    pub(super) fn remove_folder(&self, name: &str) -> io::Result<()> {
        let removed = rustix::fs::unlinkat(&self.file, name, AtFlags::REMOVEDIR);
        match removed.map_err(io::Error::from) {
            Ok(()) => self.file.sync_all(),
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Locks the folder against writes of other processes until the returned file is dropped. Does not wait.
    pub(super) fn lock(&self) -> Result<File, Failure> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.open(names::LOCK, flags)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Failure::Busy),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    fn open(&self, name: &str, flags: OFlags) -> io::Result<File> {
        // A changed manifest may name anything.
        if name.contains('/') {
            return Err(ErrorKind::InvalidInput.into());
        }
        // Opening a pipe would block.
        let flags = flags | OFlags::NONBLOCK;
        let opened = rustix::fs::openat(&self.file, name, flags, Mode::from_raw_mode(0o600))?;
        Ok(File::from(opened))
    }

    fn open_to_read(&self, name: &str) -> io::Result<Option<File>> {
        if_exists(self.open(name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC))
    }

    /// The first `at_most` bytes of a file; `None` if there is none.
    pub(super) fn read(&self, name: &str, at_most: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open_to_read(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(at_most).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// The length of a file; `None` if there is none.
    pub(super) fn length(&self, name: &str) -> io::Result<Option<u64>> {
        let Some(file) = self.open_to_read(name)? else { return Ok(None) };
        Ok(Some(file.metadata()?.len()))
    }

    /// Writes a temporary file, syncs it and renames it: the file exists completely or not at all. The caller
    /// holds the lock; without it two processes would write the same temporary file.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = format!(".{name}.tmp");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let written = self.open(&temporary, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC).and_then(
            |mut file| {
                file.write_all(bytes)?;
                file.set_permissions(Permissions::from_mode(0o600 | (self.group & 0o040)))?;
                file.sync_all()
            },
        );
        let renamed = written.and_then(|()| {
            Ok(rustix::fs::renameat(&self.file, temporary.as_str(), &self.file, name)?)
        });
        if let Err(error) = renamed {
            // On a full disk it would take space for nothing.
            let _ = self.remove(&temporary);
            return Err(error);
        }
        self.file.sync_all()
    }

    /// Appends to an existing file.
    pub(super) fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.open(name, flags)?.write_all(bytes)
    }

    /// Creates an empty file. Succeeds also if it exists.
    pub(super) fn touch(&self, name: &str) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.open(name, flags)?;
        self.file.sync_all()
    }

    /// Removes a file. Succeeds also if there is none.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let removed = rustix::fs::unlinkat(&self.file, name, AtFlags::empty());
        if_exists(removed.map_err(io::Error::from)).map(|_| ())
    }

    /// The names of all entries that are UTF-8, sorted.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.file)? {
            let entry = entry?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn location(dir: &tempfile::TempDir, below: &str) -> Location {
        Location { root: dir.path().to_owned(), below: below.into() }
    }

    #[test]
    fn files_are_replaced_atomically_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o750)).unwrap();
        let folder = location(&dir, "").open().unwrap().create_folder("a").unwrap();
        assert_eq!(folder.read("f", 10).unwrap(), None);
        // A temporary file that a crash left behind.
        std::fs::write(dir.path().join("a/.f.tmp"), "longer than the next contents").unwrap();
        for text in ["one", "two", "two"] {
            folder.write("f", text.as_bytes()).unwrap();
            assert_eq!(folder.read("f", 10).unwrap().unwrap(), text.as_bytes());
        }
        folder.append("f", b" more").unwrap();
        assert_eq!((folder.length("f").unwrap(), folder.length("g").unwrap()), (Some(8), None));
        assert_eq!(folder.names().unwrap(), ["f"]);
        let mode = |path: &str| std::fs::metadata(dir.path().join(path)).unwrap().mode() & 0o777;
        assert_eq!((mode("a"), mode("a/f")), (0o750, 0o640), "the group may read, others may not");
        folder.remove("f").unwrap();
        folder.remove("f").unwrap();
        assert_eq!(folder.append("f", b"x").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(folder.read("../a/f", 9).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn no_link_is_followed_below_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("in/a")).unwrap();
        symlink(outside.path(), dir.path().join("out")).unwrap();
        symlink(outside.path(), dir.path().join("in/b")).unwrap();
        symlink(outside.path().join("f"), dir.path().join("in/a/f")).unwrap();
        symlink(outside.path().join("f"), dir.path().join("in/a/.g.tmp")).unwrap();
        assert!(location(&dir, "out").open().is_err());
        let folder = location(&dir, "in").open().unwrap();
        assert!(folder.folder("b").is_err() && folder.create_folder("b").is_err());
        let folder = folder.folder("a").unwrap().unwrap();
        assert!(folder.read("f", 9).is_err() && folder.append("f", b"x").is_err());
        assert!(folder.write("g", b"x").is_err());
        // The link itself is replaced by a file.
        folder.write("f", b"x").unwrap();
        assert!(std::fs::symlink_metadata(dir.path().join("in/a/f")).unwrap().is_file());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        // The root may be a link.
        let link = outside.path().join("link");
        symlink(dir.path(), &link).unwrap();
        assert!(Location { root: link, below: "in".into() }.open().is_ok());
    }

    #[test]
    fn two_processes_do_not_write_at_the_same_time() {
        let dir = tempfile::tempdir().unwrap();
        let folder = location(&dir, "").open().unwrap();
        let held = folder.lock().unwrap();
        assert!(matches!(folder.lock(), Err(Failure::Busy)));
        drop(held);
        assert!(folder.lock().is_ok());
    }

    #[test]
    fn a_folder_that_is_not_empty_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = location(&dir, "").open().unwrap();
        root.create_folder("a").unwrap().write("f", b"x").unwrap();
        root.remove_folder("a").unwrap();
        let folder = root.folder("a").unwrap().unwrap();
        folder.remove("f").unwrap();
        root.remove_folder("a").unwrap();
        root.remove_folder("a").unwrap();
        assert!(root.folder("a").unwrap().is_none());
        assert!(location(&dir, "gone").open().is_err(), "a missing folder is not created");
    }
}
