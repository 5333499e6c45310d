//! `cargo xtask tidy`: rules that the compiler does not check. Some hold everywhere: layers of the crates,
//! sizes of files, a description in each file. The project still breaks others: cycles of modules, large
//! crates, long functions, banned words. For these a limit is checked in that may only go down (`limits`).

mod crates;
mod cycles;
mod doctests;
mod functions;
mod layers;
mod limits;
mod source;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crates::{MAX_CRATE_LINES, Sources};
use cycles::ModulePath;
use limits::Count;
use words::Words;

/// The limit of a file.
const MAX_FILE_LINES: usize = 600;
/// Names of folders that tools use for their output, ignore or remove.
const OUTPUT_FOLDERS: [&str; 4] = ["build", "dist", "out", "target"];
/// Folders that are not part of the project.
const SKIPPED: [&str; 6] =
    [".git", "target", "fuzz/target", "fuzz/corpus", "fuzz/artifacts", "fuzz/coverage"];
/// Hidden folders that are part of the project.
const HIDDEN: [&str; 3] = [".ci", ".config", ".github"];
/// Extensions of text files, without those of generated files.
const TEXT_EXTENSIONS: [&str; 14] = [
    "rs", "md", "html", "sql", "yaml", "yml", "proto", "css", "js", "sh", "py", "java", "go",
    "toml",
];
const LIMITS: &str = "xtask/tidy-limits.toml";

// Not a doc comment: clap would show it instead of the one of the command.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Options {
    /// Lower the limits of xtask/tidy-limits.toml to what is found
    #[arg(long)]
    lower: bool,
    /// List every finding within the limits
    #[arg(long)]
    list: bool,
}

/// Checks everything and reports all findings.
pub(crate) fn check(root: &Path, options: Options) -> Result<()> {
    let project = Project::read(root)?;
    let dependencies = layers::read(root)?;
    let mut findings = layers::findings(&dependencies);
    for (path, text) in project.rust_files() {
        findings.extend(file_findings(path, text));
    }
    findings.extend(project.doctest_findings());
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
    if lines > MAX_FILE_LINES {
        findings.push(format!("{path} has {lines} lines; split it at {MAX_FILE_LINES}"));
    }
    if !text.starts_with("//!") && lines > 20 {
        findings.push(format!("{path} has no description in its first line (//!)"));
    }
    if text.contains("#[ignore") && !path.starts_with("xtask/") {
        findings.push(format!("{path} ignores a test"));
    }
    findings
}

/// The folders and the text files of the project, with paths relative to its root.
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
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            let is_hidden =
                name.starts_with('.') && !HIDDEN.iter().any(|kept| name.starts_with(kept));
            if SKIPPED.contains(&name.as_str()) || is_hidden {
                continue;
            }
            let extension = path.extension().and_then(|extension| extension.to_str());
            if path.is_dir() {
                self.add(root, &path)?;
                self.folders.push(name);
            } else if extension.is_some_and(|extension| TEXT_EXTENSIONS.contains(&extension)) {
                let bytes = fs::read(&path).with_context(|| format!("cannot read {name}"))?;
                self.texts.push((name, String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
        Ok(())
    }

    fn rust_files(&self) -> impl Iterator<Item = (&str, &str)> {
        let files = self.texts.iter().filter(|(path, _)| path.ends_with(".rs"));
        files.map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Libraries that are searched for doctests and have none, and those whose doctests do not run.
    fn doctest_findings(&self) -> Vec<String> {
        let finding = |(path, manifest): &(String, String)| {
            let folder = path.strip_suffix("/Cargo.toml")?;
            let sources = format!("{folder}/src/");
            let library = format!("{sources}lib.rs");
            let is_crate = folder.starts_with("crates/");
            if !is_crate || !self.rust_files().any(|(path, _)| path == library) {
                return None;
            }
            let files = self.rust_files().filter(|(path, _)| path.starts_with(&sources));
            doctests::finding(folder, manifest, files.map(|(_, text)| text))
        };
        self.texts.iter().filter_map(finding).collect()
    }

    /// The crates, with their folders.
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

    /// The counts of everything that has a limit.
    fn counts(&self, forbidden: Vec<String>) -> Result<Vec<Count>> {
        let crates = self.crates();
        let (cycles, largest_cycle) = cycle_findings(&crates);
        let largest = crates.iter().map(|(_, sources)| sources.lines).max().unwrap_or_default();
        let large = crates.iter().filter(|(_, sources)| sources.lines > MAX_CRATE_LINES);
        let large = large.map(|(folder, sources)| {
            format!("{folder} has {} lines without tests; split it", sources.lines)
        });
        let is_output = |folder: &&String| {
            let name = folder.rsplit('/').next().unwrap_or_default();
            OUTPUT_FOLDERS.contains(&name)
        };
        let output = self.folders.iter().filter(is_output);
        let output =
            output.map(|folder| format!("{folder} has the name of build output: rename it"));
        Ok(vec![
            Count::of("banned_words", self.banned_words()?),
            Count::of("cycles", cycles),
            Count { name: "largest_cycle", number: largest_cycle as u64, findings: Vec::new() },
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

/// A finding for each cycle, and the number of modules of the largest one.
fn cycle_findings(crates: &[(&str, Sources)]) -> (Vec<String>, usize) {
    let mut findings = Vec::new();
    let mut largest = 0;
    for (folder, sources) in crates {
        for cycle in cycles::cycles(&sources.modules) {
            let name = |module: &ModulePath| match module.is_empty() {
                true => "crate".to_owned(),
                false => module.join("::"),
            };
            let names: Vec<String> = cycle.iter().map(name).collect();
            findings.push(format!(
                "{folder}: {} modules form a cycle: {}",
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
    fn files_that_are_long_or_without_a_description_are_found() {
        assert!(file_findings("a.rs", &format!("//! A.\n{}", "x\n".repeat(599))).is_empty());
        assert_eq!(file_findings("a.rs", &format!("//! A.\n{}", "x\n".repeat(600))).len(), 1);
        assert_eq!(file_findings("a.rs", &"x\n".repeat(21)).len(), 1);
        assert_eq!(file_findings("a.rs", "//! A.\n#[ignore]\n").len(), 1);
    }

    #[test]
    fn libraries_without_doctests_say_so() {
        let manifest = "[package]\nname = \"one\"\n";
        let found = project(
            &[
                ("crates/one/Cargo.toml", manifest),
                ("crates/one/src/lib.rs", "//! One.\n"),
                ("crates/two/Cargo.toml", manifest),
                ("crates/two/src/lib.rs", "//! Two.\n"),
                ("crates/two/src/deep/a.rs", "/// ```\n/// a();\n/// ```\npub fn a() {}\n"),
                ("crates/program/Cargo.toml", manifest),
                ("crates/program/src/main.rs", "//! A program.\n"),
                ("xtask/Cargo.toml", manifest),
            ],
            &[],
        );
        let findings = found.doctest_findings();
        assert!(findings.len() == 1 && findings[0].starts_with("crates/one "), "{findings:?}");
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
            ("cycles", 1),
            ("largest_cycle", 2),
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
    fn banned_words_are_reported_with_file_and_line() {
        // The first entry of the list, so that this test does not contain a banned word.
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
