//! Which crates have doctests: rustdoc reads a whole crate, and everything that it depends on, also to find none. Pure.

/// A finding if a library is searched for doctests and has none, or has some and is not searched. `files` are the
/// texts of its sources.
pub(super) fn finding<'a>(
    folder: &str,
    manifest: &str,
    files: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    match (files.into_iter().any(has_example), is_off(manifest)) {
        (true, true) => Some(format!(
            "{folder} has an example in its documentation that is not tested: remove `doctest = false` from its Cargo.toml"
        )),
        (false, false) => Some(format!(
            "{folder} has no example in its documentation: write `doctest = false` below [lib] in its Cargo.toml"
        )),
        _ => None,
    }
}

/// Whether a manifest turns doctests of its library off.
fn is_off(manifest: &str) -> bool {
    let manifest: Option<toml::Table> = toml::from_str(manifest).ok();
    let library = manifest.as_ref().and_then(|manifest| manifest.get("lib"));
    let doctest = library.and_then(|library| library.get("doctest"));
    doctest.and_then(toml::Value::as_bool) == Some(false)
}

/// Whether doc comments have a block of code that rustdoc tests, or include a file, which may have one.
fn has_example(text: &str) -> bool {
    // The fence that ends the block of these lines, and whether the line before is an empty one of the documentation.
    let (mut inside, mut is_after_empty): (Option<&str>, bool) = (None, false);
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#![doc = include_str!") || line.starts_with("#[doc = include_str!") {
            return true;
        }
        let Some(doc) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) else {
            (inside, is_after_empty) = (None, false);
            continue;
        };
        let content = doc.trim();
        match (inside, fence_of(content)) {
            (Some(fence), _) if content.starts_with(fence) => inside = None,
            (Some(_), _) => {}
            (None, Some((_, language))) if is_tested(language) => return true,
            (None, Some((fence, _))) => inside = Some(fence),
            // Markdown has blocks of code without fences. The first space is that of the comment.
            (None, None) if is_after_empty && !content.is_empty() && doc.starts_with("     ") => {
                return true;
            }
            (None, None) => {}
        }
        is_after_empty = content.is_empty();
    }
    false
}

/// The fence that a line begins with, and what follows it. Marks that end in the line are code within a sentence.
fn fence_of(line: &str) -> Option<(&str, &str)> {
    let end = ['`', '~'].into_iter().map(|mark| line.len() - line.trim_start_matches(mark).len());
    let end = end.max().filter(|length| *length >= 3)?;
    let (fence, rest) = line.split_at(end);
    (!rest.contains('`')).then_some((fence, rest))
}

/// Whether rustdoc tests a block of this language. One that is ignored is none that it tests.
fn is_tested(language: &str) -> bool {
    let is_of_rust = |word: &str| {
        matches!(word, "rust" | "no_run" | "should_panic" | "compile_fail")
            || word.starts_with("edition")
            // The code of an error, beside `compile_fail`.
            || word.starts_with("E0")
    };
    language.split([',', ' ']).filter(|word| !word.is_empty()).all(is_of_rust)
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

    #[test]
    fn blocks_are_examples_as_rustdoc_reads_them() {
        let has_example = |lines: &[&str]| {
            let text: String = lines.iter().map(|line| format!("///{line}\n")).collect();
            has_example(&text)
        };
        for language in ["", "rust", "no_run", "should_panic", "compile_fail,E0277", "edition2024"]
        {
            assert!(has_example(&[&format!(" ```{language}"), " a();", " ```"]), "{language}");
        }
        for language in ["text", "sh", "json", "rust,ignore", "ignore"] {
            assert!(!has_example(&[&format!(" ```{language}"), " a();", " ```"]), "{language}");
        }
        assert!(has_example(&[" ~~~", " a();", " ~~~"]));
        assert!(!has_example(&[" ~~~text", " ```", " ~~~"]), "the other marks are inside");
        assert!(has_example(&[" ````text", " ```", " ````", " ```"]), "a block after another");
        assert!(has_example(&[" A:", "", "     a();"]));
        assert!(has_example(&[" ```a``` is", " ```", " a();", " ```"]), "code in a sentence");
        assert!(!has_example(&[" A, which is", "     continued."]));
        assert!(!has_example(&[" ```text", "", "     a();", " ```"]));
    }

    #[test]
    fn doctests_are_off_as_cargo_reads_it() {
        for off in
            ["[lib]\ndoctest=false", "lib = { doctest = false } # none", "lib.doctest = false"]
        {
            assert!(is_off(off), "{off}");
        }
        for on in [
            "",
            "[lib]",
            "[lib]\ndoctest = true",
            "[lib]\n# doctest = false",
            "[[bin]]\ndoctest = false",
        ] {
            assert!(!is_off(on), "{on}");
        }
    }
}
