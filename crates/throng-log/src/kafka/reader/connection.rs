//! One connection to a broker: requests and their responses, one at a time.

use std::fmt::Display;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, FetchRequest, FetchResponse, MetadataRequest, MetadataResponse, RequestHeader,
    ResponseHeader, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
    SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::retry::{CONNECT_TIMEOUT, TIMEOUT};

use super::super::client::{KafkaOptions, Tls};
use super::error::ReadError;
use super::sasl;

/// The limit of a response, far above any valid one: a fetch is bounded except for one message, whose size
/// Throng's topics limit to 17 MiB.
const MAX_RESPONSE_BYTES: usize = 256 << 20;

/// A request with its response.
pub(super) trait Request: Encodable + HeaderVersion {
    const KEY: ApiKey;
    type Response: Decodable + HeaderVersion;
}

macro_rules! requests {
    ($($key:ident: $request:ty => $response:ty,)*) => {$(
        impl Request for $request {
            const KEY: ApiKey = ApiKey::$key;
            type Response = $response;
        }
    )*};
}

requests! {
    Fetch: FetchRequest => FetchResponse,
    Metadata: MetadataRequest => MetadataResponse,
    SaslHandshake: SaslHandshakeRequest => SaslHandshakeResponse,
    SaslAuthenticate: SaslAuthenticateRequest => SaslAuthenticateResponse,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

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
        let mut connection = Connection { stream, correlation_id: 0 };
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

/// One connection to a broker. Not usable after an error.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    correlation_id: i32,
}

impl Connection {
    /// Sends a request of a version and waits for the response; each part of it must arrive within the
    /// timeout. Not cancel safe: the connection is not usable if the future is dropped.
    pub(super) async fn send<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, ReadError> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("throng")));
        // Every message begins with its size, which does not include itself (protocol guide, "Protocol
        // Primitive Types" and "Common Request and Response Structure"). It is known after encoding.
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        header.encode(&mut frame, R::header_version(version)).map_err(protocol_error)?;
        request.encode(&mut frame, version).map_err(protocol_error)?;
        let length = i32::try_from(frame.len() - 4).unwrap_or(i32::MAX);
        frame[..4].copy_from_slice(&length.to_be_bytes());
        with_timeout(async {
            self.stream.write_all(&frame).await?;
            self.stream.flush().await
        })
        .await?;
        let mut response = self.frame().await?;
        let header_version = R::Response::header_version(version);
        let header =
            ResponseHeader::decode(&mut response, header_version).map_err(protocol_error)?;
        // A broker answers in the order of the requests (protocol guide, "Network"), so another id means that
        // bytes were lost or are left of an earlier response. Decoded as this one, they would be wrong data.
        if header.correlation_id != self.correlation_id {
            return Err(ReadError::Protocol("it belongs to another request".to_owned()));
        }
        R::Response::decode(&mut response, version).map_err(protocol_error)
    }

    /// Reads one frame: a length, and this number of bytes.
    async fn frame(&mut self) -> Result<Bytes, ReadError> {
        let length = with_timeout(self.stream.read_u32()).await? as usize;
        // Before the allocation: a server that is not a Kafka broker, such as an HTTP server, answers with
        // text, whose first bytes are a size of more than a gigabyte.
        if length > MAX_RESPONSE_BYTES {
            return Err(ReadError::Protocol(format!("it is {length} bytes long")));
        }
        let mut frame = BytesMut::with_capacity(length);
        let mut rest = (&mut self.stream).take(length as u64);
        // A timeout for each part, not for all: a large response on a slow connection is not an error as long
        // as bytes arrive.
        while frame.len() < length {
            if with_timeout(rest.read_buf(&mut frame)).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(frame.freeze())
    }
}

fn protocol_error(error: impl Display) -> ReadError {
    ReadError::Protocol(error.to_string())
}

async fn with_timeout<T>(io: impl Future<Output = std::io::Result<T>>) -> Result<T, ReadError> {
    Ok(tokio::time::timeout(TIMEOUT, io).await.map_err(|_| ReadError::Timeout)??)
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
