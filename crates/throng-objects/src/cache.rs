//! Local copies of objects, kept within a size.

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

/// Removes copies that are not needed, the longest unused first, until `room` is enough for those
/// that are left. Files that are just being written are passed over.
pub(crate) fn trim(root: &Path, needed: &HashSet<String>, room: u64) -> Result<()> {
    let mut copies = Vec::new();
    find(root, root, needed, &mut copies)?;
    copies.sort_by_key(|copy| copy.used);
    let mut total: u64 = copies.iter().map(|copy| copy.bytes).sum();
    for copy in copies {
        if total <= room {
            break;
        }
        // Somebody else may have removed it; what is mapped stays readable.
        if fs::remove_file(&copy.path).is_ok() {
            total -= copy.bytes;
        }
    }
    Ok(())
}

fn find(
    root: &Path,
    folder: &Path,
    needed: &HashSet<String>,
    copies: &mut Vec<Copy>,
) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(ObjectsError::io("list", folder))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(facts) = entry.metadata() else { continue };
        if facts.is_dir() {
            find(root, &path, needed, copies)?;
            continue;
        }
        let name = path.strip_prefix(root).ok().and_then(Path::to_str).unwrap_or_default();
        if needed.contains(name) || name.ends_with(".tmp") {
            continue;
        }
        let used = facts.accessed().or_else(|_| facts.modified());
        let used = used.unwrap_or(SystemTime::UNIX_EPOCH);
        copies.push(Copy { bytes: facts.len(), used, path });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_or_fits_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        for name in ["a/needed", "a/half.tmp", "b", "c"] {
            fs::write(dir.path().join(name), [0; 100]).unwrap();
        }
        let needed = HashSet::from(["a/needed".to_owned()]);
        let left = |room| {
            trim(dir.path(), &needed, room).unwrap();
            ["a/needed", "a/half.tmp", "b", "c"].map(|n| dir.path().join(n).exists())
        };
        assert_eq!(left(200), [true, true, true, true]);
        assert_eq!(left(150).iter().filter(|there| **there).count(), 3);
        assert_eq!(left(0), [true, true, false, false]);
    }
}
