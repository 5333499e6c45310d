//! Connections of an executor to others: one for each, shared by its tasks. Without it every read of a stage's output
//! would have its own, with a handshake.

use std::collections::HashMap;
use std::sync::Arc;

use ballista_core::client::BallistaClient;
use ballista_core::client_pool::{BallistaClientPool, PooledClient};
use ballista_core::error::Result;
use ballista_core::extension::BallistaConfigGrpcEndpoint;
use ballista_core::utils::GrpcClientConfig;
use parking_lot::Mutex;

/// Executors that come and go have new addresses; then all connections are made again.
const MAX_PEERS: usize = 1_000;

/// Host, port and settings.
type Peer = (String, u16, GrpcClientConfig);

/// The connections. A connection that broke is made again by its next request.
#[derive(Default)]
pub(crate) struct Peers(Mutex<HashMap<Peer, BallistaClient>>);

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Peers").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl BallistaClientPool for Peers {
    async fn acquire(
        &self,
        host: &str,
        port: u16,
        config: &GrpcClientConfig,
        customize_endpoint: Option<Arc<BallistaConfigGrpcEndpoint>>,
    ) -> Result<PooledClient> {
        let peer = (host.to_owned(), port, config.clone());
        let known = self.0.lock().get(&peer).cloned();
        let client = match known {
            Some(client) => client,
            None => {
                let client = BallistaClient::try_new(
                    host,
                    port,
                    config.max_message_size,
                    config.use_tls,
                    customize_endpoint,
                    config.io_retries_times,
                    config.io_retry_wait_time_ms,
                    config.initial_connection_window_size,
                    config.initial_stream_window_size,
                )
                .await?;
                let mut peers = self.0.lock();
                if peers.len() >= MAX_PEERS {
                    peers.clear();
                }
                peers.insert(peer, client.clone());
                client
            }
        };
        Ok(PooledClient::new(client, Box::new(drop::<BallistaClient>)))
    }

    async fn evict_idle(&self) {
        self.0.lock().clear();
    }
}
