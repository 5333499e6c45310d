//! A worker's limits on itself: what it sets before it reads its first statement.

use std::fs;
use std::io;
use std::os::fd::RawFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getppid, nice, set_parent_process_death_signal, setrlimit,
};

use super::limits::data_bytes;
use super::protocol::Setup;

/// How much the worker yields to the processes that serve.
const NICENESS: i32 = 5;

/// Closes what the parent left open but for the three standard descriptors. Everything that Rust
/// opens is closed on exec anyway; this is for what C libraries and the parent's parent opened.
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
            // SAFETY: called first thing in the process, before anything in it has opened a file: the
            // descriptor was inherited, and nothing owns it.
            #[allow(unsafe_code)]
            unsafe {
                rustix::io::close(number);
            }
        }
    }
    Ok(())
}

/// Applies the limits. Whether the kernel confines the process to its folders.
///
/// # Errors
/// If a limit that every kernel has cannot be set, or the parent is gone.
pub(super) fn confine(setup: &Setup) -> io::Result<bool> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = i32::try_from(setup.parent).ok().and_then(Pid::from_raw);
    if getppid() != parent {
        return Err(io::Error::other("the parent is gone"));
    }
    limit(Resource::Core, 0)?;
    limit(Resource::Data, data_bytes(setup.memory_bytes, setup.threads))?;
    nice(NICENESS)?;
    // The first to go where the machine runs out of memory. Not every container lets a process say
    // so.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    rustix::thread::set_no_new_privs(true)?;
    landlock(setup).map_err(io::Error::other)
}

/// Sets a limit, or leaves a lower one.
fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let hard = rustix::process::getrlimit(resource).maximum;
    let most = Some(hard.map_or(most, |hard| hard.min(most)));
    Ok(setrlimit(resource, Rlimit { current: most, maximum: most })?)
}

/// Reads below the sources, reads and writes below the spill folder, and nothing else: no other file,
/// no TCP, no signals to others. `false` where the kernel does not have Landlock.
fn landlock(setup: &Setup) -> Result<bool, landlock::RulesetError> {
    let abi = ABI::V6;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::from_all(abi) & !AccessFs::Execute;
    // Links of a source may lead as far as its root.
    let readable = setup.sources.iter().flat_map(|s| [Some(&s.path), s.root.as_ref()]).flatten();
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        // A folder that is not there is left out, and reported by the query that names it.
        .add_rules(path_beneath_rules(readable, read))?
        .add_rules(path_beneath_rules(&setup.spill_dir, write))?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}
