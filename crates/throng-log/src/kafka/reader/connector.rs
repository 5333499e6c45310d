//! Opens connections to brokers: TCP, TLS, authentication.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;

use crate::retry::{CONNECT_TIMEOUT, TIMEOUT};

use super::super::client::{KafkaOptions, Tls};
use super::connection::{Connection, Stream};
use super::error::ReadError;
use super::sasl;

/// Opens connections. Reads the trusted certificates once.
pub(super) struct Connector {
    options: KafkaOptions,
    tls: Option<tokio_rustls::TlsConnector>,
}

impl Connector {
    pub(super) fn new(options: &KafkaOptions) -> Result<Self, ReadError> {
        let tls = options.tls.as_ref().map(tls_connector).transpose()?;
        Ok(Self { options: options.clone(), tls })
    }

    /// `host:port` of the bootstrap brokers. Like librdkafka, it ignores a protocol before the host, and
    /// the default port is 9092.
    pub(super) fn bootstrap(&self) -> Vec<String> {
        let brokers = self.options.brokers.split(',').map(str::trim);
        brokers.filter(|broker| !broker.is_empty()).map(address).collect()
    }

    /// Connects and authenticates.
    pub(super) async fn connect(&self, broker: &str) -> Result<Connection, ReadError> {
        let connected = tokio::time::timeout(TIMEOUT, self.connect_and_authenticate(broker)).await;
        connected.unwrap_or(Err(ReadError::Timeout))
    }

    async fn connect_and_authenticate(&self, broker: &str) -> Result<Connection, ReadError> {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(broker)).await;
        let tcp = connected.map_err(|_| ReadError::Timeout)??;
        // Requests are small and wait for their response: Nagle's algorithm would delay each of them.
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host);
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = ServerName::try_from(host);
                let name = name.map_err(|error| ReadError::Certificate(error.into()))?;
                Box::new(tls.connect(name, tcp).await?)
            }
        };
        let mut connection = Connection::new(stream);
        // Before any other request: a listener with SASL closes the connection otherwise (protocol guide,
        // "SASL Authentication Sequence").
        if let Some(sasl) = &self.options.sasl {
            sasl::authenticate(&mut connection, sasl).await?;
        }
        Ok(connection)
    }
}

fn address(broker: &str) -> String {
    let broker = broker.split_once("://").map_or(broker, |(_, rest)| rest);
    // Colons inside of brackets belong to an IPv6 address.
    let has_port = broker.rfind(':') > broker.rfind(']');
    if has_port { broker.to_owned() } else { format!("{broker}:9092") }
}

fn tls_connector(tls: &Tls) -> Result<tokio_rustls::TlsConnector, ReadError> {
    let unusable = |error: Box<dyn std::error::Error + Send + Sync>| ReadError::Certificate(error);
    let mut trusted = rustls::RootCertStore::empty();
    match &tls.ca_file {
        Some(path) => {
            let read =
                CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.into()))?;
            for certificate in read {
                let certificate = certificate.map_err(|error| unusable(error.into()))?;
                trusted.add(certificate).map_err(|error| unusable(error.into()))?;
            }
        }
        // Some certificates of the system may be in forms that rustls does not support: skip them.
        None => {
            trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    // Named explicitly: a default for the process may not be installed yet, and rustls would panic.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.into()))?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn addresses_are_parsed_like_librdkafka_does() {
        let addresses = ["k1", "k1:9093", "SSL://k1:9093", "[::1]", "SASL_SSL://[::1]:9094"];
        let wanted = ["k1:9092", "k1:9093", "k1:9093", "[::1]:9092", "[::1]:9094"];
        assert_eq!(addresses.map(address), wanted);
    }
}
