//! The start time of the demo on its clock. It is chosen so that neither a scheduled refresh nor the end
//! of a budget day happens during the demo: its figures are then the same at any hour.

use std::time::Duration;

use throng_model::{BudgetDay, Timestamp};
use throng_spec::Spec;

/// The length of the demo on its clock: the steps before the traffic in real time, 40 minutes of traffic,
/// and time to view the pages.
const DEMO_LENGTH: Duration = Duration::from_secs(2 * 3_600);

/// The first instant, from `now` on, that no scheduled event follows within two hours, the length of a demo.
///
/// `now` if the spec leaves no such gap.
pub fn start(spec: &Spec, now: Timestamp) -> Timestamp {
    let mut start = now;
    // Each round moves the start past one event. A schedule that never leaves a gap would continue forever,
    // so the number of rounds is limited.
    for _ in 0..1_000 {
        match first_event(spec, start) {
            Some(event) if event.since(start) <= DEMO_LENGTH => {
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
    fn the_demo_starts_now_if_no_event_follows() {
        let (_dir, spec) = spec("0 3 * * *");
        for now in ["2026-11-24T14:00:00Z", "2026-11-25T05:00:00Z", "2026-11-25T08:00:00Z"] {
            assert_eq!(start(&spec, at(now)), at(now));
        }
    }

    #[test]
    fn the_demo_starts_after_midnight_and_refreshes() {
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
    fn the_demo_starts_now_if_schedules_leave_no_gap() {
        let (_dir, spec) = spec("*/30 * * * *");
        assert_eq!(start(&spec, at("2026-11-25T08:13:00Z")), at("2026-11-25T08:13:00Z"));
    }
}
