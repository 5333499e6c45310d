//! One connection to a broker: requests and their responses, one at a time.

use std::fmt::Display;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, FetchRequest, FetchResponse, MetadataRequest, MetadataResponse, RequestHeader,
    ResponseHeader, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
    SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::retry::TIMEOUT;

use super::error::ReadError;

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

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// One connection to a broker. Not usable after an error.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    correlation_id: i32,
}

impl Connection {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, correlation_id: 0 }
    }

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
