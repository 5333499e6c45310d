//! Files in memory. The only unsafe code of the crate.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::MembershipError;

/// A whole file, mapped read-only.
#[derive(Debug)]
pub(crate) struct Mapped(Mmap);

impl Mapped {
    /// Maps a file of this crate.
    pub(crate) fn open(path: &Path) -> Result<Self, MembershipError> {
        let io = |doing| move |source| MembershipError::Io { doing, path: path.to_owned(), source };
        let file = File::open(path).map_err(io("open"))?;
        #[expect(
            unsafe_code,
            reason = "a map is undefined if the file shrinks or changes: files of this crate are \
                      write-once, replaced only by rename, which leaves mapped bytes as they are"
        )]
        let map = unsafe { Mmap::map(&file) }.map_err(io("map into memory"))?;
        Ok(Self(map))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
