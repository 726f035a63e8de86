//! What the loop waits for: an epoll set, so that hundreds of idle connections cost nothing.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io;

use super::ids::{ConnectionKey, NetId};
use crate::footprint;

/// Where an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A signal arrived.
    Signals,
    /// The worker finished a signature.
    Worker,
    /// The link of a `net`.
    Net(NetId),
    /// The link of a connection's helper.
    Helper(ConnectionKey),
    /// The pipe of a connection's key reader.
    Keys(ConnectionKey),
    /// A process that looks at a password.
    Password(u64),
    /// Somebody connects to the debug service.
    DebugListener,
    /// The link of the debug service's process.
    Debug,
    /// A process that looks up the name of a client.
    Name(u64),
    /// A program that is to take over says something.
    Probe,
}

const ID_BITS: u32 = 56;

impl Source {
    fn encode(self) -> u64 {
        let (tag, id) = match self {
            Self::Signals => (1, 0),
            Self::Worker => (2, 0),
            Self::Net(NetId(id)) => (3, id),
            Self::Helper(ConnectionKey(id)) => (4, id),
            Self::Keys(ConnectionKey(id)) => (5, id),
            Self::Password(id) => (6, id),
            Self::DebugListener => (7, 0),
            Self::Debug => (8, 0),
            Self::Name(id) => (9, id),
            Self::Probe => (10, 0),
        };
        tag << ID_BITS | id
    }

    fn decode(bits: u64) -> Option<Self> {
        let id = bits & ((1 << ID_BITS) - 1);
        Some(match bits >> ID_BITS {
            1 => Self::Signals,
            2 => Self::Worker,
            3 => Self::Net(NetId(id)),
            4 => Self::Helper(ConnectionKey(id)),
            5 => Self::Keys(ConnectionKey(id)),
            6 => Self::Password(id),
            7 => Self::DebugListener,
            8 => Self::Debug,
            9 => Self::Name(id),
            10 => Self::Probe,
            _ => return None,
        })
    }
}

/// What became ready.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub source: Source,
    /// Something to read, or the other end is gone: a read tells which.
    pub readable: bool,
    /// Room to write.
    pub writable: bool,
}

/// Waits below this are exact. epoll_wait(2) counts whole milliseconds from when it is called, so
/// that the answer to a failed login would tell how long the work before it took.
const EXACT_BELOW: Duration = Duration::from_millis(50);

pub(super) struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poller")
            .field("epoll", &self.epoll)
            .finish_non_exhaustive()
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

/// Events taken at once; more come in the next turn.
const EVENTS_PER_TURN: usize = 64;

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll,
            events: Vec::with_capacity(EVENTS_PER_TURN),
        })
    }

    /// Waits for input of `descriptor`.
    pub(super) fn add(&self, descriptor: impl AsFd, source: Source) -> io::Result<()> {
        let data = epoll::EventData::new_u64(source.encode());
        epoll::add(&self.epoll, descriptor, data, epoll::EventFlags::IN)
    }

    /// Waits for room to write too, or no more.
    pub(super) fn want_room(
        &self,
        descriptor: impl AsFd,
        source: Source,
        want: bool,
    ) -> io::Result<()> {
        let data = epoll::EventData::new_u64(source.encode());
        let flags = if want {
            epoll::EventFlags::IN | epoll::EventFlags::OUT
        } else {
            epoll::EventFlags::IN
        };
        epoll::modify(&self.epoll, descriptor, data, flags)
    }

    /// To be called before a descriptor is closed that another process may share.
    pub(super) fn remove(&self, descriptor: impl AsFd) {
        let _ = epoll::delete(&self.epoll, descriptor);
    }

    /// Waits for at most `timeout` (`None`: for ever) with little memory; what came is for
    /// [`Self::wait`] to say.
    pub(super) fn rest(&self, timeout: Option<Duration>) {
        let timeout = timeout.map(timespec);
        let mut set = [PollFd::new(&self.epoll, PollFlags::IN)];
        // An error is said by the wait that follows, which meets the same.
        let _ = footprint::rest(&mut set, timeout.as_ref());
    }

    /// Waits for at most `timeout` (`None`: for ever) and calls `each` for what is ready.
    pub(super) fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) {
        ready.clear();
        self.events.clear();
        let timeout = match timeout {
            Some(left) if left < EXACT_BELOW => {
                let mut polled = [PollFd::new(&self.epoll, PollFlags::IN)];
                // Whatever it says: what is there is asked for below.
                let _ = poll(&mut polled, Some(&timespec(left)));
                Some(timespec(Duration::ZERO))
            }
            other => other.map(timespec),
        };
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        if let Err(error) = epoll::wait(&self.epoll, spare, timeout.as_ref())
            && error != io::Errno::INTR
        {
            log::error!("waiting for events failed: {error}");
        }
        ready.extend(self.events.iter().filter_map(|event| {
            let flags = event.flags;
            let source = Source::decode(event.data.u64())?;
            let ended = epoll::EventFlags::HUP | epoll::EventFlags::ERR;
            Some(Ready {
                source,
                readable: flags.intersects(epoll::EventFlags::IN | ended),
                writable: flags.contains(epoll::EventFlags::OUT),
            })
        }));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sources_survive_the_kernel() {
        let all = [
            Source::Signals,
            Source::Worker,
            Source::Net(NetId(7)),
            Source::Helper(ConnectionKey((1 << 56) - 1)),
            Source::Keys(ConnectionKey(0)),
            Source::Password(9),
            Source::DebugListener,
            Source::Debug,
            Source::Name(10),
            Source::Probe,
        ];
        for source in all {
            assert_eq!(Source::decode(source.encode()), Some(source));
        }
        assert_eq!(Source::decode(0), None);
        assert_eq!(Source::decode(u64::MAX), None);
    }

    #[test]
    fn input_and_hang_up_wake_the_loop() {
        let mut poller = Poller::new().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        poller.add(&reader, Source::Signals).unwrap();
        let mut ready = Vec::new();
        poller.wait(Some(Duration::ZERO), &mut ready);
        assert!(ready.is_empty());
        io::write(&writer, b"x").unwrap();
        poller.wait(None, &mut ready);
        assert!(ready.len() == 1 && ready[0].readable && !ready[0].writable);
        let mut byte = [0];
        io::read(&reader, &mut byte).unwrap();
        drop(writer);
        poller.wait(None, &mut ready);
        assert!(ready.len() == 1 && ready[0].readable);
    }
}
