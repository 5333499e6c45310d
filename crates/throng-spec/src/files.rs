//! The texts of a spec, read from disk or taken from a request.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Problem;

/// The largest total size of the files of a spec, in bytes.
pub const MAX_SPEC_BYTES: usize = 32 << 20;
/// The largest number of files of a spec.
pub const MAX_SPEC_FILES: usize = 1_000;
/// The longest path of a file, in bytes.
const MAX_PATH_BYTES: usize = 4_096;

/// One file of a spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpecFile {
    /// The file's name in problems. It is never opened.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

/// All files of a spec. [`crate::check`] turns them into a [`crate::Spec`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpecFiles {
    /// The absolute folder to which paths in the spec are relative.
    pub base: PathBuf,
    /// The files, sorted by name.
    pub files: Vec<SpecFile>,
}

/// A problem of a whole file.
fn of_file(file: &Path, message: impl Into<String>, help: &str) -> Problem {
    Problem {
        file: file.to_owned(),
        line: 0,
        column: 0,
        path: String::new(),
        message: message.into(),
        help: Some(help.to_owned()),
    }
}

impl SpecFiles {
    /// Problems with the files as a whole, before any text is parsed. Does not read the texts.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !self.base.is_absolute() {
            let help = "send the absolute path of the files' folder";
            problems.push(of_file(
                &self.base,
                "the base of a spec must be an absolute folder",
                help,
            ));
        }
        if self.files.is_empty() {
            let help = "send at least one file";
            problems.push(of_file(&self.base, "the spec has no files", help));
        }
        if self.files.len() > MAX_SPEC_FILES {
            let message = format!("the spec has more than {MAX_SPEC_FILES} files");
            problems.push(of_file(&self.base, message, "put several files into one"));
        }
        let bytes = self.files.iter().map(|file| file.text.len()).fold(0, usize::saturating_add);
        if bytes > MAX_SPEC_BYTES {
            problems.push(too_large(&self.base));
        }
        let mut names = std::collections::BTreeSet::new();
        for file in self.files.iter().take(MAX_SPEC_FILES) {
            let shown = file.path.to_string_lossy();
            if shown.len() > MAX_PATH_BYTES || shown.contains(char::is_control) {
                let help = "rename the file: a path is text without control characters";
                problems.push(of_file(Path::new("?"), "the name of a file cannot be used", help));
            } else if !names.insert(&file.path) {
                let message = "the spec contains two files of this name";
                problems.push(of_file(&file.path, message, "send each file once"));
            }
        }
        problems
    }
}

fn too_large(file: &Path) -> Problem {
    let message = format!("the spec is larger than {} MiB", MAX_SPEC_BYTES >> 20);
    of_file(file, message, "a spec names data and does not contain it: move lists to a source")
}

/// Reads the texts of a spec: one file, or every `*.yaml` and `*.yml` of a folder (not of its
/// subfolders). Reads at most [`MAX_SPEC_BYTES`].
///
/// # Errors
/// A problem for every file that cannot be read, and for a spec that is too large.
pub fn read_files(path: &Path) -> Result<SpecFiles, Vec<Problem>> {
    let paths = paths_of(path).map_err(|problem| vec![problem])?;
    // A file that is named itself may be a pipe, such as `<(sops -d spec.yaml)`. In a folder one could be forgotten, and
    // to open it would wait forever.
    let is_folder = path.is_dir();
    let absolute = std::path::absolute(paths.first().map_or(path, PathBuf::as_path));
    let absolute = absolute.unwrap_or_else(|_| path.to_owned());
    let base = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    let mut left = MAX_SPEC_BYTES;
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        match read(&path, left, is_folder) {
            Ok(text) => {
                left -= text.len();
                files.push(SpecFile { path, text });
            }
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(SpecFiles { base, files }) } else { Err(problems) }
}

fn read(path: &Path, left: usize, is_regular: bool) -> Result<String, Problem> {
    let unreadable = |error: std::io::Error| {
        let help = "a spec is a text file in UTF-8 that this user may read";
        of_file(path, format!("cannot read the file: {error}"), help)
    };
    let mut text = String::new();
    let opened = if is_regular { throng_fs::open(path) } else { std::fs::File::open(path) };
    let file = opened.map_err(unreadable)?;
    file.take(left as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() > left { Err(too_large(path)) } else { Ok(text) }
}

fn paths_of(path: &Path) -> Result<Vec<PathBuf>, Problem> {
    let unreadable = |error: std::io::Error| {
        let help = "name a spec file, or a folder with *.yaml files, that exists and may be read";
        of_file(path, format!("cannot read the spec: {error}"), help)
    };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let ending = file.extension().and_then(|ending| ending.to_str());
        if matches!(ending, Some("yaml" | "yml")) && !file.is_dir() {
            files.push(file);
        }
    }
    if files.is_empty() {
        let message = "cannot read the spec: there is no *.yaml and no *.yml file in this folder";
        return Err(of_file(path, message, "put the spec there, or name another folder"));
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_pipe_in_the_folder_of_a_spec_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("audiences.yaml");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let problems = read_files(dir.path()).unwrap_err();
        assert_eq!(problems.len(), 1);
        let (file, message) = (&problems[0].file, &problems[0].message);
        assert_eq!(file, &pipe);
        assert!(message.ends_with("it is a named pipe, not a regular file"), "{message}");
    }
}
