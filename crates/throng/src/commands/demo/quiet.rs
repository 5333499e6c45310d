//! At which hour the demo plays. It shows what its own steps do, whenever it is started: neither a
//! scheduled refresh nor the end of the budget day may come in between.

use std::time::Duration;

use throng_model::{BudgetDay, Timestamp};
use throng_spec::Spec;

/// Time on the demo's clock that everything fits in: the steps before the traffic at the pace of
/// the wall, the traffic of 40 minutes, and a look at the pages.
const ROOM: Duration = Duration::from_secs(2 * 3_600);

/// The first instant, from `now` on, after which nothing happens by itself for [`ROOM`].
///
/// `now` if the spec leaves no such gap.
pub(super) fn start(spec: &Spec, now: Timestamp) -> Timestamp {
    let mut start = now;
    // Every event pushes the start behind itself, so that a day has been looked through after as
    // many turns as it has events; schedules that never leave a gap end the search.
    for _ in 0..1_000 {
        match first_event(spec, start) {
            Some(event) if event.since(start) <= ROOM => {
                start = event.plus(Duration::from_secs(1));
            }
            _ => return start,
        }
    }
    now
}

/// The first refresh by a schedule or end of a budget day after `at`.
fn first_event(spec: &Spec, at: Timestamp) -> Option<Timestamp> {
    let refreshes =
        spec.audiences.iter().filter_map(|audience| audience.schedule.as_ref()?.next_after(at));
    let midnights = spec.advertisers.iter().map(|advertiser| {
        let zone = advertiser.time_zone.rules();
        BudgetDay::of(at, &zone).end(&zone)
    });
    refreshes.chain(midnights).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(cron: &str) -> (tempfile::TempDir, Spec) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("throng.yaml");
        let text = format!(
            "version: 1\nsources:\n  - {{ name: shop, path: data }}\naudiences:\n  - name: a\n    \
             sql: SELECT customer FROM shop.purchases\n    \
             schedule: {{ cron: \"{cron}\", time_zone: America/New_York }}\nadvertisers:\n  - \
             {{ name: a, currency: USD, time_zone: America/New_York }}\n"
        );
        std::fs::write(&path, text).unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let spec = throng_spec::load(&path).unwrap();
        (dir, spec)
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_hour_stays_if_nothing_comes_in_between() {
        let (_dir, spec) = spec("0 3 * * *");
        for quiet in ["2026-11-24T14:00:00Z", "2026-11-25T05:00:00Z", "2026-11-25T08:00:00Z"] {
            assert_eq!(start(&spec, at(quiet)), at(quiet));
        }
    }

    #[test]
    fn midnight_and_refreshes_are_over_when_it_starts() {
        let (_dir, nightly) = spec("0,10,20 3 * * *");
        for (now, then) in [
            // 22:30 in New York; then 02:30; then between two refreshes.
            ("2026-11-25T03:30:00Z", "2026-11-25T05:00:01Z"),
            ("2026-11-25T07:30:00Z", "2026-11-25T08:20:01Z"),
            ("2026-11-25T08:13:00Z", "2026-11-25T08:20:01Z"),
        ] {
            assert_eq!(start(&nightly, at(now)), at(then), "{now}");
        }
        // One event can lead to the next: midnight, then the refresh at one.
        let (_dir, early) = spec("0 1 * * *");
        assert_eq!(start(&early, at("2026-11-25T04:00:00Z")), at("2026-11-25T06:00:01Z"));
    }

    #[test]
    fn schedules_without_a_gap_do_not_hold_it_up() {
        let (_dir, spec) = spec("*/30 * * * *");
        assert_eq!(start(&spec, at("2026-11-25T08:13:00Z")), at("2026-11-25T08:13:00Z"));
    }
}
