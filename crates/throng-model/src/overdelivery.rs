//! Why more was spent than a budget has.

use serde::{Deserialize, Serialize};

use crate::Micros;

/// The part of a day's overdelivery whose causes are known. The rest has no known cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverdeliveryCauses {
    /// Insertions after the budget was spent, which was not known because events had not arrived.
    pub events: Micros,
    /// Insertions after a frame was published that had the ad group closed.
    pub feed: Micros,
    /// Insertions while the ad group was rightly open, which earned more than was left free for them.
    pub prediction: Micros,
    /// Insertions after the last frame before the one that closed the ad group.
    pub burst: Micros,
    /// What events cost above the price of their insertions.
    pub price_change: Micros,
}

impl OverdeliveryCauses {
    /// In the order of the fields.
    pub fn amounts(&self) -> [Micros; 5] {
        [self.events, self.feed, self.prediction, self.burst, self.price_change]
    }

    /// Those with these amounts, in the order of the fields.
    pub fn of_amounts([events, feed, prediction, burst, price_change]: [Micros; 5]) -> Self {
        Self { events, feed, prediction, burst, price_change }
    }
}
