//! Encoding of prepared rows, which the process that hashes them sends.
//!
//! ```text
//! prepared: 0 | cells; a cell: 0 empty | 1, 32 bytes hashed | 2, length u32, text plain
//! skipped:  1 | the index of its reason in the platform's reasons
//! with notes: 2 | count u8, for each the cell and the index of its reason | one of the above
//! ```

use throng_model::HashedIdentifier;

use crate::row::{Cell, Note, Prepared, PreparedRow, Reasons, Skip};

/// Bytes that are not a prepared row of this platform, or a reason that the platform does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode a row of identifiers")]
pub struct InvalidPreparedRow;

/// Appends cells and an end marker.
pub(crate) fn write_cells(row: &PreparedRow, out: &mut Vec<u8>) {
    for cell in row {
        match cell {
            Cell::Empty => out.push(0),
            Cell::Hashed(hash) => {
                out.push(1);
                out.extend_from_slice(&hash.0);
            }
            Cell::Plain(text) => {
                out.push(2);
                out.extend_from_slice(&(text.len() as u32).to_le_bytes());
                out.extend_from_slice(text.as_bytes());
            }
        }
    }
    out.push(u8::MAX);
}

/// Reads what [`write_cells`] wrote. Returns the row and the remaining bytes.
pub(crate) fn read_cells(mut bytes: &[u8]) -> Option<(PreparedRow, &[u8])> {
    let mut row = Vec::new();
    loop {
        let (kind, after) = bytes.split_first()?;
        let (cell, after) = match *kind {
            0 => (Cell::Empty, after),
            1 => {
                let (hash, after) = after.split_first_chunk::<32>()?;
                (Cell::Hashed(HashedIdentifier(*hash)), after)
            }
            2 => {
                let (length, after) = after.split_first_chunk::<4>()?;
                let (text, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
                (Cell::Plain(std::str::from_utf8(text).ok()?.into()), after)
            }
            u8::MAX => return Some((row.into(), after)),
            _ => return None,
        };
        row.push(cell);
        bytes = after;
    }
}

/// Appends a row with its notes.
///
/// # Errors
/// [`InvalidPreparedRow`] if the platform does not have a reason.
pub fn encode_with_notes(
    row: &Prepared,
    notes: &[Note],
    reasons: Reasons,
    out: &mut Vec<u8>,
) -> Result<(), InvalidPreparedRow> {
    if !notes.is_empty() {
        let notes = &notes[..notes.len().min(255)];
        out.extend_from_slice(&[2, notes.len() as u8]);
        for note in notes {
            let index = reasons.notes.iter().position(|known| *known == note.reason);
            let index = index.and_then(|at| u8::try_from(at).ok()).ok_or(InvalidPreparedRow)?;
            out.extend_from_slice(&[note.cell, index]);
        }
    }
    encode_prepared(row, reasons.skips, out)
}

/// Reads a row of `cells` cells with its notes.
///
/// # Errors
/// [`InvalidPreparedRow`] if the bytes are not such a row.
pub fn decode_with_notes(
    bytes: &[u8],
    cells: usize,
    reasons: Reasons,
) -> Result<(Prepared, Vec<Note>), InvalidPreparedRow> {
    let mut rest = bytes;
    let mut notes = Vec::new();
    if let [2, count, after @ ..] = bytes {
        let (pairs, after) =
            after.split_at_checked(usize::from(*count) * 2).ok_or(InvalidPreparedRow)?;
        for pair in pairs.chunks(2) {
            let reason = reasons.notes.get(usize::from(pair[1])).ok_or(InvalidPreparedRow)?;
            notes.push(Note { cell: pair[0], reason });
        }
        rest = after;
    }
    Ok((decode_prepared(rest, cells, reasons.skips)?, notes))
}

/// Appends a row to `out`. `reasons` are all reasons of the platform, in the same order as for
/// [`decode_prepared`].
///
/// # Errors
/// [`InvalidPreparedRow`] if the platform does not have the reason, or a text is longer than 4 GiB.
pub fn encode_prepared(
    row: &Prepared,
    reasons: &[&'static str],
    out: &mut Vec<u8>,
) -> Result<(), InvalidPreparedRow> {
    match row {
        Ok(cells) => {
            out.push(0);
            for cell in cells {
                match cell {
                    Cell::Empty => out.push(0),
                    Cell::Hashed(hash) => {
                        out.push(1);
                        out.extend_from_slice(&hash.0);
                    }
                    Cell::Plain(text) => {
                        let length = u32::try_from(text.len()).map_err(|_| InvalidPreparedRow)?;
                        out.push(2);
                        out.extend_from_slice(&length.to_le_bytes());
                        out.extend_from_slice(text.as_bytes());
                    }
                }
            }
        }
        Err(Skip(reason)) => {
            let index =
                reasons.iter().position(|known| known == reason).ok_or(InvalidPreparedRow)?;
            out.push(1);
            out.push(u8::try_from(index).map_err(|_| InvalidPreparedRow)?);
        }
    }
    Ok(())
}

/// Reads a row of `cells` cells.
///
/// # Errors
/// [`InvalidPreparedRow`] if the bytes are not such a row.
pub fn decode_prepared(
    bytes: &[u8],
    cells: usize,
    reasons: &[&'static str],
) -> Result<Prepared, InvalidPreparedRow> {
    let (kind, mut rest) = bytes.split_first().ok_or(InvalidPreparedRow)?;
    if *kind == 1 {
        let [index] = rest else { return Err(InvalidPreparedRow) };
        let reason = reasons.get(usize::from(*index)).ok_or(InvalidPreparedRow)?;
        return Ok(Err(Skip(reason)));
    }
    let mut row = Vec::with_capacity(cells.min(rest.len()));
    while let Some((kind, after)) = rest.split_first() {
        let (cell, after) = match kind {
            0 => (Cell::Empty, after),
            1 => {
                let (hash, after) = after.split_first_chunk::<32>().ok_or(InvalidPreparedRow)?;
                (Cell::Hashed(HashedIdentifier(*hash)), after)
            }
            2 => {
                let (length, after) = after.split_first_chunk::<4>().ok_or(InvalidPreparedRow)?;
                let length = u32::from_le_bytes(*length) as usize;
                let (text, after) = after.split_at_checked(length).ok_or(InvalidPreparedRow)?;
                let text = std::str::from_utf8(text).map_err(|_| InvalidPreparedRow)?;
                (Cell::Plain(text.into()), after)
            }
            _ => return Err(InvalidPreparedRow),
        };
        row.push(cell);
        rest = after;
    }
    if *kind != 0 || row.len() != cells {
        return Err(InvalidPreparedRow);
    }
    Ok(Ok(row.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REASONS: &[&str] = &["nothing_usable", "no_id"];

    #[test]
    fn rows_are_read_as_they_were_written() {
        let hash = HashedIdentifier::of_normalised("a");
        let rows: [Prepared; 4] = [
            Ok(vec![Cell::Hashed(hash), Cell::Empty, Cell::Plain("é".into())].into()),
            Ok(vec![Cell::Empty, Cell::Plain("".into()), Cell::Empty].into()),
            Err(Skip("no_id")),
            Err(Skip("nothing_usable")),
        ];
        for row in rows {
            let mut bytes = Vec::new();
            encode_prepared(&row, REASONS, &mut bytes).unwrap();
            assert_eq!(decode_prepared(&bytes, 3, REASONS), Ok(row.clone()));
            if row.is_ok() {
                assert_eq!(decode_prepared(&bytes, 2, REASONS), Err(InvalidPreparedRow));
            }
            for cut in 0..bytes.len() {
                assert_ne!(decode_prepared(&bytes[..cut], 3, REASONS), Ok(row.clone()));
            }
        }
        let unknown = Err(Skip("another"));
        assert_eq!(encode_prepared(&unknown, REASONS, &mut Vec::new()), Err(InvalidPreparedRow));
    }

    #[test]
    fn other_bytes_are_rejected() {
        for bytes in [&[][..], &[2], &[1, 9], &[0, 7], &[0, 2, 255, 255, 255, 255, 1]] {
            assert_eq!(decode_prepared(bytes, 1, REASONS), Err(InvalidPreparedRow));
        }
    }
}
