//! Files that are generated and checked in. The tests that guard them write them when
//! `THRONG_BLESS` is set; CI runs the same tests without it, so a stale file fails.

use anyhow::Result;

/// Parts of the names of the tests that guard generated files. None of them needs a service.
const GUARDS: [&str; 9] = [
    "advertisers::",
    "schema::the_schema_is_current",
    "problems::wrong_specs",
    "plans::",
    "limits::a_limits_file_is_checked",
    "limits::a_sent_spec_is_held",
    "limits::problems_and_statements",
    "events::wrong_events_are_explained",
    "metrics::tests::the_documented_table",
];

/// Writes every generated file anew.
pub(crate) fn all() -> Result<()> {
    let mut cargo = crate::cargo();
    cargo.current_dir(crate::root()?).args(["test", "--locked", "--workspace", "--"]);
    crate::run(cargo.args(GUARDS).env("THRONG_BLESS", "1"))
}
