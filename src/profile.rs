//! Profiles of a running process: where its CPU time goes, where its threads are and what they wait
//! for, what they allocate.
//!
//! Threads that want to be seen register; a profile costs nothing before somebody asks for one. Samples
//! are addresses only, so this works in the confined process and in the stripped file: names come from
//! the symbol file, by build id.

mod gzip;
pub mod heap;
mod image;
mod pprof;
mod sampler;
mod stacks;
mod waits;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use rustix::event::{Timespec, poll};

pub use gzip::gzip;
pub use sampler::{Registered, register};
pub use waits::{lock, spawns, wait};

use crate::limits::{PROFILE_HZ, PROFILE_MAX_HZ, THREAD_STACKS_TIME_MS};

/// What is profiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// CPU time.
    Cpu,
    /// The stack of every thread, once.
    Threads,
    /// What is in use of the heap, along with what was allocated.
    Heap,
    /// The same, to be shown the other way round.
    Allocs,
    /// Waiting for locks.
    Mutex,
    /// Waiting for locks, answers and work.
    Block,
    /// Who made threads.
    ThreadCreate,
}

/// Each with its number in frames and its name.
const KINDS: [(Kind, u8, &str); 7] = [
    (Kind::Cpu, 1, "profile"),
    (Kind::Threads, 2, "goroutine"),
    (Kind::Heap, 3, "heap"),
    (Kind::Allocs, 4, "allocs"),
    (Kind::Mutex, 5, "mutex"),
    (Kind::Block, 6, "block"),
    (Kind::ThreadCreate, 7, "threadcreate"),
];

impl Kind {
    /// As frames number them.
    pub fn from_number(number: u8) -> Option<Self> {
        let mut kinds = KINDS.iter();
        kinds.find(|it| it.1 == number).map(|it| it.0)
    }

    pub fn number(self) -> u8 {
        KINDS.iter().find(|it| it.0 == self).map_or(0, |it| it.1)
    }

    pub fn named(name: &str) -> Option<Self> {
        let name = if name == "threads" { "goroutine" } else { name };
        KINDS.iter().find(|it| it.2 == name).map(|it| it.0)
    }

    pub fn name(self) -> &'static str {
        KINDS.iter().find(|it| it.0 == self).map_or("", |it| it.2)
    }

    /// It is taken over a time; others show what there is at once.
    pub fn takes_time(self) -> bool {
        matches!(self, Self::Cpu | Self::Mutex | Self::Block)
    }
}

/// A profile under way in this process. There is one of a kind at a time.
#[derive(Debug)]
pub struct Running {
    kind: Kind,
    sampler: Option<sampler::Sampler>,
    begun: SystemTime,
    period: Duration,
}

/// Begins; `None`: one of that kind is under way. `hz`: samples of CPU time per second; 0: the usual
/// number.
pub fn begin(kind: Kind, hz: u32) -> Option<Running> {
    let hz = if hz == 0 { PROFILE_HZ } else { hz };
    let period = Duration::from_secs(1) / hz.min(PROFILE_MAX_HZ);
    let sampler = match kind {
        Kind::Cpu => Some(sampler::Sampler::every(period)?),
        Kind::Threads => {
            let patience = Duration::from_millis(THREAD_STACKS_TIME_MS);
            Some(sampler::Sampler::everybody(patience)?)
        }
        kind => waits::begin(kind).then_some(None)?,
    };
    Some(Running {
        kind,
        sampler,
        begun: SystemTime::now(),
        period,
    })
}

impl Running {
    /// Ends it; gives the profile as pprof reads it.
    pub fn end(self) -> Vec<u8> {
        let period_ns = u64::try_from(self.period.as_nanos()).unwrap_or(u64::MAX);
        let mut lost = 0;
        let samples = match (self.kind, self.sampler) {
            (kind, Some(sampler)) => {
                let (taken, missed) = sampler.stop();
                lost = missed;
                let mut counts: BTreeMap<Vec<usize>, u64> = BTreeMap::new();
                for (weight, stack) in taken {
                    *counts.entry(stack).or_default() += weight;
                }
                let values = |count| match kind {
                    Kind::Cpu => vec![count, count * period_ns],
                    _ => vec![count],
                };
                let stacks = counts.into_iter();
                stacks
                    .map(|(stack, count)| (stack, values(count)))
                    .collect()
            }
            (Kind::Heap | Kind::Allocs, None) => heap::samples(),
            (kind, None) => waits::end(kind),
        };
        let image = image::own();
        let lasted = self.begun.elapsed().unwrap_or_default();
        let profile = pprof::Profile {
            kind: self.kind,
            samples: &samples,
            image: &image,
            begun: self.begun,
            lasted,
            period_ns,
            lost,
        };
        gzip(&profile.encode())
    }
}

/// Takes a whole profile in the calling thread and writes it into `output`.
pub fn take(kind: Kind, hz: u32, time: Duration, output: &impl AsFd) {
    // Nothing is written where there is none: the reader sees the end at once.
    let Some(running) = begin(kind, hz) else {
        return;
    };
    if kind.takes_time() {
        // Not sleep(3): poll is what a confined process may wait with.
        let until = std::time::Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                break;
            }
            let timeout = Timespec::try_from(left).ok();
            let _ = poll(&mut [], timeout.as_ref());
        }
    }
    let profile = running.end();
    let mut rest = profile.as_slice();
    while !rest.is_empty() {
        match rustix::io::write(output, rest) {
            Ok(len) => rest = rest.get(len..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            // Nobody reads it any more.
            Err(_) => return,
        }
    }
}
