//! What a connection's thread lets others see of it: counters for whoever looks at a running server.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::frames::ConnectionReport;
use crate::profile::lock;

/// Written by one thread, read by another now and then.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub received: AtomicU64,
    pub sent: AtomicU64,
    pub channels: AtomicU32,
    pub rekeys: AtomicU32,
    algorithms: Mutex<String>,
}

impl Facts {
    pub(super) fn set_algorithms(&self, algorithms: String) {
        *lock(&self.algorithms) = algorithms;
    }

    pub(super) fn report(&self, number: u32) -> ConnectionReport {
        let algorithms = lock(&self.algorithms);
        ConnectionReport {
            number,
            received: self.received.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            channels: self.channels.load(Ordering::Relaxed),
            rekeys: self.rekeys.load(Ordering::Relaxed),
            algorithms: algorithms.as_str().into(),
        }
    }
}
