//! The dictionary of one user shard: hash → ordinal, append-only.
//!
//! A dictionary is a list of segment files (their bytes are described in `segment.rs`), oldest
//! first, whose ordinals follow each other without a gap. The list is a small JSON text, the
//! *manifest*, which the caller stores in the ledger and replaces by compare-and-swap:
//! `{"format":1,"shard":7,"segments":[{"file":"dictionary/07/…","base":0,"count":5,"xxh3":"…"}]}`;
//! the empty text is the empty dictionary. Segment files are write-once and their names contain
//! their checksum, so a writer that loses the swap only leaves a file that nothing references; see
//! [`unreferenced_segments`].
//!
//! A new segment is merged with older ones that are less than twice its size, as in an LSM tree. So
//! a dictionary of `n` users has at most about log2(n) segments, and every user is rewritten at
//! most about log2(n) times.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use throng_model::UserHash;

use crate::segment::{Entries, Segment};
use crate::{MembershipError, durable};

/// The folder below the root that holds all segment files.
pub const DICTIONARY_FOLDER: &str = "dictionary";

const MANIFEST_FORMAT: u32 = 1;

/// No ordinal: the last `u32` is never assigned to a user.
const UNKNOWN: u32 = u32::MAX;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    shard: u8,
    segments: Vec<ManifestSegment>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestSegment {
    file: String,
    base: u32,
    count: u32,
    xxh3: String,
}

impl Manifest {
    fn to_text(&self) -> String {
        serde_json::to_string(self).expect("a struct of texts and numbers is always JSON")
    }
}

impl ManifestSegment {
    fn of(segment: &Segment) -> Self {
        Self {
            file: segment.file.clone(),
            base: segment.base,
            count: segment.len() as u32,
            xxh3: format!("{:016x}", segment.sum()),
        }
    }
}

fn invalid(problem: impl Into<String>) -> MembershipError {
    MembershipError::Manifest { problem: problem.into() }
}

fn read_manifest(text: &str) -> Result<Option<Manifest>, MembershipError> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let manifest: Manifest = serde_json::from_str(text).map_err(|e| invalid(e.to_string()))?;
    if manifest.format != MANIFEST_FORMAT {
        return Err(invalid(format!("its format {} is not supported", manifest.format)));
    }
    for segment in &manifest.segments {
        let plain =
            Path::new(&segment.file).components().all(|c| matches!(c, Component::Normal(_)));
        if !plain || segment.file.is_empty() {
            return Err(invalid(format!("`{}` does not stay below the root", segment.file)));
        }
    }
    Ok(Some(manifest))
}

/// The ordinals of some users, and the manifest that has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// One per hash, in the same order.
    pub ordinals: Vec<u32>,
    /// How many of the hashes were new.
    pub added: u32,
    /// The manifest that has the new users; `None` if there are none. The ordinals of new users
    /// must not be used until this manifest is in the ledger: if another writer wins, they belong
    /// to other users.
    pub manifest: Option<String>,
}

/// One version of a user shard's dictionary. Cheap to clone; files are opened once.
#[derive(Debug, Clone, Default)]
pub struct ShardDictionary {
    shard: Option<u8>,
    segments: Vec<Arc<Segment>>,
    len: u32,
}

impl ShardDictionary {
    /// Opens the segments that `manifest` names below `root`. The empty manifest gives the empty
    /// dictionary. Reads every byte once to check it.
    ///
    /// # Errors
    /// If the manifest is invalid, or a file is missing, damaged or not the one that the manifest
    /// names.
    pub fn open(root: &Path, manifest: &str) -> Result<Self, MembershipError> {
        Self::default().reopen(root, manifest)
    }

    /// As [`open`](Self::open), but reuses segments that are open here already and reads only new
    /// ones.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn reopen(&self, root: &Path, manifest: &str) -> Result<Self, MembershipError> {
        let Some(manifest) = read_manifest(manifest)? else {
            return Ok(Self::default());
        };
        let mut segments = Vec::with_capacity(manifest.segments.len());
        let mut len = 0u32;
        for entry in &manifest.segments {
            let known = self.segments.iter().find(|s| s.file == entry.file);
            let segment = match known {
                Some(segment) => Arc::clone(segment),
                None => Arc::new(Segment::open(root, &entry.file)?),
            };
            let same = segment.shard == manifest.shard
                && segment.base == entry.base
                && segment.len() == entry.count as usize
                && format!("{:016x}", segment.sum()) == entry.xxh3;
            if !same {
                return Err(MembershipError::Damaged {
                    path: root.join(&entry.file),
                    problem: "it is not the segment that the manifest names".to_owned(),
                });
            }
            if segment.base != len {
                return Err(invalid(format!(
                    "the ordinals of `{}` do not follow those of the segment before it",
                    entry.file
                )));
            }
            len = len
                .checked_add(entry.count)
                .ok_or_else(|| invalid("it has more than 2^32 users"))?;
            segments.push(segment);
        }
        Ok(Self { shard: Some(manifest.shard), segments, len })
    }

    /// The files that are open, by their names below the root.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().map(|segment| segment.file.as_str())
    }

    /// The manifest of this version: [`open`](Self::open) gives the same dictionary where the files are.
    /// The empty text for the empty dictionary.
    pub fn manifest(&self) -> String {
        let Some(shard) = self.shard else { return String::new() };
        let segments = self.segments.iter().map(|segment| ManifestSegment::of(segment)).collect();
        Manifest { format: MANIFEST_FORMAT, shard, segments }.to_text()
    }

    /// The bytes of one of [`files`](Self::files), which stay the same while the file is replaced or
    /// removed; `None` for another name.
    pub fn file_bytes(&self, file: &str) -> Option<Bytes> {
        let segment = self.segments.iter().find(|segment| segment.file == file)?;
        Some(segment.share())
    }

    /// Why a file on the disk is not the one that was opened, if so: it is missing, or has another
    /// length. Costs one `stat` a file; the bytes are not read.
    pub fn changed_on_disk(&self) -> Option<MembershipError> {
        self.segments.iter().find_map(|segment| segment.changed_on_disk())
    }

    /// The ordinal of a user; `None` if the user is unknown. About 0.4 µs for a random one of ten
    /// million (a few cache misses).
    #[inline]
    pub fn ordinal(&self, hash: UserHash) -> Option<u32> {
        if self.shard != Some(hash.shard()) {
            return None;
        }
        self.segments.iter().find_map(|segment| segment.find(hash.0))
    }

    /// The hashes of all known users by their ordinals. Reads every byte once, and takes eight bytes
    /// for each user.
    pub fn hashes(&self) -> Vec<UserHash> {
        let mut hashes = vec![UserHash(0); self.len as usize];
        for segment in &self.segments {
            for rank in 0..segment.len() {
                if let Some(hash) = hashes.get_mut(segment.ordinal(rank) as usize) {
                    *hash = UserHash(segment.hash(rank));
                }
            }
        }
        hashes
    }

    /// How many users are known; ordinals are 0 to `len() - 1`.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether no user is known.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The user shard; `None` for the empty dictionary of the empty manifest.
    pub fn shard(&self) -> Option<u8> {
        self.shard
    }

    /// How many files a lookup may have to search.
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Returns the ordinal of every hash. Unknown users get the next ordinals in the order of their
    /// hashes, in one new segment file that is durable when this returns. Linear in hashes and
    /// known users, or with few hashes a search for each.
    ///
    /// `self` does not change: swap the manifest in the ledger, then [`reopen`](Self::reopen). If
    /// another writer won the swap, reopen its manifest and assign again.
    ///
    /// ```
    /// use throng_membership::ShardDictionary;
    /// use throng_model::UserHash;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let root = folder.path();
    /// // Two users of shard 7, whose hashes begin with that byte.
    /// let users = [UserHash(0x07 << 56), UserHash((0x07 << 56) + 1)];
    /// let empty = ShardDictionary::default();
    /// let assigned = empty.assign(root, &users)?;
    /// assert_eq!((assigned.ordinals, assigned.added), (vec![0, 1], 2));
    /// let dictionary = empty.reopen(root, &assigned.manifest.unwrap_or_default())?;
    /// assert_eq!(dictionary.ordinal(users[1]), Some(1));
    /// // A known user keeps the ordinal, and nothing is written.
    /// assert_eq!(dictionary.assign(root, &users[1..])?.manifest, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`MembershipError::Misuse`] if the hashes are not strictly ascending or not of one shard,
    /// [`MembershipError::Full`], or [`MembershipError::Io`].
    pub fn assign(&self, root: &Path, sorted: &[UserHash]) -> Result<Assigned, MembershipError> {
        let Some(first) = sorted.first() else {
            return Ok(Assigned { ordinals: Vec::new(), added: 0, manifest: None });
        };
        let shard = self.shard.unwrap_or(first.shard());
        // They are ascending, so if the first and the last are of the shard, all are.
        let last = sorted.last().unwrap_or(first);
        if !sorted.is_sorted_by(|a, b| a < b) || first.shard() != shard || last.shard() != shard {
            return Err(MembershipError::Misuse(format!(
                "hashes for shard {shard} must be strictly ascending and of that shard"
            )));
        }
        let mut ordinals = vec![UNKNOWN; sorted.len()];
        for segment in &self.segments {
            look_up(segment, sorted, &mut ordinals);
        }
        let mut added_entries = Entries { base: self.len, ..Entries::default() };
        let mut next = self.len;
        for (ordinal, hash) in ordinals.iter_mut().zip(sorted) {
            if *ordinal == UNKNOWN {
                if next == UNKNOWN {
                    return Err(MembershipError::Full { shard });
                }
                *ordinal = next;
                added_entries.hashes.push(hash.0);
                added_entries.ordinals.push(next);
                next += 1;
            }
        }
        if added_entries.hashes.is_empty() {
            return Ok(Assigned { ordinals, added: 0, manifest: None });
        }
        let added = next - self.len;
        let manifest = self.append(root, shard, added_entries)?;
        Ok(Assigned { ordinals, added, manifest: Some(manifest) })
    }

    /// Writes one segment with the new entries and the small segments before it.
    fn append(
        &self,
        root: &Path,
        shard: u8,
        mut entries: Entries,
    ) -> Result<String, MembershipError> {
        let mut kept = self.segments.as_slice();
        while let [rest @ .., last] = kept {
            if last.len() >= entries.hashes.len() * 2 {
                break;
            }
            entries = Entries::merge(last, &entries);
            kept = rest;
        }
        let (bytes, sum) = entries.encode(shard);
        let count = entries.hashes.len() as u32;
        let file = format!(
            "{DICTIONARY_FOLDER}/{shard:02x}/{base:08x}-{count:08x}-{sum:016x}.dict",
            base = entries.base
        );
        durable::write(&root.join(&file), &bytes)?;
        let mut segments: Vec<ManifestSegment> =
            kept.iter().map(|segment| ManifestSegment::of(segment)).collect();
        segments.push(ManifestSegment {
            file,
            base: entries.base,
            count,
            xxh3: format!("{sum:016x}"),
        });
        Ok(Manifest { format: MANIFEST_FORMAT, shard, segments }.to_text())
    }
}

/// Fills in the ordinals of the users that are in one segment.
fn look_up(segment: &Segment, sorted: &[UserHash], ordinals: &mut [u32]) {
    // A search costs about as much as 32 steps of a linear scan.
    if sorted.len().saturating_mul(32) < segment.len() {
        for (ordinal, hash) in ordinals.iter_mut().zip(sorted) {
            if *ordinal == UNKNOWN
                && let Some(found) = segment.find(hash.0)
            {
                *ordinal = found;
            }
        }
        return;
    }
    let mut at = 0;
    for (ordinal, hash) in ordinals.iter_mut().zip(sorted) {
        while at < segment.len() && segment.hash(at) < hash.0 {
            at += 1;
        }
        if at == segment.len() {
            return;
        }
        if segment.hash(at) == hash.0 {
            *ordinal = segment.ordinal(at);
        }
    }
}

/// The files that a manifest names, relative to the root.
///
/// # Errors
/// [`MembershipError::Manifest`].
pub fn manifest_files(manifest: &str) -> Result<Vec<String>, MembershipError> {
    Ok(read_manifest(manifest)?
        .map(|m| m.segments.into_iter().map(|s| s.file).collect())
        .unwrap_or_default())
}

/// Dictionary files below `root` that none of the manifests references: merged segments, segments
/// of lost swaps, and temporary files. Pass the manifests of *all* shards, read while no builder is
/// running: a segment that is written and not swapped in yet is in no manifest, and removing it
/// would lose users. Files may be removed while they are mapped.
///
/// # Errors
/// If a manifest cannot be read or the folder cannot be listed.
pub fn unreferenced_segments<'a>(
    root: &Path,
    manifests: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<PathBuf>, MembershipError> {
    let mut referenced = HashSet::new();
    for manifest in manifests {
        referenced.extend(manifest_files(manifest)?.into_iter().map(|file| root.join(file)));
    }
    let mut unreferenced = Vec::new();
    let mut folders = vec![root.join(DICTIONARY_FOLDER)];
    while let Some(folder) = folders.pop() {
        let io = |source| MembershipError::Io { doing: "list", path: folder.clone(), source };
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(io(e)),
        };
        for entry in entries {
            let entry = entry.map_err(io)?;
            let path = entry.path();
            if entry.file_type().map_err(io)?.is_dir() {
                folders.push(path);
            } else if !referenced.contains(&path) {
                unreferenced.push(path);
            }
        }
    }
    unreferenced.sort();
    Ok(unreferenced)
}
