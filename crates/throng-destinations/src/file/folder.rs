//! Folders and files. Every path is walked part by part through open folders, and no symbolic link is
//! followed on the way: a link that is planted later leads nowhere.

use std::ffi::OsStr;
use std::fs::{File, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};

use super::names;
use super::response::Failure;

/// What the group may do with a folder; with a file, without `x`.
const GROUP_READS: u32 = 0o050;

/// Where a destination's folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Opened as it is, through links too: it is the operator's.
    pub(super) root: PathBuf,
    /// From there, without a link.
    pub(super) below: PathBuf,
}

impl Place {
    /// The path, for messages.
    pub(super) fn path(&self) -> PathBuf {
        self.root.join(&self.below)
    }

    /// Opens the folder. It is not made: what is missing may be a file system that is not mounted.
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

/// `None` if there is nothing of the name.
fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// An open folder. What it is asked for are names, not paths.
#[derive(Debug)]
pub(super) struct Folder {
    file: File,
    /// What the folder's group may do is what it may do with everything that is made in it.
    group: u32,
}

impl Folder {
    fn of(file: File) -> io::Result<Self> {
        let group = file.metadata()?.mode() & GROUP_READS;
        Ok(Self { file, group })
    }

    /// The folder of this name; `None` if there is none.
    pub(super) fn folder(&self, name: &str) -> io::Result<Option<Self>> {
        if_there(folder_in(&self.file, OsStr::new(name)).and_then(Self::of))
    }

    /// The folder of this name, made if there is none.
    pub(super) fn make_folder(&self, name: &str) -> io::Result<Self> {
        if let Some(found) = self.folder(name)? {
            return Ok(found);
        }
        match rustix::fs::mkdirat(&self.file, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(error) if error == rustix::io::Errno::EXIST => {}
            Err(error) => return Err(error.into()),
        }
        let made = folder_in(&self.file, OsStr::new(name))?;
        // Whatever the umask of the process is.
        made.set_permissions(Permissions::from_mode(0o700 | self.group))?;
        self.file.sync_all()?;
        Self::of(made)
    }

    /// Removes a folder unless something is left in it.
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

    /// Keeps other processes from writing until what is returned is dropped. Does not wait.
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
        // A manifest that somebody has changed names anything.
        if name.contains('/') {
            return Err(ErrorKind::InvalidInput.into());
        }
        // A pipe would be waited for.
        let flags = flags | OFlags::NONBLOCK;
        let opened = rustix::fs::openat(&self.file, name, flags, Mode::from_raw_mode(0o600))?;
        Ok(File::from(opened))
    }

    fn open_to_read(&self, name: &str) -> io::Result<Option<File>> {
        if_there(self.open(name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC))
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

    /// Writes a file aside and puts it in place, durably: it is there whole or not at all. The lock must
    /// be held, so that the name aside is nobody else's.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let aside = format!(".{name}.tmp");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let written =
            self.open(&aside, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC).and_then(|mut file| {
                file.write_all(bytes)?;
                file.set_permissions(Permissions::from_mode(0o600 | (self.group & 0o040)))?;
                file.sync_all()
            });
        let placed = written
            .and_then(|()| Ok(rustix::fs::renameat(&self.file, aside.as_str(), &self.file, name)?));
        if let Err(error) = placed {
            // On a full disk it takes room that nobody uses.
            let _ = self.remove(&aside);
            return Err(error);
        }
        self.file.sync_all()
    }

    /// Appends to a file that is there.
    pub(super) fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.open(name, flags)?.write_all(bytes)
    }

    /// Removes a file. Right also when there is none.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let removed = rustix::fs::unlinkat(&self.file, name, AtFlags::empty());
        if_there(removed.map_err(io::Error::from)).map(|_| ())
    }

    /// The names of everything in it that have one in UTF-8, sorted.
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

    fn place(dir: &tempfile::TempDir, below: &str) -> Place {
        Place { root: dir.path().to_owned(), below: below.into() }
    }

    #[test]
    fn files_are_replaced_whole_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o750)).unwrap();
        let folder = place(&dir, "").open().unwrap().make_folder("a").unwrap();
        assert_eq!(folder.read("f", 10).unwrap(), None);
        // What a crash left behind.
        std::fs::write(dir.path().join("a/.f.tmp"), "much longer than what comes").unwrap();
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
    fn no_link_is_followed_beneath_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("in/a")).unwrap();
        symlink(elsewhere.path(), dir.path().join("out")).unwrap();
        symlink(elsewhere.path(), dir.path().join("in/b")).unwrap();
        symlink(elsewhere.path().join("f"), dir.path().join("in/a/f")).unwrap();
        symlink(elsewhere.path().join("f"), dir.path().join("in/a/.g.tmp")).unwrap();
        assert!(place(&dir, "out").open().is_err());
        let folder = place(&dir, "in").open().unwrap();
        assert!(folder.folder("b").is_err() && folder.make_folder("b").is_err());
        let folder = folder.folder("a").unwrap().unwrap();
        assert!(folder.read("f", 9).is_err() && folder.append("f", b"x").is_err());
        assert!(folder.write("g", b"x").is_err());
        // The link itself gives way to a file.
        folder.write("f", b"x").unwrap();
        assert!(std::fs::symlink_metadata(dir.path().join("in/a/f")).unwrap().is_file());
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
        // The root may be a link.
        let link = elsewhere.path().join("link");
        symlink(dir.path(), &link).unwrap();
        assert!(Place { root: link, below: "in".into() }.open().is_ok());
    }

    #[test]
    fn two_processes_do_not_write_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = place(&dir, "").open().unwrap();
        let held = folder.lock().unwrap();
        assert!(matches!(folder.lock(), Err(Failure::Busy)));
        drop(held);
        assert!(folder.lock().is_ok());
    }

    #[test]
    fn a_folder_with_something_in_it_stays() {
        let dir = tempfile::tempdir().unwrap();
        let root = place(&dir, "").open().unwrap();
        root.make_folder("a").unwrap().write("f", b"x").unwrap();
        root.remove_folder("a").unwrap();
        let folder = root.folder("a").unwrap().unwrap();
        folder.remove("f").unwrap();
        root.remove_folder("a").unwrap();
        root.remove_folder("a").unwrap();
        assert!(root.folder("a").unwrap().is_none());
        assert!(place(&dir, "gone").open().is_err(), "a missing folder is not made");
    }
}
