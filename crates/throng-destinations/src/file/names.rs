//! Names of folders and files. Pure.

use throng_activation::BatchPart;
use throng_model::{FileFormat, HashedIdentifier};
use throng_store::Operation;

/// The file with the audience and owner of a folder.
pub(super) const ABOUT: &str = "audience.json";
/// The file that lists the complete set.
pub(super) const MANIFEST: &str = "manifest.json";
/// The list of files that an open session has written.
pub(super) const SESSION: &str = ".session";
/// Exists if files were added after the manifest was written.
pub(super) const CHANGED: &str = ".changed";
/// Locked by the process that writes.
pub(super) const LOCK: &str = ".lock";
/// The folder in the destination's folder with an empty file for each audience that was created there.
pub(super) const MARKS: &str = ".throng";
/// That folder while it is created.
pub(super) const NEW_MARKS: &str = ".throng.tmp";

/// Characters of an audience's name that its folder's name has.
const READABLE_CHARS: usize = 48;
const ENDINGS: [&str; 4] = ["csv", "jsonl", "csv.gz", "jsonl.gz"];

/// The folder of an audience: the readable part of its name, and a hash of the whole name. Two names never
/// share a folder, and no name leads out of the destination's folder.
pub(super) fn folder_of(audience: &str) -> String {
    let mut readable = String::new();
    for letter in audience.chars() {
        if readable.len() >= READABLE_CHARS {
            break;
        }
        match letter {
            letter if letter.is_ascii_alphanumeric() => readable.push(letter.to_ascii_lowercase()),
            _ if readable.ends_with('-') || readable.is_empty() => {}
            _ => readable.push('-'),
        }
    }
    let readable = readable.trim_end_matches('-');
    let readable = if readable.is_empty() { "audience" } else { readable };
    let hash = HashedIdentifier::of_normalised(audience).to_hex();
    format!("{readable}-{}", hash.get(..16).unwrap_or_default())
}

/// Whether a text can be the name of an audience's folder.
pub(super) fn is_folder(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=128).contains(&id.len()) && !id.starts_with('-') && id.bytes().all(plain)
}

/// The file of a batch: the same each time the batch is sent. Sorted by name, files are in the order of runs
/// and batches.
pub(super) fn file_of(
    part: BatchPart,
    operation: Operation,
    format: FileFormat,
    gzip: bool,
) -> String {
    let kind = match operation {
        Operation::Add => "add",
        Operation::Remove => "remove",
        Operation::Replace => "set",
    };
    let ending = match format {
        FileFormat::Csv => "csv",
        FileFormat::Jsonl => "jsonl",
    };
    let bisected = if part.first == 0 { String::new() } else { format!("-row-{:06}", part.first) };
    let (run, batch) = (part.run.0, part.batch);
    let compressed = if gzip { ".gz" } else { "" };
    format!("run-{run:010}-batch-{batch:06}{bisected}-{kind}.{ending}{compressed}")
}

/// Whether a name was made by [`file_of`].
pub(super) fn is_file(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let parsed = || {
        let (stem, ending) = name.split_once('.')?;
        let (run, rest) = stem.strip_prefix("run-")?.split_once("-batch-")?;
        let (numbers, kind) = rest.rsplit_once('-')?;
        let (batch, first) = numbers.split_once("-row-").unwrap_or((numbers, "0"));
        let known = ENDINGS.contains(&ending) && ["add", "remove", "set"].contains(&kind);
        (known && number(run) && number(batch) && number(first)).then_some(())
    };
    parsed().is_some()
}

/// Whether a file is not for consumers.
pub(super) fn is_hidden(name: &str) -> bool {
    [SESSION, CHANGED].contains(&name) || is_auxiliary(name)
}

/// Whether a file says nothing about batches: the lock, or what an interrupted write left behind.
pub(super) fn is_auxiliary(name: &str) -> bool {
    name == LOCK || (name.starts_with('.') && name.ends_with(".tmp"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use throng_model::SyncRunId;

    use super::*;

    #[test]
    fn every_audience_has_a_folder_of_its_own_inside_the_root() {
        let names = [
            "throng: buyers",
            "Throng: Buyers",
            "throng/buyers",
            "..",
            "../../etc/passwd",
            "/",
            "",
            "\u{0}",
            "käufer",
            &"long ".repeat(100),
        ];
        let folders: BTreeSet<String> = names.iter().map(|name| folder_of(name)).collect();
        assert_eq!(folders.len(), names.len());
        assert!(folders.iter().all(|folder| is_folder(folder)), "{folders:?}");
        assert!(folder_of("throng: buyers").starts_with("throng-buyers-"));
        assert!(folder_of("..").starts_with("audience-"));
        for id in ["", "..", "a/b", "a.b", "-a", "A", "a\0", &"a".repeat(200)] {
            assert!(!is_folder(id), "{id}");
        }
    }

    #[test]
    fn files_are_named_by_run_and_batch_and_sorted_by_them() {
        let part = |run, batch, first| BatchPart { run: SyncRunId(run), batch, first };
        let name = |part, operation| file_of(part, operation, FileFormat::Csv, false);
        let names = [
            name(part(9, 0, 0), Operation::Add),
            name(part(9, 1, 0), Operation::Remove),
            name(part(9, 2, 0), Operation::Add),
            name(part(10, 0, 0), Operation::Replace),
            name(part(10, 0, 500), Operation::Replace),
        ];
        assert_eq!(names[0], "run-0000000009-batch-000000-add.csv");
        assert_eq!(names[4], "run-0000000010-batch-000000-row-000500-set.csv");
        assert_eq!(
            file_of(part(9, 1, 0), Operation::Remove, FileFormat::Jsonl, true),
            "run-0000000009-batch-000001-remove.jsonl.gz"
        );
        assert!(names.iter().all(|name| is_file(name)));
        assert!(names[..3].is_sorted());
        for other in [
            "run-1-batch-2-add.txt",
            "run-x-batch-2-add.csv",
            "run-1-batch-2.csv",
            "run-1-batch--add.csv",
            "report.csv",
            MANIFEST,
            ABOUT,
            LOCK,
        ] {
            assert!(!is_file(other), "{other}");
        }
        assert!(is_hidden(".manifest.json.tmp") && is_hidden(LOCK) && !is_hidden(".profile"));
        assert!(is_auxiliary(LOCK) && !is_auxiliary(CHANGED) && !is_auxiliary(SESSION));
        assert!(!is_folder(MARKS) && !is_folder(NEW_MARKS), "no audience has these folders");
    }
}
