//! Fuzz targets of this crate: each gives arbitrary bytes to a decoder and asserts what must hold for
//! what it accepts. `fuzz/` runs them under libFuzzer, the tests below over mutants of the seeds.

use std::path::Path;

use crate::{SpecFile, SpecFiles, SpecOrigin, check, check_limits, plan};

#[cfg(test)]
#[path = "../../../fuzz/mutate.rs"]
mod mutate;

/// A spec. A refused spec has a problem; an accepted spec has no differences from itself.
pub fn spec_yaml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let file = SpecFile { path: "throng.yaml".into(), text: text.to_owned() };
    let files = SpecFiles { base: "/nonexistent".into(), files: vec![file] };
    match check(files, SpecOrigin::Operator) {
        Ok(spec) => assert!(plan(Some(&spec), &spec).changes.is_empty()),
        Err(problems) => assert!(!problems.is_empty()),
    }
}

/// Specs with every field.
pub fn spec_yaml_seeds() -> Vec<Vec<u8>> {
    [
        &include_bytes!("../tests/it/good/full.yaml")[..],
        include_bytes!("../tests/it/good/gcs.yaml"),
        b"version: 1\nad_groups: &a [{name: x, daily_budget: 1.50 USD}, *b]\n",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

/// A limits file.
pub fn limits_yaml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(problems) = check_limits(Path::new("/nonexistent/limits.yaml"), text) {
        assert!(!problems.is_empty());
    }
}

/// A limits file with every kind of problem.
pub fn limits_yaml_seeds() -> Vec<Vec<u8>> {
    vec![include_bytes!("../tests/it/limits/file.yaml").to_vec()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutants_of_specs() {
        mutate::run(&spec_yaml_seeds(), 1_000, spec_yaml);
    }

    #[test]
    fn mutants_of_limits() {
        mutate::run(&limits_yaml_seeds(), 1_000, limits_yaml);
    }
}
