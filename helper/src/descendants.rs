//! Everything that a connection's sessions started, and its end (OnDisconnect).
//!
//! With `hup` and `kill` the helper is a child subreaper: whoever loses its parent becomes its
//! child, so that nothing leaves the tree below it by going into the background. With `leave` it is
//! not: daemons would be among its children, where people expect the sessions of this connection.
//!
//! A number may be another process's by the time that a signal is sent to it. So a process is what
//! has a number, a parent and a time at which it started; it is opened first, then seen once more
//! to be the same with the same living parent, and the signal goes to what was opened.
//!
//! The helper does this with its user's rights. What has changed its user by then, and what is in a
//! chroot that has no `/proc`, is for a process of the monitor's, which runs the same code.
//!
//! Sources: PR_SET_CHILD_SUBREAPER(2const), pidfd_open(2), pidfd_send_signal(2), proc_pid_stat(5).
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::cell::RefCell;
use core::mem::MaybeUninit;

use rustix::fs::{OFlags, RawDir};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open, pidfd_send_signal,
    set_child_subreaper,
};

use crate::frame::OnDisconnect;
use crate::limits::{DESCENDANTS_END_MS, DESCENDANTS_GRACE_MS, DESCENDANTS_PAUSE_MS};
use crate::path::open;
use crate::sys::now_ms;
use crate::text::{decimal, parse_decimal};

/// Bytes of `/proc/PID/stat` that hold what is wanted: a name of up to 64, twenty numbers.
const STAT_BYTES: usize = 1024;

/// From now on, all descendants that lose their parent are this process's children.
pub fn adopt_all(own: Pid) -> Result<(), Errno> {
    set_child_subreaper(Some(own))
}

/// A tree of processes, and who looks at it.
#[expect(missing_debug_implementations, reason = "it holds functions")]
pub struct Family<'a> {
    /// The process below which all others are.
    pub top: Pid,
    /// Whether it still has that number.
    pub lives: &'a dyn Fn() -> bool,
    /// Whether this process is the one to deal with the other, which is open.
    pub concerns: &'a dyn Fn(Pid) -> bool,
    /// Leaders of process groups, children of this process: all that can be reached where there is
    /// no `/proc`.
    pub leaders: &'a RefCell<Vec<Pid>>,
}

/// Asks all to end, and with `kill` makes them. `rest` waits for so many milliseconds at most and
/// says whether none is left.
pub fn end(family: &Family<'_>, way: OnDisconnect, rest: &mut dyn FnMut(u64) -> bool) {
    let asked_until_ms = now_ms() + DESCENDANTS_GRACE_MS;
    let mut told = Vec::new();
    // Who started something while being told has to be looked for again.
    while now_ms() < asked_until_ms && family.tell(&[Signal::HUP, Signal::CONT], &mut told) > 0 {
        if rest(DESCENDANTS_PAUSE_MS) {
            return;
        }
    }
    loop {
        let now_ms = now_ms();
        if now_ms >= asked_until_ms {
            break;
        }
        if rest(asked_until_ms - now_ms) {
            return;
        }
    }
    if way != OnDisconnect::Kill {
        return;
    }
    let killed_until_ms = now_ms() + DESCENDANTS_END_MS;
    while now_ms() < killed_until_ms {
        family.tell(&[Signal::KILL], &mut Vec::new());
        if rest(DESCENDANTS_PAUSE_MS) {
            return;
        }
    }
}

/// A process, as long as it is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: usize,
    parent: usize,
    /// In ticks since the system started.
    started: usize,
}

impl Family<'_> {
    /// Signals all that are not among `told` yet; gives how many those were.
    #[inline(never)]
    fn tell(&self, signals: &[Signal], told: &mut Vec<Process>) -> usize {
        let Ok(all) = processes() else {
            return self.tell_groups(signals, told);
        };
        let top = number(self.top);
        let mut below: Vec<Process> = Vec::new();
        let mut news = 0;
        let mut next = 0;
        let mut parent = None;
        loop {
            let parent_pid = parent.map_or(top, |process: Process| process.pid);
            for child in all.iter().filter(|child| child.parent == parent_pid) {
                let Some(opened) = self.opened(*child, parent) else {
                    continue;
                };
                below.push(*child);
                let known = told
                    .iter()
                    .any(|it| (it.pid, it.started) == (child.pid, child.started));
                if !known && opened.signal(signals, self.concerns) {
                    told.push(*child);
                    news += 1;
                }
            }
            parent = below.get(next).copied();
            if parent.is_none() {
                return news;
            }
            next += 1;
        }
    }

    /// Opens `child`, if it still is the child of `parent` (`None`: of the top).
    fn opened(&self, child: Process, parent: Option<Process>) -> Option<Opened> {
        let pid = pid(child.pid)?;
        let opened = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => Opened(pid, Some(descriptor)),
            // Linux before 5.3: the moment between here and the signal is not covered.
            Err(Errno::NOSYS) => Opened(pid, None),
            Err(_) => return None,
        };
        let is_same = look_at(child.pid) == Some(child)
            && match parent {
                None => (self.lives)(),
                // It may have lost its own parent meanwhile.
                Some(parent) => {
                    look_at(parent.pid).is_some_and(|now| now.started == parent.started)
                }
            };
        is_same.then_some(opened)
    }

    /// Without `/proc` nobody says who else there is. Each group is told once.
    fn tell_groups(&self, signals: &[Signal], told: &mut Vec<Process>) -> usize {
        if !told.is_empty() {
            return 0;
        }
        let leaders = self.leaders.borrow();
        for leader in leaders.iter() {
            for signal in signals {
                let _ = kill_process_group(*leader, *signal);
            }
            told.push(Process {
                pid: number(*leader),
                parent: 0,
                started: 0,
            });
        }
        leaders.len()
    }
}

/// A process that cannot become another one; without a descriptor, only a number.
struct Opened(Pid, Option<rustix::fd::OwnedFd>);

impl Opened {
    /// Sends `signals`, in order; false: it is none of ours.
    fn signal(&self, signals: &[Signal], concerns: &dyn Fn(Pid) -> bool) -> bool {
        concerns(self.0)
            && signals.iter().all(|signal| match &self.1 {
                Some(descriptor) => pidfd_send_signal(descriptor, *signal).is_ok(),
                None => kill_process(self.0, *signal).is_ok(),
            })
    }
}

/// All that run now and can be seen.
fn processes() -> Result<Vec<Process>, Errno> {
    let directory = open(b"/proc", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut found = Vec::new();
    while let Some(Ok(entry)) = entries.next() {
        if let Some(process) = parse_decimal(entry.file_name().to_bytes()).and_then(look_at) {
            found.push(process);
        }
    }
    // It is a directory, but not the kernel's.
    if found.is_empty() {
        return Err(Errno::NOENT);
    }
    Ok(found)
}

/// What `/proc` says of `pid`; nothing of one that has ended.
fn look_at(pid: usize) -> Option<Process> {
    let name = decimal(u32::try_from(pid).ok()?);
    let file = open(
        &[b"/proc/", name.as_slice(), b"/stat"].concat(),
        OFlags::RDONLY,
    )
    .ok()?;
    let mut stat = [0; STAT_BYTES];
    let len = rustix::io::read(file, stat.as_mut_slice()).ok()?;
    let (parent, started) = parse_stat(stat.get(..len)?)?;
    Some(Process {
        pid,
        parent,
        started,
    })
}

/// Parent and start of a process, from its line. Its name, in parentheses, may hold anything.
fn parse_stat(line: &[u8]) -> Option<(usize, usize)> {
    const PARENT: usize = 1;
    const THREADS: usize = 17;
    const STARTED: usize = 19;
    let behind_name = line.iter().rposition(|&byte| byte == b')')?;
    let mut fields = line
        .get(behind_name + 2..)?
        .split(|&byte| byte == b' ' || byte == b'\n');
    let mut field = |index: usize| fields.nth(index);
    let state = field(0)?;
    let parent = parse_decimal(field(PARENT - 1)?)?;
    let threads = parse_decimal(field(THREADS - PARENT - 1)?)?;
    let started = parse_decimal(field(STARTED - THREADS - 1)?)?;
    // A process whose first thread has ended shows as one that has ended, with others that go on.
    let is_zombie = state == b"Z" && threads <= 1;
    if is_zombie || state == b"X" {
        return None;
    }
    Some((parent, started))
}

fn pid(number: usize) -> Option<Pid> {
    Pid::from_raw(i32::try_from(number).ok()?)
}

fn number(pid: Pid) -> usize {
    usize::try_from(pid.as_raw_pid()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_hold_anything() {
        let line = b"7 (a) S 9 (b) Z 1) S 42 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 8642 99 1\n";
        assert_eq!(parse_stat(line), Some((42, 8642)));
    }

    #[test]
    fn what_goes_on_without_its_first_thread_has_not_ended() {
        let line = b"7 (a) Z 42 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 2 0 8642 99 1\n";
        assert_eq!(parse_stat(line), Some((42, 8642)));
    }

    #[test]
    fn what_has_ended_or_is_cut_off_is_nothing() {
        let zombie = b"7 (a) Z 42 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 8642 99 1\n";
        assert_eq!(parse_stat(zombie), None);
        let whole = b"7 (a) S 42 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 8642 99 1\n";
        for len in 0..whole.len() - b"8642 99 1\n".len() {
            assert_eq!(parse_stat(&whole[..len]), None, "{len}");
        }
    }

    #[test]
    fn this_process_is_seen_as_what_it_is() {
        let own = rustix::process::getpid();
        let seen = look_at(number(own)).expect("this process");
        let parent = rustix::process::getppid().map_or(0, number);
        assert_eq!((seen.pid, seen.parent), (number(own), parent));
        assert!(processes().expect("a list").contains(&seen));
        assert_eq!(look_at(usize::MAX), None);
    }
}
