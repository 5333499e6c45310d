//! One partition of the log: its segments as readers see them, and how they are opened.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, MutexGuard};
use throng_model::Timestamp;

use super::disk::Disk;
use super::record;
use super::segment::{self, Segment};
use super::sync_folder;
use crate::{LogError, Record, Result, Retention};

/// A partition as readers see it.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) folder: PathBuf,
    pub(super) number: u32,
    view: Mutex<View>,
    /// Told after each durable append of this process.
    pub(super) grown: tokio::sync::Notify,
}

#[derive(Debug, Default)]
pub(super) struct View {
    /// By offset; without gaps but where records were set aside. The last one is written to. Never
    /// empty, except in a log that is read while it is being made.
    pub(super) segments: Vec<Segment>,
}

impl Partition {
    pub(super) fn new(dir: &Path, number: u32) -> Self {
        Self {
            folder: dir.join(number.to_string()),
            number,
            view: Mutex::default(),
            grown: tokio::sync::Notify::new(),
        }
    }

    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        // Every change of the view is a few plain assignments: a panic leaves nothing half done.
        self.view.lock()
    }

    /// The segment that is written to, without its index.
    pub(super) fn active(&self) -> Segment {
        let view = self.view();
        match view.segments.last() {
            Some(last) => last.outline(),
            None => Segment::empty(self.folder.clone(), 0),
        }
    }

    pub(super) fn read(&self, from: u64, max_bytes: usize) -> Result<Vec<Record>> {
        let (segments, first) = {
            let view = self.view();
            let skip = view.segments.partition_point(|s| s.end <= from);
            let wanted: Vec<Segment> = view.segments[skip..].to_vec();
            (wanted, view.segments.first().map_or(0, |s| s.base))
        };
        if from < first {
            return Err(LogError::Gone { partition: self.number, wanted: from, first });
        }
        let (mut room, mut out) = (max_bytes, Vec::new());
        for segment in segments {
            let start = from.max(segment.base);
            match segment.read(start, &mut room, &mut out) {
                Ok(found) => self.learn(segment.base, &found),
                // Truncated between looking and opening.
                Err(LogError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && !segment.path.exists() =>
                {
                    let first = segment.end;
                    return Err(LogError::Gone { partition: self.number, wanted: from, first });
                }
                Err(error) => return Err(error),
            }
            if room == 0 {
                break;
            }
        }
        Ok(out)
    }

    /// The first offset from `from` on that is not known to be left out.
    pub(super) fn after_gap(&self, from: u64) -> u64 {
        let view = self.view();
        let place = view.segments.partition_point(|segment| segment.end <= from);
        let next = view.segments.get(place).or(view.segments.last());
        next.map_or(from, |next| from.max(next.base))
    }

    fn learn(&self, base: u64, found: &[(u64, u64)]) {
        if let Some(segment) = self.view().segments.iter_mut().find(|s| s.base == base) {
            for (offset, position) in found {
                segment.note(*offset, *position);
            }
        }
    }

    /// Deletes the oldest segments while `is_over` says so of the oldest one and all of them; never the
    /// last one.
    fn delete_while(&self, is_over: impl Fn(&Segment, &[Segment]) -> Result<bool>) -> Result<()> {
        let mut gone = false;
        loop {
            // Of all segments only the last one changes, and outlines are small.
            let segments: Vec<Segment> =
                self.view().segments.iter().map(Segment::outline).collect();
            let path = match segments.as_slice() {
                [first, _, ..] if is_over(first, &segments)? => first.path.clone(),
                _ => break,
            };
            std::fs::remove_file(&path).map_err(LogError::io("delete", &path))?;
            self.view().segments.remove(0);
            gone = true;
        }
        if gone {
            sync_folder(&self.folder)?;
        }
        Ok(())
    }

    pub(super) fn truncate_before(&self, offset: u64) -> Result<()> {
        self.delete_while(|first, _| Ok(first.end <= offset))
    }

    /// Deletes segments that are too many by a rule, of those that hold nothing from `before` on.
    pub(super) fn retain(&self, rule: Retention, before: u64, now: Timestamp) -> Result<()> {
        self.delete_while(|first, all| {
            if first.end > before {
                return Ok(false);
            }
            let bytes: u64 = all.iter().map(|segment| segment.bytes).sum();
            if bytes > rule.bytes {
                return Ok(true);
            }
            // The first record of the next segment came after the last one of this.
            let next = all.get(1).map(|next| next.first_time()).transpose()?.flatten();
            Ok(next.is_some_and(|at| now.since(at) > rule.age))
        })
    }

    /// The segments in the folder by offset, each without its records. Those before the last one are
    /// full; of those that `known` has, what is known is taken.
    fn list(&self, known: &[Segment]) -> Result<Vec<Segment>> {
        let mut segments = segments_in(&self.folder)?;
        let heads: Vec<record::SegmentHead> = segments
            .iter()
            .map(|segment| {
                let file = File::open(&segment.path);
                segment.head(&file.map_err(LogError::io("open", &segment.path))?, self.number)
            })
            .collect::<Result<_>>()?;
        for at in 1..segments.len() {
            let (head, next) = (heads[at], segments[at].base);
            segments[at].after_gap = head.after_gap;
            let sealed = &mut segments[at - 1];
            if let Some(known) = known.iter().find(|k| k.base == sealed.base && k.end <= next) {
                *sealed = known.clone();
            } else {
                sealed.end = next;
                let length = sealed.path.metadata().map_err(LogError::io("look at", &sealed.path));
                sealed.bytes = length?.len();
            }
            self.check_link(sealed, head)?;
        }
        Ok(segments)
    }

    /// Makes sure that a full segment is the one that the next one's head follows.
    fn check_link(&self, sealed: &mut Segment, next: record::SegmentHead) -> Result<()> {
        let linked = record::link_to(sealed.base, sealed.bytes) == next.link;
        if next.link != 0 && !linked {
            let why = "the segment that follows belongs to another one: a segment is missing, or this \
                       one has another length than it had";
            return Err(sealed.damaged(sealed.bytes, why));
        }
        if next.link == 0 || next.after_gap {
            // Written by an earlier version, or the end is not where the next one begins.
            let file = File::open(&sealed.path).map_err(LogError::io("open", &sealed.path))?;
            sealed.scan_whole(&file)?;
        }
        let follows =
            if next.after_gap { sealed.end <= next.base } else { sealed.end == next.base };
        if !follows {
            let why = "it does not end where the next segment begins: a segment is missing";
            return Err(sealed.damaged(sealed.bytes, why));
        }
        Ok(())
    }

    /// For a log that somebody else writes: takes in what is new.
    pub(super) fn look_again(&self) -> Result<()> {
        let known: Vec<Segment> = self.view().segments.clone();
        let full = known.len().saturating_sub(1);
        let mut listed = match self.list(&known[..full]) {
            // The writer has deleted a segment between listing and opening.
            Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.list(&known[..full])?
            }
            listed => listed?,
        };
        if let Some(last) = listed.last_mut() {
            if let Some(same) = known.last().filter(|known| known.base == last.base) {
                *last = same.clone();
            }
            let file = File::open(&last.path).map_err(LogError::io("open", &last.path))?;
            last.scan_on(&file)?;
        }
        self.view().segments = listed;
        Ok(())
    }

    /// Opens the partition for writing: its last segment's file. Cuts off a write that was torn.
    pub(super) fn open(&self, dir: &Path, disk: &dyn Disk) -> Result<File> {
        let (folder, number) = (&self.folder, self.number);
        std::fs::create_dir_all(folder).map_err(LogError::io("make the folder", folder))?;
        sync_folder(dir)?;
        let mut segments = self.list(&[])?;
        let file = match segments.last_mut() {
            Some(last) => {
                let open = File::options().read(true).write(true).open(&last.path);
                let file = open.map_err(LogError::io("open", &last.path))?;
                if last.scan_on(&file)? {
                    let length =
                        file.metadata().map_err(LogError::io("look at", &last.path))?.len();
                    tracing::warn!(
                        path = %last.path.display(),
                        position = last.bytes,
                        bytes = length - last.bytes,
                        "the end of a write that was not acknowledged is cut off"
                    );
                    disk.set_len(&file, last.bytes).map_err(LogError::io("cut", &last.path))?;
                }
                // What a killed process wrote may be in memory only.
                disk.sync_data(&file).map_err(LogError::io("sync", &last.path))?;
                file
            }
            None => {
                let (file, first) = segment::create(disk, folder, number, 0, None)?;
                segments.push(first);
                file
            }
        };
        self.view().segments = segments;
        Ok(file)
    }
}

/// The segment files of a folder by offset. None if there is no folder.
pub(super) fn segments_in(folder: &Path) -> Result<Vec<Segment>> {
    let mut segments = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(segments),
        Err(error) => return Err(LogError::io("list", folder)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(LogError::io("list", folder))?;
        if let Some(base) = entry.file_name().to_str().and_then(record::base_of) {
            segments.push(Segment::empty(entry.path(), base));
        }
    }
    segments.sort_by_key(|s| s.base);
    Ok(segments)
}
