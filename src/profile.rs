//! Profiles of a running process: where its CPU time goes, and where its threads are.
//!
//! Threads that want to be seen register; a profile costs nothing before somebody asks for one. Samples
//! are addresses only, so this works in the confined process and in the stripped file: names come from
//! the symbol file, by build id.

mod gzip;
pub mod heap;
mod image;
mod pprof;
mod sampler;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use rustix::event::{Timespec, poll};

pub use gzip::gzip;
pub use sampler::{Registered, register};

use crate::limits::{PROFILE_HZ, THREAD_STACKS_TIME_MS};

/// CPU time between two samples of a thread.
const PERIOD_NS: u64 = 1_000_000_000 / PROFILE_HZ as u64;

/// What is profiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// CPU time.
    Cpu,
    /// The stack of every thread, once.
    Threads,
    /// What is in use of the heap.
    Heap,
}

impl Kind {
    /// As frames number them.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Cpu),
            2 => Some(Self::Threads),
            3 => Some(Self::Heap),
            _ => None,
        }
    }

    pub fn number(self) -> u8 {
        match self {
            Self::Cpu => 1,
            Self::Threads => 2,
            Self::Heap => 3,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "profile",
            Self::Threads => "goroutine",
            Self::Heap => "heap",
        }
    }
}

/// A profile under way in this process. There is one at a time.
#[derive(Debug)]
pub struct Running {
    kind: Kind,
    sampler: sampler::Sampler,
    begun: SystemTime,
}

/// Begins; `None`: one is under way, or the system refuses.
pub fn begin(kind: Kind) -> Option<Running> {
    let sampler = sampler::Sampler::start()?;
    match kind {
        Kind::Cpu => sampler.every(Duration::from_nanos(PERIOD_NS)),
        Kind::Threads => sampler.everybody(Duration::from_millis(THREAD_STACKS_TIME_MS)),
        Kind::Heap => {}
    }
    Some(Running {
        kind,
        sampler,
        begun: SystemTime::now(),
    })
}

impl Running {
    /// Ends it; gives the profile as pprof reads it.
    pub fn end(self) -> Vec<u8> {
        let mut counts: BTreeMap<Vec<usize>, u64> = BTreeMap::new();
        for stack in self.sampler.stop() {
            *counts.entry(stack).or_default() += 1;
        }
        let samples: Vec<(Vec<usize>, Vec<u64>)> = match self.kind {
            Kind::Cpu => {
                let cost = |count| vec![count, count * PERIOD_NS];
                let stacks = counts.into_iter();
                stacks.map(|(stack, count)| (stack, cost(count))).collect()
            }
            Kind::Threads => {
                let stacks = counts.into_iter();
                stacks.map(|(stack, count)| (stack, vec![count])).collect()
            }
            Kind::Heap => {
                let stacks = heap::in_use().into_iter();
                stacks
                    .map(|(stack, (blocks, bytes))| (stack, vec![blocks, bytes]))
                    .collect()
            }
        };
        let image = image::own();
        let lasted = self.begun.elapsed().unwrap_or_default();
        let profile = pprof::Profile {
            kind: self.kind,
            samples: &samples,
            image: &image,
            begun: self.begun,
            lasted,
        };
        gzip(&profile.encode())
    }
}

/// Takes a whole profile in the calling thread and writes it into `output`.
pub fn take(kind: Kind, time: Duration, output: &impl AsFd) {
    // Nothing is written where there is none: the reader sees the end at once.
    let Some(running) = begin(kind) else { return };
    if kind == Kind::Cpu {
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
