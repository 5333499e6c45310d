//! One connection to a broker: requests and their responses, one at a time.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

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

use super::super::client::{KafkaSettings, PATIENCE, Tls};
use super::login;
use super::trouble::Trouble;

/// Longer responses come from no broker: a fetch is bounded, but for one message, which Throng's topics
/// bound to 17 MB.
const LONGEST: usize = 256 << 20;

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

/// A broker that is there takes a connection at once; another one may be asked instead.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// How connections are made: the settings, and what TLS trusts, read once.
pub(super) struct Dialer {
    settings: KafkaSettings,
    tls: Option<tokio_rustls::TlsConnector>,
}

impl Dialer {
    pub(super) fn new(settings: &KafkaSettings) -> Result<Self, Trouble> {
        let tls = settings.tls.as_ref().map(connector).transpose()?;
        Ok(Self { settings: settings.clone(), tls })
    }

    /// `host:port` of the brokers to begin with. As librdkafka has it: a protocol before them is
    /// passed over, and without a port it is 9092.
    pub(super) fn bootstrap(&self) -> Vec<String> {
        let brokers = self.settings.brokers.split(',').map(str::trim);
        brokers.filter(|broker| !broker.is_empty()).map(address).collect()
    }

    /// Connects and logs in.
    pub(super) async fn dial(&self, broker: &str) -> Result<Connection, Trouble> {
        let dialed = tokio::time::timeout(PATIENCE, self.dial_now(broker)).await;
        dialed.unwrap_or(Err(Trouble::Late))
    }

    async fn dial_now(&self, broker: &str) -> Result<Connection, Trouble> {
        let connected = tokio::time::timeout(CONNECT_PATIENCE, TcpStream::connect(broker)).await;
        let tcp = connected.map_err(|_| Trouble::Late)??;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host);
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = ServerName::try_from(host);
                let name = name.map_err(|error| Trouble::Certificate(error.into()))?;
                Box::new(tls.connect(name, tcp).await?)
            }
        };
        let mut connection = Connection { stream, number: 0 };
        if let Some(sasl) = &self.settings.sasl {
            login::log_in(&mut connection, sasl).await?;
        }
        Ok(connection)
    }
}

fn address(broker: &str) -> String {
    let broker = broker.split_once("://").map_or(broker, |(_, rest)| rest);
    // Colons within brackets belong to an address of IPv6.
    let has_port = broker.rfind(':') > broker.rfind(']');
    if has_port { broker.to_owned() } else { format!("{broker}:9092") }
}

fn connector(tls: &Tls) -> Result<tokio_rustls::TlsConnector, Trouble> {
    let unusable = |error: Box<dyn std::error::Error + Send + Sync>| Trouble::Certificate(error);
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
        // Some of a system's certificates may be of kinds that nobody reads any more.
        None => {
            trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.into()))?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

/// One connection to a broker. After an error it is of no more use.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    number: i32,
}

impl Connection {
    /// Sends a request of a version and waits for the response, as long as something of it comes. Not to
    /// be dropped while it waits, or the connection is of no more use.
    pub(super) async fn send<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, Trouble> {
        self.number = self.number.wrapping_add(1);
        let head = RequestHeader::default()
            .with_request_api_key(R::KEY as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.number)
            .with_client_id(Some(StrBytes::from_static_str("throng")));
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        head.encode(&mut frame, R::header_version(version)).map_err(nonsense)?;
        request.encode(&mut frame, version).map_err(nonsense)?;
        let length = i32::try_from(frame.len() - 4).unwrap_or(i32::MAX);
        frame[..4].copy_from_slice(&length.to_be_bytes());
        patiently(async {
            self.stream.write_all(&frame).await?;
            self.stream.flush().await
        })
        .await?;
        let mut response = self.frame().await?;
        let version_of_head = R::Response::header_version(version);
        let head = ResponseHeader::decode(&mut response, version_of_head).map_err(nonsense)?;
        if head.correlation_id != self.number {
            return Err(Trouble::Response("it belongs to another request".to_owned()));
        }
        R::Response::decode(&mut response, version).map_err(nonsense)
    }

    /// What comes next: a length, and so many bytes.
    async fn frame(&mut self) -> Result<Bytes, Trouble> {
        let length = patiently(self.stream.read_u32()).await? as usize;
        if length > LONGEST {
            return Err(Trouble::Response(format!("it is {length} bytes long")));
        }
        let mut frame = BytesMut::with_capacity(length);
        let mut rest = (&mut self.stream).take(length as u64);
        while frame.len() < length {
            if patiently(rest.read_buf(&mut frame)).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(frame.freeze())
    }
}

fn nonsense(error: impl Display) -> Trouble {
    Trouble::Response(error.to_string())
}

async fn patiently<T>(done: impl Future<Output = std::io::Result<T>>) -> Result<T, Trouble> {
    Ok(tokio::time::timeout(PATIENCE, done).await.map_err(|_| Trouble::Late)??)
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn addresses_are_as_librdkafka_has_them() {
        let addresses = ["k1", "k1:9093", "SSL://k1:9093", "[::1]", "SASL_SSL://[::1]:9094"];
        let wanted = ["k1:9092", "k1:9093", "k1:9093", "[::1]:9092", "[::1]:9094"];
        assert_eq!(addresses.map(address), wanted);
    }
}
