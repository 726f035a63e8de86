//! The allocator of every role: one heap for all threads, that gives back what nobody uses.
//!
//! For a packet buffer musl's takes a mapping, and later an unmapping that stops every other thread;
//! glibc's gives each thread a heap of its own, some pages at least for every connection; and a heap
//! of the usual kind, once many connections filled it, stays as soon as one of its last blocks does.
//! So blocks of half a page and more are mappings of their own here, some of which are kept for the
//! next of that length, and the rest is the C library's. `src/main.rs` names it as the allocator.
//!
//! Sources: mallopt(3), mmap(2), mremap(2), munmap(2).
#![allow(unsafe_code)] // GlobalAlloc is an unsafe trait; mappings are unsafe

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::limits::{KEPT_BUFFER_BYTES, KEPT_BUFFERS, OWN_MAPPING_BYTES};
use crate::profile::heap;

/// The smallest page of any machine; where pages are larger, the system rounds up alike each time.
const PAGE_BYTES: usize = 4096;

static KEPT: Mutex<Kept> = Mutex::new(Kept {
    blocks: [(0, 0); KEPT_BUFFERS],
    count: 0,
});

/// The one heap of this process.
#[derive(Debug)]
pub struct OneHeap;

/// Gives back kept buffers, and what the C library holds without a use.
pub fn give_back() {
    loop {
        let Some((address, len)) = kept().take_any() else {
            break;
        };
        unmap(ptr::with_exposed_provenance_mut(address), len);
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: takes an integer, may be called by any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// One heap of the C library for all threads. To be called before the first thread.
pub fn prepare() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes two integers; no other thread allocates, since there is none yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Mappings that were freed, for the next block of the same length.
struct Kept {
    /// Address and length, the one that was freed last behind the others.
    blocks: [(usize, usize); KEPT_BUFFERS],
    count: usize,
}

impl Kept {
    fn take(&mut self, len: usize) -> Option<*mut u8> {
        let living = self.blocks.get(..self.count)?;
        // The last one that was freed is the one whose pages the caches still have.
        let index = living.iter().rposition(|(_, has)| *has == len)?;
        let (address, _) = self.take_at(index)?;
        Some(ptr::with_exposed_provenance_mut(address))
    }

    fn take_at(&mut self, index: usize) -> Option<(usize, usize)> {
        let block = *self.blocks.get(..self.count)?.get(index)?;
        self.blocks.copy_within(index + 1..self.count, index);
        self.count -= 1;
        Some(block)
    }

    fn take_any(&mut self) -> Option<(usize, usize)> {
        self.count = self.count.checked_sub(1)?;
        Some(self.blocks[self.count])
    }

    /// Keeps the block, and gives what has to go for it: of lengths that nobody asks for any more
    /// would else be left what no other block finds room beside.
    fn put(&mut self, block: *mut u8, len: usize) -> Option<(usize, usize)> {
        let oldest = (self.count == KEPT_BUFFERS)
            .then(|| self.take_at(0))
            .flatten();
        if let Some(place) = self.blocks.get_mut(self.count) {
            *place = (block.expose_provenance(), len);
            self.count += 1;
        }
        oldest
    }
}

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The length of the mapping for `layout` with `size` bytes, where it gets one.
fn own_mapping(size: usize, align: usize) -> Option<usize> {
    (size >= OWN_MAPPING_BYTES && align <= PAGE_BYTES)
        .then(|| size.checked_next_multiple_of(PAGE_BYTES))
        .flatten()
}

fn map(len: usize) -> *mut u8 {
    // SAFETY: asks for a new mapping anywhere; nothing that exists is touched.
    let mapped = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if mapped == libc::MAP_FAILED {
        ptr::null_mut()
    } else {
        mapped.cast()
    }
}

fn unmap(block: *mut u8, len: usize) {
    // SAFETY: callers give a mapping made by `map`, of this length, that nobody uses any more.
    unsafe { libc::munmap(block.cast(), len) };
}

// SAFETY: blocks have the size and alignment that are asked for and stay until they are freed; which
// of the two kinds a block is follows from its layout alone, the same each time; locks keep threads
// apart. Nothing here panics or allocates: locking a mutex of std is an atomic operation or a futex
// call.
unsafe impl GlobalAlloc for OneHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = match own_mapping(layout.size(), layout.align()) {
            Some(len) => {
                let again = kept().take(len);
                again.unwrap_or_else(|| map(len))
            }
            // SAFETY: the caller's layout has a size above zero and a valid alignment.
            None => unsafe { System.alloc(layout) },
        };
        heap::allocated(block, layout.size());
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        heap::released(block);
        match own_mapping(layout.size(), layout.align()) {
            Some(len) => {
                if len > KEPT_BUFFER_BYTES {
                    unmap(block, len);
                    return;
                }
                let oldest = kept().put(block, len);
                if let Some((address, len)) = oldest {
                    unmap(ptr::with_exposed_provenance_mut(address), len);
                }
            }
            // SAFETY: the caller gives back a block of this allocator with the layout it has.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let block = match own_mapping(layout.size(), layout.align()) {
            Some(len) => match kept().take(len) {
                Some(again) => {
                    // SAFETY: the mapping is `len` bytes long, no less than the block.
                    unsafe { again.write_bytes(0, layout.size()) };
                    again
                }
                None => map(len),
            },
            // SAFETY: as in `alloc`.
            None => unsafe { System.alloc_zeroed(layout) },
        };
        heap::allocated(block, layout.size());
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let (old, align) = (layout.size(), layout.align());
        match (own_mapping(old, align), own_mapping(new_size, align)) {
            (None, None) => {
                heap::released(block);
                // SAFETY: as in `dealloc`; the new size is above zero.
                let moved = unsafe { System.realloc(block, layout, new_size) };
                heap::allocated(moved, new_size);
                moved
            }
            (Some(old_len), Some(new_len)) if old_len == new_len => block,
            (Some(old_len), Some(new_len)) => {
                heap::released(block);
                // SAFETY: the block is a mapping of that length; the caller uses the new place only.
                let moved =
                    unsafe { libc::mremap(block.cast(), old_len, new_len, libc::MREMAP_MAYMOVE) };
                if moved == libc::MAP_FAILED {
                    ptr::null_mut()
                } else {
                    heap::allocated(moved.cast(), new_size);
                    moved.cast()
                }
            }
            // From one kind to the other.
            _ => {
                // SAFETY: the caller vouches that the size does not overflow with this alignment.
                let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, align) };
                // SAFETY: the layouts are valid as the caller's are; both blocks are as large as what
                // is copied, and they are apart, since both are in use.
                unsafe {
                    let new = self.alloc(new_layout);
                    if !new.is_null() {
                        ptr::copy_nonoverlapping(block, new, old.min(new_size));
                        self.dealloc(block, layout);
                    }
                    new
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::{Duration, Instant};

    fn anonymous_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:"));
        line.and_then(|line| line.split_whitespace().nth(1))
            .and_then(|number| number.parse().ok())
            .unwrap()
    }

    #[test]
    fn what_many_used_for_a_moment_goes_back() {
        const SIZE: usize = 16 * 1024;
        let layout = Layout::from_size_align(SIZE, 1).unwrap();
        let before = anonymous_kib();
        let blocks: Vec<*mut u8> = (0..4000)
            .map(|_| {
                // SAFETY: the layout has a size, and the block is that large.
                unsafe {
                    let block = OneHeap.alloc(layout);
                    block.write_bytes(1, SIZE);
                    block
                }
            })
            .collect();
        let full = anonymous_kib();
        assert!(full >= before + 60_000, "{before} KiB, then {full} KiB");
        for block in blocks {
            // SAFETY: of this allocator, with this layout, and freed once.
            unsafe { OneHeap.dealloc(block, layout) };
        }
        give_back();
        // Tests beside this one have memory too, for a while.
        let limit = Instant::now() + Duration::from_secs(60);
        let mut after = anonymous_kib();
        while after >= before + 8_000 {
            assert!(Instant::now() < limit, "{before} KiB, then {after} KiB");
            std::thread::sleep(Duration::from_millis(50));
            after = anonymous_kib();
        }
    }

    #[test]
    fn a_buffer_that_is_used_again_is_zero_where_that_is_asked() {
        let layout = Layout::from_size_align(40_000, 8).unwrap();
        for _ in 0..3 {
            // SAFETY: the layout has a size, the block is that large, and it is freed once.
            unsafe {
                let block = OneHeap.alloc_zeroed(layout);
                assert_eq!((*block, *block.add(39_999)), (0, 0));
                block.write_bytes(1, 40_000);
                OneHeap.dealloc(block, layout);
            }
        }
    }

    #[test]
    fn lengths_of_the_past_make_room() {
        let mut kept = Kept {
            blocks: [(0, 0); KEPT_BUFFERS],
            count: 0,
        };
        let at = |address: usize| ptr::with_exposed_provenance_mut::<u8>(address);
        for number in 1..=KEPT_BUFFERS {
            assert_eq!(kept.put(at(number << 20), 8192), None);
        }
        assert_eq!(kept.put(at(77 << 20), 4096), Some((1 << 20, 8192)));
        assert_eq!(kept.take(4096), Some(at(77 << 20)));
        assert_eq!(kept.take(4096), None);
        assert_eq!(kept.take(8192), Some(at(KEPT_BUFFERS << 20)));
        assert_eq!(kept.take_at(0), Some((2 << 20, 8192)));
        for _ in 0..KEPT_BUFFERS - 3 {
            assert!(kept.take_any().is_some());
        }
        assert_eq!(kept.take_any(), None);
    }

    #[test]
    fn blocks_are_aligned_and_keep_their_bytes() {
        for align in [1, 16, 64, 4096] {
            let layout = Layout::from_size_align(100, align).unwrap();
            // SAFETY: the layout has a size; the block is freed with the layout that it has then.
            unsafe {
                let block = OneHeap.alloc_zeroed(layout);
                assert_eq!(block.addr() % align, 0);
                *block.add(99) = 7;
                let mut last = (block, layout);
                for size in [9_000, 300_000, 12_000, 200] {
                    let block = OneHeap.realloc(last.0, last.1, size);
                    assert_eq!(block.addr() % align, 0);
                    assert_eq!((*block, *block.add(99)), (0, 7));
                    last = (block, Layout::from_size_align(size, align).unwrap());
                }
                OneHeap.dealloc(last.0, last.1);
            }
        }
    }
}
