//! Files of the parts of refreshes: the keys of a scan by user shard ([`KeyFile`]), and bitmaps of user shards
//! ([`bits`]). They appear whole or not at all, and are checked when they are read.

pub mod bits;
mod error;
mod key_file;
mod key_thread;
mod temp_file;

pub use error::PartFileError;
pub use key_file::{KeyFile, KeyFileWriter};
pub use key_thread::KeyThread;
pub use temp_file::create_folder;
