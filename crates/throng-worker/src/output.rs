//! What receives the data frames of a request.

use std::error::Error;
use std::io;

use async_trait::async_trait;

use crate::frame::invalid;

/// Receives the data frames that come before the reply of a request.
#[async_trait]
pub trait Output: Send {
    /// Whether the request has frames of this kind. Another frame is an error of the protocol.
    fn accepts(&self, kind: u8) -> bool;

    /// Takes the payload of a frame of a kind that it accepts.
    ///
    /// # Errors
    /// [`ExchangeError::Pipe`] if the payload is invalid; [`ExchangeError::Receiver`] if it cannot be passed
    /// on. The worker is killed.
    async fn receive(&mut self, kind: u8, payload: &[u8]) -> Result<(), ExchangeError>;
}

/// Why a request is not answered.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The pipe cannot be read or written, or bytes on it are invalid.
    #[error("the pipe to the query worker failed")]
    Pipe(#[from] io::Error),
    /// What receives the output returned an error.
    #[error("the output of the query worker could not be stored")]
    Receiver(#[source] Box<dyn Error + Send + Sync>),
}

/// The output of requests that have only a reply.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoOutput;

#[async_trait]
impl Output for NoOutput {
    fn accepts(&self, _kind: u8) -> bool {
        false
    }

    async fn receive(&mut self, _kind: u8, _payload: &[u8]) -> Result<(), ExchangeError> {
        Err(invalid("an answer without a request").into())
    }
}
