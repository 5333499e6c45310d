//! What can go wrong between a reader and the brokers.

use std::io::ErrorKind;

use kafka_protocol::ResponseError;

use crate::LogError;

use super::super::client::mend;
use super::batch::Damage;

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("no broker can be reached")]
    Network(#[from] std::io::Error),
    #[error("a broker does not answer")]
    Late,
    #[error("a certificate cannot be used")]
    Certificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the broker refuses the login: {0}")]
    Login(String),
    #[error("there is no such topic or partition")]
    Missing,
    #[error("the broker says: {0}")]
    Refused(ResponseError),
    #[error("the broker's response makes no sense: {0}")]
    Response(String),
    #[error(transparent)]
    Damage(#[from] Damage),
}

impl Trouble {
    /// Whether it may be over by itself, soon.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            // An address that is none stays none.
            Self::Network(error) => !is_of_tls(error) && error.kind() != ErrorKind::InvalidInput,
            Self::Late => true,
            Self::Refused(
                ResponseError::UnknownServerError | ResponseError::BrokerNotAvailable,
            ) => true,
            Self::Refused(error) => error.is_retriable(),
            Self::Missing
            | Self::Certificate(_)
            | Self::Login(_)
            | Self::Response(_)
            | Self::Damage(_) => false,
        }
    }

    /// As an error of the log, with the mend.
    pub(crate) fn into_error(self, topic: &str) -> LogError {
        let help = match &self {
            Self::Certificate(_) => mend::TLS,
            Self::Network(error) if is_of_tls(error) => mend::TLS,
            Self::Network(_) | Self::Late => mend::NETWORK,
            Self::Login(_) => mend::LOGIN,
            Self::Refused(ResponseError::TopicAuthorizationFailed) => mend::RIGHTS,
            Self::Missing => mend::TOPICS,
            Self::Refused(_) | Self::Response(_) | Self::Damage(_) => mend::UNKNOWN,
        };
        LogError::Kafka { doing: "read", topic: topic.to_owned(), help, source: Box::new(self) }
    }
}

/// The TLS of a connection tells what is wrong with a certificate in an I/O error.
fn is_of_tls(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|source| source.is::<rustls::Error>())
}
