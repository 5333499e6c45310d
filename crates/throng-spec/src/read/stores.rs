//! Serving stores.

use throng_model::{AudienceName, ServingStoreName, StoreLayout, WorkspaceName};
use throng_spec_types::MAX_WRITES_PER_SECOND;

use super::Reader;
use super::fields::{At, Fields, text_of};
use crate::{
    BigQuerySettings, BigtableSettings, HostPort, ObjectKind, RedisSettings, ServingStore,
    StoreEngine,
};

/// The longest prefix of keys, in bytes.
const MAX_PREFIX: usize = 64;

/// The kinds of stores.
#[derive(Clone, Copy)]
enum Kind {
    Redis,
    Bigtable,
}

impl Reader {
    pub(super) fn serving_store(&mut self, mut fields: Fields<'_>) {
        let name: ServingStoreName = self.name(&mut fields, ObjectKind::ServingStore);
        fields.required(self, "type");
        let kinds = [("redis", Kind::Redis), ("bigtable", Kind::Bigtable)];
        let engine = match self.word(&mut fields, "type", &kinds, Kind::Redis) {
            Kind::Redis => self.redis(&mut fields),
            Kind::Bigtable => self.bigtable(&mut fields),
        };
        let audiences = self.store_audiences(&mut fields);
        let max_writes_per_second =
            self.integer(&mut fields, "max_writes_per_second", MAX_WRITES_PER_SECOND, 50_000);
        fields.done(self);
        self.spec.serving_stores.push(ServingStore {
            name,
            engine,
            audiences,
            max_writes_per_second,
        });
    }

    /// `all`, or a list of names.
    fn store_audiences(&mut self, fields: &mut Fields<'_>) -> Option<Vec<AudienceName>> {
        let (node, _) = fields.get("audiences")?;
        if text_of(&node.value) == Some("all") {
            return None;
        }
        let names = self.audience_list(fields, "audiences", Self::refer);
        Some(names.into_iter().map(|(name, _)| name).collect())
    }

    fn redis(&mut self, fields: &mut Fields<'_>) -> StoreEngine {
        let at = fields.at.clone();
        let mut place = |name| fields.get(name).map_or_else(|| at.clone(), |(_, at)| at);
        let (url_at, password_at) = (place("url"), place("password"));
        let url = fields.required(self, "url").and_then(|(node, at)| self.text(node, &at));
        let url = url.map(str::to_owned);
        let password = self.optional_secret(fields, "password");
        let words = [("by_user", StoreLayout::ByUser), ("by_audience", StoreLayout::ByAudience)];
        let redis = RedisSettings {
            username: self.optional_text(fields, "username"),
            insecure: self.switch(fields, "insecure"),
            prefix: self.store_prefix(fields),
            layout: self.word(fields, "layout", &words, StoreLayout::default()),
            url: url.clone().unwrap_or_else(|| "redis://unset".to_owned()),
            password,
        };
        if url.is_some() {
            self.check_store_url(&redis, &url_at);
            self.check_keys(&redis, &url_at);
        }
        let engine = StoreEngine::Redis(redis);
        self.admit_store(&engine, &url_at, &password_at);
        engine
    }

    fn bigtable(&mut self, fields: &mut Fields<'_>) -> StoreEngine {
        let at = fields.at.clone();
        for field in ["project", "instance", "table"] {
            fields.required(self, field);
        }
        let project = self.bigtable_name(fields, "project", BigQuerySettings::is_plain_name);
        let [instance, table, family, app_profile] = ["instance", "table", "family", "app_profile"]
            .map(|field| self.bigtable_name(fields, field, BigtableSettings::is_name));
        let credentials_at = fields.get("credentials").map_or_else(|| at.clone(), |(_, at)| at);
        let credentials = self.optional_secret(fields, "credentials");
        let metadata_url = self.server_url(fields, "metadata_url");
        let urls = ["endpoint", "token_url"].map(|field| {
            let at = fields.get(field).map(|(_, at)| at);
            self.server_url(fields, field).zip(at)
        });
        let remote = urls.iter().flatten().find(|(url, _)| crate::is_plain_remote(url)).cloned();
        let remote = remote.as_ref().map(|(url, at)| (url.as_str(), at.clone()));
        let insecure = self.insecure(fields, remote, "access tokens and hashed users");
        let [endpoint, token_url] = urls.map(|url| url.map(|(url, _)| url));
        let is_complete = project.is_some() && instance.is_some() && table.is_some();
        let table = BigtableSettings {
            project: project.unwrap_or_default(),
            instance: instance.unwrap_or_default(),
            table: table.unwrap_or_default(),
            family: family.unwrap_or_else(|| "audiences".to_owned()),
            app_profile,
            credentials,
            token_url,
            metadata_url,
            endpoint,
            insecure,
        };
        // A reference that was refused is reported already.
        if let Some(fault) = table.identity_fault()
            && (table.credentials.is_some() || fields.get("credentials").is_none())
        {
            let help = "write `credentials: file:PATH` (the key file of a service account), or \
                        `metadata_url: http://metadata.google.internal` for the identity of the machine or pod; an \
                        emulator at `endpoint` needs neither";
            self.problem(&at, fault, Some(help.to_owned()));
        }
        if is_complete {
            self.check_columns(&table, &at);
        }
        let engine = StoreEngine::Bigtable(table);
        self.admit_store(&engine, &at, &credentials_at);
        engine
    }

    /// A name that becomes part of the full name of a table.
    fn bigtable_name(
        &mut self,
        fields: &mut Fields<'_>,
        field: &'static str,
        is_name: fn(&str) -> bool,
    ) -> Option<String> {
        let (node, at) = fields.get(field)?;
        let text = self.text(node, &at)?;
        if !is_name(text) {
            let help = "use at most 64 letters, digits, `-`, `_` and `.`".to_owned();
            self.problem(&at, format!("this is not a name of Bigtable for `{field}`"), Some(help));
        }
        Some(text.to_owned())
    }

    /// Two stores with the same columns would remove each other's members.
    fn check_columns(&mut self, table: &BigtableSettings, at: &At) {
        let columns = |table: &BigtableSettings| {
            (HostPort::of_url(table.api_url()).ok(), table.table_name(), table.family.clone())
        };
        let own = columns(table);
        let same = self.spec.serving_stores.iter().find(|store| match &store.engine {
            StoreEngine::Bigtable(other) => columns(other) == own,
            StoreEngine::Redis(_) => false,
        });
        if let Some(name) = same.map(|store| store.name.to_string()) {
            let message = format!("the serving store `{name}` writes the same columns");
            let help = "give one of them another `family`, or another table".to_owned();
            self.problem(at, message, Some(help));
        }
    }

    /// Checks the URL. Messages do not contain it: it may contain a password.
    fn check_store_url(&mut self, redis: &RedisSettings, at: &At) {
        if redis.server().is_err() {
            let help = "write redis://HOST:PORT/DATABASE or rediss://… without user and password; \
                        they go to `username` and `password`";
            self.problem(at, "this is not a URL of a Redis server", Some(help.to_owned()));
        } else if redis.is_exposed() {
            let help =
                "write rediss://, or add `insecure: true` beside it if the network is trusted";
            let message = "the password would be sent to another machine unencrypted";
            self.problem(at, message, Some(help.to_owned()));
        }
    }

    /// Two stores with the same keys would remove each other's members. Those of two workspaces may not even have
    /// prefixes of which one begins with the other: a key has the workspace behind the prefix.
    fn check_keys(&mut self, redis: &RedisSettings, at: &At) {
        let keys = |redis: &RedisSettings| {
            let server = redis.server().ok()?;
            let place = (server.host().to_owned(), server.port(), redis.database());
            Some((place, redis.prefix.clone(), redis.layout))
        };
        let Some((place, prefix, layout)) = keys(redis) else { return };
        let workspace = self.workspace.as_ref().map(WorkspaceName::as_str);
        let same = self.spec.serving_stores.iter().find(|store| {
            let StoreEngine::Redis(other) = &store.engine else { return false };
            let Some((other_place, other_prefix, other_layout)) = keys(other) else { return false };
            let meets = match store.name.workspace() == workspace {
                true => prefix == other_prefix && layout == other_layout,
                false => prefix.starts_with(&other_prefix) || other_prefix.starts_with(&prefix),
            };
            place == other_place && meets
        });
        if let Some(name) = same.map(|store| store.name.to_string()) {
            let message = format!("the serving store `{name}` writes the same keys");
            let help = "give one of them another `prefix`, or another database".to_owned();
            self.problem(at, message, Some(help));
        }
    }

    fn store_prefix(&mut self, fields: &mut Fields<'_>) -> String {
        let default = "throng:".to_owned();
        let Some((node, at)) = fields.get("prefix") else { return default };
        let Some(text) = self.text(node, &at) else { return default };
        if text.len() > MAX_PREFIX || !text.bytes().all(|b| b.is_ascii_graphic()) {
            let help = "write at most 64 letters, digits and signs, such as `ads:`".to_owned();
            self.problem(&at, "this is not a prefix of keys", Some(help));
        }
        text.to_owned()
    }
}
