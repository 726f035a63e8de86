//! Waiting time: at our own locks, and for answers of other processes and threads.
//!
//! A lock that is free costs what it costs without this. One that is not is timed while somebody takes
//! a profile, and else only waited for.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

use super::Kind;
use super::sampler::here;
use super::stacks::{self, Entry};
use crate::limits::{HEAP_SAMPLE_DEPTH, SPAWN_STACKS_MAX, WAIT_STACKS_MAX};

/// Waits of one kind, and whether they are timed.
struct Waits {
    timed: AtomicBool,
    stacks: [Entry; WAIT_STACKS_MAX],
}

impl Waits {
    const fn new() -> Self {
        Self {
            timed: AtomicBool::new(false),
            stacks: [const { Entry::new() }; WAIT_STACKS_MAX],
        }
    }
}

/// For locks.
static MUTEX: Waits = Waits::new();
/// For locks, answers and work.
static BLOCK: Waits = Waits::new();
/// Who made threads.
static SPAWNS: [Entry; SPAWN_STACKS_MAX] = [const { Entry::new() }; SPAWN_STACKS_MAX];

/// Locks, whoever panicked under the lock before.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.try_lock() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => {
            let waiting = Waiting::begin(true);
            let guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.end();
            guard
        }
    }
}

/// Runs what waits for somebody else.
pub fn wait<T>(body: impl FnOnce() -> T) -> T {
    let waiting = Waiting::begin(false);
    let result = body();
    waiting.end();
    result
}

/// The calling function makes a thread.
#[inline(never)]
pub fn spawns() {
    note(&SPAWNS, 0);
}

struct Waiting {
    since: Option<Instant>,
    for_lock: bool,
}

impl Waiting {
    #[inline]
    fn begin(for_lock: bool) -> Self {
        let timed =
            BLOCK.timed.load(Ordering::Relaxed) || for_lock && MUTEX.timed.load(Ordering::Relaxed);
        Self {
            since: timed.then(Instant::now),
            for_lock,
        }
    }

    #[inline]
    fn end(self) {
        if let Some(since) = self.since {
            ended(since, self.for_lock);
        }
    }
}

#[cold]
#[inline(never)]
fn ended(since: Instant, for_lock: bool) {
    let ns = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
    for (waits, concerned) in [(&MUTEX, for_lock), (&BLOCK, true)] {
        if concerned && waits.timed.load(Ordering::Relaxed) {
            note(&waits.stacks, ns);
        }
    }
}

#[inline(never)]
fn note(table: &[Entry], ns: u64) {
    let mut addresses = [0; HEAP_SAMPLE_DEPTH];
    let count = here(&mut addresses);
    stacks::add(table, addresses.get(..count).unwrap_or_default(), [1, ns]);
}

fn of(kind: Kind) -> Option<&'static Waits> {
    match kind {
        Kind::Mutex => Some(&MUTEX),
        Kind::Block => Some(&BLOCK),
        _ => None,
    }
}

/// From here on waits are timed. False: they are already.
pub(super) fn begin(kind: Kind) -> bool {
    let Some(waits) = of(kind) else { return true };
    if waits.timed.swap(true, Ordering::Relaxed) {
        return false;
    }
    stacks::clear(&waits.stacks);
    true
}

/// How often and how long was waited, by stacks, since it began.
pub(super) fn end(kind: Kind) -> Vec<(Vec<usize>, Vec<u64>)> {
    let table: &[Entry] = match of(kind) {
        Some(waits) => {
            waits.timed.store(false, Ordering::Relaxed);
            &waits.stacks
        }
        None => &SPAWNS,
    };
    let all = stacks::all(table).into_iter();
    all.map(|(stack, [count, ns])| match kind {
        Kind::ThreadCreate => (stack, vec![count]),
        _ => (stack, vec![count, ns]),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    #[test]
    fn who_waits_for_a_lock_is_seen_while_somebody_looks() {
        let lock_of = Mutex::new(());
        let contend = || {
            std::thread::scope(|scope| {
                let held = lock(&lock_of);
                let waits = scope.spawn(|| drop(lock(&lock_of)));
                std::thread::sleep(Duration::from_millis(50));
                drop(held);
                waits.join().unwrap();
            });
        };
        contend();
        assert!(begin(Kind::Mutex));
        assert!(!begin(Kind::Mutex), "one at a time");
        contend();
        wait(|| std::thread::sleep(Duration::from_millis(1)));
        let found = end(Kind::Mutex);
        // Other tests may wait meanwhile, but no other takes this profile.
        let longest = found.iter().map(|(_, values)| values[1]).max().unwrap();
        assert!(longest >= 10_000_000, "{found:?}");
        assert!(begin(Kind::Mutex));
        assert!(
            end(Kind::Mutex)
                .iter()
                .all(|(_, values)| values[1] < longest)
        );
    }
}
