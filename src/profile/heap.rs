//! Which blocks of the heap are in use, by samples: one for each 512 KiB or so that a thread allocates.
//!
//! In the way of an allocation stands a subtraction, in that of a release one look at a byte. The table
//! has a fixed place, so nothing here allocates; nothing locks either.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use super::sampler;
use crate::limits::{HEAP_SAMPLE_BYTES, HEAP_SAMPLE_DEPTH, HEAP_SAMPLES_MAX};

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
/// What is known of it: its size, how many addresses, these.
static FACTS: [[AtomicUsize; HEAP_SAMPLE_DEPTH + 2]; HEAP_SAMPLES_MAX] =
    [const { [const { AtomicUsize::new(0) }; HEAP_SAMPLE_DEPTH + 2] }; HEAP_SAMPLES_MAX];
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
    let take = |block: &AtomicUsize| {
        block
            .compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    };
    // Where all are taken, the sample is lost: the profile is of what was there before.
    let Some(index) = BLOCKS.iter().position(take) else {
        return;
    };
    let mut addresses = [0; HEAP_SAMPLE_DEPTH];
    let count = sampler::here(&mut addresses);
    let facts = [size, count];
    for (fact, value) in FACTS[index].iter().zip(facts.iter().chain(&addresses)) {
        fact.store(*value, Ordering::Relaxed);
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

/// Stacks, with how many blocks and bytes in use the samples stand for.
pub(super) fn in_use() -> BTreeMap<Vec<usize>, (u64, u64)> {
    let mut stacks: BTreeMap<Vec<usize>, (u64, u64)> = BTreeMap::new();
    for (block, facts) in BLOCKS.iter().zip(&FACTS) {
        let before = block.load(Ordering::Acquire);
        let facts = facts.each_ref().map(|fact| fact.load(Ordering::Relaxed));
        let gone = before <= TAKEN || block.load(Ordering::Acquire) != before;
        let [size, count, addresses @ ..] = facts;
        let (Some(addresses), false) = (addresses.get(..count), gone) else {
            continue;
        };
        // A block is sampled as likely as it is large.
        let weight = (HEAP_SAMPLE_BYTES / size.max(1)).max(1);
        let sums = stacks.entry(addresses.to_vec()).or_default();
        sums.0 += weight as u64; // widens
        sums.1 += (weight * size) as u64; // widens
    }
    stacks
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
        let bytes: u64 = in_use().values().map(|(_, bytes)| bytes).sum();
        assert!(bytes >= 2 * HEAP_SAMPLE_BYTES as u64);
        released(block);
        assert!(!known(address));
        released(block);
    }
}
