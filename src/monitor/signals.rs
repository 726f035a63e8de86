//! Signals as input of the loop: flags say which, a pipe wakes it up.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::{flag, low_level};

/// What arrived since the last look.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrived {
    /// SIGTERM, SIGQUIT or SIGINT: accept no more; sessions live on.
    pub stop: bool,
    /// SIGHUP: read the configuration again.
    pub reload: bool,
    /// SIGUSR1: end all connections and exit (`agent drain`).
    pub drain: bool,
    /// SIGUSR2: let a new program take over.
    pub upgrade: bool,
    /// SIGCHLD.
    pub child: bool,
}

#[derive(Debug)]
pub(super) struct Signals {
    wake: UnixStream,
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    drain: Arc<AtomicBool>,
    upgrade: Arc<AtomicBool>,
    child: Arc<AtomicBool>,
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Signals {
    pub(super) fn register() -> io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let new = || Arc::new(AtomicBool::new(false));
        let signals = Self {
            wake,
            stop: new(),
            reload: new(),
            drain: new(),
            upgrade: new(),
            child: new(),
        };
        for (signal, flag) in [
            (SIGTERM, &signals.stop),
            (SIGQUIT, &signals.stop),
            (SIGINT, &signals.stop),
            (SIGHUP, &signals.reload),
            (SIGUSR1, &signals.drain),
            (SIGUSR2, &signals.upgrade),
            (SIGCHLD, &signals.child),
        ] {
            // The flag first: it must be set when the wake-up is read.
            flag::register(signal, Arc::clone(flag))?;
            low_level::pipe::register(signal, woken.try_clone()?)?;
        }
        Ok(signals)
    }

    pub(super) fn take(&mut self) -> Arrived {
        let mut sink = [0; 64];
        while matches!(self.wake.read(&mut sink), Ok(len) if len > 0) {}
        Arrived {
            stop: self.stop.swap(false, Ordering::AcqRel),
            reload: self.reload.swap(false, Ordering::AcqRel),
            drain: self.drain.swap(false, Ordering::AcqRel),
            upgrade: self.upgrade.swap(false, Ordering::AcqRel),
            child: self.child.swap(false, Ordering::AcqRel),
        }
    }
}
