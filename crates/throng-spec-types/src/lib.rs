//! The checked form of a spec: [`Spec`] with its objects, [`NodeSettings`], and references to
//! secrets ([`SecretRef`]). A spec that is deserialized from its JSON form is checked again
//! ([`InvalidSpec`]). `throng-spec` makes it from the texts that people write. No YAML, and no I/O
//! except for the files of secrets.

mod bigtable;
mod bucket;
mod checked;
mod guard;
mod node;
mod object_kind;
mod recheck;
mod secret;
mod sql;
mod stores;
mod warehouse;
mod workspaces;

pub use bigtable::BigtableSettings;
pub use bucket::{BucketUrl, NotABucket, ServiceSettings, SourceBucket};
pub use checked::{
    AdGroup, Adopt, Advertiser, Audience, AudienceTemplate, Campaign, Destination, FileFolder,
    ForEach, Guard, IDENTIFIER_KEYS, Identifiers, Location, MAX_TEMPLATE_ROWS, MadeFrom,
    MetaSettings, OnRemove, Platform, Prediction, Pricing, Source, Spec, Sync, SyncTemplate,
    max_failed_checks_percent,
};
pub use node::{
    BallistaSettings, BallistaTls, BucketSettings, ConnectionSettings, EngineSettings, IsWritten,
    KafkaSettings, LedgerSettings, LogRetention, LogSettings, NodeSettings, ObjectsSettings, Role,
    SaslSettings, TlsSettings, UnknownRole, WebhookSettings,
};
pub use object_kind::ObjectKind;
pub use recheck::InvalidSpec;
pub use secret::{Environment, SecretError, SecretRef};
pub use sql::{MAX_SQL_BYTES, SqlFault, line_comments, one_query};
pub use stores::{MAX_WRITES_PER_SECOND, RedisSettings, ServingStore, StoreEngine};
pub use throng_model::{
    ColumnType, HostPort, NotAColumnType, NotAHost, NotAPattern, ParameterValue, Pattern, Schedule,
    ScheduleError, SourceTrigger, TemplateRows, WhenRemoved, host_of, is_loopback_host,
    is_plain_remote,
};
pub use warehouse::{BigQuerySettings, PostgresSettings, WarehouseSettings, WarehouseSource};
pub use workspaces::{MAX_WORKSPACE_CHARS, is_workspace_name, sources_by_workspace};
