//! Serving stores.

use throng_model::{AudienceName, ServingStoreName, StoreLayout, WorkspaceName};
use throng_spec_types::MAX_WRITES_PER_SECOND;

use super::Reader;
use super::fields::{At, Fields, text_of};
use crate::{ObjectKind, RedisSettings, ServingStore, StoreEngine};

/// The longest prefix of keys, in bytes.
const MAX_PREFIX: usize = 64;

impl Reader {
    pub(super) fn serving_store(&mut self, mut fields: Fields<'_>) {
        let name: ServingStoreName = self.name(&mut fields, ObjectKind::ServingStore);
        fields.required(self, "type");
        self.word(&mut fields, "type", &[("redis", ())], ());
        let redis = self.redis(&mut fields);
        let audiences = self.store_audiences(&mut fields);
        let max_writes_per_second =
            self.integer(&mut fields, "max_writes_per_second", MAX_WRITES_PER_SECOND, 50_000);
        fields.done(self);
        let engine = StoreEngine::Redis(redis);
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

    fn redis(&mut self, fields: &mut Fields<'_>) -> RedisSettings {
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
        self.admit_store(&redis, &url_at, &password_at);
        redis
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
            let StoreEngine::Redis(other) = &store.engine;
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
