//! Sources that are warehouses.

use throng_model::{Micros, SourceName};

use super::Reader;
use super::fields::{At, Fields, text_of};
use super::tree::{Node, Value};
use crate::{
    BigQuerySettings, HostPort, ObjectKind, PostgresSettings, WarehouseSettings, WarehouseSource,
};

const TIB: u64 = 1 << 40;

/// The source that an audience names.
pub(super) struct AudienceSource {
    name: SourceName,
    at: At,
    /// Where its schedule has `on: source_changed`.
    trigger_at: Option<At>,
}

impl Reader {
    /// A source with `type: bigquery`.
    pub(super) fn bigquery(&mut self, name: SourceName, mut fields: Fields<'_>) {
        let description = self.optional_text(&mut fields, "description");
        for field in ["project", "location"] {
            fields.required(self, field);
        }
        let project = self.plain_name(&mut fields, "project").unwrap_or_default();
        let location = self.plain_name(&mut fields, "location").unwrap_or_default();
        let dataset = self.plain_name(&mut fields, "dataset");
        let credentials = self.optional_secret(&mut fields, "credentials");
        let metadata_at = fields.get("metadata_url").map(|(_, at)| at);
        let metadata_url = self.server_url(&mut fields, "metadata_url");
        if fields.get("credentials").is_some() == metadata_at.is_some() {
            let help = "write `credentials: file:PATH` (the key file of a service account), or \
                        `metadata_url: http://metadata.google.internal` for the identity of the machine or pod";
            let message = "exactly one of `credentials` and `metadata_url` is needed";
            self.problem(&fields.at.clone(), message, Some(help.to_owned()));
        }
        let maximum_bytes_billed =
            self.integer(&mut fields, "maximum_bytes_billed", 10 << 20..=1 << 60, TIB);
        let price = fields.get("price_per_tib");
        let price_per_tib = price.and_then(|(node, at)| self.price(node, &at));
        let page_rows = self.integer(&mut fields, "page_rows", 1..=1_000_000, 100_000);
        let timeout_secs = self.integer(&mut fields, "timeout_secs", 60..=172_800, 21_600);
        let urls = ["endpoint", "token_url"].map(|field| {
            let at = fields.get(field).map(|(_, at)| at);
            self.server_url(&mut fields, field).zip(at)
        });
        let remote = urls.iter().flatten().find(|(url, _)| crate::is_plain_remote(url)).cloned();
        let remote = remote.as_ref().map(|(url, at)| (url.as_str(), at.clone()));
        let insecure = self.insecure(&mut fields, remote, "access tokens and results");
        let [endpoint, token_url] = urls.map(|url| url.map(|(url, _)| url));
        let settings = WarehouseSettings::Bigquery(BigQuerySettings {
            project,
            location,
            dataset,
            credentials,
            token_url,
            metadata_url,
            maximum_bytes_billed,
            price_per_tib,
            page_rows,
            timeout_secs,
            endpoint,
            insecure,
        });
        self.admit_warehouse(&settings, &fields.at.clone());
        fields.done(self);
        self.spec.warehouses.push(WarehouseSource { name, description, settings });
    }

    /// A source with `type: postgres`.
    pub(super) fn postgres(&mut self, name: SourceName, mut fields: Fields<'_>) {
        let description = self.optional_text(&mut fields, "description");
        let at = fields.at.clone();
        let [host_at, mode_at] = ["host", "sslmode"]
            .map(|field| fields.get(field).map_or_else(|| at.clone(), |(_, at)| at));
        let [host, database, username] =
            ["host", "database", "username"].map(|field| self.required_text(&mut fields, field));
        let modes = [("verify-full", true), ("disable", false)];
        let statement = "statement_timeout_secs";
        let range = fields
            .get("key_range_rows")
            .and_then(|(node, at)| self.whole(node, &at, "key_range_rows", &(1..=1_000_000_000)));
        let settings = PostgresSettings {
            host,
            port: self.integer(&mut fields, "port", 1..=65_535, 5_432),
            database,
            username,
            password: self.optional_secret(&mut fields, "password"),
            tls: self.word(&mut fields, "sslmode", &modes, true),
            insecure: self.switch(&mut fields, "insecure"),
            page_rows: self.integer(&mut fields, "page_rows", 1..=1_000_000, 10_000),
            key_range_rows: range,
            statement_timeout_secs: self.integer(&mut fields, statement, 1..=172_800, 3_600),
            timeout_secs: self.integer(&mut fields, "timeout_secs", 60..=172_800, 21_600),
        };
        if !settings.host.is_empty() && settings.server().is_err() {
            let help = "write a host name or an IP address; the port goes to `port`".to_owned();
            self.problem(&host_at, "this is not the name of a server", Some(help));
        } else if settings.is_exposed() {
            let help = "leave `sslmode` out, or add `insecure: true` if the network is trusted";
            let message = "password and results would be sent to another machine unencrypted";
            self.problem(&mode_at, message, Some(help.to_owned()));
        }
        let settings = WarehouseSettings::Postgres(settings);
        self.admit_warehouse(&settings, &at);
        fields.done(self);
        self.spec.warehouses.push(WarehouseSource { name, description, settings });
    }

    fn price(&mut self, node: &Node, at: &At) -> Option<Micros> {
        let price = self.parsed::<Micros>(node, at)?;
        if price < Micros::ZERO {
            let help = "write an amount such as `price_per_tib: \"6.25\"`".to_owned();
            self.problem(at, "the price is negative", Some(help));
        }
        Some(price)
    }

    /// A name that becomes part of URLs.
    fn plain_name(&mut self, fields: &mut Fields<'_>, field: &'static str) -> Option<String> {
        let (node, at) = fields.get(field)?;
        let text = self.text(node, &at)?;
        if !BigQuerySettings::is_plain_name(text) {
            let help = "use letters, digits, `-`, `_`, `.` and `:` only".to_owned();
            self.problem(&at, format!("this is not a {field} of BigQuery"), Some(help));
        }
        Some(text.to_owned())
    }

    /// The URL of a server. Messages do not contain it: it may contain a password.
    pub(super) fn server_url(
        &mut self,
        fields: &mut Fields<'_>,
        field: &'static str,
    ) -> Option<String> {
        let (node, at) = fields.get(field)?;
        let text = self.text(node, &at)?;
        if HostPort::of_url(text).is_err() {
            let help = "write https://HOST or http://HOST:PORT, without user and password";
            self.problem(&at, "this is not a URL of a server", Some(help.to_owned()));
        }
        Some(text.trim_end_matches('/').to_owned())
    }

    /// The warehouse that runs an audience's SQL, if it names one.
    pub(super) fn audience_source(
        &mut self,
        fields: &mut Fields<'_>,
        is_template: bool,
    ) -> Option<SourceName> {
        let (node, at) = fields.get("source")?;
        if is_template {
            let help = "leave `source` out: the values of a row are parameters of SQL that Throng runs over \
                        folders; or write each audience without `for_each`";
            self.problem(&at, "`source` and `for_each` exclude each other", Some(help.to_owned()));
            return None;
        }
        let name: SourceName = self.refer(node, at.clone(), ObjectKind::Source)?;
        let trigger_at = source_changed_at(fields);
        self.audience_sources.push(AudienceSource { name: name.clone(), at, trigger_at });
        Some(name)
    }

    /// Checks that audiences name warehouses and have no `on: source_changed`, after all files were read.
    pub(super) fn check_audience_sources(&mut self) {
        for AudienceSource { name, at, trigger_at } in std::mem::take(&mut self.audience_sources) {
            if self.spec.sources.iter().any(|source| source.name == name) {
                let help =
                    "leave `source` out, and name its tables in the SQL: `FROM source.table`";
                let message = format!("the source `{name}` is a folder, which runs no SQL");
                self.problem(&at, message, Some(help.to_owned()));
            } else if let Some(at) = trigger_at
                && self.spec.warehouses.iter().any(|source| source.name == name)
            {
                let help = "write `cron` instead, or start a refresh when the data is ready: `throng audience \
                            refresh NAME`, or POST /v1/audiences/NAME/refresh";
                let message = "`source_changed` compares files, and a warehouse has none";
                self.problem(&at, message, Some(help.to_owned()));
            }
        }
    }
}

/// The position of `on: source_changed` in the schedule of an audience.
fn source_changed_at(fields: &Fields<'_>) -> Option<At> {
    let schedule = fields.entries().iter().find(|entry| entry.key == "schedule")?;
    let Value::Map(entries) = &schedule.node.value else { return None };
    let on = entries.iter().find(|entry| entry.key == "on")?;
    let is_change = text_of(&on.node.value) == Some("source_changed");
    is_change.then(|| fields.at.key(schedule).key(on).at(&on.node))
}
