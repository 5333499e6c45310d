//! The basic types of Throng, in reading order: names and ids, money, time, user keys, personal
//! data and secrets, faults and retries, roles of nodes, choices that users declare. Nothing in this
//! crate does I/O. It is the only crate that may read the system's clock or randomness, through
//! [`Clock`] and [`Entropy`].

mod alert_kind;
mod amount;
mod checksum;
mod clock;
mod column;
mod counts;
mod declared;
mod duration;
mod edit_distance;
mod entropy;
mod first_day;
mod former_currencies;
mod hex;
mod history;
mod host;
mod ids;
mod invisible;
mod key;
mod missing;
mod money;
mod overdelivery;
mod partition;
mod people;
mod personal;
mod polling;
mod retry;
mod role;
mod schedule;
mod secret;
pub mod series;
mod storage;
mod template;
mod terminal;
mod time;
mod transport;

pub use alert_kind::AlertKind;
pub use amount::Amount;
pub use checksum::{ChecksumError, append_checksum, verify_checksum};
pub use clock::{AdjustableClock, Adjustment, Clock, ManualClock, SystemClock};
pub use column::{ColumnType, NotAColumnType};
pub use counts::{count, counted, rounded, signed_percent};
pub use declared::{FileFormat, Pacing, Severity, StoreLayout, SyncMode, WhenStale};
pub use duration::parse_seconds;
pub use edit_distance::edit_distance;
pub use entropy::{Entropy, SplitMix64, SystemEntropy};
pub use first_day::FirstDay;
pub use former_currencies::FormerCurrencies;
pub use hex::{from_hex, from_hex_of_any_length, push_hex, to_hex};
pub use history::{HistoryEvent, SubjectKind};
pub use host::{HostPort, NotAHost};
pub use ids::{
    AdGroupIndex, AdGroupName, AdvertiserName, AudienceName, CampaignName, DestinationName,
    NameError, RefreshId, SchemaName, ServingStoreName, SourceName, SyncName, SyncRunId, TaskId,
    WorkspaceName,
};
pub use invisible::{INVISIBLE, trim_invisible};
pub use key::{HashSeed, SHARD_COUNT, UserHash, UserKey};
pub use missing::{MISSING_VALUES, is_missing_value};
pub use money::{Currency, Micros, MoneyError};
pub use overdelivery::OverdeliveryCauses;
pub use partition::{MisplacedAdGroups, partition_of};
pub use people::people_text;
pub use personal::{HashedIdentifier, Personal, Secret};
pub use polling::{POLL_INTERVAL, RETRY_DELAY, poll_delay};
pub use retry::{Backoff, Fault, Retry, with_causes};
pub use role::{Role, UnknownRole};
pub use schedule::{Schedule, ScheduleError, SourceTrigger};
pub use secret::{NoRandomness, NotAHash, SecretHash, new_secret};
pub use storage::StorageProblem;
pub use template::{NotAPattern, ParameterValue, Pattern, TemplateRows, WhenRemoved};
pub use terminal::{one_line, printable};
pub use time::{BudgetDay, TimeZoneName, Timestamp, TimestampError};
pub use transport::{host_of, is_loopback_host, is_plain_remote};
