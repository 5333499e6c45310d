//! Schedules on two processes, over both changes between standard and daylight-saving time.

use std::sync::Arc;

use throng_model::{AudienceName, Clock, ManualClock, Timestamp};
use throng_server::Node;
use throng_spec::Role;
use throng_store::{RefreshState, RefreshTrigger};

use crate::shared::Deployment;
use crate::until;

/// `twice` is a time that the clock shows twice on 2026-11-01, `never` one that it does not show on
/// 2027-03-14. When `mark` has fired, all schedules have been polled, as they are polled together.
const AUDIENCES: [(&str, &str); 3] = [
    ("twice", r#"{ cron: "30 1 * * *", time_zone: America/New_York }"#),
    ("never", r#"{ cron: "30 2 * * *", time_zone: America/New_York }"#),
    ("mark", r#"{ cron: "35 * * * *", time_zone: UTC }"#),
];

pub(crate) fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

/// How often the schedule of an audience has fired; `None` while one of its refreshes is open.
pub(crate) async fn fired(node: &Node, audience: &str) -> Option<usize> {
    let name: AudienceName = audience.parse().unwrap();
    let all = node.context().ledger.refreshes(Some(&name), 1_000).await.unwrap();
    let open = all.iter().any(|refresh| refresh.state != RefreshState::Completed);
    let by_schedule = all.iter().filter(|refresh| refresh.trigger == RefreshTrigger::Schedule);
    (!open).then_some(by_schedule.count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_time_fires_once_over_processes_and_changes_of_the_clock() {
    let deployment = Deployment::new();
    let file = deployment.path().join("throng.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let audiences: String = AUDIENCES
        .iter()
        .map(|(name, schedule)| {
            format!(
                "  - {{ name: {name}, sql: \"SELECT customer FROM shop.purchases\", schedule: {schedule} }}\n"
            )
        })
        .collect();
    std::fs::write(&file, text.replace("audiences:\n", &format!("audiences:\n{audiences}")))
        .unwrap();

    let clock = Arc::new(ManualClock::new(at("2026-11-01T05:00:00Z")));
    let shared = || Arc::clone(&clock) as Arc<dyn Clock>;
    let main =
        deployment.start_at("main", &[Role::Api, Role::Build], false, shared()).await.unwrap();
    let mut schedulers = Vec::new();
    for folder in ["one", "two"] {
        let node = deployment.start_at(folder, &[Role::Schedule], true, shared()).await;
        schedulers.push(node.unwrap());
    }
    let all_done = async || {
        for (name, _) in AUDIENCES {
            if fired(&main, name).await.is_none() {
                return false;
            }
        }
        true
    };
    until("the first refreshes are done", &all_done).await;
    let mut marks = fired(&main, "mark").await.unwrap();
    // The clock and how often `twice` and `never` have fired by then.
    let steps = [
        ("2026-11-01T05:36:00Z", 1, 0), // 01:36, daylight-saving time
        ("2026-11-01T06:36:00Z", 1, 0), // 01:36 again
        ("2026-11-01T07:36:00Z", 1, 1), // 02:36
        ("2026-11-02T06:36:00Z", 2, 1), // 01:36
        ("2026-11-02T07:36:00Z", 2, 2), // 02:36
        // All firings that were missed in a winter become one.
        ("2027-03-14T06:36:00Z", 3, 3), // 01:36
        ("2027-03-14T07:36:00Z", 3, 4), // 03:36: there was no half past two, so it fired at three
        ("2027-03-15T05:36:00Z", 4, 4), // 01:36
        ("2027-03-15T06:36:00Z", 4, 5), // 02:36
    ];
    for (step, (time, twice, never)) in steps.into_iter().enumerate() {
        if step == 3 {
            // Whichever of the two was the leader, the other one continues.
            schedulers.remove(0).shutdown().await;
        }
        clock.set(at(time));
        marks += 1;
        until("the hour's mark has fired", async || fired(&main, "mark").await >= Some(marks))
            .await;
        until("everything is built", &all_done).await;
        let counts = [fired(&main, "twice").await, fired(&main, "never").await];
        assert_eq!(counts, [Some(twice), Some(never)], "{time}");
        assert_eq!(fired(&main, "mark").await, Some(marks), "{time}");
    }
    for node in schedulers {
        node.shutdown().await;
    }
    main.shutdown().await;
}
