//! What is left of a connection when it is over (OnDisconnect): the helper ends it as the user; a
//! process that may (`src/aftermath.rs`) ends what the helper may not, if the helper is still at it
//! a moment later.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use agent_helper::frame::{OnDisconnect, Policy};
use rustix::process::{Pid, Signal, pidfd_send_signal};

use super::Monitor;
use super::helpers::Helper;
use super::host::{Host, Ids};
use super::ids::Counter;
use super::timers::Deadline;
use crate::aftermath::has_ended;
use crate::launch::{Launch, launch};
use crate::limits::{
    AFTERMATH_DELAY_MS, AFTERMATHS_AT_ONCE, AFTERMATHS_OF_ONE_USER, AFTERMATHS_WAITING,
};

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
    /// Processes that were started, and for which user.
    running: Vec<(Pid, u32)>,
}

impl Aftermath {
    /// What a login with this `policy` will need, if it is to be cleaned up behind.
    pub(super) fn of(host: &Host, policy: &Policy, helper: &mut Helper) -> Option<Self> {
        // Made with the process: in a keeper its number could be another's by now.
        let opened = helper.process.take();
        if policy.on_disconnect == OnDisconnect::Leave || !host.as_root {
            return None;
        }
        let Some(opened) = opened else {
            log::warn!(
                "OnDisconnect: processes of other users will be left: it takes Linux 5.3 to end them"
            );
            return None;
        };
        Some(Self {
            helper: Pid::from_raw(i32::try_from(helper.pid).ok()?)?,
            opened,
            name: policy.identity.name.to_vec(),
            uid: policy.identity.uid,
            way: policy.on_disconnect,
            in_chroot: policy.chroot.is_some(),
        })
    }

    fn is_over(&self) -> bool {
        has_ended(&self.opened, 0)
    }

    /// Nothing more is done about it: not even a helper that was stopped stays.
    fn give_up(&self) {
        log::warn!(
            "OnDisconnect: user {} leaves more behind than can be ended; some of it stays",
            self.uid
        );
        let _ = pidfd_send_signal(&self.opened, Signal::KILL);
    }

    fn start(&self, host: &Host) -> Option<Pid> {
        self.launch(host)
            .inspect_err(|error| log::error!("OnDisconnect: no process to end others: {error}"))
            .ok()
    }

    fn launch(&self, host: &Host) -> std::io::Result<Pid> {
        let title = CString::new([b"agent: end [", self.name.as_slice(), b"]"].concat())?;
        let helper = CString::new(self.helper.as_raw_pid().to_string())?;
        let uid = CString::new(self.uid.to_string())?;
        let way = match self.way {
            OnDisconnect::Kill => c"kill",
            OnDisconnect::Hup | OnDisconnect::Leave => c"hup",
        };
        let whom = if self.in_chroot { c"all" } else { c"others" };
        let launched = launch(&Launch {
            environment: &Ids::environment(Some(host.end_ids())),
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
        let waiting = self.aftermaths.waiting.values();
        if waiting.filter(|other| other.uid == aftermath.uid).count() >= AFTERMATHS_WAITING {
            return aftermath.give_up();
        }
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
            let running = &self.aftermaths.running;
            let own = running.iter().filter(|(_, uid)| *uid == aftermath.uid);
            if running.len() >= AFTERMATHS_AT_ONCE || own.count() >= AFTERMATHS_OF_ONE_USER {
                return self.look_again(number);
            }
            if let Some(pid) = aftermath.start(&self.host) {
                self.aftermaths.running.push((pid, aftermath.uid));
            }
        }
        self.aftermaths.waiting.remove(&number);
    }

    /// This process ends, or becomes another one: what waits is begun now.
    pub(super) fn settle_aftermaths(&mut self) {
        // Of children this process knows no more then.
        self.aftermaths.running = Vec::new();
        let waiting = std::mem::take(&mut self.aftermaths.waiting).into_values();
        let left = waiting.filter(|aftermath| !aftermath.is_over());
        for (index, aftermath) in left.enumerate() {
            if index < AFTERMATHS_AT_ONCE {
                aftermath.start(&self.host);
            } else {
                aftermath.give_up();
            }
        }
    }
}

impl Aftermaths {
    /// How many connections of this user are over with something left that is being ended.
    pub(super) fn of_user(&self, uid: u32) -> usize {
        let waiting = self.waiting.values();
        let waiting = waiting.filter(|left| left.uid == uid && !left.is_over());
        let running = self.running.iter().filter(|(_, of)| *of == uid);
        waiting.count() + running.count()
    }

    /// A child was collected; `failure` says how, where it did not end as it should.
    pub(super) fn collected(&mut self, pid: Pid, failure: Option<&str>) {
        let before = self.running.len();
        self.running.retain(|(running, _)| *running != pid);
        if let Some(how) = failure
            && self.running.len() < before
        {
            log::error!("OnDisconnect: the process that ends others failed: {how}");
        }
    }
}
