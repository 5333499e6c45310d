//! State and log offset in one object: magic, protobuf, checksum.

use prost::Message;
use throng_model::{BudgetDay, Micros, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

use crate::wire;
use crate::{AdGroupConfig, SpendPoint};

use super::account::{Account, Window};
use super::dedupe::{Elapsed, SeenIds};
use super::ids::Id;
use super::pooled::Pooled;
use super::survival::Delays;
use super::{Engine, LogPosition};

const MAGIC: &[u8; 8] = b"THRCKPT1";
const FORMAT: u32 = 2;
/// Its ids are 128 bits long.
const LONG_IDS: u32 = 1;

/// Why bytes are no checkpoint of this partition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Too short, another format, or changed on disk.
    #[error("the checkpoint is damaged ({0}); replay the log from its beginning instead")]
    Damaged(&'static str),
    /// Written by a newer version.
    #[error("the checkpoint has format {0}, this version reads {FORMAT}: use the newer version")]
    Newer(u32),
    /// Of another partition.
    #[error("the checkpoint belongs to partition {found}, not {wanted}")]
    OtherPartition {
        /// Whose it is.
        found: u32,
        /// Whose it should be.
        wanted: u32,
    },
}

impl Engine {
    /// The state as bytes, with how far in the log it is.
    pub fn checkpoint(&self, position: impl Into<LogPosition>) -> Vec<u8> {
        let position = position.into();
        let (young_ids, old_ids) = self.seen.to_bytes();
        let elapsed = self.seen.elapsed();
        let message = wire::Checkpoint {
            format: FORMAT,
            partition: self.partition,
            next_offset: position.next_offset,
            ad_groups: self.accounts.iter().map(save).collect(),
            young_ids,
            old_ids,
            generation_began: elapsed.began.0,
            impressions: Some(save_pooled(&self.pooled_impressions)),
            clicks: Some(save_pooled(&self.pooled_clicks)),
            generation_micros: Some(elapsed.micros),
            newest_record: Some(elapsed.newest.0),
            last_record: position.last_record,
        };
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&message.encode_to_vec());
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    /// Reads a checkpoint. Ad groups that are not configured any more are left out. Returns the
    /// engine and the position to go on from.
    ///
    /// # Errors
    /// [`CheckpointError`]; never panics, whatever the bytes.
    pub fn restore(
        bytes: &[u8],
        partition: u32,
        epoch: u64,
        catalog_version: u64,
        ad_groups: Vec<AdGroupConfig>,
    ) -> Result<(Self, LogPosition), CheckpointError> {
        let damaged = CheckpointError::Damaged;
        let (body, sum) =
            bytes.split_last_chunk::<8>().ok_or(damaged("it is shorter than its checksum"))?;
        if xxh3_64(body) != u64::from_le_bytes(*sum) {
            return Err(damaged("its checksum does not match"));
        }
        let body = body.strip_prefix(MAGIC).ok_or(damaged("it does not begin as one"))?;
        let message =
            wire::Checkpoint::decode(body).map_err(|_| damaged("its contents make no sense"))?;
        let (young_ids, old_ids) = match message.format {
            FORMAT => (message.young_ids, message.old_ids),
            LONG_IDS => {
                let ids = |ids: &[u8]| shortened(ids).ok_or(damaged("its ids make no sense"));
                (ids(&message.young_ids)?, ids(&message.old_ids)?)
            }
            newer => return Err(CheckpointError::Newer(newer)),
        };
        if message.partition != partition {
            return Err(CheckpointError::OtherPartition {
                found: message.partition,
                wanted: partition,
            });
        }
        let mut engine = Self::new(partition, epoch, catalog_version, ad_groups);
        let pooled = |saved: Option<wire::Pooled>| {
            saved.and_then(load_pooled).ok_or(damaged("its delays make no sense"))
        };
        engine.pooled_impressions = pooled(message.impressions)?;
        engine.pooled_clicks = pooled(message.clicks)?;
        let began = Timestamp(message.generation_began);
        let elapsed = Elapsed {
            began,
            // Versions that did not write them measured from one time to the other: counting anew
            // remembers longer.
            micros: message.generation_micros.unwrap_or(0),
            newest: Timestamp(message.newest_record.unwrap_or(began.0)),
        };
        engine.seen = SeenIds::from_bytes(&young_ids, &old_ids, elapsed)
            .ok_or(damaged("its ids make no sense"))?;
        for saved in message.ad_groups {
            if let Some(place) = engine.places.get(saved.name.as_bytes()).copied() {
                load(&mut engine.accounts[place], saved)
                    .ok_or(damaged("an ad group makes no sense"))?;
            }
        }
        let position =
            LogPosition { next_offset: message.next_offset, last_record: message.last_record };
        Ok((engine, position))
    }
}

/// Ids as the first format had them, 16 bytes each, as they are now.
fn shortened(ids: &[u8]) -> Option<Vec<u8>> {
    let (ids, rest) = ids.as_chunks::<16>();
    let short = ids.iter().flat_map(|id| Id::of_hash(u128::from_le_bytes(*id)).to_bytes());
    rest.is_empty().then(|| short.collect())
}

fn save_pooled(pooled: &Pooled) -> wire::Pooled {
    wire::Pooled {
        windows: pooled
            .recent
            .iter()
            .map(|(number, outcomes)| wire::Window {
                number,
                expected: 0,
                outcomes: outcomes.iter().flat_map(|(b, n)| [b as u32, n]).collect(),
            })
            .collect(),
        complete: pooled.complete.counts().to_vec(),
        first: pooled.first,
    }
}

fn load_pooled(saved: wire::Pooled) -> Option<Pooled> {
    let mut pooled = Pooled {
        complete: Delays::from_counts(saved.complete)?,
        first: saved.first,
        ..Pooled::default()
    };
    for window in saved.windows {
        let (pairs, rest) = window.outcomes.as_chunks::<2>();
        if !rest.is_empty() {
            return None;
        }
        let counts = pooled.recent.entry(window.number);
        pairs.iter().for_each(|[bucket, times]| counts.add(*bucket as usize, *times));
    }
    Some(pooled)
}

fn save(account: &Account) -> wire::AdGroup {
    wire::AdGroup {
        name: account.config.name.to_string(),
        days: account.actual.keys().map(|day| day.0).collect(),
        actual: account.actual.values().copied().collect(),
        windows: account
            .windows
            .iter()
            .map(|(number, window)| wire::Window {
                number,
                expected: window.expected,
                outcomes: window.outcomes.iter().flat_map(|(b, n)| [*b, *n]).collect(),
            })
            .collect(),
        delays: account.delays.counts().to_vec(),
        intervals: account
            .intervals
            .iter()
            .map(|(number, (predicted, actual))| wire::Interval {
                number,
                predicted: *predicted,
                actual: *actual,
            })
            .collect(),
        points: account
            .points
            .iter()
            .map(|p| wire::Point { at: p.at.0, actual: p.actual.0, in_flight: p.in_flight.0 })
            .collect(),
    }
}

fn load(account: &mut Account, saved: wire::AdGroup) -> Option<()> {
    if saved.days.len() != saved.actual.len() {
        return None;
    }
    account.actual = saved.days.into_iter().map(BudgetDay).zip(saved.actual).collect();
    for window in saved.windows {
        let (pairs, rest) = window.outcomes.as_chunks::<2>();
        if !rest.is_empty() {
            return None;
        }
        *account.windows.entry(window.number) = Window {
            expected: window.expected,
            outcomes: pairs.iter().map(|[b, n]| (*b, *n)).collect(),
        };
    }
    account.delays = Delays::from_counts(saved.delays)?;
    for interval in saved.intervals {
        *account.intervals.entry(interval.number) = (interval.predicted, interval.actual);
    }
    account.points = saved
        .points
        .into_iter()
        .map(|p| SpendPoint {
            at: Timestamp(p.at),
            actual: Micros(p.actual),
            in_flight: Micros(p.in_flight),
        })
        .collect();
    Some(())
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_128;

    use super::super::dedupe::id_of;
    use super::*;

    #[test]
    fn ids_of_the_first_format_are_still_known() {
        let ids = |names: &[&str]| -> Vec<u8> {
            names.iter().flat_map(|name| xxh3_128(name.as_bytes()).to_le_bytes()).collect()
        };
        let none = Some(save_pooled(&Pooled::default()));
        let message = wire::Checkpoint {
            format: LONG_IDS,
            partition: 3,
            next_offset: 9,
            young_ids: ids(&["a", "b"]),
            old_ids: ids(&["c"]),
            generation_began: 1,
            impressions: none.clone(),
            clicks: none,
            ..wire::Checkpoint::default()
        };
        let mut bytes = MAGIC.to_vec();
        bytes.extend(message.encode_to_vec());
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        let (mut engine, offset) = Engine::restore(&bytes, 3, 1, 1, Vec::new()).unwrap();
        assert_eq!(offset, LogPosition::from(9));
        let new =
            ["a", "b", "c", "d"].map(|id| engine.seen.insert(id_of(id.as_bytes()), Timestamp(2)));
        assert_eq!(new, [false, false, false, true]);
        // Written again, they are of the newest format.
        let (mut engine, _) = Engine::restore(&engine.checkpoint(10), 3, 1, 1, Vec::new()).unwrap();
        assert!(
            ["a", "c", "d"]
                .iter()
                .all(|id| !engine.seen.insert(id_of(id.as_bytes()), Timestamp(2)))
        );
    }
}
