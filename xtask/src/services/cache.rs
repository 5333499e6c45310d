//! Programs of services, fetched once and kept outside of the repository.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folder of fetched programs: `$THRONG_CACHE`, or else the user's cache folder.
pub(super) fn folder() -> Result<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let folder = of("THRONG_CACHE")
        .or_else(|| Some(of("XDG_CACHE_HOME")?.join("throng")))
        .or_else(|| Some(of("HOME")?.join(".cache/throng")))
        .context(
            "neither THRONG_CACHE nor HOME is set: set one to a folder for fetched programs",
        )?;
    // Programs are started from other folders.
    let folder = std::path::absolute(folder)?;
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    Ok(folder)
}

/// The folder `name` of the cache, made by `fetch` if it is not there. It appears when it is whole.
pub(super) fn provide(name: &str, fetch: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = folder()?;
    let place = cache.join(name);
    if place.is_dir() {
        return Ok(place);
    }
    eprintln!("fetching {name}");
    let aside = tempfile::Builder::new().prefix("fetching-").tempdir_in(&cache)?;
    fetch(aside.path()).with_context(|| format!("cannot fetch {name}"))?;
    match std::fs::rename(aside.path(), &place) {
        Ok(()) => {
            // It has another name now; nothing is left to remove.
            let _ = aside.keep();
            Ok(place)
        }
        // Somebody else was first.
        Err(_) if place.is_dir() => Ok(place),
        Err(error) => Err(error).with_context(|| format!("cannot make {}", place.display())),
    }
}

/// A program written in Go: `module@version` built into the cache. Returns the program's file.
pub(super) fn go_program(name: &str, module: &str, version: &str) -> Result<PathBuf> {
    let folder = provide(&format!("{name}-{version}"), |aside| {
        if crate::needs::which("go").is_none() {
            crate::needs::install("golang-go")?;
        }
        let mut go = std::process::Command::new("go");
        go.arg("install").arg(format!("{module}@{version}")).env("GOBIN", aside);
        crate::run(go.stdout(std::io::stderr()))
            .context("it takes Go 1.25 or newer: put that `go` on PATH and run this again")
    })?;
    let program = module.rsplit('/').next().unwrap_or(name);
    Ok(folder.join(program))
}
