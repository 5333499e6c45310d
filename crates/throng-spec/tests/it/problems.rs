//! Each case is an invalid spec (a file or a folder) and the text of its problems.

use std::path::Path;

use super::{golden, here};

/// Every value in the cases that looks like a secret contains this.
const SECRET: &str = "EAAB";

fn check(case: &Path) -> Result<(), String> {
    let Err(problems) = throng_spec::load(case) else {
        return Err(format!("{} has no problem", case.display()));
    };
    let base = format!("{}/", case.parent().unwrap().display());
    let text: Vec<String> =
        problems.iter().map(|problem| problem.to_string().replace(&base, "") + "\n").collect();
    let text = text.join("\n");
    for problem in &problems {
        if problem.message.contains(SECRET) || problem.help.iter().any(|h| h.contains(SECRET)) {
            return Err(format!("a secret is shown: {problem}"));
        }
        if problem.help.is_none() {
            return Err(format!("no help: {problem}"));
        }
    }
    golden(&case.with_extension("expected.txt"), &text)
}

#[test]
fn invalid_specs_have_problems_with_hints() {
    let mut cases: Vec<_> = std::fs::read_dir(here("cases"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() || path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    cases.sort();
    let wrong: Vec<String> = cases.iter().filter_map(|case| check(case).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(cases.len() >= 20, "only {} cases", cases.len());
}

#[test]
fn a_missing_file_is_a_problem() {
    let problems = throng_spec::load(Path::new("/no/such/throng.yaml")).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].help.is_some());
}

#[test]
fn a_folder_without_specs_is_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(throng_spec::load(dir.path()).unwrap_err().len(), 1);
}
