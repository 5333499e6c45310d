//! The limits that a worker sets for itself before it reads its first request.

use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, PathBeneath, PathFd,
    PathFdError, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getppid, nice, set_parent_process_death_signal, setrlimit,
};

use crate::limits::data_bytes;
use crate::setup::{Confinement, Refusal, UnopenedFolder};

/// The worker's niceness: serving processes have priority.
const NICENESS: i32 = 5;
/// The newest version of Landlock whose rights are handled: that of Linux 6.12.
const NEWEST: ABI = ABI::V6;

/// Closes all inherited descriptors except the three standard ones. Descriptors that Rust opens are
/// closed on exec; this is for those that C libraries or an ancestor process have opened.
pub(crate) fn close_inherited() -> io::Result<()> {
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

/// Applies the limits. Returns the folders that could not be opened: requests that use one fail,
/// others are answered.
///
/// # Errors
/// If a limit that every kernel has cannot be set, the spill folder cannot be opened, or the parent
/// has died: the worker must not start then.
pub(crate) fn confine(confinement: &Confinement) -> Result<Vec<UnopenedFolder>, Refusal> {
    set_limits(confinement).map_err(|error| Refusal::new("set its limits", &error))?;
    landlock(confinement)
}

fn set_limits(confinement: &Confinement) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = i32::try_from(confinement.parent).ok().and_then(Pid::from_raw);
    if getppid() != parent {
        return Err(io::Error::other("the parent process has died"));
    }
    limit(Resource::Core, 0)?;
    limit(Resource::Data, data_bytes(confinement.memory_bytes, confinement.threads))?;
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

/// Allows reads below the folders to read, reads and writes below the spill folder, TCP to one port if
/// there is one, and nothing else: no other file, no signals to other processes. Without Landlock
/// nothing is refused.
fn landlock(confinement: &Confinement) -> Result<Vec<UnopenedFolder>, Refusal> {
    let failed =
        |error: RulesetError| Refusal::new("restrict itself by Landlock", &io::Error::other(error));
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::from_all(NEWEST) & !AccessFs::Execute;
    let mut rules = ruleset(CompatLevel::BestEffort, NEWEST).map_err(failed)?;
    let mut unopened = Vec::new();
    for path in &confinement.read {
        match open(path) {
            Ok(folder) => rules = rules.add_rule(PathBeneath::new(folder, read)).map_err(failed)?,
            Err(error) => unopened.push(UnopenedFolder::new(path, &error)),
        }
    }
    if let Some(path) = &confinement.spill_dir {
        let folder = open(path).map_err(|error| {
            Refusal::new(format!("open its spill folder {}", path.display()), &error)
        })?;
        rules = rules.add_rule(PathBeneath::new(folder, write)).map_err(failed)?;
    }
    if let Some(port) = confinement.connect_port {
        rules = rules.add_rule(NetPort::new(port, AccessNet::ConnectTcp)).map_err(failed)?;
    }
    rules.restrict_self().map_err(failed)?;
    Ok(unopened)
}

/// Restricts this process, and the threads that it starts from now on, to reading below some folders or files, and
/// to reading and writing below others. TCP is not restricted. For processes that run plans of others without
/// being query workers. Without Landlock nothing is refused, and the answer says so.
///
/// # Errors
/// If one of them cannot be opened, or the kernel refuses the restriction.
pub fn restrict_files(read: &[PathBuf], write: &[PathBuf]) -> io::Result<Landlock> {
    let supported = Landlock::of_kernel();
    let all = AccessFs::from_all(NEWEST);
    let reads = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .and_then(Ruleset::create)
        .map_err(io::Error::other)?;
    let read = read.iter().map(|path| (path, reads));
    let write = write.iter().map(|path| (path, all & !AccessFs::Execute));
    for (path, rights) in read.chain(write) {
        let opened = open(path).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
        // A file has fewer rights than a folder.
        let rights = if path.is_dir() { rights } else { AccessFs::from_file(NEWEST) & rights };
        rules = rules.add_rule(PathBeneath::new(opened, rights)).map_err(io::Error::other)?;
    }
    rustix::thread::set_no_new_privs(true)?;
    rules.restrict_self().map_err(io::Error::other)?;
    Ok(supported)
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
}
