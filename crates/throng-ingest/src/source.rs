//! The content of a batch: the body of a request as a reader, decoded, with its digest.

use std::io::{self, BufReader, Read};

use bytes::{Buf as _, Bytes};
use sha2::{Digest, Sha256};
use throng_model::to_hex;
use tokio::sync::mpsc;

use crate::error::IngestError;

/// The largest window of zstd, as a power of two: 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;
const BUFFER_BYTES: usize = 256 << 10;
/// Bytes of the beginning that are kept.
const BEGINNING_BYTES: usize = 512;

/// How the content is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// By gzip.
    Gzip,
    /// By zstd.
    Zstd,
}

impl Encoding {
    /// The encoding of the values of the header `content-encoding`.
    ///
    /// # Errors
    /// Why it is not supported.
    pub fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, &'static str> {
        let mut found = Self::Identity;
        for name in names {
            let next = match &*name.trim().to_ascii_lowercase() {
                "" | "identity" => continue,
                "gzip" | "x-gzip" => Self::Gzip,
                "zstd" => Self::Zstd,
                _ => return Err("the content encoding is not supported"),
            };
            if found != Self::Identity {
                return Err("several content encodings at once are not supported");
            }
            found = next;
        }
        Ok(found)
    }
}

/// A piece of a body. A body without an end was cut off.
#[derive(Debug)]
pub enum BodyPart {
    /// Some bytes.
    Data(Bytes),
    /// The body is complete.
    End,
}

/// Why reading a body fails.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the body was cut off")]
struct CutOff;

/// A body that arrives over a channel, for a thread that may block.
#[derive(Debug)]
pub struct BodyReader {
    parts: mpsc::Receiver<BodyPart>,
    current: Bytes,
    ended: bool,
}

impl BodyReader {
    /// Reads the parts of a channel. If its sender is dropped before [`BodyPart::End`], the body was cut off.
    pub fn new(parts: mpsc::Receiver<BodyPart>) -> Self {
        Self { parts, current: Bytes::new(), ended: false }
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.parts.blocking_recv() {
                Some(BodyPart::Data(bytes)) => self.current = bytes,
                Some(BodyPart::End) => self.ended = true,
                None => return Err(io::Error::other(CutOff)),
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Decoded content, whose digest is known at its end.
pub(crate) struct Content<'a> {
    decoded: Box<dyn Read + Send + 'a>,
    digest: Sha256,
    beginning: Vec<u8>,
    is_encoded: bool,
}

impl std::fmt::Debug for Content<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").finish_non_exhaustive()
    }
}

impl<'a> Content<'a> {
    pub(crate) fn new(
        body: impl Read + Send + 'a,
        encoding: Encoding,
    ) -> Result<Self, IngestError> {
        let body = BufReader::with_capacity(BUFFER_BYTES, body);
        let decoded: Box<dyn Read + Send + 'a> = match encoding {
            Encoding::Identity => Box::new(body),
            Encoding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(body)),
            Encoding::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(body).map_err(refused)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(refused)?;
                Box::new(decoder)
            }
        };
        let is_encoded = encoding != Encoding::Identity;
        Ok(Self { decoded, digest: Sha256::new(), beginning: Vec::new(), is_encoded })
    }

    /// Fills the buffer as far as the content goes. Fewer bytes than its length are the last ones.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, IngestError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.decoded.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // The error says what is wrong with the content, whatever that begins like.
                    self.beginning.clear();
                    return Err(refused(error));
                }
            }
        }
        self.digest.update(&buffer[..filled]);
        let kept = filled.min(BEGINNING_BYTES.saturating_sub(self.beginning.len()));
        self.beginning.extend_from_slice(&buffer[..kept]);
        Ok(filled)
    }

    /// Reads what is left.
    pub(crate) fn drain(&mut self) -> Result<(), IngestError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        while self.fill(&mut buffer)? > 0 {}
        Ok(())
    }

    /// The first bytes of what was read. Empty if the content could not be decoded or was cut off.
    pub(crate) fn beginning(&self) -> &[u8] {
        &self.beginning
    }

    /// Whether it was sent in another form than it is read.
    pub(crate) fn is_encoded(&self) -> bool {
        self.is_encoded
    }

    /// The SHA-256 of what was read, in hexadecimal digits.
    pub(crate) fn digest(&self) -> String {
        to_hex(&self.digest.clone().finalize())
    }
}

fn refused(error: io::Error) -> IngestError {
    let is_cut_off = error.get_ref().is_some_and(|inner| inner.is::<CutOff>());
    if is_cut_off {
        return IngestError::CutOff;
    }
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return IngestError::refused(
            "the compressed content ends early: the file is truncated, or other bytes follow its end",
            "compress the file again, and send it whole; `gzip -t FILE` and `zstd -t FILE` say which it is",
        );
    }
    IngestError::refused(
        "the content is not what its encoding says: it is damaged or not compressed this way, or other bytes follow its end",
        "send it as it is, or as gzip or zstd with the matching `content-encoding`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn read(body: &[u8], encoding: Encoding) -> Result<(Vec<u8>, String), IngestError> {
        let mut content = Content::new(body, encoding)?;
        let mut text = vec![0; 1 << 20];
        let count = content.fill(&mut text)?;
        text.truncate(count);
        Ok((text, content.digest()))
    }

    #[test]
    fn encodings_are_decoded_and_have_one_digest() {
        let text = b"a,b\n1,2\n".repeat(1000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        let plain = read(&text, Encoding::Identity).unwrap();
        assert_eq!(plain.0, text);
        assert_eq!(read(&gzip, Encoding::Gzip).unwrap(), plain);
        assert_eq!(read(&zstd, Encoding::Zstd).unwrap(), plain);
        for (body, encoding) in [(&gzip, Encoding::Gzip), (&zstd, Encoding::Zstd)] {
            let error = read(&body[..body.len() - 5], encoding).unwrap_err();
            assert!(error.to_string().contains("truncated"), "{encoding:?} {error}");
            let error = read(&text, encoding).unwrap_err();
            assert!(error.to_string().contains("encoding"), "{encoding:?} {error}");
        }
    }

    #[test]
    fn bytes_behind_the_end_of_a_gzip_stream_are_named() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"a,b\n1,2\n").unwrap();
        let gzip = gzip.finish().unwrap();
        for junk in [&b"\n"[..], b"more bytes than a header has"] {
            let error = read(&[gzip.as_slice(), junk].concat(), Encoding::Gzip).unwrap_err();
            assert!(error.to_string().contains("other bytes follow its end"), "{error}");
        }
    }

    #[test]
    fn one_known_encoding_is_supported() {
        let of = |names: &[&'static str]| Encoding::of_names(names.iter().copied());
        assert_eq!(of(&[]), Ok(Encoding::Identity));
        assert_eq!(of(&["identity", " GZIP "]), Ok(Encoding::Gzip));
        assert_eq!(of(&["zstd"]), Ok(Encoding::Zstd));
        assert!(of(&["br"]).unwrap_err().contains("not supported"));
        assert!(of(&["gzip", "zstd"]).unwrap_err().contains("several"));
    }

    #[test]
    fn a_body_without_an_end_is_cut_off() {
        let (sender, parts) = mpsc::channel(2);
        sender.blocking_send(BodyPart::Data(Bytes::from_static(b"abc"))).unwrap();
        sender.blocking_send(BodyPart::End).unwrap();
        let mut content = Content::new(BodyReader::new(parts), Encoding::Identity).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(content.fill(&mut buffer).unwrap(), 3);
        let (sender, parts) = mpsc::channel(1);
        sender.blocking_send(BodyPart::Data(Bytes::from_static(b"abc"))).unwrap();
        drop(sender);
        for encoding in [Encoding::Identity, Encoding::Gzip] {
            let (sender, parts) = mpsc::channel::<BodyPart>(1);
            drop(sender);
            let content = Content::new(BodyReader::new(parts), encoding);
            let error = content.and_then(|mut content| content.fill(&mut buffer)).unwrap_err();
            assert!(matches!(error, IngestError::CutOff), "{encoding:?} {error}");
        }
        let mut content = Content::new(BodyReader::new(parts), Encoding::Identity).unwrap();
        assert!(matches!(content.fill(&mut buffer), Err(IngestError::CutOff)));
    }
}
