//! Removes objects of a bucket that crashes have left: files of batches that no manifest names. Other nodes may be
//! uploading files, so only old ones are removed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use serde::Deserialize;
use throng_files::{BATCHES_FOLDER, BatchFile, parse_manifest};
use throng_model::Timestamp;
use throng_objects::ObjectMeta;

use crate::bucket_commit::MAX_COMMIT;
use crate::bucket_lake::{BucketLake, key_and_token, manifest_name};
use crate::error::IngestError;
use crate::table_columns::{COLUMNS_KEY, NO_DAY};

/// The age of what is removed: twice the time that a commit may take, for clocks that differ.
const MIN_AGE: Duration = MAX_COMMIT.saturating_mul(2);

/// The files of a manifest.
#[derive(Debug, Deserialize)]
struct Named {
    files: Vec<BatchFile>,
}

/// Old files whose names say that this manifest names them, or one like them.
#[derive(Debug, Default, PartialEq, Eq)]
struct OldFiles {
    names: Vec<String>,
    /// Whether there are files of several tries, of which the manifest names those of one.
    is_mixed: bool,
}

/// Removes the old files of a workspace's folder that no manifest names. Returns how many.
pub(crate) fn remove_leftovers(
    bucket: &BucketLake,
    workspace: &str,
    now: Timestamp,
) -> Result<u64, IngestError> {
    let objects = bucket.list(workspace)?;
    let manifests: HashSet<&str> = objects.iter().map(|object| object.name.as_str()).collect();
    let mut removed = 0;
    for (manifest, old) in old_files(&objects, now) {
        let left = match manifests.contains(manifest.as_str()) {
            false => old.names,
            // One listing takes much less than as many requests as there are manifests.
            true if !old.is_mixed => continue,
            true => unnamed(bucket, &manifest, old.names)?,
        };
        bucket.remove(&left)?;
        removed += left.len() as u64;
    }
    Ok(removed)
}

/// Those that a manifest does not name.
fn unnamed(
    bucket: &BucketLake,
    manifest: &str,
    mut names: Vec<String>,
) -> Result<Vec<String>, IngestError> {
    let Some(found) = bucket.load(manifest)? else { return Ok(Vec::new()) };
    let named: Named = parse_manifest(&bucket.url(manifest), &found.bytes)?;
    let table = manifest.split_once(&format!("/{BATCHES_FOLDER}/")).map_or("", |(table, _)| table);
    let named: HashSet<String> =
        named.files.iter().map(|file| format!("{table}/{}", file.path)).collect();
    names.retain(|name| !named.contains(name));
    Ok(names)
}

/// Old files, by the names of their manifests.
fn old_files(objects: &[ObjectMeta], now: Timestamp) -> BTreeMap<String, OldFiles> {
    let min_age = i64::try_from(MIN_AGE.as_micros()).unwrap_or(i64::MAX);
    let mut tries: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut found: BTreeMap<String, OldFiles> = BTreeMap::new();
    for object in objects {
        let Some((manifest, one_try)) = manifest_of(&object.name) else { continue };
        let tries = tries.entry(manifest.clone()).or_default();
        tries.insert(one_try);
        let is_old = now.0.saturating_sub(object.modified.0) >= min_age;
        let of_manifest = found.entry(manifest).or_default();
        of_manifest.is_mixed = tries.len() > 1;
        if is_old {
            of_manifest.names.push(object.name.clone());
        }
    }
    found.retain(|_, old| !old.names.is_empty());
    found
}

/// The manifest that may name a file, and what files of one try have in common. `None` for other objects.
fn manifest_of(name: &str) -> Option<(String, &str)> {
    let mut parts = name.split('/');
    let (workspace, table) = (parts.next()?, parts.next()?);
    let (folder, file) = (parts.next()?, parts.next()?);
    let table = format!("{workspace}/{table}");
    if parts.next().is_some() {
        return None;
    }
    if folder == NO_DAY {
        return file.starts_with("columns-").then(|| (manifest_name(&table, COLUMNS_KEY), file));
    }
    let (key, token) = key_and_token(file).filter(|_| folder.starts_with("day="))?;
    Some((manifest_name(&table, key), token))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";
    const NOW: Timestamp = Timestamp(1_795_600_800_000_000);

    #[test]
    fn only_old_files_of_batches_are_removed() {
        let object = |name: &str, age: Duration| ObjectMeta {
            name: name.to_owned(),
            modified: Timestamp(NOW.0 - i64::try_from(age.as_micros()).unwrap()),
        };
        let file = |token: char, number: u32| {
            let token = token.to_string().repeat(16);
            format!("w/t/day=2026-11-25/{KEY}-{token}-{number:05}.parquet")
        };
        let (old, young) = (MIN_AGE, MIN_AGE.saturating_sub(Duration::from_secs(1)));
        let found = |objects: &[ObjectMeta]| {
            let found = old_files(objects, NOW).into_iter();
            found.map(|(name, old)| (name, old.names.len(), old.is_mixed)).collect::<Vec<_>>()
        };
        let manifest = format!("w/t/_batches/{KEY}.json");
        let one_try = [object(&file('a', 0), old), object(&file('a', 1), old)];
        assert_eq!(found(&one_try), [(manifest.clone(), 2, false)]);
        let two_tries = [object(&file('a', 0), old), object(&file('b', 0), young)];
        assert_eq!(found(&two_tries), [(manifest, 1, true)]);
        let columns = |name: &str| format!("w/t/{NO_DAY}/columns-{name}.parquet");
        let replaced = [object(&columns("1"), old), object(&columns("2"), old)];
        assert_eq!(found(&replaced), [("w/t/_batches/columns.json".to_owned(), 2, true)]);
        for other in [
            "w/t/_batches/0123456789abcdef0123456789abcdef.json",
            "w/t/day=2026-11-25/mine.parquet",
            &format!("w/t/x/{KEY}-0123456789abcdef-00000.parquet"),
            &format!("w/t/day=1/x/{KEY}-0123456789abcdef-00000.parquet"),
        ] {
            assert!(found(&[object(other, old)]).is_empty(), "{other}");
        }
        assert!(found(&[object(&file('a', 0), young)]).is_empty());
    }
}
