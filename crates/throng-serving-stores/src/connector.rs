//! Connections to the kinds of stores that a spec can have.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use throng_google::{AccessTokens, TokenOptions};
use throng_model::{Backoff, Clock, Secret, ServingStoreName};
use throng_spec::{BigtableSettings, Environment, ServingStore, StoreEngine};

use crate::rate::{NextRequest, RateLimit};
use crate::{Connector, MemberStore, StoreError, bigtable, redis_store};

/// What the access tokens are for.
const SCOPE: &str = "https://www.googleapis.com/auth/bigtable.data";
/// The timeout of a request for an access token, and the delays between tries.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(5);
const TOKEN_RETRY: Backoff =
    Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(5) };

/// Connects to the servers of serving stores. Keeps access tokens until they expire, and the rate of each store.
pub struct StoreConnector {
    env: Environment,
    clock: Arc<dyn Clock>,
    tokens: Mutex<HashMap<ServingStoreName, KeptTokens>>,
    next_requests: Mutex<HashMap<ServingStoreName, NextRequest>>,
}

/// The access tokens of a store, and what they were requested with.
struct KeptTokens {
    table: BigtableSettings,
    credentials: Option<Secret>,
    tokens: Arc<AccessTokens>,
}

impl std::fmt::Debug for StoreConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreConnector").finish_non_exhaustive()
    }
}

impl StoreConnector {
    /// `env` looks up secrets of the kind `env:NAME`; `clock` decides when access tokens expire.
    pub fn new(env: Environment, clock: Arc<dyn Clock>) -> Self {
        Self { env, clock, tokens: Mutex::default(), next_requests: Mutex::default() }
    }

    /// The rate of a store, which all its connections share, also after a change of its settings.
    fn rate(&self, store: &ServingStore) -> RateLimit {
        let mut next_requests = self.next_requests.lock();
        let next = next_requests.entry(store.name.clone()).or_default();
        RateLimit::new(Arc::clone(next), store.max_writes_per_second)
    }

    /// The access tokens of a store; `None` if it needs none. Makes no request.
    fn tokens(
        &self,
        store: &ServingStoreName,
        table: &BigtableSettings,
    ) -> Result<Option<Arc<AccessTokens>>, StoreError> {
        let Some(url) = table.token_url() else { return Ok(None) };
        let credentials =
            table.credentials.as_ref().map(|at| at.resolve(&*self.env)).transpose()?;
        let mut kept = self.tokens.lock();
        if let Some(one) = kept.get(store)
            && one.table == *table
            && one.credentials == credentials
        {
            return Ok(Some(Arc::clone(&one.tokens)));
        }
        let tokens = Arc::new(AccessTokens::new(TokenOptions {
            credentials: credentials.as_ref(),
            url,
            scope: SCOPE,
            clock: Arc::clone(&self.clock),
            timeout: TOKEN_TIMEOUT,
            retry: TOKEN_RETRY,
        })?);
        let one = KeptTokens { table: table.clone(), credentials, tokens: Arc::clone(&tokens) };
        kept.insert(store.clone(), one);
        Ok(Some(tokens))
    }
}

#[async_trait]
impl Connector for StoreConnector {
    async fn connect(&self, store: &ServingStore) -> Result<Box<dyn MemberStore>, StoreError> {
        let rate = self.rate(store);
        match &store.engine {
            StoreEngine::Redis(settings) => redis_store::connect(settings, &self.env, rate).await,
            StoreEngine::Bigtable(table) => {
                bigtable::connect(table, self.tokens(&store.name, table)?, rate).await
            }
        }
    }
}
