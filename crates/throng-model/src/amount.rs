//! Money to the billionth, for prices per thousand. Pure.

/// An amount of money to the billionth of the currency's unit. Its default is zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Whole millionths.
    pub micros: i64,
    /// Billionths besides them, 0 to 999.
    pub nanos: u16,
}

impl Amount {
    /// An amount as it was stored; billionths above 999 are 999.
    pub fn of_saved(micros: i64, nanos: u32) -> Self {
        Self { micros, nanos: nanos.min(999) as u16 }
    }

    /// An amount in billionths.
    pub fn of_nanos(nanos: i64) -> Self {
        Self { micros: nanos.div_euclid(1_000), nanos: nanos.rem_euclid(1_000) as u16 }
    }

    /// In billionths, if that fits.
    pub fn in_nanos(self) -> Option<i64> {
        self.micros.checked_mul(1_000)?.checked_add(self.nanos.into())
    }

    /// The sum, if it fits.
    #[inline]
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        let nanos = self.nanos + other.nanos;
        let micros = self.micros.checked_add(other.micros)?;
        let micros = if nanos < 1_000 { micros } else { micros.checked_add(1)? };
        Some(Self { micros, nanos: nanos % 1_000 })
    }

    /// Adds to a part of a sum that fits, so that it cannot overflow.
    #[inline]
    pub fn add_part(&mut self, other: Self) {
        *self = self.plus(other).unwrap_or(Self { micros: i64::MAX, nanos: 999 });
    }

    /// To the nearest micro.
    #[inline]
    pub fn rounded(self) -> i64 {
        self.micros.saturating_add(i64::from(self.nanos >= 500))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn billionths_are_carried_and_rounded_once() {
        let part = Amount::of_nanos(400);
        let mut sum = Amount::default();
        (0..5).for_each(|_| sum.add_part(part));
        assert_eq!((sum, sum.rounded(), part.rounded()), (Amount { micros: 2, nanos: 0 }, 2, 0));
        assert_eq!(Amount::of_nanos(-1).in_nanos(), Some(-1));
        assert_eq!(Amount::of_saved(i64::MAX, 5_000).plus(Amount::of_nanos(1)), None);
        assert_eq!(Amount::of_saved(i64::MAX, 0).in_nanos(), None);
    }
}
