//! Dependency cycles of modules inside a crate, from its paths that begin with `crate`, `super` or `self`.
//! Pure.
//!
//! A path depends on the module that defines the name: `crate::Error`, re-exported by the root, is a
//! dependency on `error`. A re-export with `pub use` is not a dependency, and neither is a path from a module
//! to its own children without `self`: a module may assemble its children, and they may use its definitions
//! unless it names them by full paths.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Token, after_closing, tokens};

/// The names of a module, from the root of the crate; empty: the root.
pub(super) type ModulePath = Vec<String>;

/// The module of a file by its path below `src`, without the extension.
pub(super) fn module_of(file: &str) -> ModulePath {
    let mut names: ModulePath = file.split('/').map(str::to_owned).collect();
    match names.last().map(String::as_str) {
        Some("mod") => drop(names.pop()),
        Some("lib" | "main") if names.len() == 1 => names.clear(),
        _ => {}
    }
    names
}

/// The sets of two or more modules that depend on each other, directly or through others. `modules`: the
/// code of each module, without comments, literals and tests.
pub(super) fn cycles(modules: &BTreeMap<ModulePath, String>) -> Vec<Vec<ModulePath>> {
    let uses: BTreeMap<&ModulePath, Uses> =
        modules.iter().map(|(module, code)| (module, uses_of(module, code, modules))).collect();
    let edges = |module: &ModulePath| {
        let targets = uses[module].named.iter().filter_map(|path| defining_module(path, &uses, 0));
        targets.filter(|target| target != module).collect::<BTreeSet<ModulePath>>()
    };
    let edges: BTreeMap<&ModulePath, BTreeSet<ModulePath>> =
        modules.keys().map(|module| (module, edges(module))).collect();
    let reached: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> =
        modules.keys().map(|module| (module, reached_from(module, &edges))).collect();
    let mut cycles: Vec<Vec<ModulePath>> = Vec::new();
    for module in modules.keys() {
        if cycles.iter().any(|cycle| cycle.contains(module)) {
            continue;
        }
        let in_cycle = |other: &&ModulePath| {
            *other == module || reached[module].contains(*other) && reached[*other].contains(module)
        };
        let cycle: Vec<ModulePath> = modules.keys().filter(in_cycle).cloned().collect();
        if cycle.len() > 1 {
            cycles.push(cycle);
        }
    }
    cycles
}

fn reached_from<'a>(
    module: &ModulePath,
    edges: &'a BTreeMap<&ModulePath, BTreeSet<ModulePath>>,
) -> BTreeSet<&'a ModulePath> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&ModulePath> = edges[module].iter().collect();
    while let Some(module) = next.pop() {
        if reached.insert(module) {
            next.extend(&edges[module]);
        }
    }
    reached
}

/// The paths and imports of a module.
#[derive(Debug, Default)]
struct Uses {
    /// Full paths.
    named: Vec<ModulePath>,
    /// Names imported by `use` items, each with the full path.
    imported: BTreeMap<String, ModulePath>,
}

/// A path in code, and its alias after `as`.
#[derive(Debug)]
struct Path {
    names: Vec<String>,
    alias: Option<String>,
}

fn is_anchor(name: &str) -> bool {
    matches!(name, "crate" | "super" | "self")
}

fn uses_of(module: &ModulePath, code: &str, modules: &BTreeMap<ModulePath, String>) -> Uses {
    let tokens = tokens(code);
    let mut uses = Uses::default();
    let mut at = 0;
    while at < tokens.len() {
        let follows = |text: &str| tokens.get(at + 1).is_some_and(|next| next.text == text);
        let follows_path = at > 0 && matches!(tokens[at - 1].text, "::" | ".");
        let mut paths = Vec::new();
        if tokens[at].text == "use" && !follows("<") {
            let is_public = is_public(&tokens[..at]);
            at = read_tree(&tokens, at + 1, &[], &mut paths);
            for path in paths {
                uses.import(module, path, is_public, modules);
            }
            continue;
        }
        if is_anchor(tokens[at].text) && follows("::") && !follows_path {
            read_tree(&tokens, at, &[], &mut paths);
            uses.named.extend(paths.iter().map(|path| absolute(&path.names, module)));
        }
        at += 1;
    }
    uses
}

impl Uses {
    fn import(
        &mut self,
        module: &ModulePath,
        path: Path,
        is_public: bool,
        modules: &BTreeMap<ModulePath, String>,
    ) {
        let Some(first) = path.names.first() else { return };
        let is_anchored = is_anchor(first);
        let mut full = match is_anchored {
            true => absolute(&path.names, module),
            false => module.iter().chain(&path.names).cloned().collect(),
        };
        // Other paths name another crate.
        if !is_anchored && !modules.contains_key(&full[..=module.len()]) {
            return;
        }
        if full.last().is_some_and(|last| last == "self") {
            full.pop();
        }
        let name = path.alias.or_else(|| full.last().cloned()).filter(|name| name != "*");
        if let Some(name) = name {
            self.imported.entry(name).or_insert_with(|| full.clone());
        }
        if is_anchored && !is_public {
            self.named.push(full);
        }
    }
}

/// Whether these tokens end with `pub` or `pub(…)`.
fn is_public(before: &[Token<'_>]) -> bool {
    let texts: Vec<&str> = before.iter().rev().take(8).map(|token| token.text).collect();
    let visibility = match texts.first() {
        Some(&")") => texts.iter().position(|text| *text == "(").map_or(0, |open| open + 1),
        _ => 0,
    };
    texts.get(visibility) == Some(&"pub")
}

/// Reads a path, or the tree of a `use` item, and returns the position after it.
fn read_tree(tokens: &[Token<'_>], at: usize, before: &[String], paths: &mut Vec<Path>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    if text(at) == "{" {
        let end = after_closing(tokens, at);
        let mut at = at + 1;
        while at + 1 < end {
            let next = read_tree(tokens, at, before, paths);
            at = next.max(at + 1);
        }
        return end;
    }
    let is_name =
        |at: usize| text(at) == "*" || tokens.get(at).is_some_and(|token| token.is_word());
    if !is_name(at) {
        return at;
    }
    let mut names = before.to_vec();
    names.push(text(at).to_owned());
    if text(at + 1) == "::" {
        if is_name(at + 2) || text(at + 2) == "{" {
            return read_tree(tokens, at + 2, &names, paths);
        }
        paths.push(Path { names, alias: None });
        return at + 2;
    }
    if text(at + 1) == "as" && is_name(at + 2) {
        paths.push(Path { names, alias: Some(text(at + 2).to_owned()) });
        return at + 3;
    }
    paths.push(Path { names, alias: None });
    at + 1
}

/// The absolute path of one that begins with `crate`, `self` or `super`.
fn absolute(names: &[String], module: &ModulePath) -> ModulePath {
    let (mut full, mut rest) = (module.clone(), names);
    match names.first().map(String::as_str) {
        Some("crate") => {
            full.clear();
            rest = &names[1..];
        }
        Some("self") => rest = &names[1..],
        _ => {}
    }
    while let Some(("super", after)) =
        rest.split_first().map(|(name, after)| (name.as_str(), after))
    {
        full.pop();
        rest = after;
    }
    full.extend(rest.iter().cloned());
    full
}

/// The longest chain of re-exports that is followed.
const MAX_REEXPORTS: usize = 16;

/// The module that defines the name of a path.
fn defining_module(
    path: &[String],
    uses: &BTreeMap<&ModulePath, Uses>,
    followed: usize,
) -> Option<ModulePath> {
    let length =
        (0..=path.len()).rev().find(|length| uses.contains_key(&path[..*length].to_vec()))?;
    let module = path[..length].to_vec();
    let Some(name) = path.get(length) else { return Some(module) };
    match uses[&module].imported.get(name) {
        Some(target) if followed < MAX_REEXPORTS && target[..] != path[..=length] => {
            let target: Vec<String> = target.iter().chain(&path[length + 1..]).cloned().collect();
            defining_module(&target, uses, followed + 1)
        }
        _ => Some(module),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cycles of files with these texts, each as the names of its modules.
    fn cycles_of(files: &[(&str, &str)]) -> Vec<String> {
        let modules =
            files.iter().map(|(file, code)| (module_of(file), (*code).to_owned())).collect();
        let name = |module: &ModulePath| match module.is_empty() {
            true => "crate".to_owned(),
            false => module.join("::"),
        };
        let cycle = |cycle: Vec<ModulePath>| cycle.iter().map(name).collect::<Vec<_>>().join(" ");
        cycles(&modules).into_iter().map(cycle).collect()
    }

    #[test]
    fn files_are_modules() {
        assert!(module_of("lib").is_empty() && module_of("main").is_empty());
        assert_eq!(module_of("a/mod"), ["a"]);
        assert_eq!(module_of("a/lib"), ["a", "lib"]);
        assert_eq!(module_of("a/b"), ["a", "b"]);
    }

    #[test]
    fn modules_that_use_each_other_are_a_cycle() {
        let found = cycles_of(&[
            ("lib", "mod a; mod b; mod c; mod d;"),
            ("a", "use crate::b::B; pub struct A;"),
            ("b", "use super::{c::C, d}; pub struct B;"),
            ("c", "fn f() { crate::a::g::<u8>(); }"),
            ("d", "pub fn alone() {}"),
        ]);
        assert_eq!(found, ["a b c"]);
        let straight = cycles_of(&[("lib", ""), ("a", "use crate::b::B;"), ("b", "use std::fmt;")]);
        assert!(straight.is_empty(), "{straight:?}");
    }

    #[test]
    fn a_path_depends_on_the_defining_module() {
        // `a` uses two names of the root: one that the root defines, and one that it re-exports.
        let reexports = ("lib", "mod a; mod b; pub use a::A; pub use b::B as C; pub trait T {}");
        let found = cycles_of(&[reexports, ("a", "use crate::{C, T};"), ("b", "use crate::A;")]);
        assert_eq!(found, ["a b"]);
        let found = cycles_of(&[reexports, ("a", "use crate::T;"), ("b", "use crate::A;")]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_parent_and_its_children_can_be_a_cycle() {
        let child = ("a/b", "use super::P;");
        let assembles = cycles_of(&[("lib", ""), ("a/mod", "mod b; use b::B; struct P;"), child]);
        assert!(assembles.is_empty(), "{assembles:?}");
        let named = ("a/mod", "mod b; use self::b::B; struct P;");
        assert_eq!(cycles_of(&[("lib", ""), named, child]), ["a a::b"]);
    }

    #[test]
    fn two_cycles_are_reported_separately() {
        let found = cycles_of(&[
            ("lib", ""),
            ("a", "use crate::b;"),
            ("b", "use crate::a; use crate::c;"),
            ("c", "use crate::d;"),
            ("d", "use crate::c;"),
        ]);
        assert_eq!(found, ["a b", "c d"]);
    }
}
