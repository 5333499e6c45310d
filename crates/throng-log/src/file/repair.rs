//! Makes a damaged log usable without what is damaged. What is taken out of it is kept in files, and the
//! offsets of the records that are lost are not used again.

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
        while let Some(mut segment) = waiting.pop() {
            let expected = sound.last().map_or(segment.base, |before| before.end);
            let file = open(&segment.path)?;
            let head = segment.head(&file, self.partition).ok();
            let Some(head) = head.filter(|_| segment.base >= expected) else {
                let next = waiting.last().map_or(expected, |next| next.base);
                self.take_out_file(&segment, expected.max(segment.base), next)?;
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
            sound.push(segment);
        }
        self.link(&sound)?;
        sync_folder(&self.folder)
    }

    /// Segments that were exchanged for each other.
    fn give_names_back(&self) -> Result<()> {
        let mut moved = Vec::new();
        for segment in segments_in(&self.folder)? {
            let mut bytes = [0; SEGMENT_HEAD];
            let read = open(&segment.path)?.read_exact_at(&mut bytes, 0);
            let head = read.ok().and_then(|()| SegmentHead::decode(&bytes));
            if let Some(head) = head
                && head.partition == self.partition
                && head.base != segment.base
            {
                let aside = self.folder.join(record::segment_name(head.base) + ".moved");
                std::fs::rename(&segment.path, &aside).map_err(LogError::io("rename", &aside))?;
                moved.push((aside, self.folder.join(record::segment_name(head.base))));
            }
        }
        for (aside, name) in moved {
            if name.exists() {
                let kept = self.kept(&aside)?;
                std::fs::rename(&aside, &kept).map_err(LogError::io("rename", &aside))?;
            } else {
                std::fs::rename(&aside, &name).map_err(LogError::io("rename", &aside))?;
            }
        }
        Ok(())
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

fn open(path: &Path) -> Result<File> {
    File::options().read(true).write(true).open(path).map_err(LogError::io("open", path))
}

/// Writes a file that is there only when it is whole and durable.
fn write_whole(path: &Path, parts: &[&[u8]]) -> Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".tmp");
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
