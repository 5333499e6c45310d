//! Generated files that are checked in. The tests that compare them write them when `THRONG_BLESS` is set;
//! CI runs the same tests without it, so an outdated file fails.

use anyhow::Result;

/// Parts of the names of the tests that compare generated files. None of them needs a service.
const TESTS: [&str; 10] = [
    "advertisers::",
    "schema::the_schema_is_current",
    "problems::wrong_specs",
    "plans::",
    "limits::a_limits_file_is_checked",
    "limits::a_sent_spec_is_held",
    "limits::problems_and_statements",
    "events::invalid_events_are_explained",
    "metrics::tests::the_documented_table",
    "openapi::tests::the_checked_in_document",
];

/// Writes all generated files.
pub(crate) fn all() -> Result<()> {
    let mut cargo = crate::cargo();
    cargo.current_dir(crate::root()?).args([
        "test",
        "--locked",
        "--workspace",
        "--features",
        crate::FEATURES,
        "--",
    ]);
    crate::run(cargo.args(TESTS).env("THRONG_BLESS", "1"))
}
