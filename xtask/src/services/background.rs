//! `cargo xtask services up` and `down`: services that outlive the command that started them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Services, cache};

/// A killed process is gone within this time.
const DYING: Duration = Duration::from_secs(20);

/// What is running: one line each, `pid folder`, then `NAME=value`.
fn state() -> Result<PathBuf> {
    Ok(cache::folder()?.join("services"))
}

/// Starts the services, or finds those that run, and says where they are: for a shell, or in JSON.
pub(crate) fn up(json: bool) -> Result<()> {
    let path = state()?;
    let _turn = turn(&path)?;
    if let Ok(text) = std::fs::read_to_string(&path)
        && servers(&text).iter().all(|(pid, folder)| is_alive(current(*pid, folder), folder))
    {
        eprintln!("the services are up already");
        say(&text, json);
        return Ok(());
    }
    stop(&path)?;
    let services = Services::start()?;
    let mut text = String::new();
    for (pid, folder) in services.processes()? {
        text.push_str(&format!("{pid} {}\n", folder.display()));
    }
    for (name, value) in services.variables() {
        text.push_str(&format!("{name}={value}\n"));
    }
    std::fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    // Only now that they are written down are their processes and folders to stay.
    std::mem::forget(services);
    say(&text, json);
    Ok(())
}

/// Stops what `up` started, and removes its data.
pub(crate) fn down(json: bool) -> Result<()> {
    let path = state()?;
    let _turn = turn(&path)?;
    let stopped = stop(&path)?;
    if json {
        print(&format!("{{\"stopped\": {stopped}}}"));
    } else {
        eprintln!("{stopped} services were running; now none is");
    }
    Ok(())
}

/// Held while the services go up or down: two commands at once would lose track of some.
fn turn(state: &Path) -> Result<File> {
    let path = state.with_extension("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Returns how many of them ran.
fn stop(path: &Path) -> Result<usize> {
    let Ok(text) = std::fs::read_to_string(path) else { return Ok(0) };
    let mut stopped = 0;
    for (pid, folder) in servers(&text) {
        let pid = current(pid, &folder);
        if is_alive(pid, &folder) {
            kill(pid, &folder)?;
            stopped += 1;
        }
        if let Err(error) = std::fs::remove_dir_all(&folder)
            && folder.exists()
        {
            eprintln!("{} was not removed: {error}", folder.display());
        }
    }
    std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    Ok(stopped)
}

/// Ends a server at once, and returns when it is gone: its data can be removed then.
#[expect(clippy::disallowed_methods, reason = "another process cannot be asked to call back")]
fn kill(pid: u32, folder: &Path) -> Result<()> {
    // PostgreSQL gives back its shared memory only if it ends by itself.
    let signal = if postmaster(folder).is_some() { "-QUIT" } else { "-KILL" };
    let _ = Command::new("kill").args([signal, &pid.to_string()]).output();
    let begun = Instant::now();
    while is_alive(pid, folder) {
        ensure!(begun.elapsed() < DYING, "process {pid} does not end: end it, and run this again");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn servers(text: &str) -> Vec<(u32, PathBuf)> {
    text.lines()
        .filter_map(|line| {
            let (pid, folder) = line.split_once(' ')?;
            Some((pid.parse().ok()?, PathBuf::from(folder)))
        })
        .collect()
}

/// The process of a server now: a test may have started it again since it was written down.
fn current(pid: u32, folder: &Path) -> u32 {
    let own = || std::fs::read_to_string(folder.join("pid")).ok()?.trim().parse().ok();
    postmaster(folder).or_else(own).unwrap_or(pid)
}

/// The process of a PostgreSQL, by its own word.
pub(super) fn postmaster(folder: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(folder.join("data/postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// Whether it runs and is the server: after a restart of the machine its number is another's. Every
/// server works in its folder, or, if it goes where its data is, was told of a file in it.
fn is_alive(pid: u32, folder: &Path) -> bool {
    let at_work = std::fs::read_link(format!("/proc/{pid}/cwd"));
    let told = || {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| {
            std::str::from_utf8(word).is_ok_and(|word| Path::new(word).starts_with(folder))
        })
    };
    at_work.is_ok_and(|place| place.starts_with(folder) || told())
}

fn say(text: &str, json: bool) {
    let variables: Vec<&str> = text.lines().filter(|line| line.contains('=')).collect();
    if json {
        // Ports and paths of our own making: Rust's quotes are JSON's.
        let pairs = variables.iter().filter_map(|line| line.split_once('='));
        let members: Vec<String> = pairs.map(|(n, v)| format!("  {n:?}: {v:?}")).collect();
        print(&format!("{{\n{}\n}}", members.join(",\n")));
    } else {
        let lines: Vec<String> = variables.iter().map(|line| format!("export {line}")).collect();
        print(&lines.join("\n"));
    }
}

#[expect(clippy::print_stdout, reason = "this is what the command is for")]
fn print(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_where_it_works_and_by_what_it_was_told() {
        let (told, works) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let log = told.path().join("log");
        File::create(&log).unwrap();
        let mut server =
            Command::new("tail").arg("-f").arg(&log).current_dir(&works).spawn().unwrap();
        // Until the child has become `tail`, it has the command line of this process.
        while !is_alive(server.id(), told.path()) {
            assert!(server.try_wait().unwrap().is_none(), "tail ended");
            std::thread::yield_now();
        }
        let other = tempfile::tempdir().unwrap();
        let alive = [&told, &works, &other].map(|dir| is_alive(server.id(), dir.path()));
        server.kill().unwrap();
        server.wait().unwrap();
        assert_eq!(alive, [true, true, false]);
        assert!(!is_alive(server.id(), told.path()));
    }
}
