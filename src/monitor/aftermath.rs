//! What is left of a connection when it is over (OnDisconnect): the helper ends it as the user; a
//! process of root's (`src/aftermath.rs`) ends what the helper may not, if the helper is still at it
//! a moment later.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use agent_helper::frame::{OnDisconnect, Policy};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Monitor;
use super::host::Host;
use super::ids::Counter;
use super::timers::Deadline;
use crate::launch::{Launch, launch};
use crate::limits::{AFTERMATH_DELAY_MS, AFTERMATHS_AT_ONCE};

/// A helper that will outlive its connection.
#[derive(Debug)]
pub(super) struct Aftermath {
    helper: Pid,
    /// Its number may be another's by the time that something is done about it.
    opened: OwnedFd,
    name: Vec<u8>,
    uid: u32,
    way: OnDisconnect,
    in_chroot: bool,
}

/// All connections that are over, and what is done about them.
#[derive(Debug, Default)]
pub(super) struct Aftermaths {
    waiting: BTreeMap<u64, Aftermath>,
    numbers: Counter,
    /// Processes that were started.
    running: Vec<Pid>,
}

impl Aftermath {
    /// What a login with this `policy` will need, if it is to be cleaned up behind; `helper` is a
    /// child that was not collected yet.
    pub(super) fn of(host: &Host, policy: &Policy, helper: u32) -> Option<Self> {
        if policy.on_disconnect == OnDisconnect::Leave || !host.as_root {
            return None;
        }
        let helper = Pid::from_raw(i32::try_from(helper).ok()?)?;
        let opened = pidfd_open(helper, PidfdFlags::empty())
            .inspect_err(|error| {
                log::warn!(
                    "OnDisconnect: processes of other users will be left: pidfd_open: {error}; \
                     it takes Linux 5.3"
                );
            })
            .ok()?;
        Some(Self {
            helper,
            opened,
            name: policy.identity.name.to_vec(),
            uid: policy.identity.uid,
            way: policy.on_disconnect,
            in_chroot: policy.chroot.is_some(),
        })
    }

    fn is_over(&self) -> bool {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut polled = [PollFd::new(&self.opened, PollFlags::IN)];
        poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    fn start(&self, host: &Host) -> std::io::Result<Pid> {
        let title = CString::new([b"agent: end [", self.name.as_slice(), b"]"].concat())?;
        let helper = CString::new(self.helper.as_raw_pid().to_string())?;
        let uid = CString::new(self.uid.to_string())?;
        let way = match self.way {
            OnDisconnect::Kill => c"kill",
            OnDisconnect::Hup | OnDisconnect::Leave => c"hup",
        };
        let whom = if self.in_chroot { c"all" } else { c"others" };
        let launched = launch(&Launch {
            descriptors: &[self.opened.as_fd()],
            new_session: true,
            oom_score_adj: host.oom_score_adj,
            ..Launch::new(host.own.as_fd(), &[&title, &helper, &uid, way, whom])
        })?;
        Ok(launched.pid)
    }
}

impl Monitor {
    /// The connection is over and its helper was told so.
    pub(super) fn leave_behind(&mut self, aftermath: Aftermath) {
        let number = self.aftermaths.numbers.next();
        self.aftermaths.waiting.insert(number, aftermath);
        self.look_again(number);
    }

    fn look_again(&mut self, number: u64) {
        let time = Duration::from_millis(AFTERMATH_DELAY_MS);
        self.timers.after(time, Deadline::Aftermath(number));
    }

    /// Most helpers have ended by now, since nothing was left.
    pub(super) fn aftermath_due(&mut self, number: u64) {
        let Some(aftermath) = self.aftermaths.waiting.get(&number) else {
            return;
        };
        if !aftermath.is_over() {
            if self.aftermaths.running.len() >= AFTERMATHS_AT_ONCE {
                return self.look_again(number);
            }
            match aftermath.start(&self.host) {
                Ok(pid) => self.aftermaths.running.push(pid),
                Err(error) => log::error!("OnDisconnect: no process to end others: {error}"),
            }
        }
        self.aftermaths.waiting.remove(&number);
    }

    /// This process ends, or becomes another one: what waits is begun now.
    pub(super) fn settle_aftermaths(&mut self) {
        // Of children this process knows no more then.
        self.aftermaths.running = Vec::new();
        for aftermath in std::mem::take(&mut self.aftermaths.waiting).into_values() {
            if !aftermath.is_over()
                && let Err(error) = aftermath.start(&self.host)
            {
                log::error!("OnDisconnect: no process to end others: {error}");
            }
        }
    }
}

impl Aftermaths {
    /// A child was collected.
    pub(super) fn collected(&mut self, pid: Pid) {
        self.running.retain(|running| *running != pid);
    }
}
