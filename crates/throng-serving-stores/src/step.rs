//! What is due for an audience in a store. Pure.

use std::time::Duration;

use throng_model::{AudienceName, Timestamp};
use throng_spec::ServingStore;
use throng_store::{NewStoreWrite, StoreWrite, StoreWriteState};

/// How often samples of a store are compared.
const CHECK_INTERVAL: Duration = Duration::from_secs(3_600);

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A write is to be begun in place of this newest one.
    Begin(NewStoreWrite, Option<i64>),
    /// An open write is to be continued.
    Continue(StoreWrite),
    /// A sample is to be compared.
    Check(StoreWrite),
}

/// What is due for an audience with this newest write. `served` is the version that the audience serves; `None`
/// also for an audience that is not written to the store.
pub(crate) fn step(
    store: &ServingStore,
    audience: &AudienceName,
    served: Option<u64>,
    newest: Option<&StoreWrite>,
    now: Timestamp,
) -> Option<Step> {
    let begin = |from_version, to_version, rewrite| {
        let write = NewStoreWrite {
            store: store.name.clone(),
            audience: audience.clone(),
            place: store.place(),
            from_version,
            to_version,
            rewrite,
        };
        Some(Step::Begin(write, newest.map(|newest| newest.id)))
    };
    let Some(row) = newest else { return begin(None, Some(served?), false) };
    let same_place = row.write.place == store.place();
    match row.state {
        StoreWriteState::Open if same_place => {
            let is_due = row.retry_at.is_none_or(|at| at <= now);
            is_due.then(|| Step::Continue(row.clone()))
        }
        StoreWriteState::Done if same_place => match served {
            Some(version) if row.write.to_version != Some(version) => {
                begin(row.write.to_version, Some(version), false)
            }
            Some(_) => {
                let due = row.check.is_none_or(|check| is_check_due(check.at, now));
                due.then(|| Step::Check(row.clone()))
            }
            None => None,
        },
        // What the place had before is not known.
        StoreWriteState::Open | StoreWriteState::Done | StoreWriteState::Replaced => {
            begin(None, Some(served?), true)
        }
    }
}

/// Whether a sample is compared again. After a check that is in the future the clock has stepped back: otherwise nothing
/// would be compared for as long as the step.
fn is_check_due(last: Timestamp, now: Timestamp) -> bool {
    last.plus(CHECK_INTERVAL) <= now || last > now
}

/// The write that replaces one whose snapshot is lost: what the store has is not known. `None` if no version can be
/// written that is not lost.
pub(crate) fn replacement(write: &NewStoreWrite, served: Option<u64>) -> Option<NewStoreWrite> {
    let to_version = match write.to_version {
        None => None,
        Some(_) => Some(served?),
    };
    let replacement =
        NewStoreWrite { from_version: None, to_version, rewrite: true, ..write.clone() };
    (replacement != *write).then_some(replacement)
}

#[cfg(test)]
mod tests {
    use throng_model::StoreLayout;
    use throng_spec::{RedisSettings, StoreEngine};
    use throng_store::StoreCheck;

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

    fn store(url: &str) -> ServingStore {
        ServingStore {
            name: "cache".parse().unwrap(),
            engine: StoreEngine::Redis(RedisSettings {
                url: url.to_owned(),
                username: None,
                password: None,
                insecure: false,
                prefix: "throng:".to_owned(),
                layout: StoreLayout::ByUser,
            }),
            audiences: None,
            max_writes_per_second: 1_000,
        }
    }

    fn row(from: Option<u64>, to: Option<u64>, state: StoreWriteState) -> StoreWrite {
        let write = NewStoreWrite {
            store: "cache".parse().unwrap(),
            audience: "buyers".parse().unwrap(),
            place: store("redis://a").place(),
            from_version: from,
            to_version: to,
            rewrite: false,
        };
        StoreWrite {
            id: 7,
            write,
            state,
            users: None,
            batches: 0,
            added: 0,
            removed: 0,
            tries: 0,
            retry_at: None,
            error: None,
            started_at: NOW,
            updated_at: NOW,
            check: None,
        }
    }

    fn due(url: &str, served: Option<u64>, newest: Option<&StoreWrite>) -> Option<Step> {
        step(&store(url), &"buyers".parse().unwrap(), served, newest, NOW)
    }

    fn begun(step: Option<Step>) -> (Option<u64>, Option<u64>, bool, Option<i64>) {
        match step {
            Some(Step::Begin(w, newest)) => (w.from_version, w.to_version, w.rewrite, newest),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_difference_to_the_written_version_is_due() {
        assert_eq!(due("redis://a", None, None), None);
        assert_eq!(begun(due("redis://a", Some(3), None)), (None, Some(3), false, None));
        let done = row(None, Some(3), StoreWriteState::Done);
        let next = due("redis://a", Some(4), Some(&done));
        assert_eq!(begun(next), (Some(3), Some(4), false, Some(7)));
        // A rollback is written as well, and an audience that was removed is written from nothing.
        let back = due("redis://a", Some(2), Some(&done));
        assert_eq!(begun(back), (Some(3), Some(2), false, Some(7)));
        let removed = row(Some(3), None, StoreWriteState::Done);
        assert_eq!(begun(due("redis://a", Some(3), Some(&removed))).0, None);
        assert_eq!(due("redis://a", None, Some(&removed)), None);
    }

    #[test]
    fn an_open_write_is_continued_when_its_next_try_is_due() {
        let mut open = row(Some(3), Some(4), StoreWriteState::Open);
        assert_eq!(due("redis://a", Some(5), Some(&open)), Some(Step::Continue(open.clone())));
        assert_eq!(due("redis://a", None, Some(&open)), Some(Step::Continue(open.clone())));
        open.retry_at = Some(NOW.plus(Duration::from_secs(1)));
        assert_eq!(due("redis://a", Some(5), Some(&open)), None);
    }

    #[test]
    fn everything_is_written_to_another_place() {
        for state in [StoreWriteState::Open, StoreWriteState::Done] {
            let row = row(Some(2), Some(3), state);
            assert_eq!(
                begun(due("redis://b", Some(3), Some(&row))),
                (None, Some(3), true, Some(7))
            );
            assert_eq!(due("redis://b", None, Some(&row)), None);
        }
    }

    #[test]
    fn a_written_version_is_checked_from_time_to_time() {
        let mut done = row(None, Some(3), StoreWriteState::Done);
        assert_eq!(due("redis://a", Some(3), Some(&done)), Some(Step::Check(done.clone())));
        let (sampled, missing, unexpected) = (9, 0, 0);
        done.check = Some(StoreCheck { at: NOW, sampled, missing, unexpected });
        assert_eq!(due("redis://a", Some(3), Some(&done)), None);
        // After the interval, and after a step back of the clock by a second or a year.
        let second = Duration::from_secs(1);
        for at in [NOW.minus(CHECK_INTERVAL), NOW.plus(second), NOW.plus(second * 31_536_000)] {
            done.check = Some(StoreCheck { at, sampled, missing, unexpected });
            assert_eq!(due("redis://a", Some(3), Some(&done)), Some(Step::Check(done.clone())));
        }
    }

    #[test]
    fn a_lost_snapshot_is_replaced_by_the_served_one() {
        let open = row(Some(3), Some(4), StoreWriteState::Open).write;
        let new = replacement(&open, Some(5)).unwrap();
        assert_eq!((new.from_version, new.to_version, new.rewrite), (None, Some(5), true));
        assert_eq!(replacement(&open, None), None, "no version is served");
        assert_eq!(replacement(&new, Some(5)), None, "the served version is the lost one");
        let removal = NewStoreWrite { to_version: None, ..open };
        assert_eq!(replacement(&removal, None).unwrap().to_version, None);
    }
}
