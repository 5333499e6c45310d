//! Raises alerts about records of the event log that are quarantined: their events count nowhere, and the partition
//! continues without them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use throng_model::Timestamp;
use throng_store::AlertKind;
use tokio_util::sync::CancellationToken;

use crate::deps::{AlertsDeps, HostError, PartitionQuarantine};
use crate::reconcile::{Cause, open_alerts, reconcile};

/// The interval in which the lists of partitions are polled: one small object of each.
const POLL_INTERVAL: Duration = Duration::from_secs(60);
/// How long after the newest record of its partition an alert is resolved: nothing says that a person has seen it,
/// and a record stays in the list forever.
const OPEN_FOR: Duration = Duration::from_secs(24 * 3_600);

/// Raises and resolves alerts of quarantined records until `shutdown`, while this process is the leader.
pub(crate) async fn raise_quarantine_alerts(deps: AlertsDeps, shutdown: CancellationToken) {
    let mut watch = QuarantineWatch::default();
    loop {
        let polled = tokio::select! {
            // A bucket that does not answer takes longer than a process has to end.
            () = shutdown.cancelled() => return,
            polled = round(&deps, &mut watch) => polled,
        };
        if let Err(error) = polled {
            tracing::warn!(
                error = &*error as &dyn std::error::Error,
                "failed to write alerts of quarantined records, retrying"
            );
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(deps.poll_delay(POLL_INTERVAL)) => {}
        }
    }
}

async fn round(deps: &AlertsDeps, watch: &mut QuarantineWatch) -> Result<(), HostError> {
    let ledger = &*deps.ledger;
    if !ledger.acquire_leadership().await? {
        // What another process watches meanwhile is not known here.
        *watch = QuarantineWatch::default();
        return Ok(());
    }
    let now = deps.clock.now();
    let lists = deps.host.quarantines().await?;
    let mut open = open_alerts(ledger, &[AlertKind::RecordsQuarantined]).await?;
    let wanted = watch.observe(&lists, &mut open, now);
    reconcile(ledger, &open, wanted, now).await?;
    Ok(())
}

/// What is remembered from poll to poll.
#[derive(Debug, Default)]
struct QuarantineWatch {
    /// The number of records of each partition at the last poll, and the last poll at which there were more than
    /// before.
    seen: HashMap<u32, (u64, Option<Timestamp>)>,
}

impl QuarantineWatch {
    /// Records what one poll has read. Returns the alerts that should be open, with their messages. Removes those from
    /// `open` whose number of records has grown: they are raised again, with the new number.
    fn observe(
        &mut self,
        lists: &[PartitionQuarantine],
        open: &mut BTreeMap<Cause, Timestamp>,
        now: Timestamp,
    ) -> BTreeMap<Cause, String> {
        let mut wanted = BTreeMap::new();
        for list in lists {
            let cause = (AlertKind::RecordsQuarantined, format!("partition {}", list.partition));
            let (has_grown, grown_at) = match self.seen.get(&list.partition) {
                Some((total, at)) => {
                    let has_grown = list.total > *total;
                    (has_grown, if has_grown { Some(now) } else { *at })
                }
                // The times of the records that a full list lacks are not known: one of them may be new.
                None => {
                    let is_full = list.total > list.records.len() as u64;
                    (false, (is_full && open.contains_key(&cause)).then_some(now))
                }
            };
            self.seen.insert(list.partition, (list.total, grown_at));
            let newest = list.records.iter().map(|record| record.at).max().max(grown_at);
            if newest.is_none_or(|at| now.since(at) >= OPEN_FOR) {
                continue;
            }
            if has_grown {
                open.remove(&cause);
            }
            wanted.insert(cause, message(list));
        }
        wanted
    }
}

/// The message of the alert of a partition.
fn message(list: &PartitionQuarantine) -> String {
    let mut classes: BTreeMap<&str, u64> = BTreeMap::new();
    for record in &list.records {
        // What follows the colon differs from record to record.
        let class =
            record.reason.split_once(": ").map_or(record.reason.as_str(), |(class, _)| class);
        *classes.entry(class).or_default() += 1;
    }
    let classes = classes.into_iter().map(|(class, count)| format!("{class} ({count})"));
    let classes: Vec<String> = classes.collect();
    format!(
        "records of the partition that are skipped: {}. Their events do not count. Reasons: {}. `throng events \
         quarantine` lists them. Correct the program that wrote them; report a panic as a bug",
        list.total,
        classes.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use crate::deps::QuarantinedRecord;

    use super::*;

    const START: Timestamp = Timestamp(1_795_435_200_000_000);
    const DAY: u64 = 24 * 3_600;
    const NONE: [&str; 0] = [];

    fn at(secs: u64) -> Timestamp {
        START.plus(Duration::from_secs(secs))
    }

    /// The list of partition 3: this many records, of which those of these seconds are listed.
    fn list(total: u64, listed: &[u64]) -> PartitionQuarantine {
        let record =
            |secs: &u64| QuarantinedRecord { at: at(*secs), reason: "a reason".to_owned() };
        PartitionQuarantine { partition: 3, total, records: listed.iter().map(record).collect() }
    }

    /// The subjects of the alerts that are open after a poll, and were before it if they are in `open`.
    fn poll(
        watch: &mut QuarantineWatch,
        open: &mut BTreeMap<Cause, Timestamp>,
        list: PartitionQuarantine,
        secs: u64,
    ) -> Vec<String> {
        let wanted = watch.observe(&[list], open, at(secs));
        open.retain(|cause, _| wanted.contains_key(cause));
        open.extend(wanted.into_keys().map(|cause| (cause, at(secs))));
        open.keys().map(|(_, subject)| subject.clone()).collect()
    }

    #[test]
    fn an_alert_is_open_for_a_day_after_the_newest_record() {
        let (mut watch, mut open) = (QuarantineWatch::default(), BTreeMap::new());
        let mut poll = |list, secs| poll(&mut watch, &mut open, list, secs);
        assert_eq!(poll(list(0, &[]), 0), NONE);
        assert_eq!(poll(list(1, &[10]), 60), ["partition 3"]);
        assert_eq!(poll(list(1, &[10]), DAY + 9), ["partition 3"]);
        // The poll at which the record was new counts: its time is that of the node which found it.
        assert_eq!(poll(list(1, &[10]), DAY + 60), NONE);
        assert_eq!(poll(list(2, &[10, DAY + 70]), DAY + 120), ["partition 3"]);
    }

    #[test]
    fn an_old_list_raises_no_alert_at_a_start() {
        let (mut watch, mut open) = (QuarantineWatch::default(), BTreeMap::new());
        assert_eq!(poll(&mut watch, &mut open, list(1, &[10]), DAY + 10), NONE);
    }

    #[test]
    fn records_that_a_full_list_lacks_keep_the_alert_open() {
        let (mut watch, mut open) = (QuarantineWatch::default(), BTreeMap::new());
        assert_eq!(poll(&mut watch, &mut open, list(5, &[0, 1]), 2 * DAY), NONE);
        let grown = 2 * DAY + 60;
        assert_eq!(poll(&mut watch, &mut open, list(6, &[0, 1]), grown), ["partition 3"]);
        // Another process is the leader now.
        let mut watch = QuarantineWatch::default();
        let changed = grown + 60;
        assert_eq!(poll(&mut watch, &mut open, list(6, &[0, 1]), changed), ["partition 3"]);
        assert_eq!(poll(&mut watch, &mut open, list(6, &[0, 1]), changed + DAY), NONE);
    }

    #[test]
    fn more_records_raise_the_open_alert_again() {
        let (mut watch, mut open) = (QuarantineWatch::default(), BTreeMap::new());
        poll(&mut watch, &mut open, list(1, &[10]), 60);
        watch.observe(&[list(1, &[10])], &mut open, at(120));
        assert_eq!(open.len(), 1);
        let wanted = watch.observe(&[list(2, &[10, 130])], &mut open, at(180));
        assert_eq!((open.len(), wanted.len()), (0, 1), "it is raised, and not resolved");
    }

    #[test]
    fn the_message_counts_the_classes_of_reasons() {
        let mut list = list(4, &[1, 2, 3]);
        let kind = "it is not a throng.events.v1.Events message";
        list.records[0].reason = format!("{kind}: field 3 is not UTF-8");
        list.records[1].reason = "applying it panics".to_owned();
        list.records[2].reason = format!("{kind}: it ends in the middle of a field");
        let message = message(&list);
        let expected = format!(
            "records of the partition that are skipped: 4. Their events do not count. Reasons: applying it panics \
             (1); {kind} (2). `throng events quarantine` lists them. Correct the program that wrote them; report a \
             panic as a bug"
        );
        assert_eq!(message, expected);
    }
}
