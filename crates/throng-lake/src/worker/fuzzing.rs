//! Fuzz targets of the pipe between a node and its query workers: each gives arbitrary bytes to a
//! decoder and asserts what must hold for what it accepts. `fuzz/` runs them under libFuzzer, the
//! tests below over mutants of the seeds.

use throng_model::UserHash;
use throng_query::keys::{
    KEYS, KeyBatch, NOT_ON_CLUSTER, ROWS, SHARED, SharedBatch, not_on_cluster, read_keys,
    read_not_on_cluster, read_rows, read_shared, rows, write_keys, write_shared,
};
use throng_spec::Source;
use throng_worker::frame::{self, CONTROL, HEAD};
use throng_worker::{Confinement, Setup};

use super::protocol::{Reply, Request};
use crate::failure::Failure;

#[cfg(test)]
#[path = "../../../../fuzz/mutate.rs"]
mod mutate;

/// A frame, as the worker and as the node read it.
pub fn pipe_frame(bytes: &[u8]) {
    let _ = frame::read::<Setup<Vec<Source>>>(&mut &*bytes);
    let _ = frame::read::<Request>(&mut &*bytes);
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return };
    let Ok((length, kind)) = frame::head(*head) else { return };
    let payload = rest.get(..length).unwrap_or(rest);
    match kind {
        CONTROL => {
            let _ = frame::message::<Reply>(payload);
        }
        KEYS => {
            if let Ok(batch) = read_keys(payload) {
                let words = batch.hashes.len() + batch.values.map_or(0, |values| values.len());
                assert_eq!(24 + words * 8, payload.len());
            }
        }
        SHARED => {
            let mut batch = SharedBatch::default();
            if read_shared(payload, &mut batch).is_ok() {
                let words = batch.hashes.len() + batch.values.len();
                assert_eq!(8 + words * 8 + batch.groups.len() * 4, payload.len());
            }
        }
        NOT_ON_CLUSTER => {
            if let Ok(reason) = read_not_on_cluster(payload) {
                assert_eq!(reason.len(), payload.len());
            }
        }
        ROWS => {
            if let Ok(rows) = read_rows(payload) {
                let bytes: usize = rows.iter().map(|(_, hashed)| 12 + hashed.len()).sum();
                assert_eq!(bytes, payload.len());
            }
        }
        _ => {}
    }
}

/// A frame of each kind.
pub fn pipe_frame_seeds() -> Vec<Vec<u8>> {
    let confinement = Confinement {
        parent: 1,
        read: vec!["/lake".into()],
        memory_bytes: 1 << 30,
        spill_dir: Some("/spill".into()),
        connect_port: Some(7),
        threads: 2,
    };
    let setup = Setup { confinement, task: Vec::<Source>::new() };
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
        write_keys(&mut out, &batch).map(|()| out)
    };
    let shared = {
        let mut out = Vec::new();
        let batch = SharedBatch { hashes: vec![UserHash(7)], values: vec![8], groups: vec![9] };
        write_shared(&mut out, &batch).map(|()| out)
    };
    [
        frame::control(&setup),
        frame::control(&check),
        frame::control(&Reply::Checked),
        frame::control(&Reply::Failed(failure)),
        keys(None),
        keys(Some(vec![9, 8, 7, 6, u64::MAX])),
        shared,
        not_on_cluster("no operator"),
        rows(&[(UserHash(7), [1, 2, 3].into()), (UserHash(u64::MAX), [].into())]),
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
