//! What ads will earn and how fast they may be shown: rates learned from outcomes ([`Calibration`], [`ApartRates`])
//! and from other ad groups ([`learn`]), the delays of outcomes ([`survival`], [`Pooled`]), the traffic of a day
//! ([`DayCurve`]), the closing rule ([`Outstanding`]) and pass-through rates ([`Pace`]). [`Learned`] has the state of
//! an ad group, [`Placements`] the names of a partition's placements, [`Timeline`] values by window. Pure: the time is
//! passed in, and there is no I/O.
//!
//! State is in integers and changes by additions alone; counts of delays are numbers that additions and halving keep
//! exact. So two replicas that add the same in the same order have the same bits. What is computed from it (means,
//! deviations) is in floating-point numbers, of additions, multiplications, divisions and square roots, which are
//! exact to the bit on every machine by IEEE 754; the credible interval alone also uses logarithms, and nothing is
//! decided by it.

mod apart;
mod beta;
mod breakdown;
mod calibration;
mod closing;
mod fading;
mod learned;
mod level;
mod levels;
mod links;
mod pace;
mod pacing;
mod placements;
mod pooled;
mod rates;
pub mod survival;
mod terms;
mod timeline;
mod traffic;
mod window;

pub use apart::{ApartEvidence, ApartRates};
pub use breakdown::{Breakdown, Impressions, PlacementTrials};
pub use calibration::{Calibration, Evidence, LearnedRate, Trials};
pub use closing::{Dispersion, Outstanding, closing_deviations};
pub use fading::{Counts, FadingCounts, StoredCounts, UNIT};
pub use learned::Learned;
pub use level::Level;
pub use levels::{InPlacement, LearnedRates, Observed, PlacementRate, action_rate, learn};
pub use links::Links;
pub use pace::{DayMoment, Pace};
pub use pacing::{FEEDBACK, HORIZON, PacingInput, PlannedShares, pass_through_rate};
pub use placements::{NO_PLACEMENT, NamedPlacement, OTHER_PLACEMENT, Placements};
pub use pooled::{DelayCounts, Pooled};
pub use rates::{Prior, Rate, RateCounts};
pub use terms::{Terms, times_rate};
pub use timeline::{Timeline, WINDOW_MICROS, WINDOW_SECS, age_of};
pub use traffic::{DayCurve, EXPOSURE_UNIT, SLICES, SliceTraffic, TrafficRate};
pub use window::Window;
