//! The prices of an ad group, each with the event that is billed and the time from which it counts.

use throng_model::{Amount, Timestamp};

use crate::BilledEvent;

/// Prices that stopped counting longer ago than this are removed: no event is that late.
const KEPT_MICROS: i64 = 9 * 24 * 3600 * 1_000_000;
/// The most prices that are kept; if there are more, the oldest are removed.
const MAX_PRICES: usize = 1_000;

/// One price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Price {
    /// The first moment at which it counts.
    pub(super) since: i64,
    pub(super) amount: Amount,
    /// What it is the price of.
    pub(super) billed: BilledEvent,
}

/// See the module. Never empty.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Prices(Vec<Price>);

impl Prices {
    /// One price for all times.
    pub(super) fn new(amount: Amount, billed: BilledEvent) -> Self {
        Self(vec![Price { since: i64::MIN, amount, billed }])
    }

    /// Restores what [`all`](Self::all) returned. `None` if there is none, or they are out of order.
    pub(super) fn load(prices: Vec<Price>) -> Option<Self> {
        let ordered = prices.is_sorted_by(|a, b| a.since < b.since);
        (ordered && !prices.is_empty()).then_some(Self(prices))
    }

    pub(super) fn all(&self) -> &[Price] {
        &self.0
    }

    /// The only price, if it has never changed.
    #[inline]
    pub(super) fn only(&self) -> Option<Price> {
        match &self.0[..] {
            [price] => Some(*price),
            _ => None,
        }
    }

    /// Whether an event is or was billed.
    #[inline]
    pub(super) fn has(&self, billed: BilledEvent) -> bool {
        self.0.iter().any(|price| price.billed == billed)
    }

    /// Sets another price from a moment on.
    pub(super) fn change(&mut self, amount: Amount, billed: BilledEvent, at: Timestamp) {
        if self.0.last().is_some_and(|last| (last.amount, last.billed) == (amount, billed)) {
            return;
        }
        // The clock was set back: prices that would count from later on are replaced.
        while self.0.len() > 1 && self.0.last().is_some_and(|last| last.since >= at.0) {
            self.0.pop();
        }
        self.0.push(Price { since: at.0.max(i64::MIN + 1), amount, billed });
        let needed = at.0.saturating_sub(KEPT_MICROS);
        while self.0.len() > 1 && (self.0[1].since < needed || self.0.len() > MAX_PRICES) {
            self.0.remove(0);
        }
    }

    /// The price at a moment. Before the oldest one it is the oldest.
    pub(super) fn at(&self, at: Timestamp) -> Price {
        let place = self.0.partition_point(|price| price.since <= at.0).saturating_sub(1);
        self.0[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(micros: i64) -> Amount {
        Amount { micros, nanos: 0 }
    }

    const SEEN: BilledEvent = BilledEvent::Impression;

    #[test]
    fn a_price_counts_from_its_moment_on() {
        let mut prices = Prices::new(of(10), SEEN);
        assert_eq!(prices.only().map(|price| price.amount), Some(of(10)));
        prices.change(of(10), SEEN, Timestamp(5));
        assert_eq!(prices.all().len(), 1, "nothing changed");
        prices.change(of(20), SEEN, Timestamp(100));
        prices.change(of(30), SEEN, Timestamp(50));
        let at = |at| prices.at(Timestamp(at)).amount.micros;
        assert_eq!([at(i64::MIN), at(99), at(100), at(101), at(i64::MAX)], [10, 30, 30, 30, 30]);
        assert_eq!(Prices::load(prices.all().to_vec()), Some(prices.clone()));
        assert_eq!(Prices::load(Vec::new()), None);
        let much_later = Timestamp(101 + KEPT_MICROS + 1);
        prices.change(of(40), SEEN, much_later);
        assert_eq!(prices.all().len(), 2);
        for n in 0..2_000 {
            prices.change(of(n % 7), SEEN, Timestamp(much_later.0 + n));
        }
        assert!(prices.all().len() <= MAX_PRICES);
    }

    #[test]
    fn an_equal_price_of_another_event_is_another_price() {
        let mut prices = Prices::new(of(10), SEEN);
        assert!(prices.has(SEEN) && !prices.has(BilledEvent::Click));
        prices.change(of(10), BilledEvent::Click, Timestamp(5));
        let billed = [4, 5].map(|at| prices.at(Timestamp(at)).billed);
        assert_eq!(billed, [SEEN, BilledEvent::Click]);
        assert!(prices.has(SEEN) && prices.has(BilledEvent::Click));
        assert_eq!(prices.only(), None);
    }
}
