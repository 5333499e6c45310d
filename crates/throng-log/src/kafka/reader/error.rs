//! Errors of a reader.

use std::io::ErrorKind;

use kafka_protocol::ResponseError;

use crate::LogError;

use super::super::client::hints;

/// Why record batches cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BatchError {
    #[error("a record batch ends in the middle of a field")]
    Truncated,
    #[error("a record batch has the checksum {found:08x}, not {expected:08x}")]
    Checksum { found: u32, expected: u32 },
    #[error("a record batch is of version {0}; Throng reads version 2, of Kafka 0.11 and later")]
    Version(i8),
    #[error("a record batch is compressed by codec {0}, which Throng does not support")]
    Codec(i16),
    #[error("a record batch cannot be decompressed: {0}")]
    Decompression(String),
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("no broker can be reached")]
    Network(#[from] std::io::Error),
    #[error("a broker does not answer in time")]
    Timeout,
    #[error("a certificate cannot be used")]
    Certificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the broker refuses the authentication: {0}")]
    Authentication(String),
    #[error("there is no such topic or partition")]
    UnknownTopic,
    #[error("the broker returned an error: {0}")]
    Broker(ResponseError),
    #[error("the response of the broker is invalid: {0}")]
    Protocol(String),
    #[error(transparent)]
    Batch(#[from] BatchError),
}

impl ReadError {
    /// Whether a retry can succeed without a change of the settings or of the topic.
    pub(super) fn is_retryable(&self) -> bool {
        match self {
            // `InvalidInput`: the address cannot be parsed.
            Self::Network(error) => !is_tls_error(error) && error.kind() != ErrorKind::InvalidInput,
            Self::Timeout => true,
            // Not retriable in the protocol guide, but brokers return them while they start or stop. A reader
            // that gives up then would stop the aggregation of its partition.
            Self::Broker(ResponseError::UnknownServerError | ResponseError::BrokerNotAvailable) => {
                true
            }
            Self::Broker(error) => error.is_retriable(),
            Self::UnknownTopic
            | Self::Certificate(_)
            | Self::Authentication(_)
            | Self::Protocol(_)
            | Self::Batch(_) => false,
        }
    }

    /// As an error of the log, with a hint.
    pub(crate) fn into_error(self, topic: &str) -> LogError {
        let hint = match &self {
            Self::Certificate(_) => hints::TLS,
            Self::Network(error) if is_tls_error(error) => hints::TLS,
            Self::Network(_) | Self::Timeout => hints::NETWORK,
            Self::Authentication(_) => hints::AUTHENTICATION,
            Self::Broker(ResponseError::TopicAuthorizationFailed) => hints::AUTHORIZATION,
            Self::UnknownTopic => hints::TOPICS,
            Self::Broker(_) | Self::Protocol(_) | Self::Batch(_) => hints::UNKNOWN,
        };
        LogError::Kafka { doing: "read", topic: topic.to_owned(), hint, source: Box::new(self) }
    }
}

/// rustls reports an invalid certificate as an I/O error.
fn is_tls_error(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|source| source.is::<rustls::Error>())
}
