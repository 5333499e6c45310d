//! Why bytes are not a frame.

use throng_model::Fault;

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// Too short, or another protocol.
    #[error("this is not a feed frame: check that the address is a Throng feed")]
    NotAFrame,
    /// Written by a newer program.
    #[error("the feed frame has format version {0}, this program knows 1 to 3: update the gate")]
    UnknownFormat(u8),
    /// Changed in transit.
    #[error("the checksum of the feed frame does not match: drop the connection and open it again")]
    Checksum,
    /// The checksum is right, the contents are not.
    #[error("the feed frame is malformed ({0}): report this as a bug of the sender")]
    Malformed(&'static str),
}

impl FeedError {
    /// Who has to act.
    ///
    /// ```
    /// use throng_feed::{FeedError, Frame};
    /// use throng_model::Fault;
    ///
    /// // A load balancer's error page instead of a feed.
    /// let error = Frame::decode(b"HTTP/1.1 503 Service Unavailable").unwrap_err();
    /// assert_eq!(error, FeedError::NotAFrame);
    /// assert_eq!(error.fault(), Fault::User);
    /// ```
    pub fn fault(self) -> Fault {
        match self {
            Self::NotAFrame | Self::UnknownFormat(_) => Fault::User,
            Self::Checksum => Fault::External,
            Self::Malformed(_) => Fault::Internal,
        }
    }
}
