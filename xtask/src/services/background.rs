//! `cargo xtask services up` and `down`: services that outlive the command that started them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Server, Services, cache};

/// What is running: one line each, `pid folder`, then `NAME=value`.
fn state() -> Result<PathBuf> {
    Ok(cache::folder()?.join("services"))
}

/// Starts the services, or finds those that run, and says where they are.
pub(crate) fn up() -> Result<()> {
    let path = state()?;
    if let Ok(text) = std::fs::read_to_string(&path)
        && servers(&text).iter().all(|(pid, _)| is_alive(*pid))
    {
        say(&text);
        return Ok(());
    }
    down()?;
    let services = Services::start()?;
    let variables = services.variables();
    let Services { postgres, kafka, s3, toxiproxy, .. } = services;
    let mut text = String::new();
    for server in [kafka.into_server(), s3.into_server(), toxiproxy.into_server()] {
        text.push_str(&leave(server));
    }
    let (pid, folder) = postgres.leave()?;
    text.push_str(&format!("{pid} {}\n", folder.display()));
    for (name, value) in variables {
        text.push_str(&format!("{name}={value}\n"));
    }
    std::fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    say(&text);
    Ok(())
}

/// Stops what `up` started, and removes its data.
pub(crate) fn down() -> Result<()> {
    let path = state()?;
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(()) };
    for (pid, folder) in servers(&text) {
        // A test may have started it again.
        let newest = std::fs::read_to_string(folder.join("pid")).ok();
        let pid = newest.and_then(|text| text.trim().parse().ok()).unwrap_or(pid);
        if is_alive(pid) {
            // The whole group: a server may have started others.
            let _ = Command::new("kill").args(["-9", "--", &format!("-{pid}")]).output();
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
        }
        if let Err(error) = std::fs::remove_dir_all(&folder)
            && folder.exists()
        {
            eprintln!("{} was not removed: {error}", folder.display());
        }
    }
    std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
}

fn leave(server: Server) -> String {
    let line = format!("{} {}\n", server.child.id(), server.dir.path().display());
    // Its process and its folder stay.
    std::mem::forget(server);
    line
}

fn servers(text: &str) -> Vec<(u32, PathBuf)> {
    text.lines()
        .filter_map(|line| {
            let (pid, folder) = line.split_once(' ')?;
            Some((pid.parse().ok()?, PathBuf::from(folder)))
        })
        .collect()
}

fn is_alive(pid: u32) -> bool {
    PathBuf::from(format!("/proc/{pid}")).exists()
}

#[expect(clippy::print_stdout, reason = "this is what the command is for")]
fn say(text: &str) {
    for line in text.lines().filter(|line| line.contains('=')) {
        println!("export {line}");
    }
}
