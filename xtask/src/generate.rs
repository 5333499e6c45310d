//! Files that are generated and checked in. The tests that guard them write them when
//! `THRONG_BLESS` is set; CI runs the same tests without it, so a stale file fails.

use anyhow::Result;

/// Writes every generated file anew.
pub(crate) fn all() -> Result<()> {
    let mut cargo = crate::cargo();
    cargo.current_dir(crate::root()?).args(["test", "--workspace"]).env("THRONG_BLESS", "1");
    crate::run(&mut cargo)
}
