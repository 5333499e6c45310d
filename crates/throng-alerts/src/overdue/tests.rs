//! Audiences over some days, by a clock of the test.

use throng_ledger::SqliteLedger;
use throng_store::{
    AlertLedger as _, AudienceLedger as _, NewAlert, PauseLedger as _, RefreshGroupLedger as _,
    RefreshTrigger, Snapshot, SnapshotState, fixture,
};

use super::*;

const DAILY: &str = "schedule: { cron: \"0 3 * * *\" }";
/// Between two polls. Fewer than there are change nothing but the time of the test.
const STEP: Duration = Duration::from_secs(300);

/// A time of November 2026, such as `23T03:10`.
fn at(text: &str) -> Timestamp {
    format!("2026-11-{text}:00Z").parse().unwrap()
}

/// A spec with audiences of these names, which have these fields.
fn spec(names: &[String], fields: &str) -> Spec {
    let mut text = "version: 1\naudiences:\n".to_owned();
    for name in names {
        text += &format!("  - {{ name: {name}, sql: SELECT 1, {fields} }}\n");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("throng.yaml");
    std::fs::write(&path, text).unwrap();
    throng_spec::load(&path).unwrap()
}

/// A refresh of the audience `a`.
fn refresh(state: RefreshState, queued: &str, ended: Option<&str>) -> Refresh {
    Refresh {
        trigger: RefreshTrigger::Schedule,
        finished_at: ended.map(at),
        ..fixture::refresh(state, at(queued))
    }
}

/// The audience `a` with this newest refresh, which was refreshed last at a time.
fn row(newest: Refresh, refreshed: Option<&str>) -> AudienceRow {
    AudienceRow { refreshed_at: refreshed.map(at), ..fixture::audience_row(newest) }
}

#[test]
fn an_audience_is_overdue_after_two_times_of_its_schedule() {
    // 2026-11-20 is a Friday.
    for (fields, refreshed, expected) in [
        (DAILY, "23T03:10", Some("25T03:00")),
        // Also if the refresh of three o'clock was early, by a person.
        (DAILY, "23T02:50", Some("24T03:00")),
        ("schedule: { cron: \"0 * * * *\" }", "23T03:10", Some("23T05:00")),
        // Not sooner than half an hour after a refresh.
        ("schedule: { cron: \"* * * * *\" }", "23T03:10", Some("23T03:40")),
        // Not later than a day after the time that was missed.
        ("schedule: { cron: \"0 6 * * 1-5\" }", "20T06:10", Some("24T06:00")),
        ("schedule: { cron: \"0 6 * * 1\" }", "20T06:10", Some("24T06:00")),
        ("schedule: { cron: \"0 6 25 * *\" }", "20T06:10", Some("26T06:00")),
        ("schedule: { cron: \"0 3 * * *\" }, max_age_hours: 5", "23T03:10", Some("23T08:10")),
        ("schedule: { on: source_changed }, max_age_hours: 36", "23T03:10", Some("24T15:10")),
        ("max_age_hours: 36", "23T03:10", Some("24T15:10")),
        // Nothing says how often it is refreshed.
        ("schedule: { on: source_changed }", "23T03:10", None),
        ("key: id", "23T03:10", None),
    ] {
        let spec = spec(&["a".to_owned()], fields);
        let of = |row: &AudienceRow| overdue_from(&spec.audiences[0], row, None);
        let completed = refresh(RefreshState::Completed, refreshed, Some(refreshed));
        assert_eq!(of(&row(completed, Some(refreshed))), expected.map(at), "{fields}");
        // A failure or an open refresh changes nothing. The first one is due when it was queued.
        for (state, ended) in [
            (RefreshState::Failed, Some("23T03:12")),
            (RefreshState::Processing, None),
            (RefreshState::Scheduled, None),
            (RefreshState::Halted, None),
        ] {
            let newest = refresh(state, "23T03:11", ended);
            assert_eq!(of(&row(newest, Some(refreshed))), expected.map(at), "{fields}");
        }
        let first = refresh(RefreshState::Processing, refreshed, None);
        assert_eq!(of(&row(first, None)), expected.map(at), "{fields}");
        let never = AudienceRow {
            refresh: None,
            ..row(refresh(RefreshState::Held, "20T00:00", None), None)
        };
        assert_eq!(of(&never), None, "{fields}");
    }
}

#[test]
fn an_audience_that_waits_for_a_person_is_not_overdue() {
    let spec = spec(&["a".to_owned()], DAILY);
    let of = |row: &AudienceRow| overdue_from(&spec.audiences[0], row, None);
    let known =
        row(refresh(RefreshState::Completed, "10T03:00", Some("10T03:10")), Some("10T03:10"));
    assert_eq!(of(&known), Some(at("12T03:00")));
    let (paused_at, pinned_at) = (Some(at("11T00:00")), Some(at("11T00:00")));
    assert_eq!(of(&AudienceRow { paused_at, ..known.clone() }), None);
    assert_eq!(of(&AudienceRow { pinned_at, ..known.clone() }), None);
    let held = refresh(RefreshState::Held, "11T03:00", Some("11T03:10"));
    assert_eq!(of(&AudienceRow { refresh: Some(held), ..known.clone() }), None);
    // It was paused until the 20th: what was due before is not late.
    let resumed = AudienceRow { last_fired: Some(at("20T03:00")), ..known.clone() };
    assert_eq!(of(&resumed), Some(at("22T03:00")));
    // The last refresh that was started has failed: the time that started it was not skipped.
    let failed = refresh(RefreshState::Failed, "20T03:00", Some("20T03:10"));
    assert_eq!(of(&AudienceRow { refresh: Some(failed), ..resumed }), Some(at("12T03:00")));
}

/// One audience, `a`, in a ledger.
struct Rig {
    _dir: tempfile::TempDir,
    ledger: SqliteLedger,
    spec: Spec,
    watch: OverdueWatch,
    version: u64,
}

impl Rig {
    async fn new(fields: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&dir.path().join("ledger.db")).await.unwrap();
        let spec = spec(&["a".to_owned()], fields);
        Self { _dir: dir, ledger, spec, watch: OverdueWatch::default(), version: 0 }
    }

    fn name(&self) -> AudienceName {
        self.spec.audiences[0].name.clone()
    }

    /// The schedule fires: a refresh is queued.
    async fn fire(&self, now: Timestamp) {
        assert!(self.ledger.fire_schedule(&self.name(), now, now).await.unwrap());
    }

    /// A builder claims the open refresh, and this is its snapshot.
    async fn claimed(&mut self, now: Timestamp) -> Snapshot {
        let lease_until = now.plus(HOUR);
        let refresh = self.ledger.claim_refresh("b", now, lease_until).await.unwrap().unwrap();
        self.version += 1;
        Snapshot {
            audience: self.name(),
            version: self.version,
            state: SnapshotState::Published,
            path: format!("snapshots/a/{}", self.version),
            members: 1,
            rows_read: 1,
            null_keys: 0,
            bytes: 1,
            checksum: None,
            tables: None,
            inputs: None,
            model_fingerprint: String::new(),
            refresh: refresh.id,
            created_at: now,
        }
    }

    /// The open refresh succeeds.
    async fn publish(&mut self, now: Timestamp) {
        let snapshot = self.claimed(now).await;
        self.ledger.publish(&snapshot, "b", now).await.unwrap();
    }

    /// The open refresh fails for good.
    async fn fail(&mut self, now: Timestamp) {
        let id = self.claimed(now).await.refresh;
        self.ledger.fail_refresh(id, "b", "no such table", None, now).await.unwrap();
    }

    /// Whether the alert is open after a poll at this time.
    async fn poll(&mut self, now: Timestamp) -> bool {
        round(&self.ledger, &self.spec, &mut self.watch, now).await.unwrap();
        self.ledger.open_alert(AlertKind::Overdue, "a").await.unwrap().is_some()
    }

    /// Polls every five minutes; the time of the first poll after which the alert is open.
    async fn raised(&mut self, from: Timestamp, to: Timestamp) -> Option<Timestamp> {
        let mut now = from;
        while now < to {
            if self.poll(now).await {
                return Some(now);
            }
            now = now.plus(STEP);
        }
        None
    }

    /// The numbers of alerts, and of open ones.
    async fn alerts(&self) -> (usize, usize) {
        let alerts = self.ledger.alerts(100).await.unwrap();
        assert!(alerts.iter().all(|alert| alert.count == 1), "{alerts:?}");
        (alerts.len(), alerts.iter().filter(|alert| alert.resolved_at.is_none()).count())
    }
}

#[tokio::test]
async fn a_refresh_that_no_builder_takes_raises_an_alert_until_one_succeeds() {
    let mut rig = Rig::new(DAILY).await;
    rig.fire(at("23T03:00")).await;
    rig.publish(at("23T03:10")).await;
    rig.fire(at("24T03:00")).await;
    assert_eq!(rig.raised(at("24T03:00"), at("25T03:00")).await, None);
    rig.fire(at("25T03:00")).await;
    assert_eq!(rig.raised(at("25T03:00"), at("25T04:00")).await, Some(at("25T03:10")));
    let message = rig.ledger.open_alert(AlertKind::Overdue, "a").await.unwrap().unwrap();
    assert!(message.contains("completed at 2026-11-23T03:10:00Z, and two times"), "{message}");
    assert!(message.contains("queued at 2026-11-24T03:00:00Z is not completed"), "{message}");

    // Another process is the leader: the alert stays open.
    rig.watch = OverdueWatch::default();
    assert!(rig.poll(at("25T03:30")).await);
    rig.publish(at("25T03:40")).await;
    assert!(!rig.poll(at("25T03:41")).await);
    assert_eq!(rig.alerts().await, (1, 0));
    assert_eq!(rig.raised(at("25T03:42"), at("26T12:00")).await, None);
}

#[tokio::test]
async fn a_node_that_was_down_has_time_for_the_refresh_that_it_starts() {
    let mut rig = Rig::new(DAILY).await;
    rig.fire(at("23T03:00")).await;
    rig.publish(at("23T03:10")).await;
    // Its first poll may come before the schedule has started the refresh.
    assert!(!rig.poll(at("26T15:00")).await);
    rig.fire(at("26T15:01")).await;
    assert_eq!(rig.raised(at("26T15:01"), at("26T17:00")).await, None);
    rig.publish(at("26T17:00")).await;
    assert_eq!(rig.raised(at("26T17:01"), at("26T18:00")).await, None);
    assert_eq!(rig.alerts().await, (0, 0));

    // The refresh that it starts does not end.
    rig.watch = OverdueWatch::default();
    rig.fire(at("29T15:00")).await;
    assert_eq!(rig.raised(at("29T15:00"), at("30T23:00")).await, Some(at("30T15:00")));
}

#[tokio::test]
async fn an_audience_whose_refreshes_do_not_start_is_overdue_soon_after_the_start_of_a_node() {
    let mut rig = Rig::new("max_age_hours: 36").await;
    rig.fire(at("20T03:00")).await;
    rig.publish(at("20T03:10")).await;
    assert_eq!(rig.raised(at("23T15:00"), at("23T16:00")).await, Some(at("23T15:10")));
    // The alert waits for the refresh that a request starts.
    rig.fire(at("23T15:20")).await;
    assert!(rig.poll(at("23T15:21")).await);
    rig.publish(at("23T15:30")).await;
    assert!(!rig.poll(at("23T15:31")).await);
}

#[tokio::test]
async fn refreshes_that_fail_one_after_the_other_do_not_delay_the_alert() {
    let mut rig = Rig::new("schedule: { cron: \"*/5 * * * *\" }").await;
    rig.fire(at("23T00:00")).await;
    rig.publish(at("23T00:00")).await;
    let mut now = at("23T00:05");
    let mut raised = None;
    while raised.is_none() && now < at("23T03:00") {
        // Each poll sees one that is open.
        rig.fire(now).await;
        raised = rig.raised(now, now.plus(STEP)).await;
        rig.fail(now.plus(STEP)).await;
        now = now.plus(STEP);
    }
    assert_eq!(raised, Some(at("23T01:00")));
    rig.fire(now).await;
    assert!(rig.poll(now).await);
    rig.publish(now).await;
    assert!(!rig.poll(now).await);
}

#[tokio::test]
async fn a_held_snapshot_has_its_own_alert_only() {
    let mut rig = Rig::new(DAILY).await;
    rig.fire(at("20T03:00")).await;
    rig.publish(at("20T03:10")).await;
    assert_eq!(rig.raised(at("23T00:00"), at("23T01:00")).await, Some(at("23T00:10")));
    rig.fire(at("23T03:00")).await;
    let snapshot = Snapshot { state: SnapshotState::Held, ..rig.claimed(at("23T03:00")).await };
    rig.ledger.hold(&snapshot, "b", "too small", at("23T03:10")).await.unwrap();
    let (kind, message) = (AlertKind::SnapshotHeld, "version 2 is held".to_owned());
    let held = NewAlert { kind, subject: "a".to_owned(), message };
    rig.ledger.raise_alert(&held, at("23T03:10")).await.unwrap();
    assert!(!rig.poll(at("23T03:11")).await);
    // The next refresh is open, and the alert of the held snapshot as well.
    rig.fire(at("24T03:00")).await;
    assert_eq!(rig.raised(at("24T03:00"), at("25T12:00")).await, None);
    assert_eq!(rig.alerts().await, (2, 1));
}

#[tokio::test]
async fn a_paused_audience_is_late_by_what_is_due_after_it_was_resumed() {
    let mut rig = Rig::new(DAILY).await;
    rig.fire(at("10T03:00")).await;
    rig.publish(at("10T03:10")).await;
    assert_eq!(rig.raised(at("13T00:00"), at("13T01:00")).await, Some(at("13T00:10")));
    let name = rig.name();
    rig.ledger.pause_audience(&name, at("13T01:00")).await.unwrap();
    assert!(!rig.poll(at("13T01:01")).await);
    rig.ledger.skip_schedule(&name, at("20T03:00")).await.unwrap();
    rig.ledger.resume_audience(&name).await.unwrap();
    assert_eq!(rig.raised(at("20T12:00"), at("22T03:00")).await, None);
    assert_eq!(rig.raised(at("22T03:00"), at("22T04:00")).await, Some(at("22T03:10")));
}

#[tokio::test]
async fn a_refresh_that_fails_after_a_pause_is_not_late_by_the_pause() {
    for (fields, expected) in [(DAILY, "22T03:10"), ("max_age_hours: 36", "22T00:10")] {
        let mut rig = Rig::new(fields).await;
        rig.fire(at("10T03:00")).await;
        rig.publish(at("10T03:10")).await;
        let name = rig.name();
        rig.ledger.pause_audience(&name, at("10T12:00")).await.unwrap();
        assert!(!rig.poll(at("20T12:00")).await);
        rig.ledger.resume_audience(&name).await.unwrap();
        assert!(!rig.poll(at("20T12:30")).await);
        rig.fire(at("21T03:00")).await;
        rig.fail(at("21T03:05")).await;
        let raised = rig.raised(at("21T03:05"), at("23T00:00")).await;
        assert_eq!(raised, Some(at(expected)), "{fields}");
    }
}

#[tokio::test]
async fn an_audience_that_left_the_spec_is_not_overdue() {
    let mut rig = Rig::new(DAILY).await;
    rig.fire(at("10T03:00")).await;
    rig.publish(at("10T03:10")).await;
    assert!(rig.raised(at("13T00:00"), at("13T01:00")).await.is_some());
    rig.spec.audiences.clear();
    assert!(!rig.poll(at("13T01:01")).await);
    assert_eq!(rig.alerts().await, (1, 0));
}

#[test]
fn the_alerts_are_limited_and_those_that_are_open_stay() {
    let names: Vec<String> = (0..150).map(|n| format!("a{n:03}")).collect();
    let spec = spec(&names, DAILY);
    let rows: Vec<AudienceRow> = names
        .iter()
        .map(|name| {
            let newest = refresh(RefreshState::Completed, "10T03:00", Some("10T03:10"));
            AudienceRow { name: name.parse().unwrap(), ..row(newest, Some("10T03:10")) }
        })
        .collect();
    let last = (AlertKind::Overdue, "a149".to_owned());
    let open = BTreeMap::from([(last.clone(), at("12T05:00"))]);
    let mut watch = OverdueWatch::default();
    assert_eq!(watch.observe(&spec, &rows, &open, at("13T00:00")).len(), 1);
    let overdue = watch.observe(&spec, &rows, &open, at("13T00:10"));
    assert_eq!(overdue.len(), 150);
    let wanted = alerts_of(overdue, &open);
    assert_eq!(wanted.len(), MAX_ALERTS);
    assert!(wanted.contains_key(&last) && wanted.contains_key(&(last.0, "a098".to_owned())));
    assert!(!wanted.contains_key(&(last.0, "a099".to_owned())));
}
