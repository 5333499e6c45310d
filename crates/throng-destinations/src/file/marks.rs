//! Marks: an empty file for each audience that was created in the destination's folder. An audience without a
//! folder was deleted only if its mark is there: otherwise the folder is not the one that it was written to,
//! because its file system is not mounted.

use std::io;

use super::folder::Folder;
use super::manifest::About;
use super::names::{self, ABOUT, MARKS, NEW_MARKS};

/// `audience.json` has a name and an owner.
const MAX_ABOUT_BYTES: u64 = 64 << 10;

/// Records that an audience is in the destination's folder.
pub(super) fn record(root: &Folder, id: &str) -> io::Result<()> {
    let marks = match root.folder(MARKS)? {
        Some(marks) => marks,
        None => create(root, id)?,
    };
    if marks.length(id)?.is_none() {
        marks.touch(id)?;
    }
    Ok(())
}

/// Creates the marks. An earlier version wrote none, so all audiences that are there are recorded. The folder has its
/// name only when all are in it: after a crash in between, an audience without a mark would count as never created.
fn create(root: &Folder, id: &str) -> io::Result<Folder> {
    let existing = audiences(root)?;
    // It may be there since a crash.
    let new = root.create_folder(NEW_MARKS)?;
    existing.iter().try_for_each(|existing| new.touch(existing))?;
    // Never empty, because a rename replaces an empty folder.
    new.touch(id)?;
    let renamed = root.rename(NEW_MARKS, MARKS);
    // Another process may have created them meanwhile.
    match (root.folder(MARKS)?, renamed) {
        (Some(marks), _) => Ok(marks),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Whether an audience was created in the destination's folder. In a folder without marks, of which an earlier
/// version wrote the audiences, that is assumed of every audience.
pub(super) fn has(root: &Folder, id: &str) -> io::Result<bool> {
    match root.folder(MARKS)? {
        Some(marks) => Ok(marks.length(id)?.is_some()),
        None => Ok(!audiences(root)?.is_empty()),
    }
}

/// The folders of audiences.
fn audiences(root: &Folder) -> io::Result<Vec<String>> {
    let is_audience = |name: &String| {
        // Links and other files may have such a name.
        let folder = root.folder(name).ok().flatten().filter(|_| names::is_folder(name));
        let about = folder.and_then(|folder| folder.read(ABOUT, MAX_ABOUT_BYTES).ok().flatten());
        about.is_some_and(|bytes| About::read(&bytes).is_some())
    };
    Ok(root.names()?.into_iter().filter(is_audience).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::folder::Location;
    use super::super::manifest::line;
    use super::*;

    fn audience(root: &Folder, id: &str) {
        let about = line(&About::new(id, "0123456789abcdef")).unwrap();
        root.create_folder(id).unwrap().write(ABOUT, &about).unwrap();
    }

    #[test]
    fn an_audience_has_a_mark_once_it_is_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let root = Location { root: dir.path().to_owned(), below: "".into() }.open().unwrap();
        assert!(!has(&root, "a-1").unwrap(), "the folder was never used");
        record(&root, "a-1").unwrap();
        record(&root, "a-1").unwrap();
        assert!(has(&root, "a-1").unwrap() && !has(&root, "b-1").unwrap());
    }

    #[test]
    fn audiences_of_earlier_versions_are_recorded_with_the_first_mark() {
        let dir = tempfile::tempdir().unwrap();
        let root = Location { root: dir.path().to_owned(), below: "".into() }.open().unwrap();
        std::fs::write(dir.path().join("notes"), "mine").unwrap();
        std::fs::create_dir(dir.path().join("other")).unwrap();
        symlink(dir.path(), dir.path().join("link")).unwrap();
        assert!(!has(&root, "a-1").unwrap(), "no audience is there");
        audience(&root, "a-1");
        audience(&root, "b-1");
        assert!(has(&root, "gone-1").unwrap(), "its folder was removed by hand");
        record(&root, "a-1").unwrap();
        assert!(has(&root, "b-1").unwrap());
        assert!(!has(&root, "gone-1").unwrap() && !has(&root, "other").unwrap());
    }

    #[test]
    fn marks_that_a_crash_left_incomplete_are_completed() {
        let dir = tempfile::tempdir().unwrap();
        let root = Location { root: dir.path().to_owned(), below: "".into() }.open().unwrap();
        audience(&root, "a-1");
        audience(&root, "b-1");
        root.create_folder(NEW_MARKS).unwrap().touch("a-1").unwrap();
        assert!(has(&root, "b-1").unwrap(), "they are not in use");
        record(&root, "a-1").unwrap();
        assert!(has(&root, "a-1").unwrap() && has(&root, "b-1").unwrap());
        assert!(!has(&root, "gone-1").unwrap() && root.folder(NEW_MARKS).unwrap().is_none());
    }

    #[test]
    fn marks_that_another_process_creates_meanwhile_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let root = Location { root: dir.path().to_owned(), below: "".into() }.open().unwrap();
        root.create_folder(MARKS).unwrap().touch("a-1").unwrap();
        let marks = create(&root, "b-1").unwrap();
        assert_eq!(marks.names().unwrap(), ["a-1"]);
        record(&root, "b-1").unwrap();
        assert!(has(&root, "a-1").unwrap() && has(&root, "b-1").unwrap());
    }
}
