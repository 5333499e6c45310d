//! `cargo xtask tidy`: rules that no compiler checks. Some hold everywhere: layers of the crates, sizes
//! of files, what a file is for. Others the project still breaks: circles of modules, large crates, long
//! functions, banned words; for these a number is checked in that may only go down (`limits`).

mod circles;
mod crates;
mod functions;
mod layers;
mod limits;
mod source;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use circles::ModulePath;
use crates::{LARGEST_CRATE_LINES, Sources};
use limits::Count;
use words::Words;

/// A file over this asks to be split.
const LONGEST_FILE_LINES: usize = 600;
/// What tools take for their output, ignore or remove.
const OUTPUT_FOLDERS: [&str; 4] = ["build", "dist", "out", "target"];
/// What is not part of the project.
const SKIPPED: [&str; 6] =
    [".git", "target", "fuzz/target", "fuzz/corpus", "fuzz/artifacts", "fuzz/coverage"];
/// Folders at the root that begin with a dot and are part of the project.
const HIDDEN: [&str; 3] = [".ci", ".config", ".github"];
/// Files with words for people. What is generated from them is left out.
const TEXTS: [&str; 14] = [
    "rs", "md", "html", "sql", "yaml", "yml", "proto", "css", "js", "sh", "py", "java", "go",
    "toml",
];
const LIMITS: &str = "xtask/tidy-limits.toml";

// Not a doc comment, which clap would show in place of that of the command.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Options {
    /// Lower the limits of xtask/tidy-limits.toml to what is found
    #[arg(long)]
    lower: bool,
    /// Show every finding that a limit allows
    #[arg(long)]
    list: bool,
}

/// Checks everything and reports all findings at once.
pub(crate) fn check(root: &Path, options: Options) -> Result<()> {
    let project = Project::read(root)?;
    let dependencies = layers::read(root)?;
    let mut findings = layers::findings(&dependencies);
    for (path, text) in project.rust_files() {
        findings.extend(file_findings(path, text));
    }
    let counts = project.counts(layers::forbidden(&dependencies))?;
    if options.list {
        for finding in counts.iter().flat_map(|count| &count.findings) {
            eprintln!("{finding}");
        }
    }
    let path = root.join(LIMITS);
    let mut text = fs::read_to_string(&path).with_context(|| format!("cannot read {LIMITS}"))?;
    if options.lower {
        text = limits::lowered(&text, &counts);
        fs::write(&path, &text).with_context(|| format!("cannot write {LIMITS}"))?;
    }
    findings.extend(limits::compare(&counts, &limits::read(&text)?)?);
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    eprintln!("tidy: ok");
    Ok(())
}

fn file_findings(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let lines = text.lines().count();
    if lines > LONGEST_FILE_LINES {
        findings.push(format!("{path} has {lines} lines; split it at {LONGEST_FILE_LINES}"));
    }
    if !text.starts_with("//!") && lines > 20 {
        findings.push(format!("{path} does not say in its first line what it is for (//!)"));
    }
    if text.contains("#[ignore") && !path.starts_with("xtask/") {
        findings.push(format!("{path} ignores a test"));
    }
    findings
}

/// The folders and the texts of the project, by their paths below its root.
struct Project {
    folders: Vec<String>,
    texts: Vec<(String, String)>,
}

impl Project {
    fn read(root: &Path) -> Result<Self> {
        let mut project = Self { folders: Vec::new(), texts: Vec::new() };
        project.add(root, root)?;
        Ok(project)
    }

    fn add(&mut self, root: &Path, folder: &Path) -> Result<()> {
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let entries = entries.with_context(|| format!("cannot read {}", folder.display()))?;
        let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            let is_hidden =
                shown.starts_with('.') && !HIDDEN.iter().any(|kept| shown.starts_with(kept));
            if SKIPPED.contains(&shown.as_str()) || is_hidden {
                continue;
            }
            if path.is_dir() {
                self.add(root, &path)?;
                self.folders.push(shown);
            } else if TEXTS.iter().any(|ending| path.extension().is_some_and(|e| e == *ending)) {
                let bytes = fs::read(&path).with_context(|| format!("cannot read {shown}"))?;
                self.texts.push((shown, String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
        Ok(())
    }

    fn rust_files(&self) -> impl Iterator<Item = (&str, &str)> {
        let files = self.texts.iter().filter(|(path, _)| path.ends_with(".rs"));
        files.map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The crates, by their folders.
    fn crates(&self) -> Vec<(&str, Sources)> {
        let is_crate = |folder: &&str| {
            *folder == "bench"
                || *folder == "xtask"
                || folder.strip_prefix("crates/").is_some_and(|name| !name.contains('/'))
        };
        let folders = self.folders.iter().map(String::as_str).filter(is_crate);
        let sources = |folder: &str| {
            let below =
                |path: &str| Some(path.strip_prefix(folder)?.strip_prefix("/src/")?.to_owned());
            let files =
                self.rust_files().filter_map(|(path, text)| Some((below(path)?, text.to_owned())));
            crates::sources_of(&files.collect::<Vec<_>>())
        };
        folders.map(|folder| (folder, sources(folder))).collect()
    }

    /// Everything that has a limit.
    fn counts(&self, forbidden: Vec<String>) -> Result<Vec<Count>> {
        let crates = self.crates();
        let (circles, largest_circle) = circle_findings(&crates);
        let largest = crates.iter().map(|(_, sources)| sources.lines).max().unwrap_or_default();
        let large = crates.iter().filter(|(_, sources)| sources.lines > LARGEST_CRATE_LINES);
        let large = large.map(|(folder, sources)| {
            format!("{folder} has {} lines without tests; split it", sources.lines)
        });
        let is_output = |folder: &&String| {
            let name = folder.rsplit('/').next().unwrap_or_default();
            OUTPUT_FOLDERS.contains(&name)
        };
        let output = self.folders.iter().filter(is_output);
        let output =
            output.map(|folder| format!("{folder} looks like the output of a tool: rename it"));
        Ok(vec![
            Count::of("banned_words", self.banned_words()?),
            Count::of("circles", circles),
            Count { name: "largest_circle", number: largest_circle as u64, findings: Vec::new() },
            Count::of("large_crates", large.collect()),
            Count {
                name: "largest_crate",
                number: crates::rounded(largest) as u64,
                findings: Vec::new(),
            },
            Count::of("long_functions", self.long_functions()),
            Count::of("output_folders", output.collect()),
            Count::of("forbidden_dependencies", forbidden),
        ])
    }

    fn banned_words(&self) -> Result<Vec<String>> {
        let words = Words::read(include_str!("words.txt"), include_str!("words-allowed.txt"))?;
        let mut findings = Vec::new();
        for (path, text) in &self.texts {
            for (line, hit) in words.of_file(path, text) {
                findings.push(format!("{path}:{line}: `{}`: {}", hit.word, hit.replacement));
            }
        }
        Ok(findings)
    }

    fn long_functions(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for (path, text) in self.rust_files() {
            for function in functions::long_functions(&source::code_of(text)) {
                let functions::LongFunction { line, name, lines } = function;
                findings.push(format!("{path}:{line}: `{name}` has {lines} lines; split it"));
            }
        }
        findings
    }
}

/// A line for each circle, and how many modules the largest has.
fn circle_findings(crates: &[(&str, Sources)]) -> (Vec<String>, usize) {
    let mut findings = Vec::new();
    let mut largest = 0;
    for (folder, sources) in crates {
        for circle in circles::circles(&sources.modules) {
            let shown = |module: &ModulePath| match module.is_empty() {
                true => "crate".to_owned(),
                false => module.join("::"),
            };
            let names: Vec<String> = circle.iter().map(shown).collect();
            findings.push(format!(
                "{folder}: {} modules are a circle: {}",
                names.len(),
                names.join(", ")
            ));
            largest = largest.max(names.len());
        }
    }
    (findings, largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(texts: &[(&str, &str)], folders: &[&str]) -> Project {
        Project {
            folders: folders.iter().map(|folder| (*folder).to_owned()).collect(),
            texts: texts.iter().map(|(p, t)| ((*p).to_owned(), (*t).to_owned())).collect(),
        }
    }

    fn count(project: &Project, name: &str) -> u64 {
        let counts = project.counts(vec!["a on b".to_owned()]).unwrap();
        counts.iter().find(|count| count.name == name).unwrap().number
    }

    #[test]
    fn files_that_are_long_or_unexplained_are_found() {
        assert!(file_findings("a.rs", &format!("//! A.\n{}", "x\n".repeat(599))).is_empty());
        assert_eq!(file_findings("a.rs", &format!("//! A.\n{}", "x\n".repeat(600))).len(), 1);
        assert_eq!(file_findings("a.rs", &"x\n".repeat(21)).len(), 1);
        assert_eq!(file_findings("a.rs", "//! A.\n#[ignore]\n").len(), 1);
    }

    #[test]
    fn every_kind_of_finding_is_counted() {
        let long = format!("fn f() {{\n{}}}\n", "x;\n".repeat(80));
        let large = "x\n".repeat(6_001);
        let found = project(
            &[
                ("crates/one/src/lib.rs", "mod a; mod b;"),
                ("crates/one/src/a.rs", "use crate::b;"),
                ("crates/one/src/b.rs", "use super::a;"),
                ("crates/one/tests/it/long.rs", &long),
                ("bench/src/main.rs", &large),
            ],
            &["crates", "crates/one", "crates/one/src/build", "bench", "docs/builder"],
        );
        for (name, number) in [
            ("banned_words", 0),
            ("circles", 1),
            ("largest_circle", 2),
            ("large_crates", 1),
            ("largest_crate", 7_000),
            ("long_functions", 1),
            ("output_folders", 1),
            ("forbidden_dependencies", 1),
        ] {
            assert_eq!(count(&found, name), number, "{name}");
        }
    }

    #[test]
    fn banned_words_are_counted_with_their_places() {
        // The first entry of the list, so that this test quotes none.
        let list = include_str!("words.txt");
        let mut entries = list.lines().filter(|line| !line.starts_with('#'));
        let (word, _) = entries.find_map(|line| line.split_once(" -> ")).unwrap();
        let found = project(&[("docs/a.md", &format!("fine\n{word}\n"))], &[]);
        let findings = found.banned_words().unwrap();
        assert!(findings.len() == 1 && findings[0].starts_with("docs/a.md:2: "), "{findings:?}");
    }

    #[test]
    fn the_limits_name_every_count() {
        let limits = limits::read(include_str!("../../tidy-limits.toml")).unwrap();
        let counts = project(&[], &[]).counts(Vec::new()).unwrap();
        assert!(limits::compare(&counts, &limits).is_ok());
    }
}
