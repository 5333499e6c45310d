//! The wire format of the feed: what an aggregator sends and a gate reads. [`Frame`] is one message, a
//! keyframe or a delta of budget states; [`Catalog`] says which ad group an index of a frame means.
//! Encoding and decoding alone: no I/O, no state, no clock.
//!
//! A receiver in another language needs `docs/specs/feed-format.md` and nothing of this crate.
//!
//! ```
//! use throng_feed::{FeedEntry, Frame, FrameKind, PassThroughRate};
//! use throng_model::{AdGroupIndex, Micros, Timestamp};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keyframe = Frame {
//!     partition: 0,
//!     epoch: 1,
//!     version: 1,
//!     kind: FrameKind::Keyframe,
//!     at: Timestamp(1_790_000_000_000_000),
//!     catalog_version: 1,
//!     log_position: Some(42),
//!     entries: vec![FeedEntry {
//!         index: AdGroupIndex(7),
//!         actual: Micros(12_500_000),
//!         in_flight: Micros(300_000),
//!         flags: 0,
//!         pass_through_rate: PassThroughRate::ALL,
//!     }],
//! };
//! let bytes = keyframe.encode();
//! assert_eq!(Frame::decode(&bytes)?, keyframe);
//! # Ok(())
//! # }
//! ```

mod catalog;
mod column;
mod error;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod pass_through_rate;

pub use catalog::{Catalog, CatalogEntry};
pub use error::FeedError;
pub use frame::{
    ENTRIES_PER_BYTE, FLAG_CLOSED, FLAG_REMOVED, FREE_ENTRIES, FeedEntry, Frame, FrameKind,
    MAX_ENTRIES,
};
pub use pass_through_rate::PassThroughRate;
