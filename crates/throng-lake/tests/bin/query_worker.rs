//! A program that is only a query worker, for the tests of this crate.

use std::process::ExitCode;

use throng_lake::{Hashers, RowHasher};
use throng_model::{HashedIdentifier, Personal};

/// Hashes as platforms do, without normalizing.
struct Plain;

impl Hashers for Plain {
    fn open(&self, _: &serde_json::Value) -> Result<Box<dyn RowHasher>, String> {
        Ok(Box::new(Self))
    }
}

impl RowHasher for Plain {
    fn hash(&mut self, cells: &[Option<Personal>], out: &mut Vec<u8>) {
        for cell in cells {
            let text = cell.as_ref().map_or("", Personal::expose);
            out.extend_from_slice(&HashedIdentifier::of_normalised(text).0);
        }
    }
}

fn main() -> ExitCode {
    throng_lake::worker::main(&Plain)
}
