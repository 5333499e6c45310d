//! Removes damage from a log, so that it can be opened again. The removed bytes are kept in files, and the
//! offsets of lost records are not reused.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::partition::segments_in;
use super::record::{self, EndKind, SEGMENT_HEADER, SegmentHeader};
use super::segment::Segment;
use super::{lock, sync_folder};
use crate::{LogError, Result};

/// The folder of removed bytes, in the folder of the log.
const QUARANTINE: &str = "quarantine";

/// The extension of segments that are about to get the name in their header.
const MOVED: &str = "moved";

/// Bytes that were removed from a log, or a segment that was missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedRange {
    /// The partition.
    pub partition: u32,
    /// The segment file that they were in; for a missing segment, the file of the next one.
    pub path: PathBuf,
    /// Their position in it, in bytes.
    pub position: u64,
    /// Their number; 0 if a segment is missing.
    pub bytes: u64,
    /// The first lost offset.
    pub first_offset: u64,
    /// The first offset after the lost ones; at the end of the partition, that of the next append.
    pub next_offset: u64,
    /// The file that the bytes are kept in.
    pub kept_in: Option<PathBuf>,
}

/// Removes damage from the log in `dir`, which no process may have open. Reads all of it. A segment under
/// the name of another one is renamed. Safe to call again after a crash.
///
/// # Errors
/// [`LogError::Locked`], [`LogError::UnsupportedFormat`], [`LogError::Io`].
pub fn repair_log(dir: &Path) -> Result<Vec<RemovedRange>> {
    let _lock = lock(dir)?;
    // By folder, not by the file `partitions`, which may be damaged too.
    let mut removed = Vec::new();
    for partition in 0..super::MAX_PARTITIONS {
        let folder = dir.join(partition.to_string());
        if folder.is_dir() {
            let quarantine = dir.join(QUARANTINE);
            let mut repair = Repair { partition, quarantine, folder, removed: Vec::new() };
            repair.run()?;
            removed.append(&mut repair.removed);
        }
    }
    Ok(removed)
}

struct Repair {
    partition: u32,
    folder: PathBuf,
    quarantine: PathBuf,
    removed: Vec<RemovedRange>,
}

impl Repair {
    fn run(&mut self) -> Result<()> {
        // First, because the order below is that of the names: a segment under the name of another one would
        // be removed as out of order.
        self.restore_names()?;
        let mut pending = segments_in(&self.folder)?;
        pending.reverse();
        let mut valid: Vec<Segment> = Vec::new();
        // Every offset before it is in a valid segment or was reported as lost.
        let mut checked_to: Option<u64> = None;
        while let Some(mut segment) = pending.pop() {
            let expected = checked_to.unwrap_or(segment.base);
            let file = open(&segment.path)?;
            let header = segment.header(&file, self.partition).ok();
            // Without a header, or with offsets that a segment before it has, nothing says which
            // records are right: the log would have an offset twice.
            let Some(header) = header.filter(|_| segment.base >= expected) else {
                let next = pending.last().map_or(expected, |next| next.base);
                self.quarantine_file(&segment, expected, next)?;
                checked_to = Some(next.max(expected));
                continue;
            };
            // The gap is not a loss to report if the header records it: it was skipped, or an earlier
            // repair or this one has reported it.
            let link = valid.last().map(|before| record::link_to(before.base, before.bytes));
            let is_known = header.after_gap && link == Some(header.link);
            if segment.base > expected && !is_known {
                let (path, next_offset) = (segment.path.clone(), segment.base);
                self.removed.push(RemovedRange {
                    partition: self.partition,
                    path,
                    position: 0,
                    bytes: 0,
                    first_offset: expected,
                    next_offset,
                    kept_in: None,
                });
            }
            if segment.scan_valid(&file)? {
                let is_last = pending.is_empty();
                if let Some(rest) = self.quarantine_damage(&segment, &file, is_last)? {
                    // The same file may be listed already: written by a repair that was interrupted before
                    // the truncation. As a second segment it would be removed as out of order.
                    pending.pop_if(|next| next.base == rest.base);
                    pending.push(rest);
                }
            }
            checked_to = Some(segment.end);
            valid.push(segment);
        }
        self.link(&valid)?;
        sync_folder(&self.folder)
    }

    /// Renames segments that were exchanged for each other to the names in their headers. A file under
    /// such a name without a valid header gets the name that becomes free: most likely it is the other
    /// one of the exchange, and that name has its offsets.
    fn restore_names(&mut self) -> Result<()> {
        let mut freed: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
        for segment in segments_in(&self.folder)? {
            if let Some(base) = self.header_base(&segment.path)?
                && base != segment.base
            {
                let name = self.folder.join(record::segment_name(base));
                let moved = with_suffix(&name, MOVED);
                // In two steps, as the target name may be in use: a direct rename would overwrite that file.
                if moved.exists() {
                    // Two files with one header: one of them is a copy.
                    self.quarantine_copy(&segment.path, segment.base)?;
                    continue;
                }
                std::fs::rename(&segment.path, &moved).map_err(LogError::io("rename", &moved))?;
                freed.insert(moved, segment.path);
            }
        }
        for moved in self.moved()? {
            let name = moved.with_extension("");
            let base = self.header_base(&moved)?;
            if name.exists() && self.header_base(&name)? == base {
                let old_name = freed.get(&moved).and_then(|path| path.file_name()?.to_str());
                let from = old_name.and_then(record::base_of).or(base);
                self.quarantine_copy(&moved, from.unwrap_or(0))?;
                continue;
            }
            if name.exists() {
                match freed.get(&moved).filter(|free| !free.exists()) {
                    Some(free) => {
                        std::fs::rename(&name, free).map_err(LogError::io("rename", free))?;
                    }
                    None => self.quarantine_copy(&name, base.unwrap_or(0))?,
                }
            }
            std::fs::rename(&moved, &name).map_err(LogError::io("rename", &name))?;
        }
        Ok(())
    }

    /// Segments that are about to be renamed, also those of a repair that was interrupted.
    fn moved(&self) -> Result<Vec<PathBuf>> {
        let list = || -> io::Result<Vec<PathBuf>> {
            std::fs::read_dir(&self.folder)?.map(|entry| Ok(entry?.path())).collect()
        };
        let mut found = list().map_err(LogError::io("list", &self.folder))?;
        found.retain(|path| path.extension().is_some_and(|end| end == MOVED));
        found.sort();
        Ok(found)
    }

    /// The first offset in the header of a file; `None` if the header is invalid, or of another partition.
    fn header_base(&self, path: &Path) -> Result<Option<u64>> {
        let mut bytes = [0; SEGMENT_HEADER];
        let read = open(path)?.read_exact_at(&mut bytes, 0);
        // A repair of a format that this version does not support would remove valid records.
        if read.is_ok()
            && let Some(found) = record::unsupported_format(&bytes)
        {
            return Err(LogError::UnsupportedFormat { path: path.to_owned(), found });
        }
        let header = read.ok().and_then(|()| SegmentHeader::decode(&bytes));
        Ok(header.filter(|header| header.partition == self.partition).map(|header| header.base))
    }

    /// Moves a file to the quarantine whose records are in another file, or whose offsets are unknown.
    /// `from`: the first offset of the segment that should have had this name.
    fn quarantine_copy(&mut self, path: &Path, from: u64) -> Result<()> {
        self.quarantine_file(&Segment::empty(path.to_owned(), from), from, from)
    }

    /// An unused path in the quarantine folder.
    fn quarantine_path(&self, path: &Path) -> Result<PathBuf> {
        let folder = &self.quarantine;
        std::fs::create_dir_all(folder).map_err(LogError::io("create the folder", folder))?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("segment");
        let free = (0..).map(|n: u32| folder.join(format!("{}-{name}-{n}", self.partition)));
        let free = free.into_iter().find(|path| !path.exists());
        free.ok_or_else(|| LogError::io("name a file in", folder)(io::ErrorKind::Other.into()))
    }

    fn quarantine_file(&mut self, segment: &Segment, first: u64, next: u64) -> Result<()> {
        let path = &segment.path;
        let kept_in = self.quarantine_path(path)?;
        let bytes = path.metadata().map_err(LogError::io("inspect", path))?.len();
        std::fs::rename(path, &kept_in).map_err(LogError::io("rename", path))?;
        self.removed.push(RemovedRange {
            partition: self.partition,
            path: path.clone(),
            position: 0,
            bytes,
            first_offset: first,
            next_offset: next.max(first),
            kept_in: Some(kept_in),
        });
        Ok(())
    }

    /// Truncates a segment before its first invalid record. The records after the damage become a
    /// segment of their own, which is returned.
    fn quarantine_damage(
        &mut self,
        segment: &Segment,
        file: &File,
        is_last: bool,
    ) -> Result<Option<Segment>> {
        let path = &segment.path;
        let length = file.metadata().map_err(LogError::io("inspect", path))?.len();
        let mut rest = vec![0; usize::try_from(length - segment.bytes).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut rest, segment.bytes).map_err(LogError::io("read", path))?;
        let kind = record::classify_end(&rest, segment.end, segment.bytes);
        if is_last && kind == EndKind::Torn {
            // Not damage: opening the log truncates it.
            return Ok(None);
        }
        let next = record::next_valid_record(&rest, segment.end);
        let damaged = &rest[..next.map_or(rest.len(), |(at, _)| at)];
        // In this order, each step durable before the next one: a copy of the damaged bytes, the records
        // after them, the truncation. A crash in between loses nothing, and the next repair repeats it.
        let kept_in = self.quarantine_path(path)?;
        write_durable(&kept_in, &[damaged])?;
        let rest_segment = match next {
            None => None,
            Some((at, first)) => {
                let after = SegmentHeader {
                    partition: self.partition,
                    base: first.offset,
                    link: record::link_to(segment.base, segment.bytes),
                    after_gap: true,
                };
                let path = self.folder.join(record::segment_name(first.offset));
                write_durable(&path, &[&after.encode(), &rest[at..]])?;
                Some(Segment::empty(path, first.offset))
            }
        };
        let truncated = file.set_len(segment.bytes).and_then(|()| file.sync_all());
        truncated.map_err(LogError::io("truncate", path))?;
        self.removed.push(RemovedRange {
            partition: self.partition,
            path: path.clone(),
            position: segment.bytes,
            bytes: damaged.len() as u64,
            first_offset: segment.end,
            next_offset: next.map_or(segment.end, |(_, header)| header.offset),
            kept_in: Some(kept_in),
        });
        Ok(rest_segment)
    }

    /// Rewrites the headers whose link or gap does not agree with the previous segment.
    fn link(&self, valid: &[Segment]) -> Result<()> {
        for pair in valid.windows(2) {
            let [before, segment] = pair else { continue };
            let wanted = SegmentHeader {
                partition: self.partition,
                base: segment.base,
                link: record::link_to(before.base, before.bytes),
                after_gap: before.end != segment.base,
            };
            let file = open(&segment.path)?;
            // Without the new link the log could not be opened: the header still refers to the segment as it
            // was before the repair.
            if segment.header(&file, self.partition)? != wanted {
                let write = file.write_all_at(&wanted.encode(), 0).and_then(|()| file.sync_all());
                write.map_err(LogError::io("write", &segment.path))?;
            }
        }
        Ok(())
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn open(path: &Path) -> Result<File> {
    File::options().read(true).write(true).open(path).map_err(LogError::io("open", path))
}

/// Writes a file, which is visible only when it is complete and durable.
fn write_durable(path: &Path, parts: &[&[u8]]) -> Result<()> {
    let temporary = with_suffix(path, "tmp");
    let write = || -> io::Result<()> {
        let file = File::create(&temporary)?;
        let mut position = 0;
        for part in parts {
            file.write_all_at(part, position)?;
            position += part.len() as u64;
        }
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(LogError::io("write", path))?;
    path.parent().map_or(Ok(()), sync_folder)
}
