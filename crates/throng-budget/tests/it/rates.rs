//! Impression and action rates that an engine learns apart, by placement, and from other ad groups.

use std::time::Duration;

use throng_budget::{
    AdGroupConfig, AdGroupRates, BilledEvent, Engine, Event, EventKind, EventMoney, RateFigures,
};
use throng_model::{AdGroupIndex, AdGroupName, Entropy, Micros, SplitMix64};

use crate::{ad_group, at, restored};

const PRICE: i64 = 100_000;

fn config(index: u32, name: &str, campaign: &str, billed: BilledEvent) -> AdGroupConfig {
    AdGroupConfig {
        index: AdGroupIndex(index),
        campaign: campaign.parse().expect("a name"),
        price: Micros(PRICE),
        impression_rate: 0.8,
        ..ad_group(name, billed)
    }
}

fn name(name: &str) -> AdGroupName {
    name.parse().expect("a name")
}

/// An engine, and the number of its next event.
struct Traffic {
    engine: Engine,
    next: u64,
}

impl Traffic {
    fn new(configs: Vec<AdGroupConfig>) -> Self {
        Self { engine: Engine::new(3, 1, 1, configs), next: 0 }
    }

    fn apply(&mut self, kind: EventKind, ad_group: &str, second: u64, of: Option<(u64, u64)>) {
        self.apply_in(kind, ad_group, second, of, None);
    }

    /// `of`: the number and the second of the insertion. Returns the number of the event.
    fn apply_in(
        &mut self,
        kind: EventKind,
        ad_group: &str,
        second: u64,
        of: Option<(u64, u64)>,
        placement: Option<&str>,
    ) -> u64 {
        self.next += 1;
        let number = self.next;
        let insertion = of.map_or(number, |(insertion, _)| insertion);
        let event = Event {
            id: number.to_string(),
            kind,
            ad_group: name(ad_group),
            insertion_id: Some(insertion.to_string()),
            at: at(second),
            inserted_at: of.map(|(_, inserted)| at(inserted)),
            money: EventMoney::NONE,
            placement: placement.map(str::to_owned),
        };
        self.engine.apply(&event, at(second)).expect("it fits");
        number
    }

    fn rates(&self, ad_group: &str) -> AdGroupRates {
        self.engine.rates(&name(ad_group)).expect("it is there")
    }

    /// What a thousand insertions at once add to the spend in flight, as a share of their price. Ten seconds after
    /// the last events at least: rates are learned every ten seconds.
    fn share_of_a_thousand(&self, ad_group: &str, second: u64, placement: Option<&str>) -> f64 {
        let mut copy = Self { engine: self.engine.clone(), next: self.next + 1_000_000 };
        let in_flight = |engine: &Engine| {
            let states = engine.states(at(second));
            let state = states.iter().find(|state| state.name.as_str() == ad_group);
            state.expect("it is there").in_flight.0
        };
        let before = in_flight(&copy.engine);
        for _ in 0..1_000 {
            copy.apply_in(EventKind::Insertion, ad_group, second, None, placement);
        }
        // The rates of an ad group in a placement are known when they are learned the next time.
        copy.engine.close(at(second));
        (in_flight(&copy.engine) - before) as f64 / (1_000 * PRICE) as f64
    }
}

fn learned(figures: RateFigures) -> f64 {
    figures.learned.expect("it is learned").mean()
}

/// An insertion each second, of which so many of five are seen five seconds later.
fn seen_of_five(traffic: &mut Traffic, seconds: std::ops::Range<u64>, seen: u64) {
    for second in seconds {
        let number = traffic.apply_in(EventKind::Insertion, "red", second, None, None);
        if second % 5 < seen {
            let of = Some((number, second));
            traffic.apply(EventKind::Impression, "red", second + 5, of);
        }
        if second % 10 == 9 {
            traffic.engine.close(at(second));
        }
    }
}

/// As docs/predictive-budgeting.md says.
#[test]
fn a_rate_that_falls_by_half_is_learned_to_a_tenth_in_5400_insertions() {
    let mut traffic = Traffic::new(vec![config(0, "red", "one", BilledEvent::Impression)]);
    seen_of_five(&mut traffic, 0..14_400, 4);
    let before = learned(traffic.rates("red").impression);
    assert!((before - 0.8).abs() < 0.02, "{before}");
    seen_of_five(&mut traffic, 14_400..19_800, 2);
    let after = learned(traffic.rates("red").impression);
    assert!((after / 0.4 - 1.0).abs() < 0.1, "{after}");
}

#[test]
fn impressions_and_clicks_are_learned_apart() {
    let run = |reports_impressions: bool| {
        let mut traffic = Traffic::new(vec![config(0, "red", "one", BilledEvent::Click)]);
        let declared = traffic.rates("red");
        assert_eq!((declared.impression.declared, declared.impression.learned), (0.8, None));
        for second in 0..7_200u64 {
            let number = traffic.apply_in(EventKind::Insertion, "red", second, None, None);
            let of = Some((number, second));
            // Two of five are seen, and a quarter of them is clicked.
            if reports_impressions && second % 5 < 2 {
                traffic.apply(EventKind::Impression, "red", second + 5, of);
            }
            if second % 20 == 0 || second % 20 == 5 {
                traffic.apply(EventKind::Click, "red", second + 9, of);
            }
            if second % 10 == 9 {
                traffic.engine.close(at(second));
            }
        }
        let share = traffic.share_of_a_thousand("red", 7_210, None);
        (traffic.rates("red"), share)
    };
    let (apart, share) = run(true);
    let (seen, clicked) = (learned(apart.impression), apart.action.map(learned));
    assert!((seen - 0.4).abs() < 0.01, "{seen}");
    assert!(clicked.is_some_and(|clicked| (clicked - 0.25).abs() < 0.01), "{clicked:?}");
    assert!((share / 0.1 - 1.0).abs() < 0.05, "{share}");
    // Without impressions their declared rate counts, and the product is the same.
    let (unseen, same) = run(false);
    assert_eq!(unseen.impression.learned, None);
    let clicked = unseen.action.map(learned).expect("clicks are billed");
    assert!((clicked - 0.125).abs() < 0.005, "{clicked}");
    assert!((same / share - 1.0).abs() < 0.02, "{same} and {share}");
}

#[test]
fn one_without_history_begins_with_the_rate_of_its_campaign() {
    let configs = [(1, "new", "one"), (2, "other", "two")];
    let configs =
        configs.map(|(n, name, campaign)| config(n, name, campaign, BilledEvent::Impression));
    let red = config(0, "red", "one", BilledEvent::Impression);
    let mut traffic = Traffic::new([vec![red], configs.to_vec()].concat());
    seen_of_five(&mut traffic, 0..7_200, 1);
    let new = traffic.rates("new").impression;
    assert!((learned(new) - 0.2).abs() < 0.01 && new.trials == 0.0, "{new:?}");
    assert_eq!(traffic.rates("other").impression.learned, None);
    let [new, other] = ["new", "other"].map(|name| traffic.share_of_a_thousand(name, 7_210, None));
    assert!((new - 0.2).abs() < 0.01 && (other - 0.8).abs() < 1e-6, "{new} {other}");
}

/// Nearly all are seen at home, and few in the feed.
fn in_two_placements(traffic: &mut Traffic, seconds: std::ops::Range<u64>) {
    for second in seconds {
        let (placement, seen) = if second % 2 == 0 { ("home", 9) } else { ("feed", 3) };
        let placement = Some(placement);
        let number = traffic.apply_in(EventKind::Insertion, "red", second, None, placement);
        if second / 2 % 10 < seen {
            traffic.apply(EventKind::Impression, "red", second + 5, Some((number, second)));
        }
        if second % 10 == 9 {
            traffic.engine.close(at(second));
        }
    }
}

fn in_placement(rates: &AdGroupRates, placement: &str) -> RateFigures {
    let found = rates.placements.iter().find(|of| of.placement == placement);
    found.unwrap_or_else(|| panic!("no {placement}: {rates:?}")).impression
}

#[test]
fn rates_of_placements_are_learned_and_hold_for_other_ad_groups() {
    let configs = [("red", "one"), ("new", "two")];
    let configs: Vec<AdGroupConfig> = (0..)
        .zip(configs)
        .map(|(n, (name, campaign))| config(n, name, campaign, BilledEvent::Impression))
        .collect();
    let mut traffic = Traffic::new(configs.clone());
    in_two_placements(&mut traffic, 0..7_200);
    let rates = traffic.rates("red");
    assert_eq!(rates.placements.len(), 2);
    let [home, feed] = ["home", "feed"].map(|place| learned(in_placement(&rates, place)));
    assert!((home - 0.9).abs() < 0.01 && (feed - 0.3).abs() < 0.01, "{home} {feed}");
    assert!((learned(rates.impression) - 0.6).abs() < 0.01, "{rates:?}");
    let share = |name, place| traffic.share_of_a_thousand(name, 7_210, place);
    let shares = [Some("home"), Some("feed"), None].map(|place| share("red", place));
    let near = |share: f64, expected: f64| (share - expected).abs() < 0.02;
    assert!(near(shares[0], 0.9) && near(shares[1], 0.3) && near(shares[2], 0.6), "{shares:?}");
    // In the feed half as many are seen as in both placements: 0.4 where 0.8 is declared.
    let new = share("new", Some("feed"));
    assert!(near(new, 0.4), "{new}");

    // A replica that starts from a checkpoint has the same.
    let engine = restored(&traffic.engine, (1, 1), configs, at(7_199));
    let mut restored = Traffic { engine, next: traffic.next };
    for traffic in [&mut traffic, &mut restored] {
        in_two_placements(traffic, 7_200..7_400);
    }
    assert_eq!(restored.rates("red"), traffic.rates("red"));
    assert_eq!(restored.engine.states(at(7_400)), traffic.engine.states(at(7_400)));
}

#[test]
fn rates_by_placement_are_kept_across_a_spec_and_dropped_with_their_ad_group() {
    let red = || config(0, "red", "one", BilledEvent::Impression);
    let mut traffic = Traffic::new(vec![red()]);
    in_two_placements(&mut traffic, 0..3_600);
    traffic.engine.configure(2, vec![red()], at(3_600));
    traffic.engine.close(at(3_600));
    assert_eq!(traffic.rates("red").placements.len(), 2);
    let all = learned(traffic.rates("red").impression);
    traffic.engine.configure(3, vec![], at(3_601));
    assert_eq!(traffic.engine.rates(&name("red")), None);
    traffic.engine.configure(4, vec![red()], at(3_602));
    traffic.engine.close(at(3_602));
    let again = traffic.rates("red");
    assert!(again.placements.is_empty(), "{again:?}");
    assert!((learned(again.impression) - all).abs() < 0.01, "{again:?}");
    // Another declared rate: what was learned of the earlier one is forgotten.
    let other = AdGroupConfig { impression_rate: 0.7, ..red() };
    traffic.engine.configure(5, vec![other], at(3_603));
    traffic.engine.close(at(3_603));
    assert_eq!(traffic.rates("red").impression.learned, None);
}

/// The numbers of its placements are given to other names while it is not configured.
#[test]
fn placements_are_dropped_with_an_ad_group_that_is_removed_while_no_process_runs() {
    let red = || config(0, "red", "one", BilledEvent::Impression);
    let mut traffic = Traffic::new(vec![red()]);
    in_two_placements(&mut traffic, 0..3_600);
    let mut restored = restored(&traffic.engine, (1, 2), vec![], at(3_600));
    traffic.engine.configure(2, vec![], at(3_600));
    let rates = [&mut restored, &mut traffic.engine].map(|engine| {
        engine.configure(3, vec![red()], at(3_601));
        engine.close(at(3_601));
        engine.rates(&name("red")).expect("it is there")
    });
    assert!(rates[0].placements.is_empty(), "{:?}", rates[0]);
    assert_eq!(rates[0], rates[1], "as in a replica that ran meanwhile");
}

/// More placements than are kept, with checkpoints in between: every replica has the same.
#[test]
fn replicas_agree_on_more_placements_than_are_kept() {
    let configs = || {
        let of = |n, name, billed| config(n, name, "one", billed);
        vec![of(0, "red", BilledEvent::Impression), of(1, "blue", BilledEvent::Click)]
    };
    let mut random = SplitMix64::new(8);
    let mut events: Vec<Event> = Vec::new();
    for number in 0..12_000u64 {
        let second = number / 4;
        let ad_group = name(if random.below(2) == 0 { "red" } else { "blue" });
        let placement = format!("p{}", random.below(1 + number / 6));
        let insertion = Event {
            id: number.to_string(),
            kind: EventKind::Insertion,
            ad_group,
            insertion_id: Some(number.to_string()),
            at: at(second),
            inserted_at: None,
            money: EventMoney::NONE,
            placement: Some(placement),
        };
        let outcome = |kind| Event { kind, placement: None, ..insertion.clone() };
        let (seen, clicked) = (random.below(10) < 7, random.below(10) < 2);
        events.push(insertion.clone());
        events.extend(seen.then(|| outcome(EventKind::Impression)));
        events.extend((seen && clicked).then(|| outcome(EventKind::Click)));
    }
    let mut whole = Engine::new(3, 1, 1, configs());
    let mut restarted = Engine::new(3, 1, 1, configs());
    for (number, events) in events.chunks(1_000).enumerate() {
        let last = events.last().expect("events").at;
        for engine in [&mut whole, &mut restarted] {
            for event in events {
                engine.apply(event, event.at).expect("it fits");
            }
            engine.close(last);
        }
        restarted = restored(&restarted, (1, 1), configs(), last);
        for engine in [&mut whole, &mut restarted] {
            engine.close(last.plus(Duration::from_secs(11)));
        }
        for ad_group in ["red", "blue"] {
            let rates = [&whole, &restarted].map(|engine| engine.rates(&name(ad_group)));
            assert_eq!(rates[0], rates[1], "{number} {ad_group}");
        }
    }
    let rates = whole.rates(&name("blue")).expect("it is there");
    assert!(rates.placements.iter().any(|of| of.placement == "other"), "{rates:?}");
    assert!(whole.checkpoint(0).len() < 2_000_000);
    let later = whole.states(at(3_100));
    assert_eq!(later, restarted.states(at(3_100)));
}
