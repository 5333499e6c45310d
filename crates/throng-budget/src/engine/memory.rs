//! Memory for large tables: cache lines of zeros, in huge pages where the system has them.
//!
//! With small pages, random reads in a table of millions of ids miss the TLB besides the caches, and each
//! small page costs a page fault when it is first written. Linux gives huge pages to a mapping that asks
//! for them (`/sys/kernel/mm/transparent_hugepage/enabled` says `always`
//! or `madvise`); elsewhere pages stay small, and nothing else changes.

use memmap2::MmapMut;

/// The length of a cache line in bytes.
pub(super) const LINE: usize = 64;
/// Smaller tables use the allocator.
const MIN_MAPPED_BYTES: usize = 2 << 20;

#[derive(Debug)]
enum Buffer {
    Allocated(Vec<u8>),
    Mapped(MmapMut),
}

impl Default for Buffer {
    fn default() -> Self {
        Self::Allocated(Vec::new())
    }
}

impl Buffer {
    fn zeroed(bytes: usize) -> Self {
        let mapped = (bytes >= MIN_MAPPED_BYTES).then(|| MmapMut::map_anon(bytes).ok()).flatten();
        let Some(map) = mapped else { return Self::Allocated(vec![0; bytes]) };
        // A system that does not know the advice uses small pages.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Self::Mapped(map)
    }
}

/// Asks the processor to load a line, without waiting. A plain read would also load it, but later
/// instructions could not retire before it.
#[inline]
pub(super) fn prefetch(line: &[u8; LINE]) {
    prefetch_bytes(line);
}

/// As [`prefetch`], for the line in which a part of memory starts.
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

/// As [`prefetch`], for all lines of a value. Only on x86-64.
#[inline]
pub(super) fn prefetch_value<T>(value: &T) {
    for offset in (0..size_of::<T>()).step_by(LINE) {
        prefetch_at(value, offset);
    }
    // A value begins anywhere in a line, and ends in one more then.
    prefetch_at(value, size_of::<T>().saturating_sub(1));
}

#[inline]
fn prefetch_at<T>(value: &T, offset: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = std::ptr::from_ref(value).cast::<i8>().wrapping_add(offset);
        // SAFETY: the address is inside of a value that is borrowed, and a hint reads nothing that can be seen.
        #[expect(unsafe_code, reason = "the standard library has no safe prefetch yet")]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(line);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (value, offset);
}

/// Lines of memory, zero at first.
#[derive(Debug, Default)]
pub(super) struct Lines(Buffer);

impl Lines {
    pub(super) fn zeroed(lines: usize) -> Self {
        Self(Buffer::zeroed(lines * LINE))
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[[u8; LINE]] {
        let bytes: &[u8] = match &self.0 {
            Buffer::Allocated(bytes) => bytes,
            Buffer::Mapped(map) => map,
        };
        bytes.as_chunks().0
    }

    #[inline]
    pub(super) fn as_mut_slice(&mut self) -> &mut [[u8; LINE]] {
        let bytes: &mut [u8] = match &mut self.0 {
            Buffer::Allocated(bytes) => bytes,
            Buffer::Mapped(map) => map,
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
