//! What a connection's thread lets others see of it: counters for whoever looks at a running server.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::frames::ConnectionReport;

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
        *self
            .algorithms
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = algorithms;
    }

    pub(super) fn report(&self, number: u32) -> ConnectionReport {
        let algorithms = self
            .algorithms
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
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
