//! Encrypted connections between the processes of a cluster: each proves itself to the other by a certificate of the
//! cluster's own authority. Ballista 55 has no authentication, and no way to send a token from executors.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ballista_core::extension::EndpointOverrideFn;
use throng_lake::ClusterTls;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig};

use crate::ClusterError;

/// The name that every certificate of a cluster is for, whatever the host.
pub const CERTIFICATE_NAME: &str = "throng-ballista";

/// The longest time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Without an answer to a ping for this time, a connection is closed.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Time between pings.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// What a server of the cluster requires.
pub(crate) fn server(tls: &ClusterTls) -> ServerTlsConfig {
    ServerTlsConfig::new()
        .identity(Identity::from_pem(&tls.cert, &tls.key))
        .client_ca_root(Certificate::from_pem(&tls.ca))
}

/// Changes endpoints of servers of the cluster. Ballista writes `http://` and reads the system's certificate
/// authorities where it is set to use TLS; both are replaced.
pub(crate) fn endpoints(tls: Option<&ClusterTls>) -> EndpointOverrideFn {
    let tls = tls.map(|tls| {
        ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&tls.ca))
            .identity(Identity::from_pem(&tls.cert, &tls.key))
            .domain_name(CERTIFICATE_NAME)
    });
    Arc::new(move |endpoint: Endpoint| -> Result<Endpoint, Box<dyn Error + Send + Sync>> {
        let Some(tls) = &tls else { return Ok(kept_alive(endpoint)) };
        let authority = endpoint.uri().authority().map(ToString::to_string);
        let authority = authority.ok_or("a server of the cluster has no address")?;
        let endpoint = Endpoint::from_shared(format!("https://{authority}"))?;
        Ok(kept_alive(endpoint).tls_config(tls.clone())?)
    })
}

fn kept_alive(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
}

/// Refuses an address that other machines can reach if they need not prove themselves.
pub(crate) fn check_exposed(
    listen: SocketAddr,
    tls: Option<&ClusterTls>,
) -> Result<(), ClusterError> {
    if listen.ip().is_loopback() || tls.is_some() {
        return Ok(());
    }
    Err(ClusterError::Options(format!(
        "{listen} can be reached by other machines, and whoever reaches it can run queries: add --ca, --cert and --key"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_must_prove_themselves() {
        let tls = ClusterTls { ca: String::new(), cert: String::new(), key: String::new() };
        let everywhere: SocketAddr = "0.0.0.0:50050".parse().unwrap();
        assert!(check_exposed(everywhere, None).is_err());
        assert!(check_exposed(everywhere, Some(&tls)).is_ok());
        assert!(check_exposed("127.0.0.1:50050".parse().unwrap(), None).is_ok());
    }

    #[test]
    fn without_certificates_an_endpoint_stays() {
        let endpoint = Endpoint::from_static("http://10.0.0.7:50050");
        let changed = endpoints(None)(endpoint).unwrap();
        assert_eq!(changed.uri().to_string(), "http://10.0.0.7:50050/");
    }
}
