//! The RustSec advisory database: its current state, or the copy in this repository if it cannot be
//! fetched.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use semver::{Version, VersionReq};
use serde::Deserialize;

const DATABASE: &str = "https://github.com/RustSec/advisory-db";
const COPY: &str = "xtask/advisories/advisories.tsv";
/// The timeout of a fetch, which is some megabytes.
const FETCH_TIMEOUT_SECS: &str = "60";
/// The age from which on the copy should be updated.
const OLD_DAYS: i64 = 180;
const HEADER: &str = "# Advisories of the RustSec database: crate, id, date, kind, patched and unaffected versions (`|` between several).";
const DATE: &str = "# taken ";

/// The kind of an advisory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Vulnerability,
    Unsound,
    /// The crate is unmaintained, or there is a notice. A warning, not an error.
    Note,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Vulnerability => "vulnerability",
            Self::Unsound => "unsound",
            Self::Note => "unmaintained",
        }
    }

    fn parse(text: &str) -> Result<Self> {
        match text {
            "vulnerability" => Ok(Self::Vulnerability),
            "unsound" => Ok(Self::Unsound),
            "unmaintained" | "notice" => Ok(Self::Note),
            other => bail!("`{other}` is not a kind of advisory"),
        }
    }
}

/// An advisory about versions of a crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Advisory {
    pub(super) package: String,
    pub(super) id: String,
    pub(super) kind: Kind,
    date: String,
    patched: Vec<VersionReq>,
    unaffected: Vec<VersionReq>,
}

impl Advisory {
    /// Whether this version is affected.
    pub(super) fn affects(&self, version: &Version) -> bool {
        !self.patched.iter().chain(&self.unaffected).any(|range| range.matches(version))
    }

    pub(super) fn help(&self) -> String {
        match self.patched.is_empty() {
            true => "no version is fixed: use another crate".to_owned(),
            false => format!("update to {}", join(&self.patched, " or ")),
        }
    }

    fn line(&self) -> String {
        let (patched, unaffected) = (join(&self.patched, "|"), join(&self.unaffected, "|"));
        let Self { package, id, date, kind, .. } = self;
        format!("{package}\t{id}\t{date}\t{}\t{patched}\t{unaffected}", kind.name())
    }

    fn of_line(line: &str) -> Result<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [package, id, date, kind, patched, unaffected] = fields[..] else {
            bail!("`{line}` does not have six fields");
        };
        let versions = |text: &str| {
            let parts = text.split('|').filter(|part| !part.is_empty());
            parts.map(|part| VersionReq::parse(part).map_err(Into::into)).collect::<Result<_>>()
        };
        Ok(Self {
            package: package.to_owned(),
            id: id.to_owned(),
            date: date.to_owned(),
            kind: Kind::parse(kind)?,
            patched: versions(patched)?,
            unaffected: versions(unaffected)?,
        })
    }

    /// From a file of the database; `None` if it was withdrawn or is about other operating systems.
    fn of_file(text: &str) -> Result<Option<Self>> {
        let front = text.split("```toml\n").nth(1).and_then(|rest| rest.split("\n```").next());
        let File { advisory, versions, affected } =
            toml::from_str(front.context("there is no block of TOML")?)?;
        let ours = |os: &String| os == "linux" || os == "macos";
        let is_of_other_systems = !affected.os.is_empty() && !affected.os.iter().any(ours);
        if advisory.withdrawn.is_some() || is_of_other_systems {
            return Ok(None);
        }
        Ok(Some(Self {
            package: advisory.package,
            id: advisory.id,
            date: advisory.date,
            kind: Kind::parse(advisory.informational.as_deref().unwrap_or("vulnerability"))?,
            patched: versions.patched,
            unaffected: versions.unaffected,
        }))
    }
}

fn join(versions: &[VersionReq], separator: &str) -> String {
    versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

#[derive(Deserialize)]
struct File {
    advisory: AdvisoryTable,
    #[serde(default)]
    versions: Versions,
    #[serde(default)]
    affected: Affected,
}

#[derive(Deserialize)]
struct AdvisoryTable {
    package: String,
    id: String,
    date: String,
    informational: Option<String>,
    withdrawn: Option<String>,
}

#[derive(Default, Deserialize)]
struct Versions {
    #[serde(default)]
    patched: Vec<VersionReq>,
    #[serde(default)]
    unaffected: Vec<VersionReq>,
}

#[derive(Default, Deserialize)]
struct Affected {
    #[serde(default)]
    os: Vec<String>,
}

/// The advisories and their origin.
pub(super) struct Database {
    pub(super) advisories: Vec<Advisory>,
    /// Why the copy is used; `None` if the database was fetched.
    offline: Option<String>,
    /// The date of the last commit, such as 2026-08-21.
    date: String,
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { advisories, offline, date } = self;
        let count = advisories.len();
        match offline {
            None => write!(f, "{count} advisories of {DATABASE}, {date}"),
            Some(why) => {
                write!(f, "{count} advisories of the copy in {COPY}, {date}")?;
                if let Some(days) = days(date).map(|then| today() - then) {
                    write!(f, ", {days} days old")?;
                    if days > OLD_DAYS {
                        write!(f, " (run `cargo xtask deny --update` with network access)")?;
                    }
                }
                write!(f, ": {why}")
            }
        }
    }
}

/// The database, or the copy if it cannot be fetched.
pub(super) fn load(root: &Path, target: &Path, update: bool) -> Result<Database> {
    let copy = root.join(COPY);
    match fetch(target) {
        Ok(database) => {
            if update {
                let lines: Vec<String> = database.advisories.iter().map(Advisory::line).collect();
                let text = format!("{HEADER}\n{DATE}{}\n{}\n", database.date, lines.join("\n"));
                std::fs::write(&copy, text).with_context(|| format!("cannot write {COPY}"))?;
            }
            Ok(database)
        }
        Err(error) if update => Err(error.context("the copy cannot be updated")),
        Err(error) => {
            let text =
                std::fs::read_to_string(&copy).with_context(|| format!("cannot read {COPY}"))?;
            let (advisories, date) = parse(&text)?;
            let offline = Some(format!("{DATABASE} cannot be fetched ({error:#})"));
            Ok(Database { advisories, offline, date })
        }
    }
}

fn parse(text: &str) -> Result<(Vec<Advisory>, String)> {
    let date = text.lines().find_map(|line| line.strip_prefix(DATE));
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let advisories = lines.map(Advisory::of_line).collect::<Result<_>>();
    Ok((advisories.context(COPY)?, date.context("the copy has no date")?.to_owned()))
}

/// Clones the database below `target`, or updates an existing clone.
fn fetch(target: &Path) -> Result<Database> {
    let clone = target.join("advisory-db");
    let git = |arguments: &[&str]| {
        let mut git = Command::new("timeout");
        git.arg(FETCH_TIMEOUT_SECS).arg("git").args(arguments).env("GIT_TERMINAL_PROMPT", "0");
        let output = git.stdin(Stdio::null()).output().context("cannot start git")?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("{}", errors.lines().last().unwrap_or("git did not end in time").trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let path = clone.to_str().context("the name of the target folder is not UTF-8")?;
    if clone.join(".git").exists() {
        git(&["-C", path, "fetch", "--quiet", "--depth", "1", "origin", "HEAD"])?;
        git(&["-C", path, "reset", "--quiet", "--hard", "FETCH_HEAD"])?;
    } else {
        git(&["clone", "--quiet", "--depth", "1", DATABASE, path])?;
    }
    let date = git(&["-C", path, "log", "-1", "--format=%cs"])?;
    let mut advisories = Vec::new();
    for folder in std::fs::read_dir(clone.join("crates"))? {
        for file in std::fs::read_dir(folder?.path())? {
            let path = file?.path();
            let text = std::fs::read_to_string(&path)?;
            let read = Advisory::of_file(&text);
            advisories.extend(read.with_context(|| path.display().to_string())?);
        }
    }
    advisories.sort_by(|a, b| (&a.package, &a.id).cmp(&(&b.package, &b.id)));
    Ok(Database { advisories, offline: None, date })
}

/// Days from 1970-01-01 to a date such as 2026-08-21.
fn days(date: &str) -> Option<i64> {
    let mut parts = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    // Years that begin in March, so that the leap day is the last day.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(365 * year + leaps + (153 * month + 2) / 5 + day - 1 - 719_468)
}

#[expect(clippy::disallowed_methods, reason = "the age of a file is about the real day")]
fn today() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| i64::try_from(since.as_secs() / 86_400).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_written_as_it_is_read() {
        let text = std::fs::read_to_string(crate::root().unwrap().join(COPY)).unwrap();
        let (advisories, date) = parse(&text).unwrap();
        assert!(advisories.len() > 1_000 && days(&date).is_some());
        for advisory in &advisories {
            assert_eq!(&Advisory::of_line(&advisory.line()).unwrap(), advisory);
        }
        let of = |id: &str| advisories.iter().find(|a| a.id == id).unwrap();
        let version = |text: &str| Version::parse(text).unwrap();
        let quick_xml = of("RUSTSEC-2026-0194");
        assert!(quick_xml.affects(&version("0.39.4")));
        assert!(!quick_xml.affects(&version("0.41.0")));
        // Several patched release lines, and versions before the defect.
        let tokio = of("RUSTSEC-2021-0124");
        assert!(tokio.affects(&version("1.8.3")) && !tokio.affects(&version("1.8.4")));
        assert!(tokio.affects(&version("1.13.0")) && !tokio.affects(&version("1.13.1")));
        assert!(!tokio.affects(&version("0.1.13")) && !tokio.affects(&version("1.54.1")));
    }

    #[test]
    fn a_file_of_the_database_is_read() {
        let file = |more: &str| {
            format!(
                "```toml\n[advisory]\nid = \"RUSTSEC-2020-0001\"\npackage = \"a\"\ndate = \"2020-01-01\"\n{more}\n\
                 [versions]\npatched = [\">= 1.2\"]\n```\n# A title\n"
            )
        };
        let read = |more| Advisory::of_file(&file(more)).unwrap();
        let advisory = read("").unwrap();
        assert_eq!((advisory.kind, advisory.package.as_str()), (Kind::Vulnerability, "a"));
        assert_eq!(advisory.help(), "update to >=1.2");
        assert_eq!(read("informational = \"unsound\"").unwrap().kind, Kind::Unsound);
        assert_eq!(read("withdrawn = \"2021-01-01\""), None);
        assert_eq!(read("[affected]\nos = [\"windows\"]"), None);
        assert!(Advisory::of_file("no block").is_err());
    }

    #[test]
    fn days_are_counted() {
        assert_eq!(days("1970-01-01"), Some(0));
        assert_eq!(days("2000-02-29").zip(days("2000-03-01")).map(|(a, b)| b - a), Some(1));
        assert_eq!(days("2026-11-25"), Some(20_782));
        assert_eq!(days("soon"), None);
    }
}
