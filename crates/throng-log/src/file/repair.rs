//! Makes a damaged log usable without what is damaged. What is taken out of it is kept in files, and the
//! offsets of the records that are lost are not used again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::partition::segments_in;
use super::record::{self, SEGMENT_HEAD, SegmentHead, TailKind};
use super::segment::Segment;
use super::{lock, sync_folder};
use crate::{LogError, Result};

/// The folder of what was taken out, in the log's folder.
const QUARANTINE: &str = "quarantine";

/// How the names of segments end that wait for the name in their head.
const MOVED: &str = "moved";

/// Bytes that were taken out of a log, or a segment that was missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The partition.
    pub partition: u32,
    /// The segment file that they were in; of a missing one, that of the next.
    pub path: PathBuf,
    /// Where in it.
    pub position: u64,
    /// How many bytes; 0 if a segment is missing.
    pub bytes: u64,
    /// The first offset that is lost.
    pub first_offset: u64,
    /// The next offset that is there. As long as nothing follows, the one that the next record gets.
    pub next_offset: u64,
    /// The file that holds the bytes now.
    pub kept_in: Option<PathBuf>,
}

/// Takes what is damaged out of the log in `dir`, which no process may have open. Reads all of it. A
/// segment under the name of another one gets its own name back. Safe to call again after a crash.
///
/// # Errors
/// [`LogError::Locked`], [`LogError::Io`].
pub fn set_damage_aside(dir: &Path) -> Result<Vec<SetAside>> {
    let _lock = lock(dir)?;
    let mut all = Vec::new();
    for partition in 0..super::MAX_PARTITIONS {
        let folder = dir.join(partition.to_string());
        if folder.is_dir() {
            let mut repair =
                Repair { partition, quarantine: dir.join(QUARANTINE), folder, aside: Vec::new() };
            repair.run()?;
            all.append(&mut repair.aside);
        }
    }
    Ok(all)
}

struct Repair {
    partition: u32,
    folder: PathBuf,
    quarantine: PathBuf,
    aside: Vec<SetAside>,
}

impl Repair {
    fn run(&mut self) -> Result<()> {
        self.give_names_back()?;
        let mut waiting = segments_in(&self.folder)?;
        waiting.reverse();
        let mut sound: Vec<Segment> = Vec::new();
        // Offsets before it are in a sound segment or were reported as lost.
        let mut accounted: Option<u64> = None;
        while let Some(mut segment) = waiting.pop() {
            let expected = accounted.unwrap_or(segment.base);
            let file = open(&segment.path)?;
            let head = segment.head(&file, self.partition).ok();
            let Some(head) = head.filter(|_| segment.base >= expected) else {
                let next = waiting.last().map_or(expected, |next| next.base);
                self.take_out_file(&segment, expected, next)?;
                accounted = Some(next.max(expected));
                continue;
            };
            // One that says so follows what was taken out before, or what has just been.
            let link = sound.last().map(|before| record::link_to(before.base, before.bytes));
            let is_known = head.after_gap && link == Some(head.link);
            if segment.base > expected && !is_known {
                let (path, next_offset) = (segment.path.clone(), segment.base);
                self.aside.push(SetAside {
                    partition: self.partition,
                    path,
                    position: 0,
                    bytes: 0,
                    first_offset: expected,
                    next_offset,
                    kept_in: None,
                });
            }
            if segment.walk(&file)? {
                let is_last = waiting.is_empty();
                if let Some(rest) = self.take_out(&segment, &file, is_last)? {
                    waiting.push(rest);
                }
            }
            accounted = Some(segment.end);
            sound.push(segment);
        }
        self.link(&sound)?;
        sync_folder(&self.folder)
    }

    /// Segments that were exchanged for each other get the names in their heads. What stands under such a
    /// name and has no head of its own gets the name that becomes free: most likely it is the other one
    /// of an exchange, and its offsets are known by that name.
    fn give_names_back(&mut self) -> Result<()> {
        let mut freed: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
        for segment in segments_in(&self.folder)? {
            if let Some(base) = self.head_base(&segment.path)?
                && base != segment.base
            {
                let name = self.folder.join(record::segment_name(base));
                let aside = with_suffix(&name, MOVED);
                if aside.exists() {
                    // Two files with one head: one of them is a copy.
                    self.keep_copy(&segment.path, segment.base)?;
                    continue;
                }
                std::fs::rename(&segment.path, &aside).map_err(LogError::io("rename", &aside))?;
                freed.insert(aside, segment.path);
            }
        }
        for aside in self.moved()? {
            let name = aside.with_extension("");
            let base = self.head_base(&aside)?;
            if name.exists() && self.head_base(&name)? == base {
                let stood_at = freed.get(&aside).and_then(|path| path.file_name()?.to_str());
                let from = stood_at.and_then(record::base_of).or(base);
                self.keep_copy(&aside, from.unwrap_or(0))?;
                continue;
            }
            if name.exists() {
                match freed.get(&aside).filter(|free| !free.exists()) {
                    Some(free) => {
                        std::fs::rename(&name, free).map_err(LogError::io("rename", free))?;
                    }
                    None => self.keep_copy(&name, base.unwrap_or(0))?,
                }
            }
            std::fs::rename(&aside, &name).map_err(LogError::io("rename", &name))?;
        }
        Ok(())
    }

    /// Segments that wait for their names, also those of a run that was cut off.
    fn moved(&self) -> Result<Vec<PathBuf>> {
        let list = || -> io::Result<Vec<PathBuf>> {
            std::fs::read_dir(&self.folder)?.map(|entry| Ok(entry?.path())).collect()
        };
        let mut found = list().map_err(LogError::io("list", &self.folder))?;
        found.retain(|path| path.extension().is_some_and(|end| end == MOVED));
        found.sort();
        Ok(found)
    }

    /// The first offset by the head of a file; `None` if that is not whole, or another partition's.
    fn head_base(&self, path: &Path) -> Result<Option<u64>> {
        let mut bytes = [0; SEGMENT_HEAD];
        let read = open(path)?.read_exact_at(&mut bytes, 0);
        // Nothing is taken out of what this version does not know.
        if read.is_ok()
            && let Some(found) = record::newer_format(&bytes)
        {
            return Err(LogError::Newer { path: path.to_owned(), found });
        }
        let head = read.ok().and_then(|()| SegmentHead::decode(&bytes));
        Ok(head.filter(|head| head.partition == self.partition).map(|head| head.base))
    }

    /// Takes a file out whose records are there under another name, or cannot be placed. `from`: the
    /// first offset of what should have been in its place.
    fn keep_copy(&mut self, path: &Path, from: u64) -> Result<()> {
        self.take_out_file(&Segment::empty(path.to_owned(), from), from, from)
    }

    /// A new place in the folder of what was taken out.
    fn kept(&self, path: &Path) -> Result<PathBuf> {
        let folder = &self.quarantine;
        std::fs::create_dir_all(folder).map_err(LogError::io("make the folder", folder))?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("segment");
        let free = (0..).map(|n: u32| folder.join(format!("{}-{name}-{n}", self.partition)));
        let free = free.into_iter().find(|path| !path.exists());
        free.ok_or_else(|| LogError::io("name a file in", folder)(io::ErrorKind::Other.into()))
    }

    fn take_out_file(&mut self, segment: &Segment, first: u64, next: u64) -> Result<()> {
        let path = &segment.path;
        let kept = self.kept(path)?;
        let bytes = path.metadata().map_err(LogError::io("look at", path))?.len();
        std::fs::rename(path, &kept).map_err(LogError::io("rename", path))?;
        self.aside.push(SetAside {
            partition: self.partition,
            path: path.clone(),
            position: 0,
            bytes,
            first_offset: first,
            next_offset: next.max(first),
            kept_in: Some(kept),
        });
        Ok(())
    }

    /// Ends a segment before the first record that is not whole. What follows the damage becomes a
    /// segment of its own, which is returned.
    fn take_out(
        &mut self,
        segment: &Segment,
        file: &File,
        is_last: bool,
    ) -> Result<Option<Segment>> {
        let path = &segment.path;
        let length = file.metadata().map_err(LogError::io("look at", path))?.len();
        let mut rest = vec![0; usize::try_from(length - segment.bytes).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut rest, segment.bytes).map_err(LogError::io("read", path))?;
        let kind = record::tail_of(&rest, segment.end, segment.bytes);
        if is_last && kind == TailKind::Torn {
            // Whoever opens the log cuts it off.
            return Ok(None);
        }
        let next = record::next_whole(&rest, segment.end);
        let damaged = &rest[..next.map_or(rest.len(), |(at, _)| at)];
        let kept = self.kept(path)?;
        write_whole(&kept, &[damaged])?;
        let follows = match next {
            None => None,
            Some((at, first)) => {
                let after = SegmentHead {
                    partition: self.partition,
                    base: first.offset,
                    link: record::link_to(segment.base, segment.bytes),
                    after_gap: true,
                };
                let path = self.folder.join(record::segment_name(first.offset));
                write_whole(&path, &[&after.encode(), &rest[at..]])?;
                Some(Segment::empty(path, first.offset))
            }
        };
        let cut = file.set_len(segment.bytes).and_then(|()| file.sync_all());
        cut.map_err(LogError::io("cut", path))?;
        self.aside.push(SetAside {
            partition: self.partition,
            path: path.clone(),
            position: segment.bytes,
            bytes: damaged.len() as u64,
            first_offset: segment.end,
            next_offset: next.map_or(segment.end, |(_, head)| head.offset),
            kept_in: Some(kept),
        });
        Ok(follows)
    }

    /// Makes every segment's head follow the one before it.
    fn link(&self, sound: &[Segment]) -> Result<()> {
        for pair in sound.windows(2) {
            let [before, segment] = pair else { continue };
            let wanted = SegmentHead {
                partition: self.partition,
                base: segment.base,
                link: record::link_to(before.base, before.bytes),
                after_gap: before.end != segment.base,
            };
            let file = open(&segment.path)?;
            if segment.head(&file, self.partition)? != wanted {
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

/// Writes a file that is there only when it is whole and durable.
fn write_whole(path: &Path, parts: &[&[u8]]) -> Result<()> {
    let aside = with_suffix(path, "tmp");
    let write = || -> io::Result<()> {
        let file = File::create(&aside)?;
        let mut position = 0;
        for part in parts {
            file.write_all_at(part, position)?;
            position += part.len() as u64;
        }
        file.sync_all()?;
        std::fs::rename(&aside, path)
    };
    write().map_err(LogError::io("write", path))?;
    path.parent().map_or(Ok(()), sync_folder)
}
