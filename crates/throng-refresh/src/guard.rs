//! The size guard: whether a new snapshot is published without approval. Pure.

use throng_spec::Guard;

/// What is done with a new snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GuardDecision {
    /// It is published.
    Publish,
    /// It waits for approval, for this reason.
    Hold(String),
}

/// Compares a new snapshot with the one that is served. A first snapshot, and one that follows an
/// empty one, is published: there is nothing to compare it with.
pub(super) fn evaluate(guard: &Guard, served: Option<u64>, members: u64) -> GuardDecision {
    let Some(before) = served.filter(|before| *before > 0) else { return GuardDecision::Publish };
    if members < guard.min_members {
        return GuardDecision::Hold(format!(
            "{members} members after {before}, fewer than guard.min_members, {}",
            guard.min_members
        ));
    }
    // Compared as products in 128 bits: a rounded quotient would let a change pass that is just
    // above the limit.
    let percent = |change: u64| u128::from(change) * 100;
    let limit = |limit: u32| u128::from(before) * u128::from(limit);
    let lost = before.saturating_sub(members);
    if percent(lost) > limit(guard.max_shrink_percent) {
        return GuardDecision::Hold(format!(
            "{members} members after {before}, a loss of {}% and more than \
             guard.max_shrink_percent, {}",
            percent(lost) / u128::from(before),
            guard.max_shrink_percent
        ));
    }
    let gained = members.saturating_sub(before);
    match guard.max_growth_percent {
        Some(most) if percent(gained) > limit(most) => GuardDecision::Hold(format!(
            "{members} members after {before}, a growth of {}% and more than \
             guard.max_growth_percent, {most}",
            percent(gained) / u128::from(before)
        )),
        _ => GuardDecision::Publish,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(served: Option<u64>, members: u64) -> bool {
        evaluate(&Guard::default(), served, members) != GuardDecision::Publish
    }

    #[test]
    fn the_first_snapshot_is_published_whatever_its_size() {
        assert!(!held(None, 0));
        assert!(!held(None, 1_000_000));
        assert!(!held(Some(0), 1_000_000));
    }

    #[test]
    fn limits_are_passed_only_beyond_them() {
        assert!(!held(Some(1_000), 500));
        assert!(held(Some(1_000), 499));
        assert!(!held(Some(1_000), 5_000));
        assert!(held(Some(1_000), 5_001));
        assert!(held(Some(u64::MAX), 1));
    }

    #[test]
    fn an_emptied_audience_is_held_even_if_it_may_shrink_to_nothing() {
        let guard = Guard { max_shrink_percent: 100, max_growth_percent: None, min_members: 1 };
        let GuardDecision::Hold(reason) = evaluate(&guard, Some(7), 0) else { panic!("published") };
        assert_eq!(reason, "0 members after 7, fewer than guard.min_members, 1");
        assert_eq!(evaluate(&guard, Some(7), 1), GuardDecision::Publish);
        assert_eq!(evaluate(&guard, Some(1), u64::MAX), GuardDecision::Publish);
    }

    #[test]
    fn the_reason_has_the_figures() {
        let GuardDecision::Hold(reason) = evaluate(&Guard::default(), Some(200), 10) else {
            panic!("published")
        };
        assert_eq!(
            reason,
            "10 members after 200, a loss of 95% and more than guard.max_shrink_percent, 50"
        );
    }
}
