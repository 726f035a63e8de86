//! The keeper: a fork of the monitor that keeps what live connections need (links, helpers, host keys,
//! records) until the last of them ends.
//!
//! After SIGTERM the listeners go and the parent exits, as with sshd, so that a service manager sees
//! the server stop and may start the next. In an upgrade the parent becomes another program, and the
//! keeper waits until it has. Either way the keeper's processes are not its children: it learns of
//! their ends from their links.
#![allow(unsafe_code)] // Reason: fork has no safe interface.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::Monitor;
use super::poller::{Poller, Source};
use super::rundir::Mark;
use crate::limits::LAST_ACCEPTS_MS;
use crate::notify::Notifier;

/// Who we are after a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Split {
    /// The process that was told to stop: to exit.
    Parent,
    /// The one that keeps the connections.
    Keeper,
}

/// Who we are after [`fork_keeper`].
pub(super) enum Forked {
    /// The parent became another program, or is gone.
    Keeper,
    Parent(WaitingKeeper),
}

/// A keeper that does nothing as long as this process is the program that it is.
pub(super) struct WaitingKeeper {
    pid: Pid,
    /// Close-on-exec: its end is the sign.
    _unchanged: OwnedFd,
}

impl WaitingKeeper {
    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// This process stays what it is: the keeper goes without having touched anything.
    pub(super) fn dismiss(self) {
        let _ = kill_process(self.pid, Signal::KILL);
        while let Err(rustix::io::Errno::INTR) = waitpid(Some(self.pid), WaitOptions::empty()) {}
    }
}

/// Forks a keeper for the time when this process is another program. Signals are to be held, and no
/// other thread may run.
pub(super) fn fork_keeper() -> std::io::Result<Forked> {
    let (changed, unchanged) = pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: the caller's thread is the only one, so the child may go on with all that it inherits.
    match unsafe { libc::fork() } {
        0 => {
            drop(unchanged);
            // Nothing is ever written: this is the parent's exec, or its end.
            while let Err(rustix::io::Errno::INTR) = rustix::io::read(&changed, &mut [0; 1]) {}
            Ok(Forked::Keeper)
        }
        -1 => Err(std::io::Error::last_os_error()),
        pid => Ok(Forked::Parent(WaitingKeeper {
            pid: Pid::from_raw(pid).ok_or(std::io::ErrorKind::Other)?,
            _unchanged: unchanged,
        })),
    }
}

impl Monitor {
    /// Accepts no more. With connections left, a fork goes on with them.
    pub(super) fn stop(&mut self) -> Split {
        log::info!("Received a signal to stop; terminating.");
        self.give_up_upgrade("the server was told to stop");
        self.close_debug(true);
        self.accept_no_more();
        self.settle_aftermaths();
        self.hear_last_accepts();
        if !self.serves_somebody() && !self.expects_somebody() {
            return Split::Parent;
        }
        self.stop_worker();
        // SAFETY: the worker is stopped, so this process has one thread, and the child may go on
        // with everything that it inherits.
        match unsafe { libc::fork() } {
            0 => {
                self.become_keeper();
                Split::Keeper
            }
            -1 => {
                let error = std::io::Error::last_os_error();
                log::error!("no process to keep the sessions: {error}; staying until they end");
                self.is_keeper = true;
                Split::Keeper
            }
            _ => {
                if let Some(mark) = self.mark.take() {
                    drop(mark);
                }
                Split::Parent
            }
        }
    }

    /// Waits for the end of strangers' `net`, which was told to accept no more: what it has accepted is
    /// on its way here. As soon as there is somebody to be kept, or it takes its time, the rest is the
    /// keeper's.
    fn hear_last_accepts(&mut self) {
        let until = Instant::now() + Duration::from_millis(LAST_ACCEPTS_MS);
        while !self.serves_somebody() && self.expects_somebody() {
            let left = until.saturating_duration_since(Instant::now());
            let retired = self.nets.iter().filter(|(_, net)| net.retired);
            let (ids, mut set): (Vec<_>, Vec<_>) = retired
                .map(|(id, net)| (id, PollFd::new(net.link(), PollFlags::IN)))
                .unzip();
            let limit = Timespec::try_from(left).ok();
            if left.is_zero() || poll(&mut set, limit.as_ref()) == Ok(0) {
                return;
            }
            let is_ready = |entry: &PollFd<'_>| !entry.revents().is_empty();
            let ready: Vec<_> = set.iter().map(is_ready).collect();
            for (id, _) in ids.into_iter().zip(ready).filter(|(_, is_ready)| *is_ready) {
                self.net_ready(id);
            }
            self.bury();
        }
    }

    /// A thread in the middle of a signature would be lost in a fork, and its locks with it. What it
    /// did may give it something to do again: a certificate's signature is followed by its owner's.
    pub(super) fn stop_worker(&mut self) {
        while self.worker.stop() {
            for done in self.worker.take() {
                self.worked(done);
            }
        }
    }

    /// The parent is another program now: listeners, debug service, pid file and the service manager
    /// are its business.
    pub(super) fn keep_after_upgrade(&mut self) {
        self.notifier = Notifier::default();
        self.become_keeper();
        self.close_debug(false);
        self.late_addresses = self.addresses();
        self.listeners.clear();
        self.stopping = true;
        self.retire_strangers();
    }

    fn become_keeper(&mut self) {
        self.is_keeper = true;
        super::title::set("agent: monitor [draining]");
        let _ = rustix::process::setsid();
        // The mark names the parent; locks do not pass through a fork.
        if let Some(mark) = self.mark.take() {
            mark.forget();
        }
        self.mark = Mark::leave(&self.generation.options.data_dir, self.host.as_root);
        if let Some(mark) = &self.mark {
            mark.note_drain();
        }
        // An epoll set is shared through a fork: a set of our own.
        match Poller::new() {
            Ok(poller) => self.poller = poller,
            Err(error) => log::error!("the keeper has no poll set of its own: {error}"),
        }
        self.nets.disown();
        self.watch_all();
        if !self.connections.is_empty() {
            log::info!(
                "keeping {} connections until they end",
                self.connections.len()
            );
        }
    }

    /// Puts everything that exists into the poll set.
    fn watch_all(&self) {
        let add = |descriptor: std::os::fd::BorrowedFd<'_>, source| {
            if let Err(error) = self.poller.add(descriptor, source) {
                log::error!("{source:?} cannot be watched: {error}");
            }
        };
        add(self.signals.as_fd(), Source::Signals);
        add(self.worker.as_fd(), Source::Worker);
        for (id, net) in self.nets.iter() {
            add(net.link().as_fd(), Source::Net(id));
            if net.owes_frames() {
                let _ = self.poller.want_room(net.link(), Source::Net(id), true);
            }
        }
        for (key, connection) in &self.connections {
            if let Some(helper) = &connection.helper {
                helper.watch(&self.poller, *key);
            }
            if let Some(pipe) = connection.key_pipe() {
                add(pipe, Source::Keys(*key));
            }
        }
        for (key, farewell) in &self.farewells {
            farewell.helper.watch(&self.poller, *key);
        }
        for (link, source) in self.checks.links().chain(self.names.links()) {
            add(link.as_fd(), source);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_keeper_that_is_not_needed_goes_without_a_trace() {
        let Forked::Parent(waiting) = fork_keeper().unwrap() else {
            panic!("this process is the same program as before");
        };
        let pid = waiting.pid;
        std::thread::sleep(Duration::from_millis(50));
        assert!(rustix::process::test_kill_process(pid).is_ok(), "it waits");
        waiting.dismiss();
        assert!(rustix::process::test_kill_process(pid).is_err());
    }
}
