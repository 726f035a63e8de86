//! The role `end`: ends what a connection's sessions left behind and its helper may not (OnDisconnect).
//!
//! The helper does the most of it, with its user's rights; for this process remain those that have
//! changed their user since, and all of them where the helper is in a chroot. It is nobody but for the
//! capability to signal anybody; where `/proc` hides processes, for the one to see them too. It opens
//! files to read them, reads nothing but `/proc`, and signals nothing but descendants of a helper that
//! still lives, each of them opened and looked at again before (`helper/src/descendants.rs`).

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use agent_helper::descendants::{self, Family};
use agent_helper::frame::OnDisconnect;
use agent_helper::path::open;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, pidfd_send_signal};

use crate::confine;
use crate::inherited::take_descriptor;
use crate::launch::FIRST_DESCRIPTOR;

/// Bytes of `/proc/PID/status` up to the ids: a name of up to 64, escaped, and six lines.
const STATUS_BYTES: usize = 1024;

/// The role's entry. Descriptor 3 is the helper's pidfd; the arguments are its process id, its
/// user's id, `hup` or `kill`, and `others` or `all`.
pub fn main() -> ExitCode {
    let Some(helper) = take_descriptor(FIRST_DESCRIPTOR) else {
        return ExitCode::FAILURE;
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (Some(errand), Some(identity)) = (
        Errand::parse(&arguments),
        confine::Identity::from_environment(),
    ) else {
        return ExitCode::FAILURE;
    };
    let top = errand.helper;
    // It is another user's, so an ordinary one may not see it where processes are hidden.
    if confine::keep_signals(identity, || status_of(top).is_some()).is_err() {
        return ExitCode::FAILURE;
    }
    if status_of(top).is_none() && !has_ended(&helper, 0) {
        return ExitCode::FAILURE;
    }
    errand.run(&helper);
    ExitCode::SUCCESS
}

/// What the monitor wants.
#[derive(Debug, PartialEq, Eq)]
struct Errand {
    helper: Pid,
    /// Whom the helper can signal itself; `None`: nobody.
    uid: Option<u32>,
    way: OnDisconnect,
}

impl Errand {
    fn parse(arguments: &[String]) -> Option<Self> {
        let [helper, uid, way, whom] = arguments else {
            return None;
        };
        let uid = uid.parse().ok()?;
        Some(Self {
            helper: Pid::from_raw(helper.parse().ok()?)?,
            uid: match whom.as_str() {
                "others" => Some(uid),
                "all" => None,
                _ => return None,
            },
            way: match way.as_str() {
                "hup" => OnDisconnect::Hup,
                "kill" => OnDisconnect::Kill,
                _ => return None,
            },
        })
    }

    fn run(&self, helper: &OwnedFd) {
        let family = Family {
            top: self.helper,
            lives: &|| !has_ended(helper, 0),
            concerns: &|pid| self.uid.is_none_or(|uid| !may_be_signalled_by(uid, pid)),
            leaders: &RefCell::default(),
        };
        // One that its user has stopped does nothing, and would stay for ever.
        let _ = pidfd_send_signal(helper, Signal::CONT);
        descendants::end(&family, self.way, &mut |limit_ms| {
            has_ended(helper, limit_ms)
        });
        let _ = pidfd_send_signal(helper, Signal::KILL);
    }
}

/// Waits for the end of a process, for `limit_ms` at most; true: it has ended. `process`: its pidfd.
pub fn has_ended(process: &OwnedFd, limit_ms: u64) -> bool {
    let limit = Timespec {
        tv_sec: i64::try_from(limit_ms / 1000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(limit_ms % 1000 * 1_000_000).unwrap_or(0),
    };
    let mut polled = [PollFd::new(process, PollFlags::IN)];
    poll(&mut polled, Some(&limit)).is_ok_and(|ready| ready > 0)
}

/// Whether `uid`, without privileges, may signal the process (kill(2)).
fn may_be_signalled_by(uid: u32, pid: Pid) -> bool {
    let status = status_of(pid).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let mut ids = ids
        .unwrap_or_default()
        .split_whitespace()
        .map(|id| id.parse() == Ok(uid));
    let (real, saved) = (ids.next(), ids.nth(1));
    real == Some(true) || saved == Some(true)
}

/// The beginning of what `/proc` says of a process, with its ids.
fn status_of(pid: Pid) -> Option<String> {
    let path = format!("/proc/{}/status", pid.as_raw_pid());
    let file = open(path.as_bytes(), OFlags::RDONLY).ok()?;
    let mut start = [0; STATUS_BYTES];
    let len = rustix::io::read(file, &mut start).ok()?;
    Some(String::from_utf8_lossy(start.get(..len)?).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(line: &str) -> Option<Errand> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Errand::parse(&words)
    }

    #[test]
    fn an_errand_is_four_words() {
        let errand = parse("7 1000 kill others").unwrap();
        assert_eq!(errand.helper, Pid::from_raw(7).unwrap());
        assert_eq!((errand.uid, errand.way), (Some(1000), OnDisconnect::Kill));
        assert_eq!(parse("7 1000 hup all").unwrap().uid, None);
        for line in [
            "7 1000 kill",
            "0 1000 kill all",
            "7 -1 kill all",
            "7 1 leave all",
            "7 1 hup some",
            "7 1 hup all more",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_process_belongs_to_its_real_and_its_saved_user() {
        let (own, uid) = (rustix::process::getpid(), rustix::process::getuid());
        assert!(may_be_signalled_by(uid.as_raw(), own));
        assert!(!may_be_signalled_by(uid.as_raw() + 1, own));
    }

    #[test]
    fn a_process_is_watched_by_descriptor() {
        let mut child = std::process::Command::new("/bin/sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        let opened =
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        assert!(!has_ended(&opened, 0));
        child.kill().unwrap();
        assert!(has_ended(&opened, 10_000));
        child.wait().unwrap();
    }
}
