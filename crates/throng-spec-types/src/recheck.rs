//! Checks of a spec that is read from its JSON form. Older versions accepted specs without these
//! checks, so a stored spec is checked again.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde::Deserialize;
use throng_model::Micros;
use throng_schema::Schema;

use crate::{
    AdGroup, Advertiser, Audience, AudienceTemplate, BigQuerySettings, BigtableSettings, Campaign,
    Destination, FileFolder, ForEach, HostPort, IDENTIFIER_KEYS, MAX_TEMPLATE_ROWS,
    MAX_WRITES_PER_SECOND, MetaSettings, NodeSettings, ObjectKind, Platform, PostgresSettings,
    Schedule, ServingStore, Source, SourceTrigger, Spec, StoreEngine, Sync, SyncTemplate,
    WarehouseSettings, WarehouseSource, is_plain_remote, one_query,
};

/// A spec in its JSON form does not pass the checks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} `{name}`: {why}")]
pub struct InvalidSpec {
    /// The kind of object.
    pub kind: ObjectKind,
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// The JSON form before it is checked: the fields of [`Spec`].
#[derive(Deserialize)]
pub(crate) struct Unchecked {
    version: u32,
    sources: Vec<Source>,
    #[serde(default)]
    warehouses: Vec<WarehouseSource>,
    #[serde(default)]
    schemas: Vec<Schema>,
    audiences: Vec<Audience>,
    destinations: Vec<Destination>,
    syncs: Vec<Sync>,
    #[serde(default)]
    serving_stores: Vec<ServingStore>,
    advertisers: Vec<Advertiser>,
    campaigns: Vec<Campaign>,
    ad_groups: Vec<AdGroup>,
    node: NodeSettings,
    #[serde(default)]
    audience_templates: Vec<AudienceTemplate>,
    #[serde(default)]
    sync_templates: Vec<SyncTemplate>,
}

impl TryFrom<Unchecked> for Spec {
    type Error = InvalidSpec;

    fn try_from(unchecked: Unchecked) -> Result<Self, InvalidSpec> {
        let Unchecked {
            version,
            sources,
            warehouses,
            schemas,
            audiences,
            destinations,
            syncs,
            serving_stores,
            advertisers,
            campaigns,
            ad_groups,
            node,
            audience_templates,
            sync_templates,
        } = unchecked;
        let spec = Self {
            version,
            sources,
            warehouses,
            schemas,
            audiences,
            destinations,
            syncs,
            serving_stores,
            advertisers,
            campaigns,
            ad_groups,
            node,
            audience_templates,
            sync_templates,
        };
        spec.recheck()?;
        Ok(spec)
    }
}

/// The names of the objects of one kind.
struct Names<'a>(ObjectKind, BTreeSet<&'a str>);

impl<'a> Names<'a> {
    fn of(kind: ObjectKind, names: impl Iterator<Item = &'a str>) -> Result<Self, InvalidSpec> {
        let mut known = BTreeSet::new();
        for name in names {
            if !known.insert(name) {
                return Err(invalid(kind, name, "there are two with this name"));
            }
        }
        Ok(Self(kind, known))
    }

    fn has(&self, name: &str) -> Result<(), &'static str> {
        let missing = match self.0 {
            ObjectKind::Audience => "it refers to an audience that does not exist",
            ObjectKind::Source => "it refers to a warehouse that does not exist",
            ObjectKind::Destination => "it refers to a destination that does not exist",
            ObjectKind::Advertiser => "it refers to an advertiser that does not exist",
            _ => "it refers to a campaign that does not exist",
        };
        ensure(self.1.contains(name), missing)
    }
}

fn invalid(kind: ObjectKind, name: &str, why: &'static str) -> InvalidSpec {
    InvalidSpec { kind, name: name.to_owned(), why }
}

fn ensure(holds: bool, why: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(why) }
}

fn within<T: PartialOrd>(
    value: T,
    range: RangeInclusive<T>,
    why: &'static str,
) -> Result<(), &'static str> {
    ensure(range.contains(&value), why)
}

impl Spec {
    /// Runs the checks that need neither the texts nor the file system. Costs a few comparisons per
    /// object.
    fn recheck(&self) -> Result<(), InvalidSpec> {
        use ObjectKind as Kind;
        macro_rules! names {
            ($kind:ident, $field:ident) => {
                Names::of(Kind::$kind, self.$field.iter().map(|object| object.name.as_str()))?
            };
        }
        macro_rules! each {
            ($kind:ident, $field:ident, $check:expr) => {
                for object in &self.$field {
                    $check(object)
                        .map_err(|why| invalid(Kind::$kind, object.name.as_str(), why))?;
                }
            };
        }
        ensure(self.version == 1, "the version of the spec language is not 1")
            .and_then(|()| node(&self.node))
            .map_err(|why| invalid(Kind::Node, "node", why))?;
        names!(Source, sources);
        let warehouses = names!(Source, warehouses);
        names!(Schema, schemas);
        names!(Sync, syncs);
        names!(ServingStore, serving_stores);
        names!(AdGroup, ad_groups);
        let audiences = names!(Audience, audiences);
        let destinations = names!(Destination, destinations);
        let advertisers = names!(Advertiser, advertisers);
        let campaigns = names!(Campaign, campaigns);
        each!(Source, sources, |object: &Source| {
            ensure(warehouses.has(object.name.as_str()).is_err(), "there are two with this name")?;
            source(object)
        });
        each!(Source, warehouses, warehouse);
        each!(Schema, schemas, |object: &Schema| {
            ensure(object.problems().is_empty(), "its fields do not fit together")
        });
        each!(Audience, audiences, |object: &Audience| {
            object.source.iter().try_for_each(|source| warehouses.has(source.as_str()))?;
            audience(object)
        });
        each!(Destination, destinations, destination);
        each!(Sync, syncs, |object: &Sync| {
            audiences.has(object.audience.as_str())?;
            destinations.has(object.destination.as_str())?;
            sync(object)
        });
        each!(ServingStore, serving_stores, |object: &ServingStore| {
            for name in object.audiences.iter().flatten() {
                audiences.has(name.as_str())?;
            }
            serving_store(object)
        });
        each!(Audience, audience_templates, |object: &AudienceTemplate| {
            for_each(&object.for_each)?;
            template_audience(&object.audience)
        });
        each!(Sync, sync_templates, |object: &SyncTemplate| {
            for_each(&object.for_each)?;
            sync(&object.sync)
        });
        each!(Campaign, campaigns, |object: &Campaign| {
            advertisers.has(object.advertiser.as_str())
        });
        each!(AdGroup, ad_groups, |object: &AdGroup| {
            campaigns.has(object.campaign.as_str())?;
            for name in object.include.iter().chain(&object.exclude) {
                audiences.has(name.as_str())?;
            }
            ad_group(object)
        });
        self.check_workspaces()
    }
}

fn source(source: &Source) -> Result<(), &'static str> {
    if let Some(bucket) = &source.bucket {
        let is_url = source.path.to_str() == Some(bucket.url().to_string().as_str());
        ensure(is_url && source.root.is_none(), "its path is not the URL of its bucket")?;
        return bucket.fault().map_or(Ok(()), Err);
    }
    ensure(source.path.is_absolute(), "its path is not absolute")?;
    ensure(source.root.as_ref().is_none_or(|root| root.is_absolute()), "its root is not absolute")
}

fn warehouse(warehouse: &WarehouseSource) -> Result<(), &'static str> {
    let settings = match &warehouse.settings {
        WarehouseSettings::Bigquery(settings) => settings,
        WarehouseSettings::Postgres(settings) => return postgres(settings),
    };
    let mut names = [&settings.project, &settings.location].into_iter().chain(&settings.dataset);
    ensure(names.all(|name| BigQuerySettings::is_plain_name(name)), "its project is not a name")?;
    ensure(settings.servers().is_ok(), "one of its URLs is not that of a server")?;
    let one = settings.credentials.is_some() != settings.metadata_url.is_some();
    ensure(one, "it has not exactly one of credentials and metadata_url")?;
    let called = [Some(settings.api_url()), settings.token_url.as_deref()];
    let encrypted = !called.into_iter().flatten().any(is_plain_remote);
    ensure(encrypted || settings.insecure, "its server is on another machine and not encrypted")?;
    within(settings.page_rows, 1..=1_000_000, "page_rows is not from 1 to 1000000")
}

fn postgres(settings: &PostgresSettings) -> Result<(), &'static str> {
    ensure(settings.server().is_ok(), "its host is not the name of a server")?;
    ensure(!settings.is_exposed(), "its server is on another machine and not encrypted")?;
    within(settings.statement_timeout_secs, 1..=172_800, "statement_timeout_secs is not allowed")?;
    let rows = settings.key_range_rows.unwrap_or(1);
    within(rows, 1..=1_000_000_000, "key_range_rows is not from 1 to 1000000000")?;
    within(settings.page_rows, 1..=1_000_000, "page_rows is not from 1 to 1000000")
}

fn query(sql: &str) -> Result<(), &'static str> {
    ensure(one_query(sql).is_ok(), "its SQL is not one SELECT of at most 256 KiB")
}

fn audience(audience: &Audience) -> Result<(), &'static str> {
    query(&audience.sql)?;
    let guard = &audience.guard;
    within(guard.max_shrink_percent, 0..=100, "max_shrink_percent is not from 0 to 100")?;
    within(audience.keep_snapshots, 1..=1000, "keep_snapshots is not from 1 to 1000")?;
    if let Some(hours) = audience.max_age_hours {
        within(hours, 1..=8_760, "max_age_hours is not from 1 to 8760")?;
    }
    if let Some(SourceTrigger { poll_secs, success_file }) = &audience.source_trigger {
        within(*poll_secs, SourceTrigger::POLL_SECS, "poll_secs is not from 5 to 86400")?;
        let is_file_name = success_file.as_deref().is_none_or(SourceTrigger::is_file_name);
        ensure(is_file_name, "its success_file is not the name of a file")?;
    }
    let Some(Schedule { cron, time_zone }) = &audience.schedule else { return Ok(()) };
    ensure(Schedule::new(cron, time_zone.clone()).is_ok(), "its schedule is invalid")
}

/// The audience of a template. Its parameters are values of SQL that the lake runs.
fn template_audience(object: &Audience) -> Result<(), &'static str> {
    ensure(object.source.is_none(), "it has a source and for_each")?;
    audience(object)
}

fn for_each(for_each: &ForEach) -> Result<(), &'static str> {
    query(&for_each.sql)?;
    within(for_each.max_rows, 1..=MAX_TEMPLATE_ROWS, "max_rows is out of its range")?;
    within(for_each.max_removed_percent, 0..=100, "max_removed_percent is not from 0 to 100")?;
    let Some(Schedule { cron, time_zone }) = &for_each.schedule else { return Ok(()) };
    ensure(Schedule::new(cron, time_zone.clone()).is_ok(), "its schedule is invalid")
}

fn destination(destination: &Destination) -> Result<(), &'static str> {
    match &destination.platform {
        Platform::Meta(account) => meta(account)?,
        Platform::File(folder) => file(folder)?,
    }
    let percent = destination.max_failed_checks_percent;
    within(percent, 0..=100, "max_failed_checks_percent is not from 0 to 100")
}

fn file(file: &FileFolder) -> Result<(), &'static str> {
    ensure(file.folder.is_absolute(), "its folder is not absolute")?;
    let root = file.root.as_ref().unwrap_or(&file.folder);
    ensure(file.folder.starts_with(root), "its folder is not beneath its root")
}

fn meta(account: &MetaSettings) -> Result<(), &'static str> {
    let digits = account.account.strip_prefix("act_").unwrap_or_default();
    let is_account = (1..=20).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    ensure(is_account, "its account is not act_ and digits")?;
    ensure(HostPort::of_url(account.server_url()).is_ok(), "its base_url is not a URL")?;
    let version = account.api_version.strip_prefix('v').unwrap_or_default();
    let is_version =
        !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    ensure(is_version, "its api_version is invalid")
}

fn sync(sync: &Sync) -> Result<(), &'static str> {
    query(&sync.identifiers.sql)?;
    within(sync.max_removed_percent, 0..=100, "max_removed_percent is not from 0 to 100")?;
    within(sync.batch_rows, 1..=10_000, "batch_rows is not from 1 to 10000")?;
    let columns = &sync.identifiers.columns;
    ensure(!columns.is_empty(), "it has no identifier columns")?;
    let keys: BTreeSet<&str> = columns.iter().map(|(_, key)| key.as_str()).collect();
    ensure(keys.len() == columns.len(), "two identifier columns are for one key")?;
    let known = keys.iter().all(|key| IDENTIFIER_KEYS.contains(key));
    ensure(known, "an identifier column is for an unknown key")
}

fn serving_store(store: &ServingStore) -> Result<(), &'static str> {
    match &store.engine {
        StoreEngine::Redis(redis) => {
            ensure(redis.server().is_ok(), "its url is not one of a Redis server")?;
            let exposed = "its password would be sent to another machine unencrypted";
            ensure(!redis.is_exposed(), exposed)?;
        }
        StoreEngine::Bigtable(table) => bigtable(table)?,
    }
    within(
        store.max_writes_per_second,
        MAX_WRITES_PER_SECOND,
        "max_writes_per_second is out of its range",
    )
}

fn bigtable(table: &BigtableSettings) -> Result<(), &'static str> {
    ensure(BigQuerySettings::is_plain_name(&table.project), "its project is not a name")?;
    let names = [&table.instance, &table.table, &table.family];
    let mut names = names.into_iter().chain(&table.app_profile);
    let are_names = names.all(|name| BigtableSettings::is_name(name));
    ensure(are_names, "its instance, table, family or app_profile is not a name")?;
    ensure(table.servers().is_ok(), "one of its URLs is not that of a server")?;
    table.identity_fault().map_or(Ok(()), Err)?;
    ensure(!table.is_exposed(), "its server is on another machine and not encrypted")
}

fn ad_group(ad_group: &AdGroup) -> Result<(), &'static str> {
    ensure(ad_group.price > Micros::ZERO, "price is not more than zero")?;
    ensure(ad_group.daily_budget > Micros::ZERO, "daily_budget is not more than zero")?;
    within(ad_group.impression_rate, 0.0..=1.0, "impression_rate is not from 0 to 1")?;
    within(ad_group.action_rate, 0.0..=1.0, "action_rate is not from 0 to 1")?;
    let is_consistent = !ad_group.pricing.is_of_impressions() || ad_group.action_rate == 1.0;
    ensure(is_consistent, "action_rate is not 1 although impressions are paid")?;
    within(ad_group.horizon_secs, 10..=86_400, "horizon_secs is not from 10 to 86400")?;
    let included: BTreeSet<_> = ad_group.include.iter().collect();
    let both = ad_group.exclude.iter().any(|name| included.contains(name));
    ensure(!both, "an audience is both included and excluded")
}

fn node(node: &NodeSettings) -> Result<(), &'static str> {
    within(node.build_workers, 1..=256, "build_workers is not from 1 to 256")?;
    within(node.warehouse_workers, 1..=256, "warehouse_workers is not from 1 to 256")?;
    within(node.activation_workers, 1..=256, "activation_workers is not from 1 to 256")?;
    within(node.log_partitions, 1..=256, "log_partitions is not from 1 to 256")?;
    within(node.dedupe_hours, 1..=168, "dedupe_hours is not from 1 to 168")?;
    within(node.feed_interval_ms, 50..=60_000, "feed_interval_ms is not from 50 to 60000")?;
    within(node.max_request_bytes, 1024..=1 << 30, "max_request_bytes is out of its range")?;
    within(node.gate_silent_minutes, 1..=30, "gate_silent_minutes is not from 1 to 30")?;
    within(node.request_timeout_secs, 1..=3600, "request_timeout_secs is not from 1 to 3600")?;
    ensure(node.memory_limit_bytes >= 64 << 20, "memory_limit_bytes is less than 64 MiB")?;
    let Some(bucket) = &node.lake_bucket else { return Ok(()) };
    let path = node.lake.as_ref().and_then(|lake| lake.to_str());
    ensure(path == Some(bucket.url().to_string().as_str()), "lake is not the URL of its bucket")?;
    bucket.fault().map_or(Ok(()), Err)
}
