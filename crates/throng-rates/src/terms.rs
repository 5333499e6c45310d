//! What an insertion is expected to earn. Pure.

/// What an insertion is expected to earn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// In micros.
    pub expected: i64,
    /// Its price in billionths, if it carries a price or a rate itself.
    pub price_nanos: Option<i64>,
}

impl Terms {
    /// The declared probability that it has an outcome; `None`: that of the ad group.
    #[inline]
    pub fn own_rate(self) -> Option<f64> {
        let nanos = self.price_nanos.filter(|nanos| *nanos > 0)?;
        Some((self.expected as f64 * 1_000.0 / nanos as f64).min(1.0))
    }
}

/// An expected amount times a rate, to the nearest micro.
#[inline]
pub fn times_rate(expected: i64, rate: f64) -> i64 {
    (expected as f64 * rate).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_an_insertion_is_its_expected_part_of_the_price() {
        let of = |expected, price_nanos| Terms { expected, price_nanos }.own_rate();
        assert_eq!(of(60_000, Some(100_000_000)), Some(0.6));
        assert_eq!(of(60_000, Some(1)), Some(1.0), "at most one");
        assert_eq!([of(60_000, None), of(0, Some(0)), of(5, Some(-1))], [None; 3]);
        assert_eq!([times_rate(5, 0.5), times_rate(7, 0.2), times_rate(0, 1.0)], [3, 1, 0]);
    }
}
