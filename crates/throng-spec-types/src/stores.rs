//! Serving stores: key-value stores of the deployment's own that get the members of audiences.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use throng_model::{AudienceName, ServingStoreName, StoreLayout};

use crate::{BigtableSettings, HostPort, NotAHost, SecretRef, host_of, is_loopback_host};

/// The limits of `max_writes_per_second`.
pub const MAX_WRITES_PER_SECOND: RangeInclusive<u32> = 1..=10_000_000;

/// A key-value store that gets the members of audiences after each publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServingStore {
    /// Unique in the spec.
    pub name: ServingStoreName,
    /// The kind of store, with its settings, which are fields of the store in the JSON form.
    #[serde(flatten)]
    pub engine: StoreEngine,
    /// The audiences that are written; `None` means all of the store's workspace.
    pub audiences: Option<Vec<AudienceName>>,
    /// Members that are added or removed in a second, at most; 50,000 unless set.
    pub max_writes_per_second: u32,
}

impl ServingStore {
    /// Whether an audience of this spec is written to the store: never one of another workspace.
    pub fn has(&self, audience: &AudienceName) -> bool {
        audience.workspace() == self.name.workspace()
            && self.audiences.as_ref().is_none_or(|names| names.contains(audience))
    }

    /// Where and in which form members are written, as one text without a secret.
    pub fn place(&self) -> String {
        match &self.engine {
            StoreEngine::Redis(redis) => {
                let layout = match redis.layout {
                    StoreLayout::ByUser => "by_user",
                    StoreLayout::ByAudience => "by_audience",
                };
                format!("{} {} {layout}", redis.url, redis.prefix)
            }
            StoreEngine::Bigtable(table) => {
                format!("{} {} {}", table.api_url(), table.table_name(), table.family)
            }
        }
    }
}

/// A supported kind of store, with its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StoreEngine {
    /// Redis or Valkey.
    Redis(RedisSettings),
    /// A table of Google Bigtable.
    Bigtable(BigtableSettings),
}

impl StoreEngine {
    /// The servers that are called; those that are valid.
    pub fn servers(&self) -> Vec<HostPort> {
        match self {
            Self::Redis(redis) => redis.server().into_iter().collect(),
            Self::Bigtable(table) => table.servers().unwrap_or_default(),
        }
    }

    /// The secret that they get.
    pub fn secret(&self) -> Option<&SecretRef> {
        match self {
            Self::Redis(redis) => redis.password.as_ref(),
            Self::Bigtable(table) => table.credentials.as_ref(),
        }
    }
}

/// A Redis or Valkey server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisSettings {
    /// `redis://HOST:PORT/DATABASE`; `rediss` for TLS.
    pub url: String,
    /// The user; `None` means the server's default user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<SecretRef>,
    /// Whether the password may be sent to another machine without TLS.
    #[serde(default)]
    pub insecure: bool,
    /// What all keys begin with; `throng:` unless set.
    pub prefix: String,
    /// What a key stands for.
    #[serde(default)]
    pub layout: StoreLayout,
}

impl RedisSettings {
    /// Host and port of the URL, 6379 unless it names one.
    ///
    /// # Errors
    /// [`NotAHost`] if the URL has another form, or contains a user or a password; never for a
    /// checked spec.
    pub fn server(&self) -> Result<HostPort, NotAHost> {
        let (authority, _) = self.parts().ok_or(NotAHost)?;
        let is_port = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match authority.rsplit_once(':') {
            Some((_, port)) if is_port(port) => authority.parse(),
            _ => format!("{authority}:6379").parse(),
        }
    }

    /// The number of the database; 0 unless the URL names one.
    pub fn database(&self) -> u16 {
        self.parts().map_or(0, |(_, database)| database)
    }

    /// Whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.url.starts_with("rediss://")
    }

    /// Whether the password would be sent to another machine unencrypted, although that is not allowed.
    pub fn is_exposed(&self) -> bool {
        self.password.is_some()
            && !self.is_encrypted()
            && !self.insecure
            && !is_loopback_host(host_of(&self.url))
    }

    /// `HOST:PORT` as written, and the database.
    fn parts(&self) -> Option<(&str, u16)> {
        let rest =
            self.url.strip_prefix("rediss://").or_else(|| self.url.strip_prefix("redis://"))?;
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        if database.is_empty() {
            return Some((authority, 0));
        }
        let is_number = database.bytes().all(|b| b.is_ascii_digit());
        Some((authority, database.parse().ok().filter(|_| is_number)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_has_audiences_of_its_workspace_only() {
        let store = |name: &str, audiences: Option<&str>| ServingStore {
            name: name.parse().unwrap(),
            engine: StoreEngine::Redis(redis("redis://cache")),
            audiences: audiences.map(|name| vec![name.parse().unwrap()]),
            max_writes_per_second: 1,
        };
        let has = |store: &ServingStore, name: &str| store.has(&name.parse().unwrap());
        let (default, acme) = (store("cache", None), store("acme:cache", None));
        assert!(has(&default, "autumn") && !has(&default, "acme:autumn"));
        assert!(has(&acme, "acme:autumn") && !has(&acme, "autumn"));
        assert!(!has(&acme, "globex:autumn"));
        assert!(!has(&store("cache", Some("acme:autumn")), "acme:autumn"));
    }

    fn redis(url: &str) -> RedisSettings {
        RedisSettings {
            url: url.to_owned(),
            username: None,
            password: None,
            insecure: false,
            prefix: String::new(),
            layout: StoreLayout::ByUser,
        }
    }

    #[test]
    fn a_password_is_exposed_to_another_machine_without_tls() {
        let password = Some(SecretRef::Env("PASSWORD".to_owned()));
        let with_password = |url| RedisSettings { password: password.clone(), ..redis(url) };
        assert!(with_password("redis://cache").is_exposed());
        assert!(!redis("redis://cache").is_exposed());
        assert!(!with_password("rediss://cache").is_exposed());
        assert!(!with_password("redis://127.0.0.1:6380").is_exposed());
        let allowed = RedisSettings { insecure: true, ..with_password("redis://cache") };
        assert!(!allowed.is_exposed());
    }

    fn server(url: &str) -> Option<(String, u16, u16)> {
        let redis = redis(url);
        let server = redis.server().ok()?;
        Some((server.host().to_owned(), server.port(), redis.database()))
    }

    #[test]
    fn a_url_names_server_and_database_and_nothing_else() {
        let found = |host: &str, port, database| Some((host.to_owned(), port, database));
        assert_eq!(server("redis://cache"), found("cache", 6379, 0));
        assert_eq!(server("rediss://Cache:443/"), found("cache", 443, 0));
        assert_eq!(server("redis://10.0.0.7:6380/15"), found("10.0.0.7", 6380, 15));
        assert_eq!(server("redis://[::1]/2"), found("[::1]", 6379, 2));
        for wrong in [
            "cache:6379",
            "http://cache",
            "redis://",
            "redis://user@cache",
            "redis://:secret@cache:6379",
            "redis://cache:",
            "redis://cache/+1",
            "redis://cache/x",
            "redis://cache/1/2",
            "redis://cache?x",
            "redis://cache\\@evil",
        ] {
            assert_eq!(server(wrong), None, "{wrong}");
        }
    }
}
