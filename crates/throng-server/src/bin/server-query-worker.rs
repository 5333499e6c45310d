//! A query worker and nothing else, for the tests of this crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    throng_platforms::query_worker(&throng_model::SystemClock)
}
