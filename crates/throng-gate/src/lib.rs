//! What an ad server links to decide locally which ad groups may be shown: a [`Gate`] that holds
//! the [`Catalog`] of ad groups, their spend as the [`feed`] tells it, and a
//! [`MembershipIndex`](throng_membership::MembershipIndex) for targeting. No runtime, no I/O, no
//! waiting: frames and indexes are put in, decisions come out.

pub mod feed;

mod catalog;
mod decision;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod gate;
mod own;
mod slot;

pub use catalog::{Catalog, CatalogEntry, WhenStale};
pub use decision::{Decision, Reason};
pub use gate::{AdGroupSpend, Applied, Gate, PartitionVersion};
pub use own::OwnInsertion;
