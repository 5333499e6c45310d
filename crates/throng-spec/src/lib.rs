//! The spec that users declare in `throng.yaml`: [`read_files`] reads one file or a folder,
//! [`check`] checks everything and returns either a consistent [`Spec`] or every [`Problem`] at
//! once; [`load`] does both. A spec that was sent is checked by the same function, under
//! [`Limits`]. [`plan`] compares two checked specs; [`json_schema`] describes the files.
//!
//! The types of a checked spec are those of `throng-spec-types`.

mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod limits;
mod plan;
mod plan_text;
mod problem;
mod read;
mod secrets;

pub use files::{MAX_SPEC_BYTES, MAX_SPEC_FILES, SpecFile, SpecFiles, read_files};
pub use limits::{Limits, SpecOrigin, allowed_source};
pub use plan::{Action, Change, FieldChange, Plan, plan, warnings};
pub use plan_text::collapsed_warnings;
pub use problem::{Problem, collapsed_problems};
pub use read::{check, check_limits, default_limits_file, load, load_buckets};
pub use secrets::unreadable_secrets;
pub use throng_spec_schema::{self as raw, json_schema};
pub use throng_spec_types::{
    AdGroup, Adopt, Advertiser, Audience, AudienceTemplate, BallistaSettings, BallistaTls,
    BigQuerySettings, BigtableSettings, BucketSettings, BucketUrl, Campaign, ColumnType,
    ConnectionSettings, Destination, EngineSettings, Environment, FileFolder, ForEach, Guard,
    HostPort, IDENTIFIER_KEYS, Identifiers, InvalidSpec, IsWritten, KafkaSettings, LedgerSettings,
    Location, LogRetention, LogSettings, MAX_SQL_BYTES, MAX_TEMPLATE_ROWS, MAX_WORKSPACE_CHARS,
    MadeFrom, MetaSettings, NodeSettings, NotABucket, NotAColumnType, NotAHost, NotAPattern,
    ObjectKind, ObjectsSettings, OnRemove, ParameterValue, Pattern, Platform, PostgresSettings,
    Prediction, Pricing, RedisSettings, Role, SaslSettings, Schedule, ScheduleError, SecretError,
    SecretRef, ServiceSettings, ServingStore, Source, SourceBucket, SourceTrigger, Spec,
    StoreEngine, Sync, SyncTemplate, TemplateRows, TlsSettings, UnknownRole, WarehouseSettings,
    WarehouseSource, WebhookSettings, WhenRemoved, host_of, is_loopback_host, is_plain_remote,
    is_workspace_name, sources_by_workspace,
};
