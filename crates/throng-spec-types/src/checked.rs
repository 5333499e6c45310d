//! The checked spec: names are valid, references exist, numbers are within their limits.

mod template;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use throng_model::{
    AdGroupName, AdvertiserName, AudienceName, CampaignName, Currency, DestinationName, FileFormat,
    Micros, Pacing, SourceName, SyncMode, SyncName, TimeZoneName, WhenStale,
};
use throng_schema::Schema;

use crate::{
    ColumnType, HostPort, NodeSettings, NotAHost, ParameterValue, Schedule, SecretRef,
    ServingStore, SourceBucket, SourceTrigger, WarehouseSource,
};

pub use template::{AudienceTemplate, ForEach, MAX_TEMPLATE_ROWS, MadeFrom, SyncTemplate};

/// All declared objects, in the order of the files. The names of a workspace's objects begin with its
/// name, and refer to objects of the same workspace. The JSON form is stored in the ledger; it
/// contains secrets as references only. Deserializing that form runs the checks again, so that
/// every `Spec` is a checked one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "crate::recheck::Unchecked")]
pub struct Spec {
    /// The version of the spec language; 1.
    pub version: u32,
    /// Folders with data.
    pub sources: Vec<Source>,
    /// Sources that run SQL themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warehouses: Vec<WarehouseSource>,
    /// Records that are ingested. A workspace with at least one has a source `lake`, which has their tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schemas: Vec<Schema>,
    /// Named sets of users.
    pub audiences: Vec<Audience>,
    /// Accounts on ad platforms.
    pub destinations: Vec<Destination>,
    /// Which audience is kept on which destination.
    pub syncs: Vec<Sync>,
    /// Key-value stores that get the members of audiences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub serving_stores: Vec<ServingStore>,
    /// Advertisers, who pay for ad groups.
    pub advertisers: Vec<Advertiser>,
    /// Ad groups of one advertiser that belong together.
    pub campaigns: Vec<Campaign>,
    /// What is shown, to whom, for how much.
    pub ad_groups: Vec<AdGroup>,
    /// How the process itself runs.
    pub node: NodeSettings,
    /// Audiences that a query lists. What they make is in `audiences` once the spec is expanded, with
    /// [`Audience::made_from`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audience_templates: Vec<AudienceTemplate>,
    /// Syncs that a query lists. What they make is in `syncs` once the spec is expanded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sync_templates: Vec<SyncTemplate>,
}

impl Spec {
    /// The warehouse of this name, if the spec has it.
    pub fn warehouse(&self, name: &str) -> Option<&WarehouseSource> {
        self.warehouses.iter().find(|warehouse| warehouse.name.as_str() == name)
    }

    /// The advertiser of each campaign, and so of the campaign's ad groups.
    pub fn advertisers_of_campaigns(&self) -> HashMap<&CampaignName, &Advertiser> {
        let advertisers: HashMap<_, _> = self.advertisers.iter().map(|a| (&a.name, a)).collect();
        let of = |campaign: &Campaign| advertisers.get(&campaign.advertiser).copied();
        self.campaigns.iter().filter_map(|c| Some((&c.name, of(c)?))).collect()
    }
}

/// A folder of files, or of objects in a bucket; each file or subfolder in it is a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Its local part is the first half of a table's name in SQL, with `-` and `.` replaced by `_`.
    pub name: SourceName,
    /// An absolute path. It existed and was a folder when the spec was loaded. Of a source in a bucket it is the
    /// bucket's URL, and once a lake is opened over the source, the folder of the local copy.
    pub path: PathBuf,
    /// The folder that no symbolic link of the source may leave; `None` means `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// A description for people.
    pub description: Option<String>,
    /// The types of columns, by their names, in every table of the source that has them; of the other
    /// columns the types follow from the files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<(String, ColumnType)>,
    /// Whether text is read without the white space around it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trim: bool,
    /// Whether the first line of a CSV file names its columns; `None` means that it does, and that a line
    /// which looks like values is refused. If it does not, `columns` are all columns in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// The bucket that its objects are in; `None` for a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<SourceBucket>,
}

/// A set of users, defined by SQL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Audience {
    /// Unique in the spec.
    pub name: AudienceName,
    /// A description for people.
    pub description: Option<String>,
    /// The warehouse that runs the SQL; `None` means this program, over folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
    /// One SELECT without a trailing semicolon. Not compared with the tables yet.
    pub sql: String,
    /// The column that holds the user key; `None` means the only column.
    pub key: Option<String>,
    /// When to refresh; `None` means only on request.
    pub schedule: Option<Schedule>,
    /// Whether to refresh when files of the tables of the SQL have changed, and how they are
    /// inspected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_trigger: Option<SourceTrigger>,
    /// Hours after its last refresh from which on it is overdue, 1 to 8,760; `None` means that its schedule says when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_hours: Option<u32>,
    /// Which snapshots are held for approval.
    pub guard: Guard,
    /// How many published snapshots are kept; at least 1, 10 unless set.
    pub keep_snapshots: u32,
    /// Where the SQL begins.
    pub sql_at: Location,
    /// The row of the template that made it; its values are the parameters of the SQL. `None` if it is
    /// written in the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_from: Option<MadeFrom>,
}

impl Audience {
    /// The parameters that its SQL names, with their values: columns of the row that made it.
    pub fn parameters(&self) -> Vec<(String, ParameterValue)> {
        let Some(made_from) = &self.made_from else { return Vec::new() };
        let named = made_from.values.iter().filter(|(column, _)| self.names_parameter(column));
        named.cloned().collect()
    }

    /// Whether its SQL has `$column`, for a column of the rows of its template.
    pub fn names_parameter(&self, column: &str) -> bool {
        // A whole word, as in the SQL: `$region_name` is not `$region`.
        let is_end = |c: char| !c.is_alphanumeric() && c != '_';
        self.sql.split('$').skip(1).any(|rest| {
            let word = rest.split(is_end).next().unwrap_or_default();
            word.eq_ignore_ascii_case(column)
        })
    }
}

/// A snapshot outside of these limits is held for approval instead of being published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// The largest loss against the published snapshot, 0 to 100; 50 unless set.
    pub max_shrink_percent: u32,
    /// The largest growth against the published snapshot; `None` switches the limit off, 400
    /// unless set.
    pub max_growth_percent: Option<u32>,
    /// Fewer members than this are suspicious once the audience had members; 1 unless set.
    pub min_members: u64,
}

impl Default for Guard {
    fn default() -> Self {
        Self { max_shrink_percent: 50, max_growth_percent: Some(400), min_members: 1 }
    }
}

/// Where audiences are kept: an account on an ad platform, or a folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Destination {
    /// Unique in the spec.
    pub name: DestinationName,
    /// The platform, with its settings. In the JSON form they are fields of the destination, and
    /// `platform` is the name.
    #[serde(flatten)]
    pub platform: Platform,
    /// If more than this percentage of the newest checks have failed, the account's waiting tasks
    /// are held; 0 to 100, 20 unless set. 100 disables that.
    #[serde(default = "max_failed_checks_percent")]
    pub max_failed_checks_percent: u32,
}

impl Destination {
    /// Platform and account as one text, for records: the same account has the same text, whatever
    /// its spelling in the spec.
    pub fn account(&self) -> String {
        let account = match &self.platform {
            Platform::Meta(meta) => {
                Cow::Borrowed(meta.account.strip_prefix("act_").unwrap_or(&meta.account))
            }
            Platform::File(file) => file.folder.to_string_lossy(),
        };
        format!("{}/{account}", self.platform.name())
    }
}

/// A supported platform, with the settings of a destination there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "platform", rename_all = "snake_case")]
pub enum Platform {
    /// Meta custom audiences.
    Meta(MetaSettings),
    /// Files in a folder.
    File(FileFolder),
}

impl Platform {
    /// Its name in specs and in the registry of destinations.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Meta(_) => "meta",
            Self::File(_) => "file",
        }
    }
}

/// A folder to which batches are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFolder {
    /// An absolute path without `.` and `..`. It existed and was a folder when the spec was loaded.
    pub folder: PathBuf,
    /// The folder beneath which no symbolic link is followed; `None` means `folder`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// How rows are written; CSV unless set.
    #[serde(default)]
    pub format: FileFormat,
    /// Whether files are compressed with gzip.
    #[serde(default)]
    pub gzip: bool,
}

/// A Meta ad account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetaSettings {
    /// `act_` and digits.
    pub account: String,
    /// The access token for the account's audiences.
    pub access_token: SecretRef,
    /// The secret that signs calls, if the platform requires it.
    pub app_secret: Option<SecretRef>,
    /// Another server than the platform's own, such as the simulator; starts with `http`.
    pub base_url: Option<String>,
    /// Whether `base_url` may be on another machine without TLS.
    #[serde(default)]
    pub insecure: bool,
    /// The version of the platform's API; `v25.0` unless set.
    pub api_version: String,
}

/// The URL of Meta's API.
const META_URL: &str = "https://graph.facebook.com";

impl MetaSettings {
    /// The URL of the server to which calls and secrets are sent.
    pub fn server_url(&self) -> &str {
        self.base_url.as_deref().unwrap_or(META_URL)
    }

    /// The host and port of [`MetaSettings::server_url`].
    ///
    /// # Errors
    /// [`NotAHost`] if `base_url` is not a URL; never for a checked spec.
    pub fn server(&self) -> Result<HostPort, NotAHost> {
        HostPort::of_url(self.server_url())
    }

    /// The references to all its secrets.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretRef> {
        std::iter::once(&self.access_token).chain(&self.app_secret)
    }
}

/// [`Destination::max_failed_checks_percent`] unless set.
pub fn max_failed_checks_percent() -> u32 {
    20
}

/// One audience kept on one destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sync {
    /// Unique in the spec.
    pub name: SyncName,
    /// An audience of this spec.
    pub audience: AudienceName,
    /// A destination of this spec.
    pub destination: DestinationName,
    /// What happens to users who leave the audience.
    pub mode: SyncMode,
    /// The identifiers that are sent to the platform for each user.
    pub identifiers: Identifiers,
    /// A run that would remove more than this share waits for approval; 0 to 100, 50 unless set.
    pub max_removed_percent: u32,
    /// Rows per call, 1 to 10,000; 10,000 unless set.
    pub batch_rows: u32,
    /// Larger goes first; 0 unless set.
    pub priority: i32,
    /// The audience's name on the platform; `None` means `throng: <audience>`, in a workspace
    /// `throng: <workspace> / <audience>`.
    pub platform_name: Option<String>,
    /// What happens if the platform has an audience of this name that the sync did not create.
    #[serde(default)]
    pub adopt: Adopt,
    /// What happens to the platform's audience when the sync is removed from the spec.
    #[serde(default)]
    pub on_remove: OnRemove,
    /// The row of the template that made it; `None` if it is written in the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_from: Option<MadeFrom>,
}

impl Sync {
    /// The name of its audience on the platform.
    pub fn name_on_platform(&self) -> String {
        let name = self.platform_name.clone();
        name.unwrap_or_else(|| Self::default_platform_name(&self.audience))
    }

    /// [`Sync::platform_name`] unless set.
    pub fn default_platform_name(audience: &AudienceName) -> String {
        match audience.workspace() {
            Some(workspace) => format!("throng: {workspace} / {}", audience.local()),
            None => format!("throng: {audience}"),
        }
    }

    /// Whether it gets no run until its audience has a member, because it has no list on the platform yet: an account may
    /// have only so many lists (Meta: 500). With `adopt: replace` the list may be there, with users of somebody else.
    pub fn waits_for_members(&self, has_list: bool, members: u64) -> bool {
        members == 0 && !has_list && self.adopt != Adopt::Replace
    }
}

/// What happens to the platform's audience of a sync that is removed from the spec.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRemove {
    /// It stays as it is.
    #[default]
    Keep,
    /// After an approval the users that were sent to it are removed.
    Empty,
    /// After an approval it is deleted.
    Delete,
}

/// What happens if the platform has an audience of the name that the sync did not create.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adopt {
    /// Nothing is sent, and an alert is raised.
    #[default]
    Fail,
    /// After an approval its list is replaced by the audience.
    Replace,
}

/// The identifier keys of a sync's columns, the same for every platform.
pub const IDENTIFIER_KEYS: [&str; 15] = [
    "EMAIL",
    "PHONE",
    "FN",
    "LN",
    "FI",
    "CT",
    "ST",
    "ZIP",
    "COUNTRY",
    "GEN",
    "DOBY",
    "DOBM",
    "DOBD",
    "MADID",
    "EXTERN_ID",
];

/// The identifiers of a sync's users.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identifiers {
    /// One SELECT of the user key and the columns.
    pub sql: String,
    /// The column with the user key.
    pub key: String,
    /// Pairs of a column and its identifier key, one of [`crate::IDENTIFIER_KEYS`]. At least one
    /// pair; no column and no key is in two pairs.
    pub columns: Vec<(String, String)>,
    /// Two capital letters, for phone numbers and rows without a country.
    pub default_country: Option<String>,
    /// Where the SQL begins.
    pub sql_at: Location,
}

/// The position of an SQL text in a spec file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// The path of the file, as it was given to `throng_spec::load` or found in the folder.
    pub file: PathBuf,
    /// The first line of the text, from 1.
    pub line: u32,
}

/// Who pays for ad groups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Advertiser {
    /// Unique in the spec.
    pub name: AdvertiserName,
    /// The currency of all prices and budgets of the advertiser.
    pub currency: Currency,
    /// The time zone of budget days, which begin at its midnight.
    pub time_zone: TimeZoneName,
}

/// Ad groups of one advertiser that belong together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Campaign {
    /// Unique in the spec.
    pub name: CampaignName,
    /// An advertiser of this spec.
    pub advertiser: AdvertiserName,
}

/// What is shown, to whom, for how much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdGroup {
    /// Unique in the spec.
    pub name: AdGroupName,
    /// A campaign of this spec.
    pub campaign: CampaignName,
    /// What is paid for.
    pub pricing: Pricing,
    /// The price of one impression, one click or a thousand impressions; more than zero.
    pub price: Micros,
    /// The most that may be billed in a budget day; more than zero.
    pub daily_budget: Micros,
    /// The share of insertions that become impressions, 0 to 1.
    pub impression_rate: f64,
    /// The share of impressions that become clicks, 0 to 1; exactly 1 when impressions are paid.
    pub action_rate: f64,
    /// Users in any of these audiences see the ad; empty means all users.
    pub include: Vec<AudienceName>,
    /// Users in any of these audiences do not see it. Has no audience in common with `include`.
    pub exclude: Vec<AudienceName>,
    /// Whether spend in flight counts against the budget.
    pub prediction: Prediction,
    /// How long an insertion may still lead to spend, in seconds; 180 unless set.
    pub horizon_secs: u32,
    /// How the budget of a day is spent.
    #[serde(default, skip_serializing_if = "is_asap")]
    pub pacing: Pacing,
    /// What an ad server does without fresh budget states.
    pub when_stale: WhenStale,
    /// Whether only the first impression and the first click of an insertion count, if events name
    /// their insertion.
    #[serde(default = "once_per_insertion", skip_serializing_if = "is_true")]
    pub once_per_insertion: bool,
}

fn once_per_insertion() -> bool {
    true
}

fn is_asap(pacing: &Pacing) -> bool {
    *pacing == Pacing::Asap
}

fn is_true(value: &bool) -> bool {
    *value
}

/// What an advertiser pays for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pricing {
    /// Each impression.
    PerImpression,
    /// Each click.
    PerClick,
    /// Impressions, by the thousand.
    PerThousand,
}

impl Pricing {
    /// Whether impressions are paid, and not clicks.
    pub fn is_of_impressions(self) -> bool {
        self != Self::PerClick
    }
}

/// Whether spend in flight counts against the budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// It counts.
    #[default]
    InFlight,
    /// Only billed spend counts.
    Off,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_audience_without_a_list_waits_for_members() {
        let of = |adopt: Adopt| Sync {
            name: "s".parse().unwrap(),
            audience: "a".parse().unwrap(),
            destination: "d".parse().unwrap(),
            mode: SyncMode::Mirror,
            identifiers: Identifiers {
                sql: "SELECT id, email FROM shop.users".to_owned(),
                key: "id".to_owned(),
                columns: vec![("email".to_owned(), "EMAIL".to_owned())],
                default_country: None,
                sql_at: Location { file: "throng.yaml".into(), line: 1 },
            },
            max_removed_percent: 50,
            batch_rows: 1,
            priority: 0,
            platform_name: None,
            adopt,
            on_remove: OnRemove::Keep,
            made_from: None,
        };
        assert!(of(Adopt::Fail).waits_for_members(false, 0));
        assert!(!of(Adopt::Fail).waits_for_members(false, 1));
        assert!(!of(Adopt::Fail).waits_for_members(true, 0), "its members are removed");
        assert!(!of(Adopt::Replace).waits_for_members(false, 0), "the list may be there");
    }
}
