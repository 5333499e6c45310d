//! Ad groups that leave the catalog and return, and clocks that are behind the node's.

use std::time::Duration;

use throng_gate::feed::{FLAG_CLOSED, FLAG_REMOVED, FeedEntry, Frame};
use throng_gate::{Catalog, CatalogEntry, Reason, WhenStale};
use throng_model::{Micros, Timestamp};

use crate::gate::{NOW, ad_group, delta, entry, gate, keyframe, name, refusal, with_position};

#[test]
fn an_ad_group_that_is_added_again_has_its_spend_from_the_first_frame() {
    let with = |version, names: &[(u32, &str)]| Catalog {
        version,
        ad_groups: names.iter().map(|(index, name)| ad_group(*index, name)).collect(),
    };
    let both = [(0, "shoes"), (1, "hats")];
    let gate = gate(vec![ad_group(0, "shoes"), ad_group(1, "hats")]);
    let actual = || gate.spend(&name("hats")).map(|spend| spend.actual.0);
    gate.apply(&with_position(keyframe(1, vec![entry(0, 1, 0), entry(1, 100, 0)]), 0));
    // It is away and back within one frame.
    gate.set_catalog(with(2, &both[..1]));
    assert_eq!(actual(), None);
    gate.set_catalog(with(3, &both));
    assert_eq!(actual(), Some(100));
    assert_eq!(refusal(&gate, None, "hats").unwrap().code(), "out_of_budget");
    // The leader has removed it, and the catalog comes before the leader's next frame.
    gate.set_catalog(with(4, &both[..1]));
    let removed = FeedEntry { flags: FLAG_CLOSED | FLAG_REMOVED, ..entry(1, 0, 0) };
    gate.apply(&with_position(keyframe(2, vec![entry(0, 1, 0), removed]), 0));
    gate.set_catalog(with(5, &both));
    assert_eq!(refusal(&gate, None, "hats"), Some(Reason::Closed));
    // The leader's frame comes before the catalog.
    gate.set_catalog(with(6, &both[..1]));
    gate.apply(&with_position(keyframe(3, vec![entry(0, 1, 0), entry(1, 90, 10)]), 0));
    gate.apply(&with_position(delta(3, 4, vec![entry(1, 95, 5)]), 0));
    gate.set_catalog(with(7, &both));
    assert_eq!(actual(), Some(95));
    assert_eq!(refusal(&gate, None, "hats").unwrap().code(), "out_of_budget");
    assert_eq!(gate.unnamed(), 0);
    // Another ad group has nothing of it, and an index that frames no longer name is forgotten.
    gate.set_catalog(with(8, &[(0, "shoes"), (1, "gloves")]));
    assert_eq!(gate.spend(&name("gloves")).unwrap().actual, Micros(0));
    gate.set_catalog(with(9, &both[..1]));
    gate.apply(&with_position(keyframe(5, vec![entry(0, 1, 0)]), 0));
    gate.set_catalog(with(10, &both));
    assert_eq!((actual(), gate.unnamed()), (Some(0), 1));
}

#[test]
fn own_insertions_of_an_ad_group_that_is_added_again_still_count() {
    let gate = gate(vec![ad_group(0, "x")]);
    gate.apply(&with_position(keyframe(1, vec![entry(0, 40, 0)]), 5));
    let counted = gate.count_insertion(&name("x"), NOW).unwrap();
    gate.set_catalog(Catalog { version: 2, ad_groups: Vec::new() });
    gate.set_catalog(Catalog { version: 3, ad_groups: vec![ad_group(0, "x")] });
    let own = || gate.spend(&name("x")).unwrap().own.0;
    assert_eq!(own(), 10);
    gate.insertion_logged(counted, &[(0, 8)], NOW);
    gate.apply(&with_position(keyframe(2, vec![entry(0, 40, 10)]), 8));
    assert_eq!(own(), 0);
}

#[test]
fn a_clock_that_is_behind_does_not_hide_that_the_feed_is_stale() {
    let stop = CatalogEntry { when_stale: WhenStale::Stop, ..ad_group(1, "stop") };
    let gate = gate(vec![ad_group(0, "serve"), stop]);
    gate.apply(&with_position(keyframe(1, vec![entry(0, 0, 0), entry(1, 0, 0)]), 0));
    let refused = |seconds: u64| {
        let now = NOW.minus(Duration::from_secs(seconds));
        let decision = gate.decide(None, &[name("serve"), name("stop")], now);
        decision.refused.into_iter().map(|(id, reason)| (id, reason.code())).collect::<Vec<_>>()
    };
    assert!(refused(10).is_empty(), "clocks differ by some seconds");
    assert_eq!(refused(11), [(name("stop"), "clock_behind")]);
    assert_eq!(refused(900), [(name("stop"), "clock_behind")]);
    let reason = gate.decide(None, &[name("stop")], Timestamp(0)).refused.remove(0).1;
    assert!(reason.to_string().ends_with("set the clock"), "{reason}");
}

#[test]
fn an_insertion_counts_until_a_later_frame_without_a_position_by_a_clock_that_is_behind_too() {
    let gate = gate(vec![ad_group(0, "x")]);
    gate.apply(&keyframe(1, vec![entry(0, 0, 0)]));
    let now = NOW.minus(Duration::from_secs(3_600));
    let counted = gate.count_insertion(&name("x"), now).unwrap();
    gate.insertion_logged(counted, &[(0, 8)], now);
    let own = || gate.spend(&name("x")).unwrap().own.0;
    assert_eq!(own(), 10, "the last frame is from before the insertion");
    let later =
        Frame { at: NOW.plus(Duration::from_secs(1)), ..delta(1, 2, vec![entry(0, 0, 10)]) };
    gate.apply(&later);
    assert_eq!(own(), 0);
}
