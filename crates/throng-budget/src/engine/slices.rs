//! Closed slices of spend, in files that are written once: a checkpoint has the current slices and those that
//! changed since their file was written, and names the files.
//!
//! A file has the slices of one UTC day of all ad groups of a partition. It is written two hours after the
//! day's end, and replaced by another file when many of its slices have changed. If there are more than
//! [`MAX_FILES`], the oldest ones are merged.
//!
//! ```text
//!  0  8  "THRNGSLC"
//!  8     a protobuf message (`SliceFileContent`): ad groups by name, slices of each by time
//! end-8  XXH3 of all bytes before
//! ```

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use prost::Message;
use throng_model::{Amount, ChecksumError, Timestamp, append_checksum, verify_checksum};
use xxhash_rust::xxh3::xxh3_128;

use crate::wire;

use super::Engine;
use super::checkpoint::format::InvalidCheckpoint;
use super::spend::{SLICE_MICROS, SLICES_PER_DAY, SliceCount, Spend};

const MAGIC: &[u8; 8] = b"THRNGSLC";
const DAY_MICROS: i64 = SLICES_PER_DAY * SLICE_MICROS;
/// How long after its end a day is closed: by then nearly all of its events have come.
const SETTLED_MICROS: i64 = 2 * 3600 * 1_000_000;
/// A file is replaced when more than one of this many of its slices has changed.
const CHANGED_PART: u64 = 8;
/// The most files; if there are more, the two oldest are merged. Enough for one file for each of the nine days
/// of which an ad group's slices are kept.
const MAX_FILES: usize = 10;

/// A range of UTC days, counted since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DayRange {
    first: i64,
    last: i64,
}

impl DayRange {
    fn contains(self, day: i64) -> bool {
        (self.first..=self.last).contains(&day)
    }

    fn slices(self) -> Range<i64> {
        let start = |day: i64| day.saturating_mul(SLICES_PER_DAY);
        start(self.first)..start(self.last.saturating_add(1))
    }
}

/// The first day that is not closed.
fn first_open_day(now: Timestamp) -> i64 {
    now.0.saturating_sub(SETTLED_MICROS).div_euclid(DAY_MICROS)
}

/// Slices as they are encoded in messages.
#[derive(Debug, Default)]
pub(super) struct Packed {
    /// Each one's number minus that of the one before.
    pub(super) steps: Vec<i64>,
    /// Micros.
    pub(super) spend: Vec<i64>,
    /// Billionths; empty if there are none, as nearly always.
    pub(super) nanos: Vec<u32>,
}

impl Packed {
    pub(super) fn new(slices: impl Iterator<Item = (i64, Amount)>) -> Self {
        let (mut packed, mut last) = (Self::default(), 0i64);
        for (number, amount) in slices {
            packed.steps.push(number.wrapping_sub(last));
            packed.spend.push(amount.micros);
            packed.nanos.push(amount.nanos.into());
            last = number;
        }
        if packed.nanos.iter().all(|nanos| *nanos == 0) {
            packed.nanos = Vec::new();
        }
        packed
    }
}

/// Decodes the parts of a [`Packed`].
pub(super) fn unpack<'a>(
    steps: &'a [i64],
    spend: &'a [i64],
    nanos: &'a [u32],
) -> impl Iterator<Item = (i64, Amount)> + use<'a> {
    let mut number = 0i64;
    let nanos = nanos.iter().copied().chain(std::iter::repeat(0));
    steps.iter().zip(spend).zip(nanos).map(move |((step, micros), nanos)| {
        number = number.wrapping_add(*step);
        (number, Amount::of_saved(*micros, nanos))
    })
}

/// A file of closed slices.
#[derive(Debug, Clone)]
pub struct SliceFile {
    name: String,
    partition: u32,
    days: DayRange,
    ad_groups: Arc<[wire::AdGroupSlices]>,
}

impl SliceFile {
    /// Reads a file's content.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        let body = verify_checksum(bytes).map_err(ChecksumError::problem)?;
        let body = body.strip_prefix(MAGIC).ok_or("it has another format")?;
        let content = wire::SliceFileContent::decode(body);
        let content = content.map_err(|_| "its contents cannot be decoded")?;
        let days = DayRange { first: content.first_day, last: content.last_day };
        let range = days.slices();
        let is_sound = |ad_group: &wire::AdGroupSlices| {
            let (steps, spend) = (&ad_group.slice_steps, &ad_group.slice_spend);
            let nanos = &ad_group.slice_nanos;
            steps.len() == spend.len()
                && (nanos.is_empty() || nanos.len() == steps.len())
                && unpack(steps, spend, nanos).all(|(number, _)| range.contains(&number))
        };
        let is_sorted = content.ad_groups.is_sorted_by(|a, b| a.name < b.name);
        if days.first > days.last || !is_sorted || !content.ad_groups.iter().all(is_sound) {
            return Err("its contents are out of order");
        }
        let (partition, ad_groups) = (content.partition, content.ad_groups.into());
        Ok(Self { name: name_of(bytes), partition, days, ad_groups })
    }

    /// Its name: a hash of its content.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The slices of an ad group.
    fn of(&self, ad_group: &str) -> impl Iterator<Item = (i64, Amount)> {
        let place = self.ad_groups.binary_search_by(|known| known.name.as_str().cmp(ad_group));
        let found = place.ok().map(|place| &self.ad_groups[place]);
        found.into_iter().flat_map(|a| unpack(&a.slice_steps, &a.slice_spend, &a.slice_nanos))
    }
}

fn name_of(bytes: &[u8]) -> String {
    format!("{:032x}", xxh3_128(bytes))
}

fn encode(content: &wire::SliceFileContent) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&content.encode_to_vec());
    append_checksum(&mut bytes);
    bytes
}

/// A file that a state refers to.
#[derive(Debug, Clone)]
struct StateFile {
    days: DayRange,
    /// Increases from file to file: see [`Spend::first_file`].
    number: u64,
    name: String,
    /// The content, until it is written.
    unsaved: Option<Arc<Vec<u8>>>,
}

/// The files of a partition's state. A slice that is marked as one of a file is in the one file here that
/// has its day, with the same amount.
#[derive(Debug, Clone, Default)]
pub(super) struct SliceFiles {
    /// Oldest first; no day is in two of them.
    files: Vec<StateFile>,
    /// The number of the next file.
    next: u64,
    /// Written files that are no longer needed.
    dropped: Vec<String>,
}

/// The slices in the files of a checkpoint, each file with its number.
#[derive(Debug, Default)]
pub(super) struct ReadSlices(Vec<(u64, SliceFile)>);

impl ReadSlices {
    /// Those that count for an ad group of the checkpoint.
    pub(super) fn of(&self, saved: &wire::AdGroup) -> impl Iterator<Item = (i64, Amount)> {
        let (first_file, kept_from) = (saved.first_slice_file, saved.kept_from.unwrap_or(i64::MAX));
        let files = self.0.iter().filter(move |(number, _)| *number >= first_file);
        let slices = files.flat_map(move |(_, file)| file.of(&saved.name));
        slices.filter(move |(number, _)| *number >= kept_from)
    }
}

/// Which files there should be, oldest first, each with whether it is there and stays as it is. `open`: the
/// first day that is not closed.
fn plan(
    files: &[DayRange],
    counts: &BTreeMap<i64, SliceCount>,
    open: i64,
) -> Vec<(DayRange, bool)> {
    let mut planned: Vec<(DayRange, bool)> = Vec::new();
    for days in files {
        let mut sum = SliceCount::default();
        counts.range(days.first..=days.last).for_each(|(_, count)| sum += *count);
        let is_changed = sum.outside.saturating_mul(CHANGED_PART) > sum.in_file;
        if sum.in_file > 0 {
            planned.push((*days, !is_changed || days.last >= open));
        }
    }
    for (day, _) in counts.range(..open).filter(|(_, count)| count.outside > 0) {
        if !planned.iter().any(|(days, _)| days.contains(*day)) {
            planned.push((DayRange { first: *day, last: *day }, false));
        }
    }
    planned.sort_unstable_by_key(|(days, _)| days.first);
    while planned.len() > MAX_FILES && planned[1].0.last < open {
        let (second, _) = planned.remove(1);
        planned[0] = (DayRange { first: planned[0].0.first, last: second.last }, false);
    }
    planned
}

impl SliceFiles {
    /// The number of the next file.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Packs closed slices into files. `spends`: of all ad groups of the partition, ascending by name.
    fn pack(&mut self, partition: u32, spends: &mut [(&str, &mut Spend)], now: Timestamp) {
        let mut counts = BTreeMap::new();
        spends.iter().for_each(|(_, spend)| spend.count(&mut counts));
        let days: Vec<DayRange> = self.files.iter().map(|file| file.days).collect();
        let mut before = std::mem::take(&mut self.files);
        for (days, stays) in plan(&days, &counts, first_open_day(now)) {
            let known = before.iter().position(|file| stays && file.days == days);
            let file = match known {
                Some(place) => before.remove(place),
                None => self.make(partition, days, spends),
            };
            self.files.push(file);
        }
        let written = before.into_iter().filter(|file| file.unsaved.is_none());
        self.dropped.extend(written.map(|file| file.name));
    }

    /// A new file of these days.
    fn make(
        &mut self,
        partition: u32,
        days: DayRange,
        spends: &mut [(&str, &mut Spend)],
    ) -> StateFile {
        let mut content = wire::SliceFileContent {
            partition,
            first_day: days.first,
            last_day: days.last,
            ad_groups: Vec::new(),
        };
        for (name, spend) in spends.iter_mut() {
            let slices = spend.put_in_file(days.slices());
            if slices.is_empty() {
                continue;
            }
            let Packed { steps, spend, nanos } = Packed::new(slices.into_iter());
            content.ad_groups.push(wire::AdGroupSlices {
                name: (*name).to_owned(),
                slice_steps: steps,
                slice_spend: spend,
                slice_nanos: nanos,
            });
        }
        let bytes = encode(&content);
        let number = self.next;
        self.next = self.next.saturating_add(1);
        StateFile { days, number, name: name_of(&bytes), unsaved: Some(Arc::new(bytes)) }
    }

    /// As they are in a checkpoint: by name if they are written, otherwise with their contents.
    pub(super) fn save(&self) -> Vec<wire::SliceFile> {
        let content = |file: &StateFile| file.unsaved.as_ref().map_or(Vec::new(), |c| c.to_vec());
        let saved = self.files.iter().map(|file| wire::SliceFile {
            first_day: file.days.first,
            last_day: file.days.last,
            number: file.number,
            name: file.name.clone(),
            content: content(file),
        });
        saved.collect()
    }

    /// The files of a checkpoint, and their contents. `found`: those that it names.
    pub(super) fn load(
        message: &wire::Checkpoint,
        found: &HashMap<String, SliceFile>,
    ) -> Result<(Self, ReadSlices), InvalidCheckpoint> {
        let damaged = InvalidCheckpoint::Damaged("its files of closed slices do not match");
        let mut loaded = Self { next: message.next_slice_file, ..Self::default() };
        let mut read = ReadSlices::default();
        for saved in &message.slice_files {
            let unsaved = (!saved.content.is_empty()).then(|| Arc::new(saved.content.clone()));
            let file = match &unsaved {
                Some(content) => SliceFile::read(content).map_err(InvalidCheckpoint::Damaged)?,
                None => {
                    let file = found.get(&saved.name).cloned();
                    file.ok_or_else(|| InvalidCheckpoint::MissingSlices(saved.name.clone()))?
                }
            };
            let days = DayRange { first: saved.first_day, last: saved.last_day };
            let is_it = (&file.name, file.partition) == (&saved.name, message.partition);
            if !is_it || file.days != days || saved.number >= message.next_slice_file {
                return Err(damaged);
            }
            let (number, name) = (saved.number, saved.name.clone());
            loaded.files.push(StateFile { days, number, name, unsaved });
            read.0.push((saved.number, file));
        }
        if !loaded.files.is_sorted_by(|a, b| a.days.last < b.days.first) {
            return Err(damaged);
        }
        Ok((loaded, read))
    }
}

impl Engine {
    /// Packs closed slices that no file has as they are into files, where enough of them have changed. To be
    /// called before a checkpoint is written, together with the [new files](Self::unsaved_slice_files).
    pub fn pack_closed_slices(&mut self, now: Timestamp) {
        let accounts = self.accounts.iter_mut();
        let accounts = accounts.map(|a| (a.config.name.as_str(), &mut a.spend));
        let removed = self.removed.iter_mut();
        let removed = removed.map(|(name, a)| (name.as_str(), &mut a.spend));
        let mut spends: Vec<(&str, &mut Spend)> = accounts.chain(removed).collect();
        spends.sort_unstable_by_key(|(name, _)| *name);
        self.slice_files.pack(self.partition, &mut spends, now);
    }

    /// Files of closed slices that are not written yet, as name and content. A checkpoint has their contents
    /// until [`slice_file_saved`](Self::slice_file_saved), and their names from then on.
    pub fn unsaved_slice_files(&self) -> Vec<(String, Arc<Vec<u8>>)> {
        let unsaved = |file: &StateFile| Some((file.name.clone(), file.unsaved.clone()?));
        self.slice_files.files.iter().filter_map(unsaved).collect()
    }

    /// A file of closed slices is written. `false` if no later checkpoint needs it.
    pub fn slice_file_saved(&mut self, name: &str) -> bool {
        let mut files = self.slice_files.files.iter_mut();
        let Some(file) = files.find(|file| file.name == name) else { return false };
        file.unsaved = None;
        true
    }

    /// The names of the files of closed slices that are written and needed.
    pub fn slice_file_names(&self) -> Vec<String> {
        let files = self.slice_files.files.iter();
        files.filter(|file| file.unsaved.is_none()).map(|file| file.name.clone()).collect()
    }

    /// The names of written files of closed slices that no later checkpoint needs. Each is returned once;
    /// a file of the same name may have been made again since.
    pub fn take_dropped_slice_files(&mut self) -> Vec<String> {
        std::mem::take(&mut self.slice_files.dropped)
    }

    /// Makes the state independent of files of closed slices: checkpoints have all slices themselves until the
    /// next [`pack_closed_slices`](Self::pack_closed_slices). For a standby replica that is promoted: the
    /// previous leader may have removed the files that it knows, and a checkpoint that names them could not
    /// be restored.
    pub fn detach_slice_files(&mut self) {
        self.slice_files.files.clear();
        self.accounts.iter_mut().for_each(|account| account.spend.detach_files());
        self.removed.values_mut().for_each(|removed| removed.spend.detach_files());
    }
}

#[cfg(test)]
mod tests;
