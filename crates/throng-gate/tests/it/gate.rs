//! Decisions, frames in any order, staleness, catalogs that change.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use throng_gate::feed::{FLAG_CLOSED, FeedEntry, Frame, FrameKind, PassThroughRate};
use throng_gate::{Catalog, CatalogEntry, FrameOutcome, Gate, Reason, WhenStale};
use throng_membership::{
    MembershipIndex, ShardDictionary, SnapshotFile, SnapshotMeta, SnapshotWriter, seed_check,
};
use throng_model::{
    AdGroupIndex, AdGroupName, AudienceName, HashSeed, Micros, Timestamp, UserHash, UserKey,
};

const SEED: HashSeed = HashSeed(5);
pub(crate) const NOW: Timestamp = Timestamp(1_000_000_000);

pub(crate) fn name(text: &str) -> AdGroupName {
    AdGroupName::new(text).unwrap()
}

fn audiences(names: &[&str]) -> Vec<AudienceName> {
    names.iter().map(|n| AudienceName::new(*n).unwrap()).collect()
}

pub(crate) fn ad_group(index: u32, text: &str) -> CatalogEntry {
    CatalogEntry {
        index: AdGroupIndex(index),
        name: name(text),
        daily_budget: Micros(100),
        prediction: true,
        include: Vec::new(),
        exclude: Vec::new(),
        when_stale: WhenStale::Serve,
        expected: Micros(10),
        currency: Some("USD".parse().unwrap()),
    }
}

pub(crate) fn gate(ad_groups: Vec<CatalogEntry>) -> Gate {
    Gate::new(Catalog { version: 1, ad_groups }, Duration::from_secs(10))
}

pub(crate) fn entry(index: u32, actual: i64, in_flight: i64) -> FeedEntry {
    let (actual, in_flight) = (Micros(actual), Micros(in_flight));
    let (index, pass_through_rate) = (AdGroupIndex(index), PassThroughRate::ALL);
    FeedEntry { index, actual, in_flight, flags: 0, pass_through_rate }
}

pub(crate) fn keyframe(version: u64, entries: Vec<FeedEntry>) -> Frame {
    let kind = FrameKind::Keyframe;
    Frame {
        partition: 0,
        epoch: 1,
        version,
        kind,
        at: NOW,
        catalog_version: 1,
        log_position: None,
        entries,
    }
}

pub(crate) fn delta(base_version: u64, version: u64, entries: Vec<FeedEntry>) -> Frame {
    Frame { kind: FrameKind::Delta { base_version }, ..keyframe(version, entries) }
}

pub(crate) fn refusal(gate: &Gate, user: Option<UserHash>, ad_group: &str) -> Option<Reason> {
    let mut decision = gate.decide(user, &[name(ad_group)], NOW);
    assert_eq!(decision.allowed.len() + decision.refused.len(), 1);
    decision.refused.pop().map(|r| r.1)
}

/// Users 1, 2 and 3 are known; `buyers` are 1 and 2, `lapsed` is 2.
fn membership(root: &Path) -> Arc<MembershipIndex> {
    let hash = |n| UserKey::integer(n).hash(SEED);
    let mut dictionaries = vec![None; 256];
    for user in [1, 2, 3].map(hash) {
        let place = &mut dictionaries[usize::from(user.shard())];
        let manifest = ShardDictionary::default().assign(root, &[user]).unwrap().manifest.unwrap();
        assert!(place.is_none(), "these three fall into three shards");
        *place = Some(ShardDictionary::open(root, &manifest).unwrap());
    }
    let dictionary_len: Vec<u32> = dictionaries.iter().map(|d| u32::from(d.is_some())).collect();
    let snapshot = |audience: &str, members: &[i128]| {
        let audience = AudienceName::new(audience).unwrap();
        let mut writer = SnapshotWriter::new(SnapshotMeta {
            audience: audience.clone(),
            version: 1,
            model_fingerprint: String::new(),
            rows_read: 0,
            null_keys: 0,
            created_at: NOW,
            seed_check: seed_check(SEED),
            dictionary_len: dictionary_len.clone(),
        })
        .unwrap();
        for &n in members {
            writer.shard(hash(n).shard(), std::iter::once(0).collect()).unwrap();
        }
        writer.write(root, Path::new(audience.as_str())).unwrap();
        let file = SnapshotFile::open(&root.join(audience.as_str())).unwrap();
        (audience, Arc::new(file))
    };
    let snapshots = vec![snapshot("buyers", &[1, 2]), snapshot("lapsed", &[2])];
    Arc::new(MembershipIndex::new(SEED, dictionaries, snapshots).unwrap())
}

#[test]
fn a_pass_through_rate_lets_its_share_of_requests_pass() {
    let gate = gate(vec![ad_group(0, "first"), ad_group(1, "second")]);
    let rate = PassThroughRate::of_share(0.25);
    let held_back = |index| FeedEntry { pass_through_rate: rate, ..entry(index, 0, 0) };
    let frame = Frame { log_position: Some(1), ..keyframe(1, vec![held_back(0), held_back(1)]) };
    gate.apply(&Frame::decode(&frame.encode()).unwrap());
    let both = [name("first"), name("second")];
    let allowed = |user: Option<u64>, at: i64| {
        gate.decide(user.map(UserHash), &both, Timestamp(NOW.0 + at)).allowed
    };
    // By user, and by moment for unknown users; the ad groups pass independently of each other.
    for users in [true, false] {
        let (mut first, mut second, mut at_once) = (0, 0, 0);
        for n in 0..40_000u64 {
            let allowed = allowed(users.then_some(n), n as i64);
            first += i64::from(allowed.contains(&both[0]));
            second += i64::from(allowed.contains(&both[1]));
            at_once += i64::from(allowed.len() == 2);
        }
        // Five standard deviations.
        assert!((first - 10_000).abs() < 435 && (second - 10_000).abs() < 435, "{first} {second}");
        assert!((at_once - 2_500).abs() < 243, "{at_once}");
    }
    // A user gets the same answer for a minute, and not forever.
    let minute = 60_000_000 - NOW.0.rem_euclid(60_000_000);
    let lasts = |user| {
        (1..20).all(|s| allowed(Some(user), minute + s * 3_000_000) == allowed(Some(user), minute))
    };
    assert!((0..200).all(lasts));
    let changes =
        (0..200).filter(|user| allowed(Some(*user), minute) != allowed(Some(*user), minute - 1));
    assert!(changes.count() > 50);
    let text = (0..100).find_map(|n| {
        let decision = gate.decide(Some(UserHash(n)), &both, NOW);
        decision.refused.first().map(|(_, reason)| (reason.code(), reason.to_string()))
    });
    let (code, text) = text.unwrap();
    assert_eq!(code, "throttled");
    assert!(text.starts_with("the ad group is shown at 25.0 % of requests"), "{text}");
    // A frame of an earlier format has no rates, so every request passes.
    let frame = Frame { version: 2, ..frame };
    gate.apply(&Frame::decode(&frame.encode_format_2()).unwrap());
    assert!((0..200).all(|n| allowed(Some(n), 0).len() == 2));
}

#[test]
fn a_closed_ad_group_is_out_of_budget_and_not_throttled() {
    let gate = gate(vec![ad_group(0, "shoes")]);
    let none =
        |actual| FeedEntry { pass_through_rate: PassThroughRate::NONE, ..entry(0, actual, 0) };
    gate.apply(&keyframe(1, vec![none(100)]));
    assert_eq!(refusal(&gate, None, "shoes").unwrap().code(), "out_of_budget");
    gate.apply(&keyframe(2, vec![none(99)]));
    let throttled = Reason::Throttled { pass_through_rate: PassThroughRate::NONE };
    assert_eq!(refusal(&gate, None, "shoes"), Some(throttled));
}

#[test]
fn an_ad_group_closes_when_spend_and_flight_reach_the_budget() {
    let off = CatalogEntry { prediction: false, ..ad_group(1, "off") };
    let gate = gate(vec![ad_group(0, "on"), off]);
    for (actual, in_flight, on_closed, off_closed) in [
        (0, 0, false, false),
        (60, 39, false, false),
        (60, 40, true, false),
        (99, 500, true, false),
        (100, 0, true, true),
        (i64::MAX, i64::MAX, true, true),
    ] {
        let version = gate.versions().first().map_or(1, |v| v.version + 1);
        gate.apply(&keyframe(
            version,
            vec![entry(0, actual, in_flight), entry(1, actual, in_flight)],
        ));
        assert_eq!(refusal(&gate, None, "on").is_some(), on_closed, "{actual} {in_flight}");
        assert_eq!(refusal(&gate, None, "off").is_some(), off_closed, "{actual} {in_flight}");
    }
    gate.apply(&keyframe(99, vec![entry(0, 60_000_000, 40_500_000)]));
    assert_eq!(
        refusal(&gate, None, "on").unwrap().to_string(),
        "60.00 spent and 40.50 in flight reach the budget of 0.0001 USD"
    );
    // Closed by the server with room left: for chance, or for a reason of its own.
    let closed = |index| FeedEntry { flags: FLAG_CLOSED, ..entry(index, 50, 30) };
    gate.apply(&keyframe(100, vec![closed(0), closed(1)]));
    let near = refusal(&gate, None, "on").unwrap();
    assert_eq!(near.code(), "closed");
    assert_eq!(
        near.to_string(),
        "the server has closed the ad group: 0.00005 spent and 0.00003 in flight leave too little of the budget of 0.0001 USD"
    );
    assert_eq!(refusal(&gate, None, "off"), Some(Reason::Closed));
    gate.apply(&keyframe(101, vec![entry(0, 0, 0)]));
    assert_eq!(refusal(&gate, None, "nowhere"), Some(Reason::UnknownAdGroup));
    let by_index = gate.decide_indexes(None, &[AdGroupIndex(1), AdGroupIndex(7)], NOW);
    assert_eq!(by_index.allowed, [AdGroupIndex(1)]);
}

#[test]
fn targeting_follows_the_audiences() {
    let folder = tempfile::tempdir().unwrap();
    let wants = |include: &[&str], exclude: &[&str]| CatalogEntry {
        include: audiences(include),
        exclude: audiences(exclude),
        ..ad_group(0, "x")
    };
    let index = membership(folder.path());
    let user = |n| Some(UserKey::integer(n).hash(SEED));
    for (target, allowed) in [
        (wants(&[], &[]), [true, true, true, true, true]),
        (wants(&["buyers"], &[]), [true, true, false, false, false]),
        (wants(&["lapsed", "unbuilt"], &[]), [false, true, false, false, false]),
        (wants(&["buyers"], &["lapsed"]), [true, false, false, false, false]),
        (wants(&[], &["lapsed"]), [true, false, true, true, true]),
        (wants(&[], &["unbuilt"]), [false, false, false, false, true]),
    ] {
        let gate = gate(vec![target.clone()]);
        gate.set_membership(Arc::clone(&index));
        for (who, allowed) in [user(1), user(2), user(3), user(4), None].into_iter().zip(allowed) {
            let refused = refusal(&gate, who, "x");
            assert_eq!(refused.is_none(), allowed, "{target:?} {who:?} {refused:?}");
        }
    }
    let gate = gate(vec![wants(&["buyers", "lapsed"], &[])]);
    assert_eq!(
        refusal(&gate, user(1), "x").unwrap().code(),
        "inclusion_unknown",
        "before any membership is there, nobody is a member"
    );
    gate.set_membership(index);
    assert_eq!(refusal(&gate, user(1), "x"), None);
    assert_eq!(
        refusal(&gate, user(3), "x").unwrap().to_string(),
        "the user is in none of the audiences `buyers`, `lapsed`",
    );
}

#[test]
fn who_is_in_an_included_audience_that_is_not_built_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let include = audiences(&["lapsed", "unbuilt"]);
    let gate = gate(vec![CatalogEntry { include, ..ad_group(0, "x") }]);
    gate.set_membership(membership(folder.path()));
    let user = |n| Some(UserKey::integer(n).hash(SEED));
    let code = |user| refusal(&gate, user, "x").map(|reason| reason.code());
    let unknown = Some("inclusion_unknown");
    assert_eq!([code(user(2)), code(user(1)), code(user(9))], [None, unknown, unknown]);
    assert_eq!(code(None), Some("not_in_audience"), "the request has no user");
    let said = refusal(&gate, user(1), "x").unwrap().to_string();
    assert!(said.contains("`unbuilt`") && !said.contains("lapsed"), "{said}");
}

#[test]
fn a_stale_feed_stops_only_ad_groups_that_ask_for_it() {
    let stop = CatalogEntry { when_stale: WhenStale::Stop, ..ad_group(1, "stop") };
    let gate = gate(vec![ad_group(0, "serve"), stop]);
    let allowed = |seconds: u64| {
        let now = NOW.plus(Duration::from_secs(seconds));
        gate.decide(None, &[name("serve"), name("stop")], now).allowed.len()
    };
    assert_eq!(refusal(&gate, None, "stop"), Some(Reason::Stale { since: None }));
    gate.apply(&keyframe(1, vec![entry(1, 5, 0)]));
    assert_eq!([allowed(0), allowed(10), allowed(11)], [2, 2, 1]);
    let alive = Frame { at: NOW.plus(Duration::from_secs(5)), ..delta(1, 2, Vec::new()) };
    gate.apply(&alive);
    assert_eq!([allowed(11), allowed(15), allowed(16)], [2, 2, 1]);
}

#[test]
fn frames_are_applied_ignored_or_need_a_keyframe() {
    let gate = gate(vec![ad_group(0, "a"), ad_group(1, "b")]);
    let done = |updated, unknown| FrameOutcome::Applied { updated, unknown, catalog_behind: false };
    let actual = |ad_group: &str| gate.spend(&name(ad_group)).unwrap().actual.0;
    assert_eq!(gate.apply(&delta(0, 1, Vec::new())), FrameOutcome::NeedKeyframe);
    assert_eq!(
        gate.apply(&keyframe(5, vec![entry(0, 1, 0), entry(1, 2, 0), entry(9, 9, 0)])),
        done(2, 1)
    );
    assert_eq!(gate.apply(&delta(7, 8, vec![entry(0, 8, 0)])), FrameOutcome::NeedKeyframe);
    assert_eq!(gate.apply(&delta(4, 6, vec![entry(0, 6, 0)])), done(1, 0), "an older base is fine");
    assert_eq!(gate.apply(&delta(4, 6, vec![entry(0, 7, 0)])), FrameOutcome::Ignored);
    assert_eq!(gate.apply(&keyframe(3, Vec::new())), FrameOutcome::Ignored);
    assert_eq!((actual("a"), actual("b")), (6, 2));
    let rebuilt = Frame { epoch: 2, ..keyframe(1, vec![entry(1, 3, 0)]) };
    assert_eq!(
        gate.apply(&Frame { epoch: 2, ..delta(6, 7, Vec::new()) }),
        FrameOutcome::NeedKeyframe
    );
    assert_eq!(gate.apply(&rebuilt), done(1, 0));
    assert_eq!(gate.apply(&keyframe(100, Vec::new())), FrameOutcome::Ignored, "of the old epoch");
    assert_eq!((actual("a"), actual("b")), (0, 3), "a keyframe leaves out those at zero");
    let other = Frame { partition: 1, ..keyframe(1, Vec::new()) };
    assert_eq!(gate.apply(&other), done(0, 0));
    assert_eq!(actual("b"), 3, "another partition's keyframe says nothing about ours");
    assert_eq!(
        gate.versions().iter().map(|v| (v.epoch, v.version)).collect::<Vec<_>>(),
        [(2, 1), (1, 1)]
    );
}

#[test]
fn a_new_catalog_keeps_figures_and_asks_for_the_new_ones() {
    let gate = gate(vec![ad_group(0, "a")]);
    gate.apply(&keyframe(1, vec![entry(0, 100, 0), entry(1, 100, 0)]));
    gate.set_catalog(Catalog { version: 2, ad_groups: vec![ad_group(1, "b"), ad_group(0, "a")] });
    assert!(refusal(&gate, None, "a").is_some());
    assert_eq!(gate.apply(&delta(1, 2, Vec::new())), FrameOutcome::NeedKeyframe);
    let again = keyframe(1, vec![entry(0, 100, 0), entry(1, 100, 0)]);
    assert!(matches!(gate.apply(&again), FrameOutcome::Applied { updated: 2, .. }));
    assert!(refusal(&gate, None, "b").is_some());
    let newer = Frame { catalog_version: 3, ..delta(1, 2, Vec::new()) };
    assert!(matches!(gate.apply(&newer), FrameOutcome::Applied { catalog_behind: true, .. }));
}

proptest! {
    /// In whatever order and however often frames come, the gate has the figures of the newest version that
    /// it has applied, and no frame brings older ones back.
    #[test]
    fn order_and_repetition_do_no_harm(
        changes in prop::collection::vec((0u32..8, 0i64..1_000), 1..30),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let gate = gate((0..8).map(|n| ad_group(n, &format!("g{n}"))).collect());
        let mut state = [0i64; 8];
        let mut history = vec![state];
        let mut frames = vec![keyframe(0, Vec::new())];
        for (version, (index, value)) in (1u64..).zip(changes) {
            state[index as usize] = value;
            history.push(state);
            let figures = (0u32..).zip(state).map(|(n, v)| entry(n, v, 0)).collect();
            frames.push(keyframe(version, figures));
            frames.push(delta(version - 1, version, vec![entry(index, value, 0)]));
        }
        for at in order {
            gate.apply(&frames[at.index(frames.len())]);
            let version = gate.versions().first().map(|v| v.version);
            let expected = version.map_or([0; 8], |v| history[v as usize]);
            let seen = |n| gate.spend(&name(&format!("g{n}"))).unwrap().actual.0;
            prop_assert_eq!(std::array::from_fn(seen), expected);
        }
    }
}

#[test]
fn readers_never_see_half_a_frame() {
    let gate = gate(vec![ad_group(0, "a")]);
    // Ten in flight become ten spent: the sum stays, so the ad group must stay open throughout.
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for version in 1..20_000 {
                let spent = if version % 2 == 0 { 90 } else { 0 };
                gate.apply(&keyframe(version, vec![entry(0, spent, 90 - spent)]));
            }
        });
        while !writer.is_finished() {
            let spend = gate.spend(&name("a")).unwrap();
            let sum = spend.actual.0 + spend.in_flight.0;
            assert!(sum == 90 || sum == 0, "{spend:?}");
        }
    });
}

pub(crate) fn with_position(frame: Frame, position: u64) -> Frame {
    Frame { log_position: Some(position), ..frame }
}

#[test]
fn own_insertions_count_until_the_feed_has_them() {
    // Ten of them reach the budget.
    let gate = gate(vec![ad_group(0, "x")]);
    gate.apply(&with_position(keyframe(1, vec![entry(0, 0, 0)]), 5));
    let mut counted = Vec::new();
    for _ in 0..10 {
        let (decision, insertion) = gate.decide_and_count(None, &[name("x")], NOW);
        assert_eq!(decision.allowed, [name("x")]);
        counted.extend(insertion);
    }
    assert_eq!(counted.len(), 10);
    let (decision, insertion) = gate.decide_and_count(None, &[name("x")], NOW);
    assert!(decision.allowed.is_empty() && insertion.is_none());
    assert_eq!(decision.refused[0].1.code(), "out_of_budget");
    let own = || gate.spend(&name("x")).unwrap().own.0;
    assert_eq!(own(), 100);
    // Two are in the figures already, one will be, one was dropped, for the others there is no answer.
    gate.insertion_logged(counted.pop().unwrap(), &[(0, 4)], NOW);
    gate.insertion_logged(counted.pop().unwrap(), &[(1, 99), (0, 5)], NOW);
    gate.insertion_logged(counted.pop().unwrap(), &[(0, 8)], NOW);
    gate.insertion_dropped(counted.pop().unwrap());
    assert_eq!(own(), 70);
    gate.apply(&with_position(delta(1, 2, vec![entry(0, 0, 20)]), 7));
    assert_eq!(own(), 70);
    gate.apply(&with_position(delta(2, 3, vec![entry(0, 0, 30)]), 8));
    assert_eq!((own(), refusal(&gate, None, "x")), (60, None));
    let late = Frame { at: NOW.plus(Duration::from_secs(700)), ..delta(3, 4, Vec::new()) };
    gate.apply(&with_position(late, 8));
    assert_eq!(own(), 0, "an insertion without an answer does not count forever");
}

#[test]
fn an_insertion_before_the_first_frame_of_its_ad_group_ends_with_the_frame_that_has_it() {
    let own = |gate: &Gate| gate.spend(&name("x")).unwrap().own.0;
    let gate_of_none = || {
        let gate = gate(vec![ad_group(0, "x")]);
        gate.apply(&with_position(keyframe(1, Vec::new()), 9));
        gate
    };
    let has_it = with_position(delta(1, 2, vec![entry(0, 0, 10)]), 9);
    let gate = gate_of_none();
    let counted = gate.count_insertion(&name("x"), NOW).unwrap();
    gate.insertion_logged(counted, &[(0, 8)], NOW);
    assert_eq!(own(&gate), 10, "no figures of the ad group were written yet");
    gate.apply(&has_it);
    assert_eq!(own(&gate), 0, "the figures have it");
    // An answer about several partitions does not say which of them is the one of the ad group.
    let gate = gate_of_none();
    let counted = gate.count_insertion(&name("x"), NOW).unwrap();
    gate.insertion_logged(counted, &[(0, 8), (1, 3)], NOW);
    gate.apply(&has_it);
    assert_eq!(own(&gate), 10);
}

#[test]
fn own_insertions_count_whatever_the_clock_of_the_ad_server_says() {
    let day = Duration::from_secs(24 * 3_600);
    for now in [NOW, NOW.minus(day), NOW.plus(day)] {
        let gate = gate(vec![ad_group(0, "x")]);
        gate.apply(&with_position(keyframe(1, vec![entry(0, 0, 0)]), 5));
        let counted = gate.count_insertion(&name("x"), now).unwrap();
        gate.insertion_logged(counted, &[(0, 8)], now);
        let own = || gate.spend(&name("x")).unwrap().own.0;
        // Frames that do not have it yet.
        for version in 2..10 {
            let at = NOW.plus(Duration::from_secs(version));
            let delta = Frame { at, ..delta(version - 1, version, Vec::new()) };
            gate.apply(&with_position(delta, 7));
            assert_eq!(own(), 10, "{now}: version {version}");
        }
        gate.apply(&with_position(delta(9, 10, vec![entry(0, 0, 10)]), 8));
        assert_eq!(own(), 0, "{now}");
    }
}

#[test]
fn many_threads_do_not_exceed_the_budget() {
    let gate = gate(vec![ad_group(0, "x")]);
    gate.apply(&with_position(keyframe(1, vec![entry(0, 40, 0)]), 0));
    let allowed = std::thread::scope(|scope| {
        let decide =
            || (0..50).filter_map(|_| gate.decide_and_count(None, &[name("x")], NOW).1).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(decide)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert_eq!(allowed, 6);
}

#[test]
fn an_ad_group_that_a_keyframe_does_not_name_is_unknown() {
    let stop = CatalogEntry { when_stale: WhenStale::Stop, ..ad_group(1, "stop") };
    let gate = gate(vec![ad_group(0, "serve"), stop]);
    gate.apply(&with_position(keyframe(0, vec![entry(0, 1, 0)]), 0));
    assert_eq!(refusal(&gate, None, "serve"), None);
    assert_eq!(refusal(&gate, None, "stop"), Some(Reason::Stale { since: None }), "never named");
    gate.apply(&with_position(keyframe(1, vec![entry(0, 100, 0), entry(1, 10, 0)]), 0));
    assert_eq!(refusal(&gate, None, "serve").unwrap().code(), "out_of_budget");
    assert_eq!(refusal(&gate, None, "stop"), None);
    gate.apply(&with_position(keyframe(2, Vec::new()), 0));
    // The last known figures, and nothing at all.
    assert_eq!(refusal(&gate, None, "serve").unwrap().code(), "out_of_budget");
    assert_eq!(refusal(&gate, None, "stop").unwrap().code(), "stale");
    gate.apply(&with_position(keyframe(3, vec![entry(0, 0, 0), entry(1, 10, 0)]), 0));
    assert_eq!(refusal(&gate, None, "serve"), None);
    assert_eq!(refusal(&gate, None, "stop"), None);
    // In the format without positions it is at zero.
    gate.apply(&keyframe(4, vec![entry(1, 100, 0)]));
    gate.apply(&keyframe(5, Vec::new()));
    assert_eq!(refusal(&gate, None, "stop"), None);
}

#[test]
fn removed_ad_groups_are_closed_and_ask_for_no_catalog() {
    use throng_gate::feed::FLAG_REMOVED;
    let gate = gate(vec![ad_group(0, "x")]);
    let removed = |index| FeedEntry { flags: FLAG_CLOSED | FLAG_REMOVED, ..entry(index, 0, 0) };
    let done = gate.apply(&with_position(keyframe(1, vec![removed(0), removed(7)]), 0));
    assert_eq!(done, FrameOutcome::Applied { updated: 1, unknown: 0, catalog_behind: false });
    assert_eq!(refusal(&gate, None, "x"), Some(Reason::Closed));
}

#[test]
fn ad_groups_without_figures_are_counted() {
    let gate = gate(vec![ad_group(0, "shoes"), ad_group(1, "hats")]);
    assert_eq!(gate.unnamed(), 2);
    gate.apply(&keyframe(1, vec![entry(0, 0, 0)]));
    assert_eq!(gate.unnamed(), 1);
    gate.apply(&delta(1, 2, vec![entry(1, 0, 0)]));
    assert_eq!(gate.unnamed(), 0);
}

#[test]
fn a_reset_gate_follows_another_cluster_from_its_first_keyframe() {
    let gate = gate(vec![ad_group(0, "shoes")]);
    gate.apply(&keyframe(900, vec![entry(0, 100, 0)]));
    assert!(matches!(refusal(&gate, None, "shoes"), Some(Reason::OutOfBudget { .. })));
    gate.reset();
    assert_eq!(refusal(&gate, None, "shoes"), Some(Reason::UnknownAdGroup));
    gate.set_catalog(Catalog { version: 1, ad_groups: vec![ad_group(0, "shoes")] });
    // Neither the figures of the other cluster nor its higher version count.
    assert_eq!(gate.unnamed(), 1);
    assert_eq!(gate.apply(&delta(4, 5, Vec::new())), FrameOutcome::NeedKeyframe);
    let applied = gate.apply(&keyframe(5, vec![entry(0, 30, 0)]));
    assert!(matches!(applied, FrameOutcome::Applied { updated: 1, .. }), "{applied:?}");
    assert_eq!(gate.spend(&name("shoes")).unwrap().actual, Micros(30));
}

/// Every budget would look unspent.
#[test]
fn a_node_that_has_started_waits_for_a_frame_of_every_partition() {
    let gate = Gate::new(Catalog::default(), Duration::from_secs(10));
    let frame = |partition| Frame {
        partition,
        epoch: 1,
        version: 1,
        kind: FrameKind::Keyframe,
        at: Timestamp(0),
        catalog_version: 0,
        log_position: Some(0),
        entries: Vec::new(),
    };
    let waits =
        |secs: i64| gate.awaits_frames(2, Timestamp(50_000_000), Timestamp(secs * 1_000_000));
    gate.apply(&frame(1));
    assert_eq!([50, 59].map(&waits), [true, true]);
    // A partition has no leader, or the clock was set back.
    assert_eq!([60, 49].map(&waits), [false, false]);
    gate.apply(&frame(0));
    assert!(!waits(50));
    // Another start with another cluster.
    gate.reset();
    assert!(waits(50));
}
