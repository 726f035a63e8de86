//! Names of things in the monitor: never reused, so that a late event meets nothing instead of another.

/// One connection, for as long as the monitor knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ConnectionKey(pub u64);

/// One `net` process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NetId(pub u64);

/// Counts upwards.
#[derive(Debug, Default)]
pub(super) struct Counter(u64);

impl Counter {
    pub(super) fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}
