//! The sources of a crate without test code: its modules and its length. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::cycles::{ModulePath, module_of};
use super::source::{code_of, lines_outside, test_items, tokens, without};

/// The limit of a crate.
pub(super) const MAX_CRATE_LINES: usize = 6_000;
/// The length of the largest crate is rounded up to a multiple of this, so that most changes do not change
/// the limit.
const ROUNDING_LINES: usize = 1_000;

/// A crate without its tests.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sources {
    /// The number of lines, including comments and empty lines.
    pub(super) lines: usize,
    /// The code of each module of the library, or of the program if there is no library.
    pub(super) modules: BTreeMap<ModulePath, String>,
}

/// Reads the files of `src`, given as relative paths and texts.
pub(super) fn sources_of(files: &[(String, String)]) -> Sources {
    let has_library = files.iter().any(|(path, _)| path == "lib.rs");
    let mut parts = Vec::new();
    let mut test_modules: BTreeSet<ModulePath> = BTreeSet::new();
    for (path, text) in files {
        let module = module_of(path.strip_suffix(".rs").unwrap_or(path));
        let code = code_of(text);
        let items = test_items(text, &tokens(&code));
        for name in &items.modules {
            test_modules.insert(module.iter().chain([name]).cloned().collect());
        }
        parts.push((
            path,
            module,
            lines_outside(text, &items.ranges),
            without(&code, &items.ranges),
        ));
    }
    let mut sources = Sources { lines: 0, modules: BTreeMap::new() };
    for (path, module, lines, code) in parts {
        if (0..=module.len()).any(|length| test_modules.contains(&module[..length])) {
            continue;
        }
        sources.lines += lines;
        let is_program = path.starts_with("bin/") || (has_library && path == "main.rs");
        if !is_program {
            sources.modules.insert(module, code);
        }
    }
    sources
}

/// The length of the largest crate, rounded up, and at least the limit of a crate.
pub(super) fn rounded(lines: usize) -> usize {
    lines.next_multiple_of(ROUNDING_LINES).max(MAX_CRATE_LINES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_and_programs_are_left_out() {
        let files = [
            ("lib.rs", "mod a;\n#[cfg(test)]\nmod b;\n\n// more\n"),
            ("main.rs", "fn main() {}\n"),
            ("bin/other.rs", "fn main() {}\n"),
            ("a.rs", "fn c() {}\n#[cfg(test)]\nmod tests {\n    fn d() {}\n}\n"),
            ("b.rs", "mod deeper;\n"),
            ("b/deeper.rs", "fn e() {}\n"),
        ];
        let files = files.map(|(path, text)| (path.to_owned(), text.to_owned()));
        let sources = sources_of(&files);
        assert_eq!(sources.lines, 3 + 1 + 1 + 1);
        let modules: Vec<String> = sources.modules.keys().map(|module| module.join("::")).collect();
        assert_eq!(modules, ["", "a"]);
        assert!(!sources.modules[&vec!["a".to_owned()]].contains("tests"));
    }

    #[test]
    fn a_program_without_a_library_has_modules() {
        let files = [("main.rs", "mod a;\n"), ("a.rs", "fn b() {}\n")];
        let files = files.map(|(path, text)| (path.to_owned(), text.to_owned()));
        assert_eq!(sources_of(&files).modules.len(), 2);
    }

    #[test]
    fn the_largest_crate_is_rounded_up() {
        assert_eq!([5, 6_000, 6_001, 7_000].map(rounded), [6_000, 6_000, 7_000, 7_000]);
    }
}
