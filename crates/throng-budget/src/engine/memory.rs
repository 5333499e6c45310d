//! Memory for large tables: lines of zeros, in pages of two megabytes where the system has them.
//!
//! A table of millions of ids that is read all over costs a search for the page besides the read
//! where pages are small, and each small page a fault when it is first written. Linux gives large
//! pages to a mapping that asks for them (`/sys/kernel/mm/transparent_hugepage/enabled` says `always`
//! or `madvise`); elsewhere pages stay small, and nothing else changes.

use memmap2::MmapMut;

/// What a processor brings from memory at once, in bytes.
pub(super) const LINE: usize = 64;
/// Less than this is left to the allocator.
const WORTH_MAPPING: usize = 2 << 20;

#[derive(Debug)]
enum Memory {
    Allocated(Vec<u8>),
    Mapped(MmapMut),
}

impl Default for Memory {
    fn default() -> Self {
        Self::Allocated(Vec::new())
    }
}

impl Memory {
    fn zeroed(bytes: usize) -> Self {
        let mapped = (bytes >= WORTH_MAPPING).then(|| MmapMut::map_anon(bytes).ok()).flatten();
        let Some(map) = mapped else { return Self::Allocated(vec![0; bytes]) };
        // A system that does not know the advice goes on with small pages.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Self::Mapped(map)
    }
}

/// Asks the processor to bring a line, and waits for nothing. A read would do, but no later work is
/// finished before it is.
#[inline]
pub(super) fn prefetch(line: &[u8; LINE]) {
    prefetch_bytes(line);
}

/// As [`prefetch`], the line that a part of memory begins in.
#[inline]
pub(super) fn prefetch_bytes<const N: usize>(line: &[u8; N]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the address is that of a reference, and a hint reads nothing that can be seen.
        #[expect(unsafe_code, reason = "the standard library has no safe prefetch yet")]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::hint::black_box(line[0]);
}

/// Lines of memory, zero at first.
#[derive(Debug, Default)]
pub(super) struct Lines(Memory);

impl Lines {
    pub(super) fn zeroed(lines: usize) -> Self {
        Self(Memory::zeroed(lines * LINE))
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[[u8; LINE]] {
        let bytes: &[u8] = match &self.0 {
            Memory::Allocated(bytes) => bytes,
            Memory::Mapped(map) => map,
        };
        bytes.as_chunks().0
    }

    #[inline]
    pub(super) fn as_mut_slice(&mut self) -> &mut [[u8; LINE]] {
        let bytes: &mut [u8] = match &mut self.0 {
            Memory::Allocated(bytes) => bytes,
            Memory::Mapped(map) => map,
        };
        bytes.as_chunks_mut().0
    }
}

impl Clone for Lines {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.as_slice().len());
        copy.as_mut_slice().copy_from_slice(self.as_slice());
        copy
    }
}
