//! The share of requests for which an ad group may be shown.

/// The share of requests for which an ad group may be shown, in parts of 65,535. By default: for all.
///
/// ```
/// use throng_feed::PassThroughRate;
///
/// assert_eq!(PassThroughRate::default(), PassThroughRate::ALL);
/// assert_eq!(PassThroughRate::of_share(0.5).share(), 32_768.0 / 65_535.0);
/// // A hash of the request decides, so that every gate decides the same about it.
/// assert!(PassThroughRate::of_share(0.5).is_admitted(0) && !PassThroughRate::of_share(0.5).is_admitted(u64::MAX));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PassThroughRate(pub u16);

impl PassThroughRate {
    /// Every request passes.
    pub const ALL: Self = Self(u16::MAX);
    /// No request passes.
    pub const NONE: Self = Self(0);

    /// The rate nearest to a share from 0 to 1. What is below counts as 0, what is above as 1, and what is
    /// not a number as 0.
    pub fn of_share(share: f64) -> Self {
        Self((share.clamp(0.0, 1.0) * f64::from(u16::MAX)).round() as u16)
    }

    /// The share, from 0 to 1.
    pub fn share(self) -> f64 {
        f64::from(self.0) / f64::from(u16::MAX)
    }

    /// The share in percent for people, such as `25.0 %`; `0.0 %` only if no request passes.
    pub fn percent_text(self) -> String {
        let text = format!("{:.1} %", self.share() * 100.0);
        if self != Self::NONE && text == "0.0 %" { "less than 0.1 %".to_owned() } else { text }
    }

    /// Whether a request passes whose hash is uniform in 64 bits.
    #[inline]
    pub fn is_admitted(self, hash: u64) -> bool {
        // The hash scaled to 0..65,535: exactly `self.0` of 65,535 equal ranges pass.
        ((u128::from(hash) * u128::from(u16::MAX)) >> 64) < u128::from(self.0)
    }

    /// What is missing from [`ALL`](Self::ALL), as frames have it.
    pub(crate) fn held_back(self) -> i64 {
        i64::from(u16::MAX - self.0)
    }

    /// The inverse of [`held_back`](Self::held_back).
    pub(crate) fn of_held_back(held_back: i64) -> Option<Self> {
        u16::try_from(held_back).ok().map(|held_back| Self(u16::MAX - held_back))
    }
}

impl Default for PassThroughRate {
    fn default() -> Self {
        Self::ALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_kept_to_a_part_of_65535() {
        for (share, rate) in
            [(0.0, 0), (1.0, u16::MAX), (-3.0, 0), (7.0, u16::MAX), (f64::NAN, 0), (1e-9, 0)]
        {
            assert_eq!(PassThroughRate::of_share(share), PassThroughRate(rate), "{share}");
        }
        for rate in [0, 1, 2, 4_000, 65_533, 65_534, 65_535] {
            assert_eq!(
                PassThroughRate::of_share(PassThroughRate(rate).share()),
                PassThroughRate(rate)
            );
            let held_back = PassThroughRate(rate).held_back();
            assert_eq!(PassThroughRate::of_held_back(held_back), Some(PassThroughRate(rate)));
        }
        assert_eq!([-1, 65_536, i64::MIN].map(PassThroughRate::of_held_back), [None; 3]);
    }

    #[test]
    fn only_the_rate_of_no_request_is_shown_as_zero() {
        for (rate, text) in [
            (0, "0.0 %"),
            (1, "less than 0.1 %"),
            (32, "less than 0.1 %"),
            (33, "0.1 %"),
            (16_384, "25.0 %"),
            (65_535, "100.0 %"),
        ] {
            assert_eq!(PassThroughRate(rate).percent_text(), text, "{rate}");
        }
    }

    #[test]
    fn the_share_of_hashes_that_pass_is_the_rate() {
        for share in [0.0, 0.001, 0.25, 0.5, 0.999, 1.0] {
            let rate = PassThroughRate::of_share(share);
            let hashes = (0..1_000_000u64).map(|n| n * (u64::MAX / 1_000_000));
            let passed = hashes.filter(|hash| rate.is_admitted(*hash)).count() as f64;
            assert!((passed / 1e6 - share).abs() < 2e-5, "{share}: {passed}");
        }
        assert!(
            PassThroughRate::ALL.is_admitted(u64::MAX) && !PassThroughRate::NONE.is_admitted(0)
        );
    }
}
