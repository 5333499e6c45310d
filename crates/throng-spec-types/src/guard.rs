//! The size guard: whether a new snapshot is published without approval. Pure.

use crate::Guard;

impl Guard {
    /// Why a new snapshot with this many members waits for approval, after one that is served with `served` members;
    /// `None` if it is published. A first snapshot, and one that follows an empty one, is published: there is nothing to
    /// compare it with.
    pub fn reason_to_hold(&self, served: Option<u64>, members: u64) -> Option<String> {
        let before = served.filter(|before| *before > 0)?;
        if members < self.min_members {
            return Some(format!(
                "{members} members after {before}, fewer than guard.min_members, {}",
                self.min_members
            ));
        }
        // Compared as products in 128 bits: a rounded quotient would let a change pass that is just
        // above the limit.
        let percent = |change: u64| u128::from(change) * 100;
        let limit = |limit: u32| u128::from(before) * u128::from(limit);
        let lost = before.saturating_sub(members);
        if percent(lost) > limit(self.max_shrink_percent) {
            return Some(format!(
                "{members} members after {before}, a loss of {}% and more than \
                 guard.max_shrink_percent, {}",
                percent(lost) / u128::from(before),
                self.max_shrink_percent
            ));
        }
        let gained = members.saturating_sub(before);
        let most = self.max_growth_percent.filter(|most| percent(gained) > limit(*most))?;
        Some(format!(
            "{members} members after {before}, a growth of {}% and more than \
             guard.max_growth_percent, {most}",
            percent(gained) / u128::from(before)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(served: Option<u64>, members: u64) -> bool {
        Guard::default().reason_to_hold(served, members).is_some()
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
        let reason = guard.reason_to_hold(Some(7), 0);
        let expected = "0 members after 7, fewer than guard.min_members, 1";
        assert_eq!(reason.as_deref(), Some(expected));
        assert_eq!(guard.reason_to_hold(Some(7), 1), None);
        assert_eq!(guard.reason_to_hold(Some(1), u64::MAX), None);
    }

    #[test]
    fn the_reason_has_the_figures() {
        let reason = |members| Guard::default().reason_to_hold(Some(200), members).unwrap();
        assert_eq!(
            reason(10),
            "10 members after 200, a loss of 95% and more than guard.max_shrink_percent, 50"
        );
        assert_eq!(
            reason(1_100),
            "1100 members after 200, a growth of 450% and more than guard.max_growth_percent, 400"
        );
    }
}
