//! The size guard: whether a new snapshot is published without approval. Pure.

use throng_model::{count, counted};

use crate::Guard;

/// Digits of a percentage behind the point, at most. Those of the largest change fit into 128 bits.
const MAX_DIGITS: u32 = 15;

impl Guard {
    /// Why a new snapshot with this many members waits for approval, after one that is served with `served` members;
    /// `None` if it is published. A first snapshot, and one that follows an empty one, is published: there is nothing to
    /// compare it with.
    pub fn reason_to_hold(&self, served: Option<u64>, members: u64) -> Option<String> {
        let before = served.filter(|before| *before > 0)?;
        let figures = || format!("{} after {}", counted(members, "member"), count(before));
        if members < self.min_members {
            return Some(format!(
                "{}, fewer than guard.min_members, {}",
                figures(),
                count(self.min_members)
            ));
        }
        // Compared as products in 128 bits: a rounded quotient would let a change pass that is just
        // above the limit.
        let percent = |change: u64| u128::from(change) * 100;
        let limit = |limit: u32| u128::from(before) * u128::from(limit);
        let lost = before.saturating_sub(members);
        if percent(lost) > limit(self.max_shrink_percent) {
            return Some(format!(
                "{}, a loss of {}% and more than guard.max_shrink_percent, {}",
                figures(),
                shown(lost, before, self.max_shrink_percent),
                self.max_shrink_percent
            ));
        }
        let gained = members.saturating_sub(before);
        let most = self.max_growth_percent.filter(|most| percent(gained) > limit(*most))?;
        Some(format!(
            "{}, a growth of {}% and more than guard.max_growth_percent, {most}",
            figures(),
            shown(gained, before, most)
        ))
    }
}

/// A change in percent of what was there before, which is not 0, with the digits that show that it is above the limit.
fn shown(change: u64, before: u64, limit: u32) -> String {
    let scaled = |digits: u32| {
        let scale = 10_u128.pow(digits);
        (u128::from(change) * 100 * scale / u128::from(before), scale)
    };
    let is_above = |digits: &u32| {
        let (percent, scale) = scaled(*digits);
        percent > u128::from(limit) * scale
    };
    let digits = (0..MAX_DIGITS).find(is_above).unwrap_or(MAX_DIGITS);
    let (percent, scale) = scaled(digits);
    match digits {
        0 => percent.to_string(),
        _ => format!("{}.{:0width$}", percent / scale, percent % scale, width = digits as usize),
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
    fn a_change_just_above_the_limit_is_shown_above_it() {
        let reason = |served, members| Guard::default().reason_to_hold(Some(served), members);
        let loss = reason(10_000, 4_999).unwrap();
        assert!(loss.contains("a loss of 50.01% and more than"), "{loss}");
        let loss = reason(1_000_000_000, 499_999_999).unwrap();
        assert!(loss.contains("a loss of 50.0000001% and more than"), "{loss}");
        let growth = reason(1_000, 5_001).unwrap();
        assert!(growth.contains("a growth of 400.1% and more than"), "{growth}");
        let largest = reason(u64::MAX, u64::MAX / 2).unwrap();
        assert!(largest.contains("a loss of 50.000000000000000% and more than"), "{largest}");
        let most = reason(1, u64::MAX).unwrap();
        assert!(most.contains("a growth of 1844674407370955161400% and more"), "{most}");
    }

    #[test]
    fn the_reason_has_the_figures() {
        let reason = |members| Guard::default().reason_to_hold(Some(200), members).unwrap();
        assert!(reason(1).starts_with("1 member after 200, a loss of 99% "), "{}", reason(1));
        assert_eq!(
            reason(10),
            "10 members after 200, a loss of 95% and more than guard.max_shrink_percent, 50"
        );
        assert_eq!(
            reason(1_100),
            "1,100 members after 200, a growth of 450% and more than guard.max_growth_percent, 400"
        );
    }
}
