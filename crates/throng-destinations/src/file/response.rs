//! What went wrong, and what to do about it. Pure. Chosen by kinds of errors, never by texts.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use throng_activation::{SendClass, SendError};
use throng_model::StorageProblem;

/// Room is made, and a file system made writable again, by a person, in minutes or hours: the task is
/// tried until then.
const UNTIL_THERE_IS_ROOM: Duration = Duration::from_secs(5 * 60);

/// Why a call did not do its work.
#[derive(Debug)]
pub(super) enum Failure {
    /// The destination's own folder cannot be opened.
    Root(io::Error),
    /// The audience has no folder.
    Gone,
    /// The file system refuses something.
    Io(io::Error),
    /// Another process writes the same audience.
    Busy,
    /// The session was not opened, or its files are not there: all of it has to be sent again.
    SessionLost,
    /// A file that this destination wrote does not hold what it wrote.
    Damaged(&'static str),
    /// The request makes no sense.
    Refused(&'static str),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The error for the caller. `folder` is the destination's.
pub(super) fn error_of(failure: &Failure, doing: &str, folder: &Path) -> SendError {
    let (class, why) = match failure {
        Failure::Root(error) if is_missing(error) => {
            let why = format!(
                "{error}; make the folder, or mount the file system that it lies on, then run the \
                 task again"
            );
            (SendClass::StopAccount, why)
        }
        Failure::Root(error) | Failure::Io(error) => of_io(error),
        Failure::Gone => {
            let why = "the audience's folder is gone; `throng sync recreate` makes a new one";
            (SendClass::Stop, why.to_owned())
        }
        Failure::Busy => (SendClass::Retry, "another process writes this audience".to_owned()),
        Failure::SessionLost => {
            (SendClass::Restart, "the files of the complete set are not all there".to_owned())
        }
        Failure::Damaged(file) => {
            let why = format!(
                "{file} in the audience's folder cannot be read; restore it, or remove the folder \
                 and run `throng sync recreate`"
            );
            (SendClass::Stop, why)
        }
        Failure::Refused(why) => (SendClass::Stop, (*why).to_owned()),
    };
    SendError::local(class, format!("{doing} in {} failed: {why}", folder.display()))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn is_link(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotADirectory
        || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

fn of_io(error: &io::Error) -> (SendClass, String) {
    match StorageProblem::of_io(error) {
        Some(problem @ (StorageProblem::DiskFull | StorageProblem::ReadOnly)) => {
            (SendClass::Later(UNTIL_THERE_IS_ROOM), format!("{error}; {}", problem.hint()))
        }
        Some(StorageProblem::Io) => {
            (SendClass::Retry, format!("{error}; check the disk and the kernel's log"))
        }
        Some(_) => (SendClass::Retry, error.to_string()),
        None if error.kind() == ErrorKind::PermissionDenied => {
            let why = format!("{error}; let the user of the node read and write the folder");
            (SendClass::StopAccount, why)
        }
        None if is_link(error) => {
            let why = format!(
                "{error}; a symbolic link or a file lies where a folder or a file of this \
                 destination belongs: remove it"
            );
            (SendClass::Stop, why)
        }
        None => (SendClass::Retry, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_its_class_and_says_what_to_do() {
        let later = SendClass::Later(UNTIL_THERE_IS_ROOM);
        let io = |errno: Errno| io::Error::from(errno);
        for (failure, class, hint) in [
            (Failure::Io(io(Errno::NOSPC)), later, "make room"),
            (Failure::Io(io(Errno::DQUOT)), later, "make room"),
            (Failure::Io(io(Errno::ROFS)), later, "writable"),
            (Failure::Io(io(Errno::IO)), SendClass::Retry, "check the disk"),
            (Failure::Io(io(Errno::TIMEDOUT)), SendClass::Retry, ""),
            (Failure::Io(io(Errno::ACCESS)), SendClass::StopAccount, "let the user of the node"),
            (Failure::Io(io(Errno::PERM)), SendClass::StopAccount, "let the user of the node"),
            (Failure::Io(io(Errno::LOOP)), SendClass::Stop, "symbolic link"),
            (Failure::Io(io(Errno::NOTDIR)), SendClass::Stop, "symbolic link"),
            (Failure::Root(io(Errno::NOENT)), SendClass::StopAccount, "mount"),
            (Failure::Root(io(Errno::NOTDIR)), SendClass::StopAccount, "mount"),
            (Failure::Root(io(Errno::ACCESS)), SendClass::StopAccount, "let the user of the node"),
            (Failure::Root(io(Errno::IO)), SendClass::Retry, "check the disk"),
            (Failure::Gone, SendClass::Stop, "sync recreate"),
            (Failure::Busy, SendClass::Retry, "another process"),
            (Failure::SessionLost, SendClass::Restart, ""),
            (Failure::Damaged("audience.json"), SendClass::Stop, "audience.json"),
            (Failure::Refused("no"), SendClass::Stop, "no"),
        ] {
            let error = error_of(&failure, "writing a batch", Path::new("/data/out"));
            assert_eq!(error.class, class, "{failure:?}");
            assert!(error.message.contains(hint), "{}", error.message);
            assert!(error.message.starts_with("writing a batch in /data/out failed: "));
            assert_eq!((error.http_status, error.code), (0, None));
        }
    }
}
