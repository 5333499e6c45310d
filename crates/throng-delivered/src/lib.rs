//! What platforms were given, per sync and user: encrypted files of rows, and the difference to an audience.
//!
//! A sync has one delivered state ([`DeliveredState`]). A run has a plan ([`PlanFile`]): the rows to add and to
//! remove, which [`difference()`] computes from what was delivered ([`Delivered`]), the members, and one pass over their
//! identifiers ([`Scan`]). After the run, [`Delivered::write`] applies its results. All files are sealed: encrypted,
//! and bound to their purpose, account, sync and name ([`Binding`]).
//!
//! Pure except for files. Knows no platform.

mod columns;
mod delivered;
mod difference;
mod ended;
mod extern_ids;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod planned;
mod prepared;
mod row;
mod scan;
mod sealed;
mod state;
mod users;

pub use columns::DeliveredColumns;
pub use delivered::Delivered;
pub use difference::{
    Difference, DifferenceFacts, SKIP_NO_IDENTIFIERS, SKIP_SAME_EXTERN_ID, USABLE, count_users,
    difference,
};
pub use ended::EndedRun;
pub use planned::{PlanEntry, PlanFile, PlanMeta};
pub use prepared::{
    InvalidPreparedRow, decode_prepared, decode_with_notes, encode_prepared, encode_with_notes,
};
pub use row::{Cell, IdentifierRow, Note, Prepared, PreparedRow, REFUSAL, Reasons, Skip};
pub use scan::{SCAN_PREFIX, Scan, ScanWriter, remove_stale_scans};
pub use sealed::{Binding, IdentifierKeys, SealedError};
pub use state::{DeliveredState, StateMeta};
pub use users::{RunUsers, UserCounts};
