//! Names of signals in the protocol, and whom they reach. Source: RFC 4254 section 6.9.

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::path::open;
use crate::text::{decimal, parse_decimal, split, word_position};

/// What a client may send, without SIG, in the order of [`SIGNALS`].
const NAMES: &[u8] = b"ABRT ALRM FPE HUP ILL INT KILL PIPE QUIT SEGV TERM USR1 USR2";
const SIGNALS: [Signal; 13] = [
    Signal::ABORT,
    Signal::ALARM,
    Signal::FPE,
    Signal::HUP,
    Signal::ILL,
    Signal::INT,
    Signal::KILL,
    Signal::PIPE,
    Signal::QUIT,
    Signal::SEGV,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
];

/// The signal behind a name without SIG.
pub fn by_name(name: &[u8]) -> Option<Signal> {
    SIGNALS.get(word_position(NAMES, name)?).copied()
}

/// Sends `signal` to what runs in the foreground of `leader`'s terminal, else to its group.
pub fn send(leader: Pid, has_terminal: bool, signal: Signal) {
    let foreground = if has_terminal {
        foreground_group(leader)
    } else {
        None
    };
    let group = foreground.unwrap_or(leader);
    // Gone, or another user's by now (sudo): nothing that the client could be told.
    if kill_process_group(group, signal) == Err(Errno::SRCH) && group == leader {
        // Forked a moment ago, it leads none yet.
        let _ = kill_process(leader, signal);
    }
}

/// The foreground group of the terminal that `leader` controls: field 8 of its stat file, since
/// nobody but the session and `net` has the terminal open.
fn foreground_group(leader: Pid) -> Option<Pid> {
    let number = decimal(leader.as_raw_pid().unsigned_abs());
    let path = [b"/proc/".as_slice(), &number, b"/stat"].concat();
    let file = open(&path, OFlags::RDONLY).ok()?;
    let mut buffer = [0; 512];
    let filled = rustix::io::read(&file, buffer.as_mut_slice()).ok()?;
    parse_foreground_group(buffer.get(..filled)?)
}

fn parse_foreground_group(stat: &[u8]) -> Option<Pid> {
    // The name in parentheses may hold anything; behind it come state, ppid, pgrp, session, tty_nr.
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let field = split(stat.get(name_end + 2..)?, b' ').nth(5)?;
    let group = parse_decimal(field).and_then(|group| i32::try_from(group).ok())?;
    // -1: no terminal; 1 would reach everybody when negated.
    if group > 1 {
        Pid::from_raw(group)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_leads_no_group_yet_is_reached() {
        use std::os::unix::process::ExitStatusExt;
        for has_terminal in [false, true] {
            let mut program = std::process::Command::new("sleep")
                .arg("60")
                .spawn()
                .expect("sleep");
            let pid = i32::try_from(program.id()).ok().and_then(Pid::from_raw);
            send(pid.expect("a process"), has_terminal, Signal::TERM);
            let limit = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while program.try_wait().expect("a child").is_none() {
                if std::time::Instant::now() > limit {
                    program.kill().expect("a child");
                    panic!("it was not reached");
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            let ended = program.wait().expect("a child");
            assert_eq!(ended.signal(), Some(Signal::TERM.as_raw()));
        }
    }

    #[test]
    fn the_foreground_group_is_found_behind_any_name() {
        let pid = |raw| Pid::from_raw(raw);
        assert_eq!(
            parse_foreground_group(b"7 (sh) S 1 7 7 34817 99 4194304"),
            pid(99)
        );
        assert_eq!(
            parse_foreground_group(b"7 (a) b ) S 1 7 7 34817 99 4194304"),
            pid(99)
        );
        for text in [
            "7 (sh) S 1 7 7 0 -1 0",
            "7 (sh) S 1 7 7 0 1 0",
            "7 (sh) S 1 7 7 0",
            "",
            ")",
        ] {
            assert_eq!(parse_foreground_group(text.as_bytes()), None, "{text}");
        }
    }
}
