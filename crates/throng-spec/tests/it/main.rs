//! Tests of the public API: golden problems, valid specs, plans, limits, the schema.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue should panic")]

mod good;
mod limits;
mod plans;
mod problems;
mod schema;
mod workspaces;

use std::path::PathBuf;

fn here(path: &str) -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"))
        .join("tests/it")
        .join(path)
}

/// Compares a generated file with the checked-in one; `THRONG_BLESS=1` writes it.
fn golden(path: &std::path::Path, text: &str) -> Result<(), String> {
    if std::env::var_os("THRONG_BLESS").is_some() {
        std::fs::write(path, text).unwrap();
        return Ok(());
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    if expected == text {
        return Ok(());
    }
    Err(format!(
        "{} is not current.\n--- expected\n{expected}\n--- found\n{text}\n--- to update it: cargo xtask gen",
        path.display()
    ))
}
