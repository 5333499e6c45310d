//! Names of objects.

use std::path::{Path, PathBuf};

use crate::{ObjectsError, Result};

/// The file of a name below a folder. Refuses names that could lead out of it.
pub(crate) fn file(root: &Path, name: &str) -> Result<PathBuf> {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.=:".contains(&b))
    };
    if !name.is_empty() && name.len() <= 512 && name.split('/').all(part) {
        Ok(root.join(name))
    } else {
        Err(ObjectsError::Name { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let root = Path::new("/data");
        assert_eq!(file(root, "snapshots/a/1.throng").unwrap(), root.join("snapshots/a/1.throng"));
        assert_eq!(file(root, "snapshots/w:a/1").unwrap(), root.join("snapshots/w:a/1"));
        for bad in ["", "/etc", "a//b", "../a", "a/../b", ".a", "a/", "a b", "a\\b", "ä"] {
            assert!(matches!(file(root, bad), Err(ObjectsError::Name { .. })), "{bad}");
        }
    }
}
