//! What is spent past a budget is attributed to causes, and the sums survive a restart.

use std::time::Duration;

use throng_budget::{
    AdGroupConfig, BilledEvent, CheckpointFiles, Engine, Event, EventEffect, EventKind, EventMoney,
};
use throng_model::{AdGroupIndex, AdGroupName, BudgetDay, Micros, Pacing, TimeZoneName, Timestamp};

const START: Timestamp = Timestamp(1_767_225_600_000_000);
const CENTS: i64 = 10_000;

fn name() -> AdGroupName {
    AdGroupName::new("red").expect("a name")
}

fn configs(daily_budget: i64) -> Vec<AdGroupConfig> {
    vec![AdGroupConfig {
        index: AdGroupIndex(0),
        name: name(),
        campaign: "all".parse().expect("a name"),
        billed: BilledEvent::Impression,
        price: Micros(10 * CENTS),
        price_nanos: 0,
        impression_rate: 1.0,
        action_rate: 1.0,
        horizon: Duration::from_secs(180),
        daily_budget: Micros(daily_budget),
        prediction: false,
        currency: "USD".parse().expect("a currency"),
        zone: TimeZoneName::utc(),
        once_per_insertion: true,
        pacing: Pacing::Asap,
        learns_rates: false,
    }]
}

fn at(millis: u64) -> Timestamp {
    START.plus(Duration::from_millis(millis))
}

/// An insertion, or an impression of one.
fn event(kind: EventKind, id: &str, millis: u64, money: EventMoney) -> Event {
    Event {
        id: format!("{kind:?}-{id}"),
        kind,
        ad_group: name(),
        insertion_id: Some(id.to_owned()),
        at: at(millis),
        inserted_at: None,
        money,
        placement: None,
    }
}

fn apply(engine: &mut Engine, event: &Event) {
    assert_eq!(engine.apply(event, event.at), Ok(EventEffect::Counted));
}

/// Publishes a frame.
fn tick(engine: &mut Engine, millis: u64) {
    engine.close(at(millis));
    engine.delta(at(millis));
}

/// The sums of the first day, and how much was given away.
fn sums(engine: &Engine, budget: i64, millis: u64) -> ([i64; 5], i64) {
    let today = BudgetDay::of(START, &TimeZoneName::utc().rules());
    let causes = engine.overdelivery_causes(at(millis));
    let mut of_days = causes.into_iter().flat_map(|(_, days)| days);
    let of_day = of_days.find(|(day, _)| *day == today).map(|(_, causes)| causes);
    let days = engine.days(&name(), at(millis)).expect("it is there");
    let actual = days.into_iter().find(|(day, _)| *day == today).map_or(0, |(_, spent)| spent.0);
    let amounts = of_day.unwrap_or_default().amounts().map(|amount| amount.0);
    (amounts, (actual - budget).max(0))
}

#[test]
fn each_outcome_past_the_budget_has_a_cause() {
    let budget = 100 * CENTS;
    let mut engine = Engine::new(3, 1, 1, configs(budget));
    (0..=5).for_each(|second| tick(&mut engine, second * 1_000));
    // Two that were inserted long before, one of which will cost more than its price.
    for id in ["early", "dear"] {
        apply(&mut engine, &event(EventKind::Insertion, id, 100, EventMoney::NONE));
    }
    // A dozen after the last frame, before the next one.
    for n in 0..12 {
        let id = format!("burst-{n}");
        apply(&mut engine, &event(EventKind::Insertion, &id, 5_100, EventMoney::NONE));
        apply(&mut engine, &event(EventKind::Impression, &id, 5_200, EventMoney::NONE));
    }
    assert_eq!(sums(&engine, budget, 5_300), ([0, 0, 0, 20 * CENTS, 0], 20 * CENTS));
    tick(&mut engine, 6_000);
    apply(&mut engine, &event(EventKind::Impression, "early", 6_100, EventMoney::NONE));
    let price = EventMoney::NONE.with_price_nanos(13 * CENTS * 1_000);
    apply(&mut engine, &event(EventKind::Impression, "dear", 6_200, price));
    let expected = [0, 0, 20 * CENTS, 20 * CENTS, 3 * CENTS];
    assert_eq!(sums(&engine, budget, 6_300), (expected, 43 * CENTS));
    // An ad server that does not have the frame of second 6, or does not ask.
    apply(&mut engine, &event(EventKind::Insertion, "closed", 6_500, EventMoney::NONE));
    apply(&mut engine, &event(EventKind::Impression, "closed", 6_600, EventMoney::NONE));
    let expected = [0, 10 * CENTS, 20 * CENTS, 20 * CENTS, 3 * CENTS];
    assert_eq!(sums(&engine, budget, 6_700), (expected, 53 * CENTS));

    // After a restart it is not known what gates had before it.
    apply(&mut engine, &event(EventKind::Insertion, "before", 6_800, EventMoney::NONE));
    let bytes = engine.checkpoint(1);
    let none = CheckpointFiles::default();
    let restored = Engine::restore(&bytes, 3, 2, 1, configs(budget), at(7_000), &none);
    let (mut engine, _) = restored.expect("restored");
    assert_eq!(sums(&engine, budget, 7_000), (expected, 53 * CENTS));
    tick(&mut engine, 7_000);
    apply(&mut engine, &event(EventKind::Impression, "before", 7_100, EventMoney::NONE));
    assert_eq!(sums(&engine, budget, 7_200), (expected, 63 * CENTS));
    apply(&mut engine, &event(EventKind::Insertion, "after", 7_300, EventMoney::NONE));
    apply(&mut engine, &event(EventKind::Impression, "after", 7_400, EventMoney::NONE));
    let expected = [0, 20 * CENTS, 20 * CENTS, 20 * CENTS, 3 * CENTS];
    assert_eq!(sums(&engine, budget, 7_500), (expected, 73 * CENTS));

    // With another budget nothing is known of what was given away before.
    engine.configure(2, configs(150 * CENTS), at(8_000));
    assert_eq!(sums(&engine, 150 * CENTS, 8_000), ([0; 5], 23 * CENTS));
    tick(&mut engine, 8_000);
    apply(&mut engine, &event(EventKind::Insertion, "more", 8_100, EventMoney::NONE));
    apply(&mut engine, &event(EventKind::Impression, "more", 8_200, EventMoney::NONE));
    assert_eq!(sums(&engine, 150 * CENTS, 8_300), ([0, 10 * CENTS, 0, 0, 0], 33 * CENTS));
}

#[test]
fn events_that_arrive_late_are_a_cause() {
    let budget = 100 * CENTS;
    let mut engine = Engine::new(3, 1, 1, configs(budget));
    let show = |engine: &mut Engine, id: &str, second: u64, logged: u64| {
        let insertion = event(EventKind::Insertion, id, second * 1_000, EventMoney::NONE);
        engine.apply(&insertion, insertion.at).expect("applied");
        let seen = event(EventKind::Impression, id, second * 1_000, EventMoney::NONE);
        engine.apply(&seen, at(logged * 1_000)).expect("applied");
    };
    // Eight are known at once. Two are known a minute late: meanwhile the ad group stays open.
    tick(&mut engine, 0);
    (0..8).for_each(|n| show(&mut engine, &format!("known-{n}"), 1, 1));
    (1..90).for_each(|second| tick(&mut engine, second * 1_000));
    (0..2).for_each(|n| show(&mut engine, &format!("late-{n}"), 30, 90));
    (0..3).for_each(|n| show(&mut engine, &format!("free-{n}"), 60, 90));
    assert_eq!(sums(&engine, budget, 90_000), ([30 * CENTS, 0, 0, 0, 0], 30 * CENTS));
}

#[test]
fn frames_that_gates_ignore_are_no_cause() {
    let budget = 10 * CENTS;
    let show = |engine: &mut Engine, id: &str, millis: u64| {
        apply(engine, &event(EventKind::Insertion, id, millis, EventMoney::NONE));
        apply(engine, &event(EventKind::Impression, id, millis + 100, EventMoney::NONE));
    };
    let spent = || {
        let mut engine = Engine::new(3, 1, 1, configs(budget));
        tick(&mut engine, 0);
        show(&mut engine, "billed", 1_000);
        tick(&mut engine, 2_000);
        engine
    };
    let mut engine = spent();
    show(&mut engine, "known", 2_500);
    assert_eq!(sums(&engine, budget, 3_000), ([0, 10 * CENTS, 0, 0, 0], 10 * CENTS));
    // Another replica has published meanwhile.
    engine.set_epoch(2);
    show(&mut engine, "unknown", 3_000);
    assert_eq!(sums(&engine, budget, 3_500), ([0, 10 * CENTS, 0, 0, 0], 20 * CENTS));
    tick(&mut engine, 4_000);
    show(&mut engine, "again", 4_500);
    assert_eq!(sums(&engine, budget, 5_000), ([0, 20 * CENTS, 0, 0, 0], 30 * CENTS));
    // A standby replica has made a frame for another spec, which it did not publish.
    let mut standby = spent();
    standby.forget_frames();
    show(&mut standby, "of-leader", 2_500);
    assert_eq!(sums(&standby, budget, 3_000), ([0; 5], 10 * CENTS));
}

#[test]
fn a_standby_replica_that_becomes_the_leader_has_what_was_attributed() {
    let budget = 10 * CENTS;
    let mut leader = Engine::new(3, 1, 1, configs(budget));
    let mut standby = leader.clone();
    let show = |engines: [&mut Engine; 2], id: &str, millis: u64, price: i64| {
        let price = EventMoney::NONE.with_price_nanos(price * CENTS * 1_000);
        for engine in engines {
            apply(engine, &event(EventKind::Insertion, id, millis, EventMoney::NONE));
            apply(engine, &event(EventKind::Impression, id, millis + 100, price));
        }
    };
    tick(&mut leader, 0);
    show([&mut leader, &mut standby], "billed", 1_000, 10);
    tick(&mut leader, 2_000);
    show([&mut leader, &mut standby], "free", 2_500, 12);
    let of_leader = ([0, 10 * CENTS, 0, 0, 2 * CENTS], 12 * CENTS);
    assert_eq!(sums(&leader, budget, 3_000), of_leader);
    assert_eq!(sums(&standby, budget, 3_000), ([0, 0, 0, 0, 2 * CENTS], 12 * CENTS));
    let bytes = leader.checkpoint(1);
    for _ in 0..2 {
        standby.merge_causes(&bytes).expect("a checkpoint");
        assert_eq!(sums(&standby, budget, 3_000), of_leader);
    }
    // What is not in that checkpoint counts as well, and nothing of another budget.
    show([&mut leader, &mut standby], "later", 3_000, 13);
    standby.merge_causes(&bytes).expect("a checkpoint");
    let expected = ([0, 10 * CENTS, 0, 0, 5 * CENTS], 25 * CENTS);
    assert_eq!(sums(&standby, budget, 4_000), expected);
    let mut other = Engine::new(3, 1, 1, configs(9 * CENTS));
    let mut same = other.clone();
    show([&mut other, &mut same], "free", 2_500, 90);
    standby.merge_causes(&other.checkpoint(1)).expect("a checkpoint");
    assert_eq!(sums(&standby, budget, 4_000), expected);
    assert!(standby.merge_causes(&bytes[1..]).is_err());
}

#[test]
fn causes_of_the_days_of_another_time_zone_are_forgotten_whenever_it_is_changed() {
    let budget = 100 * CENTS;
    let mut engine = Engine::new(3, 1, 1, configs(budget));
    (0..=5).for_each(|second| tick(&mut engine, second * 1_000));
    for n in 0..12 {
        let id = format!("burst-{n}");
        apply(&mut engine, &event(EventKind::Insertion, &id, 5_100, EventMoney::NONE));
        apply(&mut engine, &event(EventKind::Impression, &id, 5_200, EventMoney::NONE));
    }
    assert_eq!(sums(&engine, budget, 5_300), ([0, 0, 0, 20 * CENTS, 0], 20 * CENTS));
    let bytes = engine.checkpoint(1);
    let mut moved = configs(budget);
    // An hour ahead: the same date, of other hours.
    moved[0].zone = "Etc/GMT-1".parse().expect("a zone");
    let none = CheckpointFiles::default();
    let restored = Engine::restore(&bytes, 3, 2, 2, moved.clone(), at(7_000), &none);
    let (restored, _) = restored.expect("restored");
    engine.configure(2, moved, at(7_000));
    assert_eq!(sums(&engine, budget, 7_000), ([0; 5], 20 * CENTS));
    assert_eq!(sums(&restored, budget, 7_000), ([0; 5], 20 * CENTS));
    // A standby replica that becomes the leader after the change finds a checkpoint from before it.
    engine.merge_causes(&bytes).expect("a checkpoint");
    assert_eq!(sums(&engine, budget, 7_000), ([0; 5], 20 * CENTS));
}

#[test]
fn causes_that_were_set_aside_with_another_currency_are_not_taken_over() {
    let budget = 100 * CENTS;
    let mut engine = Engine::new(3, 1, 1, configs(budget));
    // It publishes no frames, and knows no causes.
    let mut changed = engine.clone();
    (0..=5).for_each(|second| tick(&mut engine, second * 1_000));
    for n in 0..12 {
        let id = format!("burst-{n}");
        for engine in [&mut engine, &mut changed] {
            apply(engine, &event(EventKind::Insertion, &id, 5_100, EventMoney::NONE));
            apply(engine, &event(EventKind::Impression, &id, 5_200, EventMoney::NONE));
        }
    }
    let burst = ([0, 0, 0, 20 * CENTS, 0], 20 * CENTS);
    assert_eq!(sums(&engine, budget, 5_300), burst);
    let before = engine.checkpoint(1);
    let mut euros = configs(budget);
    euros[0].currency = "EUR".parse().expect("a currency");
    engine.configure(2, Vec::new(), at(6_000));
    engine.configure(3, euros.clone(), at(7_000));
    assert_eq!(sums(&engine, budget, 7_000), ([0; 5], 0));
    // The checkpoint has what was set aside, or is from before the ad group was removed.
    for bytes in [engine.checkpoint(1), before.clone()] {
        engine.merge_causes(&bytes).expect("a checkpoint");
        assert_eq!(sums(&engine, budget, 7_000), ([0; 5], 0));
    }
    // An ad group whose currency was changed continues with the spend of the day, and with its causes.
    changed.configure(2, euros, at(7_000));
    assert_eq!(sums(&changed, budget, 7_000), ([0; 5], 20 * CENTS));
    changed.merge_causes(&before).expect("a checkpoint");
    assert_eq!(sums(&changed, budget, 7_000), burst);
}
