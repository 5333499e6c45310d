//! What can go wrong between a reader and the brokers.

use std::io::ErrorKind;

use kafka_protocol::ResponseError;

use crate::LogError;

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
    #[error("the broker's answer makes no sense: {0}")]
    Answer(String),
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
            | Self::Answer(_)
            | Self::Damage(_) => false,
        }
    }

    /// As an error of the log, with the mend.
    pub(crate) fn into_error(self, topic: &str) -> LogError {
        let help = match &self {
            Self::Network(error) if is_of_tls(error) => TLS,
            Self::Network(_) | Self::Late => {
                "check that the brokers of node.kafka.brokers can be reached from here"
            }
            Self::Certificate(_) => TLS,
            Self::Login(_)
            | Self::Refused(
                ResponseError::SaslAuthenticationFailed | ResponseError::UnsupportedSaslMechanism,
            ) => "check user, password and mechanism in node.kafka",
            Self::Refused(ResponseError::TopicAuthorizationFailed) => {
                "give the user the rights in docs/operate/kafka.md"
            }
            Self::Missing => {
                "create the topics of docs/operate/kafka.md, or let Throng create them"
            }
            Self::Refused(_) | Self::Answer(_) | Self::Damage(_) => "look at the brokers' logs",
        };
        LogError::Kafka { doing: "read", topic: topic.to_owned(), help, source: Box::new(self) }
    }
}

const TLS: &str = "check node.kafka.tls and the certificates";

/// The TLS of a connection tells what is wrong with a certificate in an I/O error.
fn is_of_tls(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|source| source.is::<rustls::Error>())
}
