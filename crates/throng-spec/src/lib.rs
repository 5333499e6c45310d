//! The spec that users declare in `throng.yaml`: [`read_files`] reads one file or a folder,
//! [`check`] checks everything and returns either a consistent [`Spec`] or every [`Problem`] at
//! once; [`load`] does both. A spec that was sent is checked by the same function, under
//! [`Limits`]. [`plan`] compares two checked specs; [`json_schema`] describes the files.

mod checked;
mod column;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod host;
mod limits;
mod node;
mod plan;
mod problem;
mod read;
mod recheck;
mod schedule;
mod secret;
mod stores;
mod transport;
mod warehouse;

pub use checked::{
    AdGroup, Adopt, Advertiser, Audience, Campaign, Destination, FileFolder, Guard, Identifiers,
    Location, MetaSettings, OnRemove, Platform, Prediction, Pricing, Source, Spec, Sync,
};
pub use column::{ColumnType, NotAColumnType};
pub use files::{MAX_SPEC_BYTES, MAX_SPEC_FILES, SpecFile, SpecFiles, read_files};
pub use host::{HostPort, NotAHost};
pub use limits::{Limits, SpecOrigin};
pub use node::{
    BucketSettings, ConnectionSettings, KafkaSettings, LedgerSettings, LogRetention, LogSettings,
    NodeSettings, ObjectsSettings, Role, SaslSettings, ServiceSettings, TlsSettings, UnknownRole,
    WebhookSettings,
};
pub use plan::{Action, Change, FieldChange, ObjectKind, Plan, plan, warnings};
pub use problem::Problem;
pub use read::{IDENTIFIER_KEYS, MAX_SQL_BYTES, check, check_limits, default_limits_file, load};
pub use recheck::InvalidSpec;
pub use schedule::{Schedule, ScheduleError, SourceTrigger};
pub use secret::{Environment, SecretError, SecretRef};
pub use stores::{RedisSettings, ServingStore, StoreEngine};
pub use throng_spec_schema::{self as raw, json_schema};
pub use transport::{host_of, is_loopback_host, is_plain_remote};
pub use warehouse::{BigQuerySettings, PostgresSettings, WarehouseSettings, WarehouseSource};
