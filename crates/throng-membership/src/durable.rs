//! Writing a file so that it is complete or absent: written to a temporary file, synced, renamed,
//! folder synced.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use crate::{MembershipError, contents};

/// Suffix of temporary files, which nothing reads.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// Numbers the temporary files of this process.
static NEXT_TEMP_FILE: AtomicU64 = AtomicU64::new(0);

/// Threads that wait for the disk at the same time. A file system writes what several of them sync by one commit of its
/// journal.
const THREADS: usize = 8;

/// Writes `bytes` to `path` and creates its folder. An existing file is replaced as a whole; a
/// reader that has it mapped keeps the old bytes.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), MembershipError> {
    let folder = folder_of(path);
    create_folder(folder)?;
    write_contents(path, bytes)?;
    sync_folder(folder)
}

/// [`write()`] for many files, which syncs each folder once. `file` makes the path and the contents of one, and what is
/// returned for it. All files are complete and durable when this returns; after an error some of them are.
pub(crate) fn write_all<T: Send, R: Send>(
    items: Vec<T>,
    file: impl Fn(T) -> Result<(PathBuf, Vec<u8>, R), MembershipError> + Sync,
) -> Result<Vec<R>, MembershipError> {
    let write_one = |item: T| -> Result<(PathBuf, R), MembershipError> {
        let (path, bytes, result) = file(item)?;
        let folder = folder_of(&path);
        create_folder(folder_of(folder))?;
        create_one_folder(folder)?;
        write_contents(&path, &bytes)?;
        Ok((folder.to_owned(), result))
    };
    let (folders, results): (BTreeSet<PathBuf>, Vec<R>) =
        on_threads(items, write_one)?.into_iter().unzip();
    // Those above too: they have the names of folders that were created.
    let above: BTreeSet<PathBuf> = folders.iter().map(|it| folder_of(it).to_owned()).collect();
    on_threads(folders.into_iter().collect(), |folder: PathBuf| sync_folder(&folder))?;
    above.iter().try_for_each(|folder| sync_folder(folder))?;
    Ok(results)
}

/// Runs `work` with each item, on several threads if there are several. Returns the results in the order of the items,
/// or the first error.
fn on_threads<T: Send, R: Send>(
    mut items: Vec<T>,
    work: impl Fn(T) -> Result<R, MembershipError> + Sync,
) -> Result<Vec<R>, MembershipError> {
    let run = |items: Vec<T>| items.into_iter().map(&work).collect::<Result<Vec<R>, _>>();
    if items.len() <= 1 {
        return run(items);
    }
    let share = items.len().div_ceil(THREADS);
    let run = &run;
    std::thread::scope(|scope| {
        let mut threads = Vec::with_capacity(THREADS);
        while !items.is_empty() {
            let rest = items.split_off(share.min(items.len()));
            let part = std::mem::replace(&mut items, rest);
            let thread = std::thread::Builder::new().name("throng-write".to_owned());
            let thread = thread.spawn_scoped(scope, move || run(part)).map_err(|source| {
                MembershipError::Io {
                    doing: "start a thread that writes",
                    path: "files".into(),
                    source,
                }
            })?;
            threads.push(thread);
        }
        let mut results = Vec::new();
        for thread in threads {
            // A panic stays one: whoever runs this handles those of its own thread.
            results.extend(thread.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        Ok(results)
    })
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a file in an existing folder. A loss of power may lose its name until the folder is synced, and never leaves
/// a part of it.
fn write_contents(path: &Path, bytes: &[u8]) -> Result<(), MembershipError> {
    let (temporary, mut file) = create_temporary(folder_of(path), path, bytes)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.set_permissions(Permissions::from_mode(contents::MODE)))
        .and_then(|()| file.sync_all());
    if let Err(source) = written {
        // The first error is the one to return; nothing reads the temporary file.
        let _ = fs::remove_file(&temporary);
        return Err(MembershipError::Io { doing: "write", path: temporary, source });
    }
    fs::rename(&temporary, path).map_err(|source| {
        let _ = fs::remove_file(&temporary);
        MembershipError::Io { doing: "rename to", path: path.to_owned(), source }
    })
}

fn create_temporary(
    folder: &Path,
    path: &Path,
    bytes: &[u8],
) -> Result<(PathBuf, File), MembershipError> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("file");
    let content = xxh3_64(bytes);
    loop {
        // Two writers of the same content must not share a file: one could truncate it after the
        // other has renamed it.
        let number = NEXT_TEMP_FILE.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let temporary =
            folder.join(format!(".{name}.{content:016x}.{process}.{number}{TEMPORARY_SUFFIX}"));
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(source) => {
                return Err(MembershipError::Io { doing: "create", path: temporary, source });
            }
        }
    }
}

fn create_folder(folder: &Path) -> Result<(), MembershipError> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_folder(parent)?;
    }
    create_one_folder(folder)?;
    sync_folder(parent.unwrap_or(Path::new(".")))
}

/// Creates a folder in an existing one, without a sync of its name.
fn create_one_folder(folder: &Path) -> Result<(), MembershipError> {
    match fs::create_dir(folder) {
        Err(source) if source.kind() != ErrorKind::AlreadyExists => {
            Err(MembershipError::Io { doing: "create the folder", path: folder.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> Result<(), MembershipError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(|source| MembershipError::Io {
        doing: "sync the folder",
        path: folder.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_files_are_written_to_old_and_new_folders_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("snapshots/old")).unwrap();
        let path = |number: usize| match number % 3 {
            0 => dir.path().join(format!("snapshots/old/{number}")),
            _ => dir.path().join(format!("snapshots/new-{}/{number}", number / 2)),
        };
        for count in [0, 1, 2, THREADS, 3 * THREADS + 1] {
            let written = write_all((0..count).collect(), |number: usize| {
                Ok((path(number), number.to_string().into_bytes(), number))
            });
            assert_eq!(written.unwrap(), (0..count).collect::<Vec<_>>());
            for number in 0..count {
                assert_eq!(fs::read_to_string(path(number)).unwrap(), number.to_string());
            }
        }
        // Nothing else is left, such as temporary files.
        let mut names = fs::read_dir(dir.path().join("snapshots/old")).unwrap();
        let is_number = |name: String| name.parse::<usize>().is_ok();
        assert!(names.all(|entry| is_number(entry.unwrap().file_name().into_string().unwrap())));
    }

    #[test]
    fn an_error_of_one_file_is_that_of_all() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "not a folder").unwrap();
        let path = |number: usize| match number {
            7 => dir.path().join("file/7"),
            _ => dir.path().join(format!("folder/{number}")),
        };
        let written =
            write_all((0..20).collect(), |number: usize| Ok((path(number), Vec::new(), ())));
        assert!(matches!(written, Err(MembershipError::Io { .. })), "{written:?}");
        fs::create_dir_all(dir.path().join("full/name")).unwrap();
        assert!(write(&dir.path().join("full/name"), b"a folder has this name").is_err());
        assert_eq!(fs::read_dir(dir.path().join("full")).unwrap().count(), 1, "no temporary file");
        let refused: Result<Vec<()>, _> =
            write_all(vec![1, 2], |_: u8| Err(MembershipError::Misuse("no".to_owned())));
        assert!(matches!(refused, Err(MembershipError::Misuse(_))), "{refused:?}");
    }
}
