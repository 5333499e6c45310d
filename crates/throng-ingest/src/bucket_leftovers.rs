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
    /// Whether there is the manifest. Then there are files of several tries, of which it names those of one.
    has_manifest: bool,
}

/// Removes the old files of a workspace's folder that no manifest names. Returns how many.
///
/// # Errors
/// The first one, after all other files unless the bucket cannot be reached.
pub(crate) fn remove_leftovers(
    bucket: &BucketLake,
    workspace: &str,
    now: Timestamp,
) -> Result<u64, IngestError> {
    let (mut removed, mut failed) = (0, None);
    for (manifest, old) in old_files(&bucket.list(workspace)?, now) {
        match remove_old(bucket, &manifest, old) {
            Ok(of_manifest) => removed += of_manifest,
            Err(error) if error.is_unreachable() => return Err(error),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(removed), Err)
}

/// Removes the old files that a manifest does not name. Returns how many.
fn remove_old(bucket: &BucketLake, manifest: &str, old: OldFiles) -> Result<u64, IngestError> {
    let left = match old.has_manifest {
        false => old.names,
        true => unnamed(bucket, manifest, old.names)?,
    };
    bucket.remove(&left)?;
    Ok(left.len() as u64)
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

/// Old files, by the names of their manifests. Without those of a manifest that has files of one try: one listing takes
/// much less than as many requests as there are manifests. And without those of a manifest that is not old: who has read
/// the previous one still reads its files.
fn old_files(objects: &[ObjectMeta], now: Timestamp) -> BTreeMap<String, OldFiles> {
    let min_age = i64::try_from(MIN_AGE.as_micros()).unwrap_or(i64::MAX);
    let mut tries: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut found: BTreeMap<String, OldFiles> = BTreeMap::new();
    let is_old = |object: &ObjectMeta| now.0.saturating_sub(object.modified.0) >= min_age;
    for object in objects {
        let Some((manifest, one_try)) = manifest_of(&object.name) else { continue };
        let tries = tries.entry(manifest.clone()).or_default();
        tries.insert(one_try);
        if is_old(object) {
            found.entry(manifest).or_default().names.push(object.name.clone());
        }
    }
    for object in objects {
        let Some(old) = found.get_mut(&object.name) else { continue };
        old.has_manifest = true;
        let is_mixed = tries.get(&object.name).is_some_and(|tries| tries.len() > 1);
        if !is_mixed || !is_old(object) {
            found.remove(&object.name);
        }
    }
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
            found.map(|(name, old)| (name, old.names.len(), old.has_manifest)).collect::<Vec<_>>()
        };
        let manifest = format!("w/t/_batches/{KEY}.json");
        let one_try = [object(&file('a', 0), old), object(&file('a', 1), old)];
        assert_eq!(found(&one_try), [(manifest.clone(), 2, false)]);
        let [first, second] = one_try;
        assert!(found(&[object(&manifest, old), first, second]).is_empty());
        let two_tries = |age: Duration| {
            let files = [object(&file('a', 0), old), object(&file('b', 0), young)];
            files.into_iter().chain([object(&manifest, age)]).collect::<Vec<_>>()
        };
        assert_eq!(found(&two_tries(old)), [(manifest.clone(), 1, true)]);
        assert!(found(&two_tries(young)).is_empty());
        let columns = |name: &str| format!("w/t/{NO_DAY}/columns-{name}.parquet");
        let replaced = |age: Duration| {
            let manifest = object("w/t/_batches/columns.json", age);
            [manifest, object(&columns("1"), old), object(&columns("2"), age)]
        };
        assert_eq!(found(&replaced(old)), [("w/t/_batches/columns.json".to_owned(), 2, true)]);
        // The first file is old, and was replaced just now.
        assert!(found(&replaced(young)).is_empty());
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
