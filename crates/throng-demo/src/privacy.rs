//! Searches every byte of what the demo wrote for the identifiers of the example's customers.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use throng_spec::Spec;

use crate::example;

/// The number of plain e-mail addresses and phone numbers of customers in all files below `folders`. The
/// example's own files (SQL and data) contain none, so no file is excluded. Reads every file whole.
///
/// # Errors
/// A folder or a file cannot be read.
pub fn plain_identifiers(folders: &[&Path], spec: &Spec) -> io::Result<u64> {
    // Without a sync no identifier is read, and the search would prove nothing.
    debug_assert!(!spec.syncs.is_empty());
    let customers: HashSet<Vec<u8>> =
        example::customers().into_iter().map(String::into_bytes).collect();
    let mut found = 0;
    for folder in folders {
        visit_files(folder, &mut |bytes| found += count_in(bytes, &customers))?;
    }
    Ok(found)
}

fn visit_files(folder: &Path, visit: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let visited = match path.is_dir() {
            true => visit_files(&path, visit),
            false => std::fs::read(&path).map(|bytes| visit(&bytes)),
        };
        match visited {
            // A running node may remove a file or a folder between listing and reading.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// What precedes or follows the five digits of a customer in an identifier: in a phone number with or
/// without punctuation, in an e-mail address before or after normalisation.
const PHONE_PREFIXES: &[&[u8]] = &[b"+1 (555) 01", b"+155501", b"155501"];
const EMAIL_SUFFIXES: &[&[u8]] = &[b"@customers.example.com"];

fn count_in(bytes: &[u8], customers: &HashSet<Vec<u8>>) -> u64 {
    let mut found = 0;
    let lower = bytes.to_ascii_lowercase();
    for suffix in EMAIL_SUFFIXES {
        for at in positions(&lower, suffix) {
            if at >= 5 && customers.contains(&lower[at - 5..at]) {
                found += 1;
            }
        }
    }
    for prefix in PHONE_PREFIXES {
        for at in positions(&lower, prefix) {
            let start = at + prefix.len();
            let number = lower.get(start..start + 5);
            // With more digits before or after it is a longer number, not a phone number.
            let longer = lower.get(start + 5).is_some_and(u8::is_ascii_digit)
                || (at > 0 && (lower[at - 1].is_ascii_alphanumeric() || lower[at - 1] == b'+'));
            if !longer && number.is_some_and(|n| customers.contains(n)) {
                found += 1;
            }
        }
    }
    found
}

fn positions<'a>(bytes: &'a [u8], pattern: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let first = pattern.first().copied().unwrap_or_default();
    bytes
        .iter()
        .enumerate()
        .filter(move |(_, b)| **b == first)
        .map(|(at, _)| at)
        .filter(move |at| bytes[*at..].starts_with(pattern))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_found_in_every_form() {
        let customers = HashSet::from([b"00042".to_vec()]);
        for (text, times) in [
            ("x 00042@Customers.Example.com y", 1),
            ("+1 (555) 0100042", 1),
            ("{\"phone\":\"15550100042\"}", 1),
            ("|| '@customers.example.com' ||", 0),
            ("00043@customers.example.com", 0),
            ("155501000421", 0),
            ("a15550100042", 0),
        ] {
            assert_eq!(count_in(text.as_bytes(), &customers), times, "{text}");
        }
    }
}
