//! What is allocated, and which blocks are in use, by samples: one for each 512 KiB or so that a thread
//! allocates.
//!
//! In the way of an allocation stands a subtraction, in that of a release one look at a byte. The tables
//! have a fixed place, so nothing here allocates; nothing locks either.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use super::sampler;
use super::stacks::{self, Entry};
use crate::limits::{HEAP_SAMPLE_BYTES, HEAP_SAMPLE_DEPTH, HEAP_SAMPLES_MAX, HEAP_STACKS_MAX};

thread_local! {
    /// Bytes until the next sample, and one more; 0: the thread has not begun.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Where threads begin to count: spread evenly, since most never allocate as much as one interval.
static BEGINNING: AtomicUsize = AtomicUsize::new(HEAP_SAMPLE_BYTES);
/// The golden ratio's share of an interval: each step falls into the largest gap.
const STEP: usize = HEAP_SAMPLE_BYTES / 1000 * 618;

/// A sampled block's address; [`FREE`] or [`TAKEN`] where there is none.
static BLOCKS: [AtomicUsize; HEAP_SAMPLES_MAX] =
    [const { AtomicUsize::new(FREE) }; HEAP_SAMPLES_MAX];
const FREE: usize = 0;
const TAKEN: usize = 1;
/// What is known of it: its size, and which stack allocated it.
static FACTS: [[AtomicUsize; 2]; HEAP_SAMPLES_MAX] =
    [const { [const { AtomicUsize::new(0) }; 2] }; HEAP_SAMPLES_MAX];
/// How many blocks and bytes each stack allocated since the process began.
static STACKS: [Entry; HEAP_STACKS_MAX] = [const { Entry::new() }; HEAP_STACKS_MAX];
/// How many sampled blocks have an address of this hash; saturated ones stay.
static HASHES: [AtomicU8; 1024] = [const { AtomicU8::new(0) }; 1024];

fn hash(address: usize) -> &'static AtomicU8 {
    // Blocks are aligned to 16 bytes at least, large ones to pages.
    &HASHES[(address >> 4 ^ address >> 14) % HASHES.len()]
}

/// A block was allocated.
#[inline]
pub fn allocated(block: *mut u8, size: usize) {
    LEFT.with(|left| match left.get().checked_sub(size) {
        Some(rest) if rest > 0 => left.set(rest),
        _ => crossed(left, block, size),
    });
}

#[cold]
#[inline(never)]
fn crossed(left: &Cell<usize>, block: *mut u8, size: usize) {
    if left.get() == 0 {
        let begin = BEGINNING.fetch_add(STEP, Ordering::Relaxed) % HEAP_SAMPLE_BYTES;
        left.set(begin + 1);
        if size <= begin {
            return left.set(begin + 1 - size);
        }
    }
    left.set(HEAP_SAMPLE_BYTES + 1);
    if !block.is_null() {
        remember(block.addr(), size);
    }
}

fn remember(address: usize, size: usize) {
    let mut addresses = [0; HEAP_SAMPLE_DEPTH];
    let count = sampler::here(&mut addresses);
    let stack = addresses.get(..count).unwrap_or_default();
    // Where there is no room, the sample is lost: the profile is of what was there before.
    let Some(place) = stacks::add(&STACKS, stack, stands_for(size)) else {
        return;
    };
    let take = |block: &AtomicUsize| {
        block
            .compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    };
    let Some(index) = BLOCKS.iter().position(take) else {
        return;
    };
    for (fact, value) in FACTS[index].iter().zip([size, place]) {
        fact.store(value, Ordering::Relaxed);
    }
    let _ = hash(address).fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
        count.checked_add(1)
    });
    BLOCKS[index].store(address, Ordering::Release);
}

/// A block is about to be released.
#[inline]
pub fn released(block: *mut u8) {
    if hash(block.addr()).load(Ordering::Relaxed) != 0 {
        forget(block.addr());
    }
}

#[cold]
#[inline(never)]
fn forget(address: usize) {
    let is_it = |block: &&AtomicUsize| block.load(Ordering::Acquire) == address;
    if let Some(block) = BLOCKS.iter().find(is_it) {
        let _ = hash(address).fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count < u8::MAX).then(|| count - 1)
        });
        block.store(FREE, Ordering::Release);
    }
}

/// Blocks and bytes: a block is sampled as likely as it is large.
fn stands_for(size: usize) -> [u64; 2] {
    let blocks = (HEAP_SAMPLE_BYTES / size.max(1)).max(1);
    [blocks as u64, (blocks * size) as u64] // widens
}

/// Stacks, with how many blocks and bytes they allocated, and how many of these are in use.
pub(super) fn samples() -> Vec<(Vec<usize>, Vec<u64>)> {
    let mut in_use: BTreeMap<Vec<usize>, [u64; 2]> = BTreeMap::new();
    for (block, facts) in BLOCKS.iter().zip(&FACTS) {
        let before = block.load(Ordering::Acquire);
        let [size, place] = facts.each_ref().map(|fact| fact.load(Ordering::Relaxed));
        let gone = before <= TAKEN || block.load(Ordering::Acquire) != before;
        if let (Some(stack), false) = (stacks::at(&STACKS, place), gone) {
            let sums = in_use.entry(stack).or_default();
            for (sum, value) in sums.iter_mut().zip(stands_for(size)) {
                *sum += value;
            }
        }
    }
    let all = stacks::all(&STACKS).into_iter();
    all.map(|(stack, allocated)| {
        let used = in_use.get(&stack).copied().unwrap_or_default();
        (stack, [allocated, used].concat())
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_known_from_its_sample_to_its_release() {
        let known = |address: usize| {
            BLOCKS
                .iter()
                .any(|block| block.load(Ordering::Relaxed) == address)
        };
        let address = 0x7fff_0000_1230;
        let block = std::ptr::without_provenance_mut(address);
        // Two intervals at once are sampled for certain, wherever the thread stands.
        allocated(block, 2 * HEAP_SAMPLE_BYTES);
        assert!(known(address));
        let sums = || -> Vec<u64> {
            let samples = samples();
            (0..4)
                .map(|value| samples.iter().map(|(_, values)| values[value]).sum())
                .collect()
        };
        let before = sums();
        assert!(before[1] >= 2 * HEAP_SAMPLE_BYTES as u64, "{before:?}");
        assert!(before[3] >= 2 * HEAP_SAMPLE_BYTES as u64, "{before:?}");
        released(block);
        assert!(!known(address));
        released(block);
        let after = sums();
        assert!(after[1] >= before[1], "what was allocated stays so");
    }
}
