//! Sums by stack, in tables of a fixed place: entering allocates nothing and waits for nobody, so it
//! may be done under the allocator, and by any thread.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::limits::{HEAP_SAMPLE_DEPTH, STACK_PROBES_MAX};

/// One stack of a table.
#[derive(Debug)]
pub(super) struct Entry {
    /// [`FREE`], [`WRITING`], or a hash of the addresses.
    state: AtomicUsize,
    len: AtomicUsize,
    addresses: [AtomicUsize; HEAP_SAMPLE_DEPTH],
    sums: [AtomicU64; 2],
}

const FREE: usize = 0;
const WRITING: usize = 1;

impl Entry {
    pub(super) const fn new() -> Self {
        Self {
            state: AtomicUsize::new(FREE),
            len: AtomicUsize::new(0),
            addresses: [const { AtomicUsize::new(0) }; HEAP_SAMPLE_DEPTH],
            sums: [const { AtomicU64::new(0) }; 2],
        }
    }

    fn is(&self, stack: &[usize]) -> bool {
        self.len.load(Ordering::Relaxed) == stack.len()
            && stack
                .iter()
                .zip(&self.addresses)
                .all(|(address, slot)| slot.load(Ordering::Relaxed) == *address)
    }

    fn addresses(&self) -> Vec<usize> {
        let len = self.len.load(Ordering::Relaxed);
        let slots = self.addresses.iter().take(len);
        slots.map(|slot| slot.load(Ordering::Relaxed)).collect()
    }
}

/// Adds to the sums of a stack; gives its place. `None`: there is no room for one more.
pub(super) fn add(table: &[Entry], stack: &[usize], sums: [u64; 2]) -> Option<usize> {
    let index = find(table, stack)?;
    for (sum, value) in table.get(index)?.sums.iter().zip(sums) {
        sum.fetch_add(value, Ordering::Relaxed);
    }
    Some(index)
}

fn find(table: &[Entry], stack: &[usize]) -> Option<usize> {
    let hash = stack.iter().fold(0_usize, |hash, address| {
        (hash.rotate_left(5) ^ address).wrapping_mul(0x9e37_79b1)
    });
    let wanted = hash | 2;
    let start = (hash >> 7) % table.len();
    let places = (start..table.len()).chain(0..start);
    for index in places.take(STACK_PROBES_MAX) {
        let entry = table.get(index)?;
        let found = match entry.state.load(Ordering::Acquire) {
            FREE => take(entry, stack, wanted),
            state => state == wanted && entry.is(stack),
        };
        if found {
            return Some(index);
        }
    }
    None
}

/// Makes a free entry that of `stack`; false: another thread was faster.
fn take(entry: &Entry, stack: &[usize], hash: usize) -> bool {
    let taken = entry
        .state
        .compare_exchange(FREE, WRITING, Ordering::Acquire, Ordering::Relaxed);
    if taken.is_err() {
        return false;
    }
    for (slot, address) in entry.addresses.iter().zip(stack) {
        slot.store(*address, Ordering::Relaxed);
    }
    entry.len.store(stack.len(), Ordering::Relaxed);
    entry.state.store(hash, Ordering::Release);
    true
}

/// The stack in this place.
pub(super) fn at(table: &[Entry], index: usize) -> Option<Vec<usize>> {
    let entry = table.get(index)?;
    (entry.state.load(Ordering::Acquire) > WRITING).then(|| entry.addresses())
}

/// All stacks, with their sums.
pub(super) fn all(table: &[Entry]) -> BTreeMap<Vec<usize>, [u64; 2]> {
    let mut stacks: BTreeMap<Vec<usize>, [u64; 2]> = BTreeMap::new();
    for (index, entry) in table.iter().enumerate() {
        if let Some(stack) = at(table, index) {
            let sums = stacks.entry(stack).or_default();
            for (sum, value) in sums.iter_mut().zip(&entry.sums) {
                *sum += value.load(Ordering::Relaxed);
            }
        }
    }
    stacks.retain(|_, sums| sums[0] > 0);
    stacks
}

/// The sums begin anew. The stacks stay: whoever comes again finds its place.
pub(super) fn clear(table: &[Entry]) {
    for sum in table.iter().flat_map(|entry| &entry.sums) {
        // Untouched pages stay so.
        if sum.load(Ordering::Relaxed) > 0 {
            sum.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stack_has_its_sums_until_there_is_no_room() {
        static TABLE: [Entry; 20] = [const { Entry::new() }; 20];
        let one = add(&TABLE, &[1, 2, 3], [1, 10]);
        assert_eq!(add(&TABLE, &[1, 2, 3], [1, 5]), one);
        assert_ne!(add(&TABLE, &[1, 2], [1, 7]), one);
        let stacks = all(&TABLE);
        assert_eq!(stacks[&vec![1, 2, 3]], [2, 15]);
        assert_eq!(stacks[&vec![1, 2]], [1, 7]);
        assert_eq!(one.and_then(|one| at(&TABLE, one)), Some(vec![1, 2, 3]));
        let added = (10..100).filter(|it| add(&TABLE, &[*it], [1, 1]).is_some());
        assert!(added.count() <= 18);
        clear(&TABLE);
        assert!(all(&TABLE).is_empty());
        assert_eq!(add(&TABLE, &[1, 2, 3], [1, 1]), one);
    }

    #[test]
    fn threads_that_meet_lose_nothing() {
        static TABLE: [Entry; 64] = [const { Entry::new() }; 64];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..1000 {
                        add(&TABLE, &[round % 8 + 1, 9], [1, 2]);
                    }
                });
            }
        });
        let stacks = all(&TABLE);
        assert_eq!(stacks.len(), 8);
        assert!(stacks.values().all(|sums| *sums == [500, 1000]));
    }
}
