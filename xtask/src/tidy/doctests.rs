//! Which crates have doctests: rustdoc reads a whole crate, and everything that it depends on, also to find none. Pure.

/// A finding if a library is searched for doctests and has none, or has some and is not searched. `files` are the
/// texts of its sources.
pub(super) fn finding<'a>(
    folder: &str,
    manifest: &str,
    files: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let is_off = manifest.lines().any(|line| line.trim() == "doctest = false");
    match (files.into_iter().any(has_example), is_off) {
        (true, true) => Some(format!(
            "{folder} has an example in its documentation that is not tested: remove `doctest = false` from its Cargo.toml"
        )),
        (false, false) => Some(format!(
            "{folder} has no example in its documentation: write `doctest = false` below [lib] in its Cargo.toml"
        )),
        _ => None,
    }
}

/// Whether doc comments have a block of code that is not marked as text, or include a file, which may have one.
fn has_example(text: &str) -> bool {
    let mut is_inside = false;
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#![doc = include_str!") || line.starts_with("#[doc = include_str!") {
            return true;
        }
        let doc = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        let Some(doc) = doc else {
            is_inside = false;
            continue;
        };
        if let Some(language) = doc.trim().strip_prefix("```") {
            if !is_inside && language != "text" {
                return true;
            }
            is_inside = !is_inside;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFF: &str = "[package]\nname = \"a\"\n\n[lib]\ndoctest = false\n";
    const ON: &str = "[package]\nname = \"a\"\n";
    const EXAMPLE: &str = "//! A.\n//!\n//! ```\n//! assert!(true);\n//! ```\n";
    const LAYOUT: &str = "//! A.\n//!\n//! ```text\n//! kind u8\n//! ```\nfn a() {}\n";

    #[test]
    fn a_crate_is_searched_for_doctests_if_it_has_one() {
        for (manifest, files, wanted) in [
            (ON, [LAYOUT, EXAMPLE], None),
            (OFF, [LAYOUT, EXAMPLE], Some("remove")),
            (OFF, [LAYOUT, "fn b() {}"], None),
            (ON, [LAYOUT, "fn b() {}"], Some("write")),
        ] {
            let found = finding("crates/a", manifest, files);
            let is_as_wanted = match wanted {
                Some(word) => found.as_deref().is_some_and(|finding| finding.contains(word)),
                None => found.is_none(),
            };
            assert!(is_as_wanted, "{found:?}");
        }
    }

    #[test]
    fn examples_of_items_and_of_included_files_are_found() {
        assert!(has_example("impl A {\n    /// B.\n    /// ```\n    /// a();\n    /// ```\n}\n"));
        assert!(has_example("//! A.\n#![doc = include_str!(\"../README.md\")]\n"));
        // The end of one block is not the beginning of another one.
        assert!(!has_example(&format!("{LAYOUT}{LAYOUT}")));
        assert!(!has_example("fn a() {\n    // ```\n    let b = \"```\";\n}\n"));
    }
}
