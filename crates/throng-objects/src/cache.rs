//! Local copies of objects, limited in size.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::{ObjectsError, Result};

struct Copy {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

/// Removes copies that are not needed, the least recently used first, until the others have at most
/// `max_bytes`. Skips files that are being written.
pub(crate) fn evict(root: &Path, needed: &HashSet<String>, max_bytes: u64) -> Result<()> {
    let mut copies = Vec::new();
    find_unneeded(root, root, needed, &mut copies)?;
    copies.sort_by_key(|copy| copy.used);
    let mut total: u64 = copies.iter().map(|copy| copy.bytes).sum();
    for copy in copies {
        if total <= max_bytes {
            break;
        }
        // Another process may have removed it. A file that is mapped stays readable.
        if fs::remove_file(&copy.path).is_ok() {
            total -= copy.bytes;
        }
    }
    Ok(())
}

fn find_unneeded(
    root: &Path,
    folder: &Path,
    needed: &HashSet<String>,
    copies: &mut Vec<Copy>,
) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(ObjectsError::io("list", folder))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            find_unneeded(root, &path, needed, copies)?;
            continue;
        }
        let name = path.strip_prefix(root).ok().and_then(Path::to_str).unwrap_or_default();
        if needed.contains(name) || name.ends_with(".tmp") {
            continue;
        }
        let used = metadata.accessed().or_else(|_| metadata.modified());
        let used = used.unwrap_or(SystemTime::UNIX_EPOCH);
        copies.push(Copy { bytes: metadata.len(), used, path });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_that_are_needed_or_fit_stay() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        for name in ["a/needed", "a/half.tmp", "b", "c"] {
            fs::write(dir.path().join(name), [0; 100]).unwrap();
        }
        let needed = HashSet::from(["a/needed".to_owned()]);
        let left = |max_bytes| {
            evict(dir.path(), &needed, max_bytes).unwrap();
            ["a/needed", "a/half.tmp", "b", "c"].map(|n| dir.path().join(n).exists())
        };
        assert_eq!(left(200), [true, true, true, true]);
        assert_eq!(left(150).iter().filter(|there| **there).count(), 3);
        assert_eq!(left(0), [true, true, false, false]);
    }
}
