//! What users declare in `throng.yaml`: [`load`] reads one file or a folder, checks everything and
//! returns either a [`Spec`] that cannot be wrong in itself, or every [`Problem`] at once.
//! [`plan`] tells what differs between two checked specs; [`json_schema`] describes the files.

mod checked;
mod node;
mod plan;
mod problem;
pub mod raw;
mod read;
mod schedule;
mod secret;
mod transport;

pub use checked::{
    AdGroup, Advertiser, Audience, Campaign, Destination, Guard, Identifiers, Location, Prediction,
    Pricing, Source, Spec, Sync, SyncMode, WhenStale,
};
pub use node::{
    BucketSettings, ConnectionSettings, KafkaSettings, LedgerSettings, LogSettings, NodeSettings,
    ObjectsSettings, Role, SaslSettings, Service, TlsSettings, UnknownRole,
};
pub use plan::{Action, Change, FieldChange, ObjectKind, Plan, plan};
pub use problem::Problem;
pub use raw::json_schema;
pub use read::{IDENTIFIER_KEYS, load};
pub use schedule::{Schedule, ScheduleError};
pub use secret::{SecretError, SecretRef};
pub use transport::{host_of, is_loopback_host, is_plain_remote};
