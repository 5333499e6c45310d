//! What ads will earn and how fast they may be shown: rates learned from outcomes ([`Calibration`]), the traffic
//! of a day ([`DayCurve`]), the closing rule ([`Outstanding`]) and pass-through rates ([`Pace`]). [`Learned`] has the
//! state of an ad group. Pure: the time is passed in, and there is no I/O.
//!
//! State is in integers and changes by additions alone, so that two replicas that add the same in the same
//! order have the same bits. What is computed from it (means, deviations) is in floating-point numbers, of
//! additions, multiplications, divisions and square roots, which are exact to the bit on every machine by
//! IEEE 754.

mod calibration;
mod closing;
mod fading;
mod learned;
mod pace;
mod pacing;
mod rates;
mod traffic;

pub use calibration::{Calibration, LearnedRate, Trials};
pub use closing::{Dispersion, Outstanding, closing_deviations};
pub use fading::{Counts, FadingCounts, StoredCounts, UNIT};
pub use learned::Learned;
pub use pace::{DayMoment, Pace};
pub use pacing::{FEEDBACK, HORIZON, PlannedShares, Situation, pass_through_rate};
pub use rates::{Prior, Rate, RateCounts};
pub use traffic::{DayCurve, EXPOSURE_UNIT, SLICES, SliceTraffic, TrafficRate};
