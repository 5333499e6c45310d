//! Fuzz targets of the pipe between a node and its query workers: each gives arbitrary bytes to a
//! decoder and asserts what must hold for what it accepts. `fuzz/` runs them under libFuzzer, the
//! tests below over mutants of the seeds.

use throng_model::UserHash;

use super::protocol::{self, Failure, HEAD, PipeFrameKind, Reply, Request, Setup};
use crate::KeyBatch;

#[cfg(test)]
#[path = "../../../../fuzz/mutate.rs"]
mod mutate;

/// A frame, as the worker and as the node read it.
pub fn pipe_frame(bytes: &[u8]) {
    let _ = protocol::read::<Setup>(&mut &*bytes);
    let _ = protocol::read::<Request>(&mut &*bytes);
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return };
    let Ok((length, kind)) = protocol::head(*head) else { return };
    let payload = rest.get(..length).unwrap_or(rest);
    match kind {
        PipeFrameKind::Control => {
            let _ = protocol::message::<Reply>(payload);
        }
        PipeFrameKind::Keys => {
            if let Ok(batch) = protocol::read_keys(payload) {
                let words = batch.hashes.len() + batch.values.map_or(0, |values| values.len());
                assert_eq!(24 + words * 8, payload.len());
            }
        }
        PipeFrameKind::Rows => {
            if let Ok(rows) = protocol::read_rows(payload) {
                let bytes: usize = rows.iter().map(|(_, hashed)| 12 + hashed.len()).sum();
                assert_eq!(bytes, payload.len());
            }
        }
    }
}

/// A frame of each kind.
pub fn pipe_frame_seeds() -> Vec<Vec<u8>> {
    let setup = Setup {
        parent: 1,
        sources: Vec::new(),
        memory_bytes: 1 << 30,
        spill_dir: Some("/spill".into()),
        threads: 2,
    };
    let check = Request::CheckIdentifiers {
        sql: "SELECT id, email FROM s.users".to_owned(),
        key: "id".to_owned(),
        columns: vec!["email".to_owned()],
    };
    let failure = Failure::Sql { message: "no".to_owned(), position: Some((1, 2)), help: None };
    let keys = |values| {
        let hashes = (0..5).map(|n| UserHash(n * 3)).collect();
        let mut out = Vec::new();
        let batch = KeyBatch { rows: 7, hashes, values, null_keys: 2 };
        protocol::write_keys(&mut out, &batch).map(|()| out)
    };
    [
        protocol::control(&setup),
        protocol::control(&check),
        protocol::control(&Reply::Ready { unopened: Vec::new() }),
        protocol::control(&Reply::Failed(failure)),
        keys(None),
        keys(Some(vec![9, 8, 7, 6, u64::MAX])),
        protocol::rows(&[(UserHash(7), [1, 2, 3].into()), (UserHash(u64::MAX), [].into())]),
    ]
    .into_iter()
    .map(|frame| frame.expect("a frame in memory"))
    .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn mutants_of_frames() {
        super::mutate::run(&super::pipe_frame_seeds(), 4_000, super::pipe_frame);
    }
}
