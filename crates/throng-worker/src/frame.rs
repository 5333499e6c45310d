//! Frames on the pipes between a node and a query worker. Pure except for reading and writing.
//!
//! ```text
//! frame: length of the payload u32 | kind u8 | payload          (numbers are little-endian)
//! kind 1, control: a message as JSON: [`Setup`](crate::Setup) and its reply, requests, replies
//! other kinds:     data, in a form of the program's own
//! ```

use std::io::{self, Read};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A longer payload is an error of the protocol, in bytes.
pub const MAX_FRAME: usize = 64 << 20;
/// Bytes before a payload.
pub const HEAD: usize = 5;
/// The kind of frames with a message.
pub const CONTROL: u8 = 1;

/// The error of bytes that are not a frame, or not one that was expected.
pub fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A frame of this kind, with the payload that `write_payload` appends.
///
/// # Errors
/// If the payload is longer than [`MAX_FRAME`].
pub fn frame(kind: u8, write_payload: impl FnOnce(&mut Vec<u8>)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    frame_into(&mut bytes, kind, write_payload)?;
    Ok(bytes)
}

/// As [`frame`], in place of what the buffer has: its memory is used again.
///
/// # Errors
/// As [`frame`].
pub fn frame_into(
    bytes: &mut Vec<u8>,
    kind: u8,
    write_payload: impl FnOnce(&mut Vec<u8>),
) -> io::Result<()> {
    bytes.clear();
    bytes.resize(HEAD, 0);
    write_payload(bytes);
    let length = bytes.len() - HEAD;
    if length > MAX_FRAME {
        return Err(invalid("a frame is too long"));
    }
    bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
    bytes[4] = kind;
    Ok(())
}

/// A message as a frame.
///
/// # Errors
/// If it cannot be written as JSON, or is longer than [`MAX_FRAME`].
pub fn control(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(message)?;
    frame(CONTROL, |bytes| bytes.extend_from_slice(&json))
}

/// Length of the payload and kind of the frame with this head.
///
/// # Errors
/// If the payload is longer than [`MAX_FRAME`].
pub fn head(bytes: [u8; HEAD]) -> io::Result<(usize, u8)> {
    let [a, b, c, d, kind] = bytes;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > MAX_FRAME {
        return Err(invalid("a frame is too long"));
    }
    Ok((length, kind))
}

/// The message of a control frame.
///
/// # Errors
/// If the payload is not such a message.
pub fn message<T: DeserializeOwned>(payload: &[u8]) -> io::Result<T> {
    serde_json::from_slice(payload).map_err(|_| invalid("a message of an unknown form"))
}

/// Reads a message; `None` at the end of the input.
///
/// # Errors
/// If the input cannot be read, or has something else.
pub fn read<T: DeserializeOwned>(input: &mut impl Read) -> io::Result<Option<T>> {
    let mut bytes = [0; HEAD];
    match input.read_exact(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let (length, kind) = head(bytes)?;
    if kind != CONTROL {
        return Err(invalid("a message was expected"));
    }
    let mut payload = vec![0; length];
    input.read_exact(&mut payload)?;
    message(&payload).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let bytes = control(&("setup", 7)).unwrap();
        let mut input = bytes.as_slice();
        let read_back: Option<(String, u32)> = read(&mut input).unwrap();
        assert_eq!(read_back, Some(("setup".to_owned(), 7)));
        assert_eq!(read::<u32>(&mut input).unwrap(), None);
    }

    #[test]
    fn bytes_that_are_not_a_message_are_refused_without_allocating() {
        assert!(head([255, 255, 255, 255, CONTROL]).is_err());
        assert!(read::<u32>(&mut &[255, 255, 255, 255, CONTROL][..]).is_err());
        let data = frame(2, |bytes| bytes.push(7)).unwrap();
        assert!(read::<u32>(&mut data.as_slice()).is_err());
        assert!(message::<u32>(b"{}").is_err());
        assert!(frame(2, |bytes| bytes.resize(HEAD + MAX_FRAME + 1, 0)).is_err());
    }
}
