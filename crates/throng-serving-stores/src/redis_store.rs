//! Members in Redis or Valkey: a set of audiences for each user, or a set of users for each audience. Users are
//! 16 hexadecimal digits of their hash.

use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, pipe,
};
use throng_model::{AudienceName, StoreLayout, UserHash};
use throng_spec::{Environment, RedisSettings};

use crate::rate::RateLimit;
use crate::{Change, MemberStore, StoreError};

/// The timeout of a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of a request. With the wait for the rate shorter than half of the lease of a write.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Users of a request, at most.
const REQUEST_USERS: u32 = 1_000;

/// Connects to a server. `env` looks up secrets of the kind `env:NAME`.
pub(crate) async fn connect(
    settings: &RedisSettings,
    env: &Environment,
    rate: RateLimit,
) -> Result<Box<dyn MemberStore>, StoreError> {
    let client = client(settings, env)?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    let connection = connecting.await.map_err(failure)?;
    let keys = Keys { prefix: settings.prefix.clone(), layout: settings.layout };
    Ok(Box::new(RedisStore { connection, keys, rate }))
}

fn client(settings: &RedisSettings, env: &Environment) -> Result<Client, StoreError> {
    let unusable = |_| StoreError::Other("its url cannot be used".to_owned());
    let server =
        settings.server().map_err(|_| StoreError::Other("its url is invalid".to_owned()))?;
    let (host, port) = (server.host().trim_matches(['[', ']']).to_owned(), server.port());
    let address = if settings.is_encrypted() {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    };
    let mut info = RedisConnectionInfo::default()
        .set_db(i64::from(settings.database()))
        .set_skip_set_lib_name();
    if let Some(username) = &settings.username {
        info = info.set_username(username);
    }
    if let Some(password) = &settings.password {
        info = info.set_password(password.resolve(&**env)?.expose());
    }
    let info = address.into_connection_info().map_err(unusable)?.set_redis_settings(info);
    Client::open(info).map_err(unusable)
}

/// The keys of a store.
struct Keys {
    prefix: String,
    layout: StoreLayout,
}

impl Keys {
    /// The key of a set and the member in it that say that a user is in an audience.
    fn entry(&self, audience: &AudienceName, user: UserHash) -> (String, String) {
        let (prefix, user) = (&self.prefix, format!("{:016x}", user.0));
        match self.layout {
            StoreLayout::ByUser => (format!("{prefix}u:{user}"), audience.to_string()),
            StoreLayout::ByAudience => (format!("{prefix}a:{audience}"), user),
        }
    }
}

struct RedisStore {
    connection: MultiplexedConnection,
    keys: Keys,
    rate: RateLimit,
}

#[async_trait]
impl MemberStore for RedisStore {
    fn request_users(&self) -> u32 {
        REQUEST_USERS
    }

    async fn write(
        &mut self,
        audience: &AudienceName,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut requests = pipe();
        let mut last: Option<(String, bool)> = None;
        for change in changes {
            let (key, member) = self.keys.entry(audience, change.user);
            // One command for neighbours in the same set.
            if last.as_ref().is_none_or(|(set, added)| *set != key || *added != change.added) {
                requests.cmd(if change.added { "SADD" } else { "SREM" }).arg(&key).ignore();
                last = Some((key, change.added));
            }
            requests.arg(member);
        }
        self.rate.wait(changes.len()).await;
        requests.exec_async(&mut self.connection).await.map_err(failure)
    }

    async fn contains(
        &mut self,
        audience: &AudienceName,
        users: &[UserHash],
    ) -> Result<Vec<bool>, StoreError> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let mut requests = pipe();
        for user in users {
            let (key, member) = self.keys.entry(audience, *user);
            requests.cmd("SISMEMBER").arg(key).arg(member);
        }
        self.rate.wait(users.len()).await;
        let found: Vec<bool> = requests.query_async(&mut self.connection).await.map_err(failure)?;
        Ok(found)
    }
}

/// The error of a call. Of the server's text only the code is kept: the rest may name a key.
fn failure(error: RedisError) -> StoreError {
    let (kind, category) = (error.kind(), error.category().to_owned());
    let dropped = error.is_io_error() || error.is_timeout();
    let text = if dropped { error.to_string() } else { category };
    let codes = error.into_server_errors();
    let code =
        codes.as_deref().and_then(|all| all.first()).map(|(_, error)| error.code().to_owned());
    let code = code.unwrap_or_default();
    match code.as_str() {
        "WRONGPASS" | "NOAUTH" | "NOPERM" => StoreError::AccessDenied(code),
        "READONLY" => StoreError::ReadOnly,
        "OOM" => StoreError::OutOfMemory,
        "LOADING" | "BUSY" | "MISCONF" | "MASTERDOWN" | "TRYAGAIN" | "NOREPLICAS" => {
            StoreError::NotReady(code)
        }
        "MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT" => StoreError::Cluster(code),
        "WRONGTYPE" => StoreError::OtherType,
        "" if kind == ErrorKind::AuthenticationFailed => StoreError::AccessDenied(text),
        "" if dropped => StoreError::Unreachable(text),
        "" => StoreError::Other(text),
        _ => StoreError::Other(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_ad_servers_look_up() {
        let (audience, user) = ("buyers".parse().unwrap(), UserHash(0x2a));
        let keys = |layout| Keys { prefix: "ads:".to_owned(), layout };
        let by_user = keys(StoreLayout::ByUser).entry(&audience, user);
        assert_eq!(by_user, ("ads:u:000000000000002a".to_owned(), "buyers".to_owned()));
        let by_audience = keys(StoreLayout::ByAudience).entry(&audience, user);
        assert_eq!(by_audience, ("ads:a:buyers".to_owned(), "000000000000002a".to_owned()));
    }

    /// The vectors of docs/serving-stores.md, made with another implementation of XXH3.
    #[test]
    fn users_are_hashed_as_documented() {
        for (key, seed, expected) in [
            ("user-1", 42, "944a60dd2e204847"),
            ("42", 42, "5dd415183e667846"),
            ("ann@example.com", 42, "efe6728444624d43"),
            ("user-1", 0x9e37_79b9_7f4a_7c15, "2471e5de68046e15"),
        ] {
            let hash = throng_model::UserKey::text(key).hash(throng_model::HashSeed(seed));
            assert_eq!(format!("{:016x}", hash.0), expected);
        }
    }
}
