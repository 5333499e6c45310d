//! The dictionary of one user shard: hash → ordinal, append-only.
//!
//! A dictionary is a list of segment files (their bytes are described in `segment.rs`), oldest
//! first, whose ordinals follow each other without a gap. The list is a small JSON text, the
//! *manifest*, which the caller keeps in the ledger and swaps by compare-and-set:
//! `{"format":1,"shard":7,"segments":[{"file":"dictionary/07/…","base":0,"count":5,"xxh3":"…"}]}`;
//! the empty text is the empty dictionary. Segment files are write-once and their names hold their
//! checksum, so a writer that loses the swap leaves garbage and breaks nothing; see [`garbage`].
//!
//! A new segment swallows older neighbours less than twice its size, so a dictionary of `n` users
//! has at most about log2(n) segments and every user is rewritten at most about log2(n) times.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use throng_model::UserHash;

use crate::segment::{Entries, Segment};
use crate::{MembershipError, durable};

/// The folder below the root that holds all segment files.
pub const DICTIONARY_FOLDER: &str = "dictionary";

const MANIFEST_FORMAT: u32 = 1;

/// No ordinal: the last `u32` is never given to a user.
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

fn wrong(problem: impl Into<String>) -> MembershipError {
    MembershipError::Manifest { problem: problem.into() }
}

fn read_manifest(text: &str) -> Result<Option<Manifest>, MembershipError> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let manifest: Manifest = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
    if manifest.format != MANIFEST_FORMAT {
        return Err(wrong(format!("its format {} is unknown to this program", manifest.format)));
    }
    for segment in &manifest.segments {
        let plain =
            Path::new(&segment.file).components().all(|c| matches!(c, Component::Normal(_)));
        if !plain || segment.file.is_empty() {
            return Err(wrong(format!("`{}` does not stay below the root", segment.file)));
        }
    }
    Ok(Some(manifest))
}

/// The ordinals of some users, and what became of the dictionary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// One per hash, in the same order.
    pub ordinals: Vec<u32>,
    /// How many of the hashes were new.
    pub added: u32,
    /// The manifest that knows the new users; `None` if there were none. Until it is swapped into
    /// the ledger the ordinals of new users are not to be used.
    pub manifest: Option<String>,
}

/// One user shard's dictionary at one moment. Cheap to clone; files are opened once.
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
    /// If the manifest is no manifest, or a file is missing, damaged or not the one meant.
    pub fn open(root: &Path, manifest: &str) -> Result<Self, MembershipError> {
        Self::default().reopen(root, manifest)
    }

    /// As [`open`](Self::open), but takes over segments that are open here already: the cost is
    /// that of the new ones alone.
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
                    problem: "it is not the segment that the manifest means".to_owned(),
                });
            }
            if segment.base != len {
                return Err(wrong(format!("`{}` does not follow its neighbour", entry.file)));
            }
            len = len
                .checked_add(entry.count)
                .ok_or_else(|| wrong("it holds more than 2^32 users"))?;
            segments.push(segment);
        }
        Ok(Self { shard: Some(manifest.shard), segments, len })
    }

    /// The files that are open, by their names below the root.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().map(|segment| segment.file.as_str())
    }

    /// Why a file on the disk is not the one that was opened, if so: it is gone, or has another
    /// length. Costs one `stat` a file; the bytes are not read.
    pub fn changed_on_disk(&self) -> Option<MembershipError> {
        self.segments.iter().find_map(|segment| segment.changed_on_disk())
    }

    /// The ordinal of a user; `None` if the user is not known. Some 0.4 µs for a random one of
    /// ten million (a few cache misses).
    #[inline]
    pub fn ordinal(&self, hash: UserHash) -> Option<u32> {
        if self.shard != Some(hash.shard()) {
            return None;
        }
        self.segments.iter().find_map(|segment| segment.find(hash.0))
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

    /// How many files a lookup may have to touch.
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Gives every hash its ordinal. Users not known yet get the next ones in the order of their
    /// hashes, in one new segment file that is durable when this returns. Linear in hashes and
    /// known users, or with few hashes a search for each.
    ///
    /// `self` does not learn the new users: swap the manifest in the ledger, then
    /// [`reopen`](Self::reopen). If the swap is lost, reopen the winner's manifest and assign again.
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
    /// [`MembershipError::Full`], or the disk's refusal.
    pub fn assign(&self, root: &Path, sorted: &[UserHash]) -> Result<Assigned, MembershipError> {
        let Some(first) = sorted.first() else {
            return Ok(Assigned { ordinals: Vec::new(), added: 0, manifest: None });
        };
        let shard = self.shard.unwrap_or(first.shard());
        // Ascending, so first and last of the shard means all of it.
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
        let mut fresh = Entries { base: self.len, ..Entries::default() };
        let mut next = self.len;
        for (ordinal, hash) in ordinals.iter_mut().zip(sorted) {
            if *ordinal == UNKNOWN {
                if next == UNKNOWN {
                    return Err(MembershipError::Full { shard });
                }
                *ordinal = next;
                fresh.hashes.push(hash.0);
                fresh.ordinals.push(next);
                next += 1;
            }
        }
        if fresh.hashes.is_empty() {
            return Ok(Assigned { ordinals, added: 0, manifest: None });
        }
        let added = next - self.len;
        let manifest = self.append(root, shard, fresh)?;
        Ok(Assigned { ordinals, added, manifest: Some(manifest) })
    }

    /// Writes one segment with the new entries and the small neighbours they swallow.
    fn append(
        &self,
        root: &Path,
        shard: u8,
        mut fresh: Entries,
    ) -> Result<String, MembershipError> {
        let mut kept = self.segments.as_slice();
        while let [rest @ .., neighbour] = kept {
            if neighbour.len() >= fresh.hashes.len() * 2 {
                break;
            }
            fresh = Entries::merge(neighbour, &fresh);
            kept = rest;
        }
        let (bytes, sum) = fresh.encode(shard);
        let count = fresh.hashes.len() as u32;
        let file = format!(
            "{DICTIONARY_FOLDER}/{shard:02x}/{base:08x}-{count:08x}-{sum:016x}.dict",
            base = fresh.base
        );
        durable::write(&root.join(&file), &bytes)?;
        let mut segments: Vec<ManifestSegment> = kept
            .iter()
            .map(|s| ManifestSegment {
                file: s.file.clone(),
                base: s.base,
                count: s.len() as u32,
                xxh3: format!("{:016x}", s.sum()),
            })
            .collect();
        segments.push(ManifestSegment {
            file,
            base: fresh.base,
            count,
            xxh3: format!("{sum:016x}"),
        });
        let manifest = Manifest { format: MANIFEST_FORMAT, shard, segments };
        Ok(serde_json::to_string(&manifest).expect("a struct of texts and numbers is always JSON"))
    }
}

/// Fills in the ordinals that one segment knows.
fn look_up(segment: &Segment, sorted: &[UserHash], ordinals: &mut [u32]) {
    // A search costs about as much as stepping over 32 neighbours.
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

/// Dictionary files below `root` that none of the manifests names: segments that were merged away,
/// of lost swaps, and half-written ones. Pass the manifests of *all* shards, read while no builder
/// is at work: a segment between its writing and the swap looks like garbage too. Files may be
/// removed while they are mapped.
///
/// # Errors
/// If a manifest cannot be read or the folder cannot be listed.
pub fn garbage<'a>(
    root: &Path,
    manifests: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<PathBuf>, MembershipError> {
    let mut named = HashSet::new();
    for manifest in manifests {
        named.extend(manifest_files(manifest)?.into_iter().map(|file| root.join(file)));
    }
    let mut unnamed = Vec::new();
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
            } else if !named.contains(&path) {
                unnamed.push(path);
            }
        }
    }
    unnamed.sort();
    Ok(unnamed)
}
