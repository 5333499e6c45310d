//! Searches every byte of what the demo wrote for the identifiers of the example's customers.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use throng_spec::Spec;

use super::example;

/// How many plain e-mail addresses and phone numbers of customers stand in files below `folders`.
/// The example's own files (SQL and data, as the user wrote them) hold none either, so nothing is
/// left out.
pub(super) fn plain_identifiers(folders: &[&Path], spec: &Spec) -> io::Result<u64> {
    // With no sync nothing could leak, and the search would prove nothing.
    debug_assert!(!spec.syncs.is_empty());
    let customers: HashSet<Vec<u8>> =
        example::customers().into_iter().map(String::into_bytes).collect();
    let mut found = 0;
    for folder in folders {
        walk(folder, &mut |bytes| found += count_in(bytes, &customers))?;
    }
    Ok(found)
}

fn walk(folder: &Path, look: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, look)?;
        } else {
            match std::fs::read(&path) {
                Ok(bytes) => look(&bytes),
                // A file of a running node may go away between listing and reading.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// The shapes that an identifier could be written in: the address before or after normalisation,
/// the number with or without its punctuation. `<customer>` is five digits.
const BEFORE: &[&[u8]] = &[b"+1 (555) 01", b"+155501", b"155501"];
const AFTER: &[&[u8]] = &[b"@customers.example.com"];

fn count_in(bytes: &[u8], customers: &HashSet<Vec<u8>>) -> u64 {
    let mut found = 0;
    let lower = bytes.to_ascii_lowercase();
    for shape in AFTER {
        for at in positions(&lower, shape) {
            if at >= 5 && customers.contains(&lower[at - 5..at]) {
                found += 1;
            }
        }
    }
    for shape in BEFORE {
        for at in positions(&lower, shape) {
            let start = at + shape.len();
            let number = lower.get(start..start + 5);
            // Digits before or after belong to a longer number that is no phone number.
            let longer = lower.get(start + 5).is_some_and(u8::is_ascii_digit)
                || (at > 0 && (lower[at - 1].is_ascii_alphanumeric() || lower[at - 1] == b'+'));
            if !longer && number.is_some_and(|n| customers.contains(n)) {
                found += 1;
            }
        }
    }
    found
}

fn positions<'a>(bytes: &'a [u8], shape: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let first = shape.first().copied().unwrap_or_default();
    bytes
        .iter()
        .enumerate()
        .filter(move |(_, b)| **b == first)
        .map(|(at, _)| at)
        .filter(move |at| bytes[*at..].starts_with(shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_found_in_every_shape() {
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
