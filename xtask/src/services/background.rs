//! `cargo xtask services up` and `down`: services that keep running after the command that started them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Services, cache};

/// The timeout for the end of a killed process.
const EXIT_TIMEOUT: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The file with the running services: a line `pid folder` for each, then lines `NAME=value`.
fn state_file() -> Result<PathBuf> {
    Ok(cache::folder()?.join("services"))
}

/// Starts the services unless they run, and prints their addresses: for a shell, or in JSON.
pub(crate) fn up(json: bool) -> Result<()> {
    let path = state_file()?;
    let _lock = lock(&path)?;
    if let Ok(text) = std::fs::read_to_string(&path)
        && servers(&text).iter().all(|(pid, folder)| is_alive(current(*pid, folder), folder))
    {
        eprintln!("the services already run");
        print_variables(&text, json);
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
    // Their drop would end the processes and remove the folders. Before the file was written, that is
    // what an error has to do.
    std::mem::forget(services);
    print_variables(&text, json);
    Ok(())
}

/// Stops the services that `up` started, and removes their data.
pub(crate) fn down(json: bool) -> Result<()> {
    let path = state_file()?;
    let _lock = lock(&path)?;
    let stopped = stop(&path)?;
    if json {
        print(&format!("{{\"stopped\": {stopped}}}"));
    } else {
        eprintln!("stopped {stopped} services");
    }
    Ok(())
}

/// Held while services start or stop: of two concurrent commands, the second would overwrite the list of
/// the first.
fn lock(state_file: &Path) -> Result<File> {
    let path = state_file.with_extension("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Stops all services of the file; returns how many of them ran.
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
            eprintln!("cannot remove {}: {error}", folder.display());
        }
    }
    std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    Ok(stopped)
}

/// Kills a server and waits until it has ended, so that its data can be removed.
#[expect(clippy::disallowed_methods, reason = "the end of another process can only be polled")]
fn kill(pid: u32, folder: &Path) -> Result<()> {
    // With SIGKILL, PostgreSQL would leave its shared memory.
    let signal = if postmaster(folder).is_some() { "-QUIT" } else { "-KILL" };
    let _ = Command::new("kill").args([signal, &pid.to_string()]).output();
    let started = Instant::now();
    while is_alive(pid, folder) {
        ensure!(
            started.elapsed() < EXIT_TIMEOUT,
            "process {pid} does not end: end it, and run this again"
        );
        std::thread::sleep(POLL_INTERVAL);
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

/// The current process of a server: a test may have restarted it since the file was written.
fn current(pid: u32, folder: &Path) -> u32 {
    let restarted = || std::fs::read_to_string(folder.join("pid")).ok()?.trim().parse().ok();
    postmaster(folder).or_else(restarted).unwrap_or(pid)
}

/// The process id in PostgreSQL's `postmaster.pid`.
pub(super) fn postmaster(folder: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(folder.join("data/postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// Whether the process runs and is the server: after a restart of the machine another process may have its
/// id. The working directory of a server is in its folder, or its command line has a path in it.
fn is_alive(pid: u32, folder: &Path) -> bool {
    let directory = std::fs::read_link(format!("/proc/{pid}/cwd"));
    let has_argument = || {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| {
            std::str::from_utf8(argument).is_ok_and(|path| Path::new(path).starts_with(folder))
        })
    };
    directory.is_ok_and(|directory| directory.starts_with(folder) || has_argument())
}

fn print_variables(text: &str, json: bool) {
    let variables: Vec<&str> = text.lines().filter(|line| line.contains('=')).collect();
    if json {
        // Only ports and paths without special characters: Rust's quoting is that of JSON.
        let pairs = variables.iter().filter_map(|line| line.split_once('='));
        let members: Vec<String> = pairs.map(|(n, v)| format!("  {n:?}: {v:?}")).collect();
        print(&format!("{{\n{}\n}}", members.join(",\n")));
    } else {
        let lines: Vec<String> = variables.iter().map(|line| format!("export {line}")).collect();
        print(&lines.join("\n"));
    }
}

#[expect(clippy::print_stdout, reason = "the output of the command")]
fn print(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_recognized_by_its_directory_and_its_arguments() {
        let (argument, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let log = argument.path().join("log");
        File::create(&log).unwrap();
        let mut server =
            Command::new("tail").arg("-f").arg(&log).current_dir(&directory).spawn().unwrap();
        // Before exec, the child has the command line of this process.
        while !is_alive(server.id(), argument.path()) {
            assert!(server.try_wait().unwrap().is_none(), "tail ended");
            std::thread::yield_now();
        }
        let other = tempfile::tempdir().unwrap();
        let alive = [&argument, &directory, &other].map(|dir| is_alive(server.id(), dir.path()));
        server.kill().unwrap();
        server.wait().unwrap();
        assert_eq!(alive, [true, true, false]);
        assert!(!is_alive(server.id(), argument.path()));
    }
}
