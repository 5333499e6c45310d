//! What gates and nodes report over some minutes, and what is decided from it.

use crate::deps::NewestFrame;

use super::*;

const START: Timestamp = Timestamp(1_795_435_200_000_000);
const SILENT_AFTER: Duration = Duration::from_secs(300);

fn at(secs: u64) -> Timestamp {
    START.plus(Duration::from_secs(secs))
}

fn gate(id: &str, version: u64, secs: u64) -> GateVersions {
    GateVersions { id: id.to_owned(), versions: vec![(3, version)], at: at(secs) }
}

fn frame(epoch: u64, version: u64, secs: u64) -> NewestFrame {
    NewestFrame { partition: 3, epoch, version, at: at(secs) }
}

fn reports(gates: &[GateVersions], frames: &[NewestFrame]) -> FeedReports {
    FeedReports { gates: gates.to_vec(), frames: frames.to_vec() }
}

/// The alerts that are open after this poll, and were before it if they are in `open`.
fn poll(
    watch: &mut FeedWatch,
    open: &mut BTreeMap<Cause, Timestamp>,
    reports: &FeedReports,
    secs: u64,
) -> Vec<String> {
    let findings = watch.observe(reports, open, SILENT_AFTER, at(secs));
    let wanted = alerts_of(&findings);
    open.retain(|cause, _| wanted.contains_key(cause));
    for cause in wanted.into_keys() {
        open.entry(cause).or_insert(at(secs));
    }
    open.keys().map(|(kind, subject)| format!("{} {subject}", kind.name())).collect()
}

#[test]
fn a_gate_is_silent_until_it_reports_again_or_is_forgotten() {
    let (mut watch, mut open) = (FeedWatch::default(), BTreeMap::new());
    let mut poll = |reports: &FeedReports, secs| poll(&mut watch, &mut open, reports, secs);
    let none: [&str; 0] = [];
    let last = reports(&[gate("a", 1, 0), gate("b", 1, 290)], &[]);
    assert_eq!(poll(&last, 0), none);
    assert_eq!(poll(&last, 299), none);
    assert_eq!(poll(&last, 300), ["gate_silent gate a"]);
    assert_eq!(poll(&last, 600), ["gate_silent gate a", "gate_silent gate b"]);
    // One of them reports again; the node has forgotten the other one.
    assert_eq!(poll(&reports(&[gate("b", 9, 630)], &[]), 630), ["gate_silent gate a"]);
    let day = 24 * 3_600;
    assert_eq!(poll(&reports(&[gate("b", 9, day)], &[]), day), ["gate_silent gate a"]);
    assert_eq!(poll(&reports(&[gate("b", 9, day + 300)], &[]), day + 300), none);
    // Its last report is still in the status of a node that has ended.
    let ended = reports(&[gate("a", 1, 0), gate("b", 9, day + 301)], &[]);
    assert_eq!(poll(&ended, day + 301), none);
}

#[test]
fn after_a_start_gates_have_time_to_report() {
    let (mut watch, mut open) = (FeedWatch::default(), BTreeMap::new());
    // The node was down for ten minutes.
    let before = reports(&[gate("a", 1, 0), gate("b", 1, 0)], &[]);
    open.insert((AlertKind::GateSilent, "gate b".to_owned()), at(300));
    assert_eq!(poll(&mut watch, &mut open, &before, 900), ["gate_silent gate b"]);
    assert_eq!(poll(&mut watch, &mut open, &before, 1_199), ["gate_silent gate b"]);
    let both = ["gate_silent gate a", "gate_silent gate b"];
    assert_eq!(poll(&mut watch, &mut open, &before, 1_200), both);
}

#[test]
fn alerts_of_silent_gates_are_limited() {
    let gates: Vec<GateVersions> = (0..150).map(|n| gate(&format!("g{n:03}"), 1, 0)).collect();
    let (mut watch, mut open) = (FeedWatch::default(), BTreeMap::new());
    let all = reports(&gates, &[]);
    poll(&mut watch, &mut open, &all, 0);
    let first = poll(&mut watch, &mut open, &all, 400);
    assert_eq!(first.len(), MAX_SILENT_ALERTS);
    assert_eq!(poll(&mut watch, &mut open, &all, 500), first);
}

#[test]
fn a_partition_is_stale_without_new_frames() {
    let (mut watch, mut open) = (FeedWatch::default(), BTreeMap::new());
    let mut poll = |frame, secs| poll(&mut watch, &mut open, &reports(&[], &[frame]), secs);
    let none: [&str; 0] = [];
    // An old frame at the first poll may be one of the previous process.
    assert_eq!(poll(frame(1, 5, 0), 600), none);
    assert_eq!(poll(frame(2, 1, 601), 630), none);
    assert_eq!(poll(frame(2, 1, 601), 721), none);
    assert_eq!(poll(frame(2, 1, 601), 722), ["feed_stale partition 3"]);
    assert_eq!(poll(frame(2, 2, 750), 751), none);
}

#[test]
fn a_gate_that_lacks_frames_makes_the_feed_stale() {
    let (mut watch, mut open) = (FeedWatch::default(), BTreeMap::new());
    let mut poll = |gates: &[GateVersions], epoch, secs: u64| {
        let newest = frame(epoch, secs, secs);
        poll(&mut watch, &mut open, &reports(gates, &[newest]), secs)
    };
    let none: [&str; 0] = [];
    for secs in [0, 30, 60, 90, 120, 150] {
        // One reports what it applied last, again and again; the other one follows.
        let gates = [gate("a", 10, secs), gate("b", secs, secs)];
        assert_eq!(poll(&gates, 1, secs), none, "{secs}");
    }
    // It lacks the frame of second 30.
    let gates = [gate("a", 10, 151), gate("b", 151, 151)];
    assert_eq!(poll(&gates, 1, 151), ["feed_stale partition 3"]);
    assert_eq!(poll(&[gate("a", 181, 181), gate("b", 181, 181)], 1, 181), none);
    // A gate that does not report is silent, and its figures are not known.
    assert_eq!(poll(&[gate("b", 181, 181)], 1, 400), none);
}

#[test]
fn versions_of_an_earlier_leader_do_not_hide_a_gate_that_lacks_frames() {
    let (mut watch, mut open) = (FeedWatch::default(), BTreeMap::new());
    let mut poll = |gates: &[GateVersions], version, secs| {
        let newest = frame(2, version, secs);
        poll(&mut watch, &mut open, &reports(gates, &[newest]), secs)
    };
    let none: [&str; 0] = [];
    assert_eq!(poll(&[gate("a", 5_000, 0)], 1, 0), none);
    assert_eq!(poll(&[gate("a", 5_000, 120)], 120, 120), none);
    assert_eq!(poll(&[gate("a", 5_000, 121)], 121, 121), ["feed_stale partition 3"]);
    // One that is a frame ahead of the node has another version each time.
    assert_eq!(poll(&[gate("a", 152, 150)], 150, 150), none);
    assert_eq!(poll(&[gate("a", 302, 300)], 300, 300), none);
}

#[test]
fn messages_name_what_is_wrong() {
    let findings = FeedFindings {
        silent: BTreeMap::from([("a".to_owned(), Some(at(0)))]),
        stale: BTreeMap::from([(3, at(0))]),
        behind: BTreeMap::from([(
            3,
            ["w", "x", "y", "z"].into_iter().map(str::to_owned).collect(),
        )]),
    };
    let messages: Vec<String> = alerts_of(&findings).into_values().collect();
    assert!(messages[0].contains(&format!("since {}", at(0))), "{messages:?}");
    let expected = format!("no frame has been published since {}; gates without", at(0));
    assert!(messages[1].starts_with(&expected), "{messages:?}");
    assert!(messages[1].contains(": 4, such as w, x, y."), "{messages:?}");
}
