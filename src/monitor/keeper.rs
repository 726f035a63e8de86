//! SIGTERM: the listeners go, sessions live on, as with sshd. A fork of the monitor keeps what live
//! connections need (links, helpers, host keys, records) until the last of them ends; the parent
//! exits, so that a service manager sees the server stop and may start the next.
#![allow(unsafe_code)] // Reason: fork has no safe interface.

use std::os::fd::AsFd;

use super::Monitor;
use super::nets::Role;
use super::poller::{Poller, Source};
use super::rundir::Mark;
use crate::frames::ToNet;

/// Who we are after [`split`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Split {
    /// The process that was told to stop: to exit.
    Parent,
    /// The one that keeps the connections.
    Keeper,
}

impl Monitor {
    /// Accepts no more. With connections left, a fork goes on with them.
    pub(super) fn stop(&mut self) -> Split {
        log::info!("Received a signal to stop; terminating.");
        self.notifier.stopping();
        self.listeners.clear();
        self.close_debug(true);
        self.stopping = true;
        if let Some(path) = &self.generation.options.pid_file {
            super::rundir::remove_pid_file(path);
        }
        for id in self.nets.iter().map(|(id, _)| id).collect::<Vec<_>>() {
            if self
                .nets
                .get(id)
                .is_some_and(|net| net.role == Role::Strangers)
            {
                self.nets
                    .send(&self.poller, id, 0, &ToNet::StopAccepting, &[]);
                if let Some(net) = self.nets.get_mut(id) {
                    net.retired = true;
                }
            }
        }
        self.settle_aftermaths();
        if self.connections.is_empty() {
            return Split::Parent;
        }
        // A thread in the middle of a signature would be lost, and its locks with it.
        self.worker.stop();
        for done in self.worker.take() {
            self.worked(done);
        }
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

    fn become_keeper(&mut self) {
        super::title::set("agent: monitor [draining]");
        let _ = rustix::process::setsid();
        // The mark names the parent; locks do not pass through a fork.
        if let Some(mark) = self.mark.take() {
            mark.forget();
        }
        self.mark = Mark::leave(&self.generation.options.data_dir, self.host.as_root);
        // An epoll set is shared through a fork: a set of our own.
        match Poller::new() {
            Ok(poller) => self.poller = poller,
            Err(error) => log::error!("the keeper has no poll set of its own: {error}"),
        }
        self.watch_all();
        log::info!(
            "keeping {} connections until they end",
            self.connections.len()
        );
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
        }
        for (key, connection) in &self.connections {
            if let Some(helper) = &connection.helper {
                add(helper.link().as_fd(), Source::Helper(*key));
            }
            if let Some(pipe) = connection.key_pipe() {
                add(pipe, Source::Keys(*key));
            }
        }
    }
}
