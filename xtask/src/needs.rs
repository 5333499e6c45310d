//! Requirements of the tests besides a Rust toolchain: a browser with its driver, and Python with DuckDB
//! as a second SQL engine. Missing packages are installed if this user may do so; otherwise the error
//! names them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;

/// The engine that the results of the example are compared with; pinned, so that they do not change.
const DUCKDB: &str = "duckdb==2.0.0";

/// Installs what is missing. Returns environment variables for the tests.
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

/// Creates a virtual environment for this project below `target`.
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
    eprintln!("creating a Python environment with {DUCKDB}");
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

/// Installs a Debian package as root or with sudo; otherwise the error says what to install.
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
        // The machine may be updating itself.
        let program =
            ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=600", "-o", "Acquire::Retries=3"];
        let parts: Vec<&str> = sudo.iter().copied().chain(program).collect();
        let mut command = Command::new(parts[0]);
        command.args(&parts[1..]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        command.stdout(std::io::stderr());
        command
    };
    // Services start concurrently, and apt-get refuses to run twice at the same time.
    static LOCK: Mutex<()> = Mutex::new(());
    let _lock = LOCK.lock();
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
