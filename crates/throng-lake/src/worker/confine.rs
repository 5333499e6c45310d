//! The limits that a worker sets for itself before it reads its first statement.

use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, PathFdError,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getppid, nice, set_parent_process_death_signal, setrlimit,
};
use serde::{Deserialize, Serialize};

use super::limits::data_bytes;
use super::protocol::{Setup, system_error};
use crate::LakeError;

/// The worker's niceness: serving processes have priority.
const NICENESS: i32 = 5;
/// The newest version of Landlock whose rights are handled: that of Linux 6.12.
const NEWEST: ABI = ABI::V6;

/// Closes all inherited descriptors except the three standard ones. Descriptors that Rust opens are
/// closed on exec; this is for those that C libraries or an ancestor process have opened.
pub(super) fn close_inherited() -> io::Result<()> {
    let mut open: Vec<RawFd> = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        if let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            open.push(number);
        }
    }
    for number in open.into_iter().filter(|number| *number > 2) {
        // The descriptor of the listing itself is closed already.
        if fs::read_link(format!("/proc/self/fd/{number}")).is_ok() {
            // SAFETY: called first in the process, before it has opened a file: the descriptor was
            // inherited, and nothing owns it.
            #[allow(unsafe_code)]
            unsafe {
                rustix::io::close(number);
            }
        }
    }
    Ok(())
}

/// A source's folder that could not be opened: the worker has no right to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnopenedFolder {
    pub(crate) path: PathBuf,
    /// The system's error, as a number if it has one.
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
}

impl UnopenedFolder {
    fn of(path: &Path, error: &io::Error) -> Self {
        Self { path: path.to_owned(), code: error.raw_os_error(), text: error.to_string() }
    }

    /// Replaces the error of a later open below such a folder by the first cause. Without it the
    /// error would only say that this worker has no permission.
    pub(super) fn explain(unopened: &[Self], error: LakeError) -> LakeError {
        let LakeError::Source { path, .. } = &error else { return error };
        match unopened.iter().find(|folder| path.starts_with(&folder.path)) {
            None => error,
            Some(Self { path, code, text }) => {
                LakeError::Source { path: path.clone(), source: system_error(*code, text.clone()) }
            }
        }
    }
}

/// Applies the limits. Returns the folders of sources that could not be opened: queries that use
/// one fail, others run.
///
/// # Errors
/// [`LakeError::Confine`] if a limit that every kernel has cannot be set, the spill folder cannot
/// be opened, or the parent has died: the worker must not start then.
pub(super) fn confine(setup: &Setup) -> Result<Vec<UnopenedFolder>, LakeError> {
    set_limits(setup)
        .map_err(|source| LakeError::Confine { what: "set its limits".to_owned(), source })?;
    landlock(setup)
}

fn set_limits(setup: &Setup) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = i32::try_from(setup.parent).ok().and_then(Pid::from_raw);
    if getppid() != parent {
        return Err(io::Error::other("the parent process has died"));
    }
    limit(Resource::Core, 0)?;
    limit(Resource::Data, data_bytes(setup.memory_bytes, setup.threads))?;
    nice(NICENESS)?;
    // The first process to be killed when the machine runs out of memory. Not every container
    // allows to set this.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// Sets a limit, unless a lower one is set.
fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let hard = rustix::process::getrlimit(resource).maximum;
    let most = Some(hard.map_or(most, |hard| hard.min(most)));
    Ok(setrlimit(resource, Rlimit { current: most, maximum: most })?)
}

/// Whether the kernel confines query workers to their folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landlock {
    /// To the folders of sources and the spill folder; no TCP, and no signals to other processes.
    Yes,
    /// To their folders only: an older kernel.
    Partial,
    /// Not at all: a worker can read what the node can read.
    No,
}

impl Landlock {
    /// What the kernel of this machine supports. Restricts nothing.
    pub fn of_kernel() -> Self {
        match ruleset(CompatLevel::HardRequirement, NEWEST) {
            Ok(_) => Self::Yes,
            Err(_) => match ruleset(CompatLevel::HardRequirement, ABI::V1) {
                Ok(_) => Self::Partial,
                Err(_) => Self::No,
            },
        }
    }

    /// Its name in answers and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Partial => "partial",
            Self::No => "no",
        }
    }

    /// What the kernel does not prevent workers from doing, and how to change that; `None` if there
    /// is nothing.
    pub fn warning(self) -> Option<&'static str> {
        match self {
            Self::Yes => None,
            Self::Partial => Some(
                "landlock: partial: this kernel restricts the files of query workers, but not TCP and \
                 signals; use Linux 6.12 or later",
            ),
            Self::No => Some(
                "landlock: no: query workers may read what the node may read; use Linux 5.13 or later \
                 with Landlock among its security modules (`lsm=landlock,…`)",
            ),
        }
    }
}

/// Handles every right of a version of Landlock: what no rule grants is refused.
fn ruleset(level: CompatLevel, abi: ABI) -> Result<RulesetCreated, RulesetError> {
    let ruleset =
        Ruleset::default().set_compatibility(level).handle_access(AccessFs::from_all(abi))?;
    let ruleset = match abi {
        // The first version has rights of files only.
        ABI::V1 => ruleset,
        abi => ruleset.handle_access(AccessNet::from_all(abi))?.scope(Scope::from_all(abi))?,
    };
    ruleset.create()
}

/// Allows reads below the sources, reads and writes below the spill folder, and nothing else: no
/// other file, no TCP, no signals to other processes. Without Landlock nothing is refused.
fn landlock(setup: &Setup) -> Result<Vec<UnopenedFolder>, LakeError> {
    let failed = |error: RulesetError| LakeError::Confine {
        what: "restrict itself by Landlock".to_owned(),
        source: io::Error::other(error),
    };
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::from_all(NEWEST) & !AccessFs::Execute;
    let mut rules = ruleset(CompatLevel::BestEffort, NEWEST).map_err(failed)?;
    let mut unopened = Vec::new();
    // Links of a source may lead to any file below its root.
    for path in setup.sources.iter().flat_map(|s| [Some(&s.path), s.root.as_ref()]).flatten() {
        match open(path) {
            Ok(folder) => rules = rules.add_rule(PathBeneath::new(folder, read)).map_err(failed)?,
            Err(error) => unopened.push(UnopenedFolder::of(path, &error)),
        }
    }
    if let Some(path) = &setup.spill_dir {
        let folder = open(path).map_err(|source| LakeError::Confine {
            what: format!("open its spill folder {}", path.display()),
            source,
        })?;
        rules = rules.add_rule(PathBeneath::new(folder, write)).map_err(failed)?;
    }
    rules.restrict_self().map_err(failed)?;
    Ok(unopened)
}

fn open(path: &Path) -> io::Result<PathFd> {
    PathFd::new(path).map_err(|error| match error {
        PathFdError::OpenCall { source, .. } => source,
        other => io::Error::other(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn testing_for_landlock_restricts_nothing() {
        let found = Landlock::of_kernel();
        assert_eq!(found.warning().is_none(), found == Landlock::Yes);
        assert!(found.warning().is_none_or(|words| words.contains(found.name())));
        assert!(fs::read_dir("/proc/self").is_ok());
    }

    #[test]
    fn an_error_below_a_folder_that_was_not_opened_has_the_first_cause() {
        let gone = UnopenedFolder::of(Path::new("/lake/shop"), &io::Error::from_raw_os_error(2));
        let refused = |path: &str| LakeError::Source {
            path: path.into(),
            source: io::Error::from_raw_os_error(13),
        };
        let explain = |error| {
            let folders = std::slice::from_ref(&gone);
            throng_model::with_causes(&UnopenedFolder::explain(folders, error))
        };
        let words = explain(refused("/lake/shop/orders.csv"));
        assert!(words.starts_with("cannot read /lake/shop: No such file"), "{words}");
        let words = explain(refused("/lake/shops"));
        assert!(words.starts_with("cannot read /lake/shops: Permission denied"), "{words}");
        let other = LakeError::Changed { path: "/lake/shop/orders.csv".into() };
        assert!(explain(other).contains("has changed"));
    }
}
