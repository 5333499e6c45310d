//! What an ad server links: budget states from the feed, membership, decisions.
//!
#![doc = include_str!("../README.md")]

mod applied;
mod decision;
mod followed;
mod gate;
mod own;
mod slot;
mod view;

pub use applied::{AdGroupSpend, FrameOutcome, PartitionVersion};
pub use decision::{Decision, Reason};
pub use gate::Gate;
pub use own::OwnInsertion;
/// The wire format of the feed: what an ad server decodes before it applies.
pub use throng_feed as feed;
pub use throng_feed::{Catalog, CatalogEntry};
pub use throng_model::WhenStale;
