//! Programs of services and checks, downloaded once and cached outside of the repository.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// How often a download is tried: one of many servers does not answer for a moment.
const TRIES: u32 = 3;

/// The folder of downloaded programs: `$THRONG_CACHE`, or a folder in the user's cache folder.
pub(crate) fn folder() -> Result<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let folder = of("THRONG_CACHE")
        .or_else(|| Some(of("XDG_CACHE_HOME")?.join("throng")))
        .or_else(|| Some(of("HOME")?.join(".cache/throng")))
        .context(
            "neither THRONG_CACHE nor HOME is set: set one to a folder for downloaded programs",
        )?;
    // Absolute, because programs are started in other folders.
    let folder = std::path::absolute(folder)?;
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create the folder {}", folder.display()))?;
    Ok(folder)
}

/// The folder `name` of the cache, filled by `download` if there is none. It is visible only when it is
/// complete.
pub(crate) fn provide(name: &str, download: impl Fn(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = folder()?;
    let path = cache.join(name);
    if path.is_dir() {
        return Ok(path);
    }
    eprintln!("downloading {name}");
    let mut tries = 1;
    let temporary = loop {
        let temporary = tempfile::Builder::new().prefix("downloading-").tempdir_in(&cache)?;
        match download(temporary.path()) {
            Ok(()) => break temporary,
            Err(error) if tries == TRIES => {
                return Err(error.context(format!("cannot download {name}")));
            }
            Err(error) => eprintln!("cannot download {name}, trying again: {error:#}"),
        }
        tries += 1;
    };
    match std::fs::rename(temporary.path(), &path) {
        Ok(()) => {
            // The folder was renamed: there is nothing to remove under the temporary name.
            let _ = temporary.keep();
            Ok(path)
        }
        // Another process was faster.
        Err(_) if path.is_dir() => Ok(path),
        Err(error) => Err(error).with_context(|| format!("cannot create {}", path.display())),
    }
}

/// Builds a Go program, `module@version`, into the cache. Returns the path of the program.
pub(crate) fn go_program(name: &str, module: &str, version: &str) -> Result<PathBuf> {
    let folder = provide(&format!("{name}-{version}"), |temporary| {
        if crate::needs::which("go").is_none() {
            crate::needs::install("golang-go")?;
        }
        let mut go = std::process::Command::new("go");
        go.arg("install").arg(format!("{module}@{version}")).env("GOBIN", temporary);
        // An older Go, such as that of a distribution, downloads the one that the module needs.
        go.env("GOTOOLCHAIN", "auto");
        crate::run(go.stdout(std::io::stderr()))
            .context("Go 1.25 or newer is required: put its `go` on PATH and run this again")
    })?;
    let program = module.rsplit('/').next().unwrap_or(name);
    Ok(folder.join(program))
}
