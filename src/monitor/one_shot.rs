//! Processes of ours that are asked one thing, answer it and end: bounded in number, others wait.
//!
//! A connection that ends leaves its process running and its place taken until it ends by itself,
//! so that hanging up makes no room for the next.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CStr;
use std::os::fd::AsFd;

use agent_helper::link::{self, Assembly, Link, LinkError};
use zeroize::Zeroizing;

use super::host::{Host, Ids};
use super::ids::{ConnectionKey, Counter};
use super::poller::{Poller, Source};
use crate::launch::{Launch, launch};

/// What one kind of them is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// argv\[0\], which names the role.
    pub title: &'static CStr,
    /// What its link wakes the loop as.
    pub source: fn(u64) -> Source,
    /// How many at once.
    pub most: usize,
}

/// All processes of a kind, and who waits for one.
#[derive(Debug)]
pub(super) struct OneShots {
    kind: Kind,
    running: BTreeMap<u64, Running>,
    /// Each connection asks one thing at a time, so this is bounded.
    waiting: VecDeque<(ConnectionKey, Zeroizing<Vec<u8>>)>,
    numbers: Counter,
}

#[derive(Debug)]
struct Running {
    link: Link,
    assembly: Assembly,
    connection: ConnectionKey,
}

impl OneShots {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            running: BTreeMap::new(),
            waiting: VecDeque::new(),
            numbers: Counter::default(),
        }
    }

    /// Whether another may be started.
    pub(super) fn has_room(&self) -> bool {
        self.running.len() < self.kind.most
    }

    /// What all of them are listened to by.
    pub(super) fn links(&self) -> impl Iterator<Item = (&Link, Source)> {
        let running = self.running.iter();
        running.map(|(number, running)| (&running.link, (self.kind.source)(*number)))
    }

    /// Keeps a request until there is room.
    pub(super) fn queue(&mut self, connection: ConnectionKey, request: Zeroizing<Vec<u8>>) {
        self.waiting.push_back((connection, request));
    }

    /// The request whose turn it is, if there is room for it.
    pub(super) fn next(&mut self) -> Option<(ConnectionKey, Zeroizing<Vec<u8>>)> {
        self.has_room().then(|| self.waiting.pop_front()).flatten()
    }

    /// A connection that ends waits no more.
    pub(super) fn forget(&mut self, connection: ConnectionKey) {
        self.waiting.retain(|(waiting, _)| *waiting != connection);
    }

    /// Starts a process with its `request`, to become `ids`; gives its number.
    pub(super) fn start(
        &mut self,
        host: &Host,
        poller: &Poller,
        ids: Option<Ids>,
        connection: ConnectionKey,
        request: &[u8],
    ) -> std::io::Result<u64> {
        let (ours, theirs) = link::pair()?;
        let environment = Ids::environment(ids);
        let link = Link::new(ours);
        // Before the process exists: a fresh socket has room for it.
        link.send_content(0, request, &[], false)
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        launch(&Launch {
            environment: &environment,
            descriptors: &[theirs.as_fd()],
            new_session: true,
            oom_score_adj: host.oom_score_adj,
            ..Launch::new(host.own.as_fd(), &[self.kind.title])
        })?;
        let number = self.numbers.next();
        poller.add(&link, (self.kind.source)(number))?;
        let running = Running {
            link,
            assembly: Assembly::default(),
            connection,
        };
        self.running.insert(number, running);
        Ok(number)
    }

    /// What a process said, its only word, or why it said nothing; `None`: nothing came yet.
    pub(super) fn take(
        &mut self,
        poller: &Poller,
        number: u64,
    ) -> Option<(ConnectionKey, Result<Vec<u8>, String>)> {
        let running = self.running.get_mut(&number)?;
        let answer = match running.link.receive(&mut running.assembly, false) {
            Ok(None) => return None,
            Ok(Some(received)) => Ok(received.content),
            Err(LinkError::Closed) => Err("the process ended early".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let connection = running.connection;
        poller.remove(&running.link);
        self.running.remove(&number);
        Some((connection, answer))
    }
}
