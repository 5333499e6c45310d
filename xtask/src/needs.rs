//! What the tests need beside a Rust toolchain: a browser with its driver, and Python with DuckDB
//! as a second SQL engine. What is missing is installed where that is allowed, or else named.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;

/// The judge of the example's audiences; pinned, so that its answers do not move.
const DUCKDB: &str = "duckdb==2.0.0";

/// Makes sure that everything is there. Returns environment variables for the tests.
pub(crate) fn provide(root: &Path) -> Result<Vec<(&'static str, PathBuf)>> {
    let chromium = browser_part(&["chromium", "chromium-browser", "google-chrome"], "chromium")?;
    let driver = browser_part(&["chromedriver"], "chromium-driver")?;
    let python = oracle(root)?;
    Ok(vec![
        ("THRONG_CHROMIUM", chromium),
        ("THRONG_CHROMEDRIVER", driver),
        ("THRONG_ORACLE_PYTHON", python),
    ])
}

fn browser_part(programs: &[&str], package: &str) -> Result<PathBuf> {
    if let Some(found) = programs.iter().find_map(|p| which(p)) {
        return Ok(found);
    }
    install(package)?;
    programs
        .iter()
        .find_map(|p| which(p))
        .with_context(|| format!("{package} was installed, but {} is not on PATH", programs[0]))
}

/// A virtual environment of the project's own, below `target`.
fn oracle(root: &Path) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let environment = target.join("oracle");
    let python = environment.join("bin/python");
    if succeeds(Command::new(&python).args(["-c", "import duckdb"])) {
        return Ok(python);
    }
    let system = which("python3").map_or_else(
        || {
            install("python3-venv")?;
            which("python3").context("python3 was installed, but is not on PATH")
        },
        Ok,
    )?;
    eprintln!("making a Python environment with {DUCKDB}");
    if !succeeds(Command::new(&system).args(["-m", "venv", "--clear"]).arg(&environment)) {
        install("python3-venv")?;
        crate::run(Command::new(&system).args(["-m", "venv", "--clear"]).arg(&environment))?;
    }
    crate::run(Command::new(&python).args([
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        DUCKDB,
    ]))?;
    Ok(python)
}

/// Installs a Debian package as root or by sudo; else says what a person has to install.
pub(crate) fn install(package: &str) -> Result<()> {
    let sudo: &[&str] = if is_root() {
        &[]
    } else if succeeds(Command::new("sudo").args(["-n", "true"])) {
        &["sudo", "-n"]
    } else {
        bail!("{package} is missing: install it with your package manager and run this again");
    };
    if which("apt-get").is_none() {
        bail!("{package} is missing: install it with your package manager and run this again");
    }
    let apt = |arguments: &[&str]| {
        let words: Vec<&str> = sudo.iter().copied().chain(["apt-get", "-qq"]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        command.stdout(std::io::stderr());
        command
    };
    // Services start at once, and apt-get refuses to run twice.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock();
    eprintln!("installing {package}");
    crate::run(&mut apt(&["update"]))?;
    crate::run(&mut apt(&["install", "-y", "--no-install-recommends", package]))
}

pub(crate) fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.trim_ascii() == b"0")
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|o| o.status.success())
}

pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}
