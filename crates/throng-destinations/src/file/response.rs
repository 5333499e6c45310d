//! Maps failures to errors for the caller. Pure. Decides by the kind of an error, never by its text.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use throng_activation::{Advice, SendClass, SendError};
use throng_model::StorageProblem;

/// A person frees space, or makes the file system writable, within minutes or hours: the task is retried
/// until then.
const STORAGE_RETRY_DELAY: Duration = Duration::from_secs(5 * 60);

/// A failed call.
#[derive(Debug)]
pub(super) enum Failure {
    /// The destination's own folder cannot be opened.
    Root(io::Error),
    /// The audience's folder was removed.
    Missing,
    /// The destination's folder is not the one that the audience was written to.
    NotMounted,
    /// The file system returned an error.
    Io(io::Error),
    /// Another process writes the same audience.
    Busy,
    /// The session was not opened, its files are missing, or another try has begun it again: all its rows have to
    /// be sent again.
    SessionLost,
    /// A file that this destination wrote was changed or damaged.
    Damaged(&'static str),
    /// The request is invalid.
    Refused(&'static str),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The error for the caller. `folder` is the destination's folder.
pub(super) fn error_of(failure: &Failure, doing: &str, folder: &Path) -> SendError {
    let (class, why) = match failure {
        Failure::Root(error) if is_missing(error) => {
            let why = format!(
                "{error}; create the folder, or mount its file system, then run the task again"
            );
            (SendClass::StopAccount, why)
        }
        Failure::Root(error) | Failure::Io(error) => of_io(error),
        Failure::Missing => (SendClass::Stop, "the audience's folder is missing".to_owned()),
        Failure::NotMounted => {
            let why = "the audience was not created in this folder; mount the file system that it was \
                       written to";
            (SendClass::RetryLater(STORAGE_RETRY_DELAY), why.to_owned())
        }
        Failure::Busy => (SendClass::Retry, "another process writes this audience".to_owned()),
        Failure::SessionLost => {
            let why = "files of the complete set are missing, or another try has begun it again";
            (SendClass::Restart, why.to_owned())
        }
        Failure::Damaged(file) => {
            let why = format!(
                "{file} in the audience's folder cannot be read; restore it, or remove the folder"
            );
            (SendClass::Stop, why)
        }
        Failure::Refused(why) => (SendClass::Stop, (*why).to_owned()),
    };
    let mut error =
        SendError::local(class, format!("{doing} in {} failed: {why}", folder.display()));
    if matches!(failure, Failure::Missing | Failure::NotMounted | Failure::Damaged(_)) {
        error.advice = Advice::Recreate;
    }
    error
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
            (SendClass::RetryLater(STORAGE_RETRY_DELAY), format!("{error}; {}", problem.hint()))
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
                "{error}; a symbolic link or a file is in the place of a folder or a file of this \
                 destination: remove it"
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
    fn every_failure_has_its_class_and_a_hint() {
        let later = SendClass::RetryLater(STORAGE_RETRY_DELAY);
        let io = |errno: Errno| io::Error::from(errno);
        for (failure, class, hint) in [
            (Failure::Io(io(Errno::NOSPC)), later, "free some space"),
            (Failure::Io(io(Errno::DQUOT)), later, "free some space"),
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
            (Failure::Missing, SendClass::Stop, "folder is missing"),
            (Failure::NotMounted, later, "mount the file system"),
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
            let recreated =
                matches!(failure, Failure::Missing | Failure::NotMounted | Failure::Damaged(_));
            assert_eq!(error.advice == Advice::Recreate, recreated, "{failure:?}");
        }
    }
}
