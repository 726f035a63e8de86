//! The helper's allocator: size classes with free lists for small blocks, pages for large ones.
//!
//! An idle helper must stay small, so large blocks (receive buffers, frames) go back to the kernel
//! at once, and small ones are reused. One thread only. Source: mmap(2).
#![allow(unsafe_code)] // an allocator

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr;

use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap_anonymous, mremap, munmap};

/// Small blocks are 16, 32 … 2048 bytes.
const CLASSES: usize = 8;
const SMALLEST_BYTES: usize = 16;
const LARGEST_BYTES: usize = SMALLEST_BYTES << (CLASSES - 1);
/// Address space taken at a time for small blocks; memory only where it is touched.
const REGION_BYTES: usize = 64 * 1024;
/// The largest alignment that page-aligned memory has everywhere.
const PAGE_BYTES: usize = 4096;

/// A single-threaded allocator.
#[derive(Debug)]
pub struct Heap {
    state: UnsafeCell<State>,
}

#[derive(Debug)]
struct State {
    /// Heads of lists of free blocks; a free block's first word is the next one.
    free: [*mut u8; CLASSES],
    /// What is left of the newest region.
    next: *mut u8,
    left_bytes: usize,
}

// SAFETY: the helper has one thread (a test counts them), so no two calls overlap.
unsafe impl Sync for Heap {}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

impl Heap {
    /// An empty heap; the first allocation takes memory.
    pub const fn new() -> Self {
        Self {
            state: UnsafeCell::new(State {
                free: [ptr::null_mut(); CLASSES],
                next: ptr::null_mut(),
                left_bytes: 0,
            }),
        }
    }
}

/// The class that serves `layout`; `None` for pages of its own.
fn class_of(layout: Layout) -> Option<usize> {
    let bytes = layout.size().max(layout.align()).max(SMALLEST_BYTES);
    if bytes > LARGEST_BYTES {
        return None;
    }
    let class = bytes.next_power_of_two().trailing_zeros() - SMALLEST_BYTES.trailing_zeros();
    Some(class as usize)
}

fn map(bytes: usize) -> *mut u8 {
    // SAFETY: a fresh private mapping where the kernel likes aliases nothing.
    unsafe {
        mmap_anonymous(
            ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    }
    .map_or(ptr::null_mut(), <*mut _>::cast)
}

// SAFETY: blocks are disjoint: a class's block is either on one free list or handed out, large ones
// are mappings of their own. A block of a class is aligned to its size, and regions to pages.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class_of(layout) else {
            return if layout.align() > PAGE_BYTES {
                ptr::null_mut()
            } else {
                map(layout.size())
            };
        };
        // SAFETY: one thread, and no reference to the state outlives a call.
        let state = unsafe { &mut *self.state.get() };
        let bytes = SMALLEST_BYTES << class;
        if let Some(head) = state.free.get_mut(class)
            && !head.is_null()
        {
            let block = *head;
            // SAFETY: a free block is at least a word long, and its first word is the next block.
            *head = unsafe { block.cast::<*mut u8>().read() };
            return block;
        }
        let padding = state.next.align_offset(bytes);
        if state.next.is_null() || padding + bytes > state.left_bytes {
            // What is left of the old region is lost: at most 2 KiB of 64.
            state.next = map(REGION_BYTES);
            if state.next.is_null() {
                state.left_bytes = 0;
                return ptr::null_mut();
            }
            state.left_bytes = REGION_BYTES;
            return take(state, 0, bytes);
        }
        take(state, padding, bytes)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(class) = class_of(layout) else {
            // SAFETY: a mapping of `alloc` with this very size.
            let _ = unsafe { munmap(block.cast(), layout.size()) };
            return;
        };
        // SAFETY: one thread, and no reference to the state outlives a call.
        let state = unsafe { &mut *self.state.get() };
        if let Some(head) = state.free.get_mut(class) {
            // SAFETY: the block is ours again, at least a word long and aligned to its size.
            unsafe { block.cast::<*mut u8>().write(*head) };
            *head = block;
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout.
        let block = unsafe { self.alloc(layout) };
        // Fresh pages are zero already, and stay untouched: a receive buffer costs what it receives.
        if !block.is_null() && class_of(layout).is_some() {
            // SAFETY: the block has that many bytes.
            unsafe { ptr::write_bytes(block, 0, layout.size()) };
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        // SAFETY: the caller promises a size that fits the alignment.
        let new = unsafe { Layout::from_size_align_unchecked(new_bytes, layout.align()) };
        match (class_of(layout), class_of(new)) {
            (Some(old), Some(wanted)) if old == wanted => block,
            (None, None) => {
                // SAFETY: a mapping of `alloc` with this very size, which nobody uses meanwhile.
                unsafe { mremap(block.cast(), layout.size(), new_bytes, MremapFlags::MAYMOVE) }
                    .map_or(ptr::null_mut(), <*mut _>::cast)
            }
            // SAFETY: two distinct blocks, the smaller size fits both; the old one is the caller's.
            _ => unsafe {
                let copy = self.alloc(new);
                if !copy.is_null() {
                    ptr::copy_nonoverlapping(block, copy, layout.size().min(new_bytes));
                    self.dealloc(block, layout);
                }
                copy
            },
        }
    }
}

/// Cuts `bytes` off the region, `padding` bytes behind its start.
fn take(state: &mut State, padding: usize, bytes: usize) -> *mut u8 {
    let block = state.next.wrapping_add(padding);
    state.next = block.wrapping_add(bytes);
    state.left_bytes -= padding + bytes;
    block
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn layout(bytes: usize, align: usize) -> Layout {
        Layout::from_size_align(bytes, align).expect("a layout")
    }

    #[test]
    fn blocks_are_aligned_disjoint_and_reused() {
        let heap = Heap::new();
        let mut blocks: Vec<(usize, usize)> = Vec::new();
        for round in 0..4000_usize {
            let wanted = layout(1 + round * 37 % 5000, 1 << (round % 9));
            // SAFETY: a valid layout; the block is written within its size only.
            let block = unsafe {
                let block = heap.alloc(wanted);
                assert!(!block.is_null());
                ptr::write_bytes(block, 0xa5, wanted.size());
                block as usize
            };
            assert_eq!(block % wanted.align(), 0);
            blocks.push((block, wanted.size()));
        }
        blocks.sort_unstable();
        for pair in blocks.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?} overlap");
        }
        let small = layout(100, 8);
        // SAFETY: the block is freed with its own layout before it is asked for again.
        unsafe {
            let first = heap.alloc(small);
            heap.dealloc(first, small);
            assert_eq!(heap.alloc(small), first);
        }
    }

    #[test]
    fn growing_keeps_the_content_across_classes_and_pages() {
        let heap = Heap::new();
        let mut current = layout(10, 1);
        // SAFETY: each block is used with its own layout.
        unsafe {
            let mut block = heap.alloc(current);
            for index in 0..10 {
                block.add(index).write(u8::try_from(index).unwrap_or(0));
            }
            for bytes in [20, 500, 2048, 2049, 70_000, 300_000, 3000, 64] {
                block = heap.realloc(block, current, bytes);
                current = layout(bytes, 1);
                for index in 0..10 {
                    assert_eq!(usize::from(block.add(index).read()), index);
                }
            }
        }
    }

    #[test]
    fn zeroed_blocks_are_zero_even_when_reused() {
        let heap = Heap::new();
        let wanted = layout(64, 8);
        // SAFETY: the block is used with its own layout.
        unsafe {
            let block = heap.alloc(wanted);
            ptr::write_bytes(block, 0xff, 64);
            heap.dealloc(block, wanted);
            let again = heap.alloc_zeroed(wanted);
            assert!((0..64).all(|index| again.add(index).read() == 0));
        }
    }
}
