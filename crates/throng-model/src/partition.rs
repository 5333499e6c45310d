//! Which partition of the event log an ad group belongs to, and ad groups in partitions that are not theirs.

use std::sync::atomic::{AtomicI64, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use crate::{AdGroupName, Timestamp};

/// After an ad group was found, others are looked for after this many microseconds.
const PAUSE_MICROS: i64 = 60_000_000;

/// The partition of an ad group by its name, the same on every node and in every client.
pub fn partition_of(ad_group: impl AsRef<[u8]>, partitions: usize) -> usize {
    (xxh3_64(ad_group.as_ref()) % partitions.max(1) as u64) as usize
}

/// Finds ad groups in a partition that is not theirs: events of them do not count there. It finds at most one a
/// minute, as each is logged and a producer that takes another hash sends all of its events so.
#[derive(Debug)]
pub struct MisplacedAdGroups {
    partition: u32,
    partitions: u32,
    /// When the last one was found.
    found_at: AtomicI64,
}

impl MisplacedAdGroups {
    /// Of this partition, of so many.
    pub fn new(partition: u32, partitions: u32) -> Self {
        Self { partition, partitions, found_at: AtomicI64::new(i64::MIN) }
    }

    /// The first of these ad groups that belongs to another partition, and the number of that one. `None` within a
    /// minute after one was found. Texts that are not names of ad groups are passed over.
    pub fn find<'a>(
        &self,
        ad_groups: impl IntoIterator<Item = &'a str>,
        now: Timestamp,
    ) -> Option<(AdGroupName, u32)> {
        if now.0.saturating_sub(self.found_at.load(Ordering::Relaxed)) < PAUSE_MICROS {
            return None;
        }
        let found = ad_groups.into_iter().find_map(|name| {
            let wanted = partition_of(name, self.partitions as usize) as u32;
            if wanted == self.partition {
                return None;
            }
            Some((AdGroupName::new(name).ok()?, wanted))
        })?;
        self.found_at.store(now.0, Ordering::Relaxed);
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ad_group_in_another_partition_is_found_once_a_minute() {
        let start = Timestamp(1_767_268_800_000_000);
        let name = "shoes";
        let own = partition_of(name, 4) as u32;
        let other = (own + 1) % 4;
        let here = MisplacedAdGroups::new(own, 4);
        assert_eq!(here.find([name, ""], start), None, "it is in its partition");
        let there = MisplacedAdGroups::new(other, 4);
        let expected = Some((AdGroupName::new(name).unwrap(), own));
        let after = |seconds: i64| Timestamp(start.0 + seconds * 1_000_000);
        assert_eq!(there.find([name], start), expected);
        assert_eq!(there.find([name], after(59)), None);
        assert_eq!(there.find([name], after(60)), expected);
    }
}
