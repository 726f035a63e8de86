//! The `net` processes: started, spoken to, counted, ended.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use agent_helper::link::{self, Assembly, Link, LinkError, Received};
use agent_helper::wire::Wire;
use rustix::process::{Pid, Signal, kill_process, pidfd_send_signal};
use zeroize::Zeroize;

use super::host::{Host, Ids};
use super::ids::{ConnectionKey, Counter, NetId};
use super::levels::LineRates;
use super::listeners::Listener;
use super::outbox::Outbox;
use super::poller::{Poller, Source};
use super::timers::TimerId;
use crate::frames::ToNet;
use crate::launch::{Launch, Launched, launch};
use crate::limits::RETIRED_NET_ACCEPTS_MS;

/// What a `net` is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// Up to the end of authentication.
    Strangers,
    /// After login: one user, and one set of rights as soon as the first login is handed over.
    User { uid: u32, rights: Option<Vec<u8>> },
}

#[derive(Debug)]
pub(super) struct Net {
    pub role: Role,
    pub pid: Pid,
    /// Names the process for good, where the kernel has such.
    pidfd: Option<OwnedFd>,
    link: Link,
    assembly: Assembly,
    outbox: Outbox,
    /// It proved that it is of this build.
    pub greeted: bool,
    /// It accepts no more.
    pub retired: bool,
    /// What it accepted before it heard of that has arrived by then.
    accepts_until: Option<Instant>,
    pub connections: BTreeMap<u32, ConnectionKey>,
    /// Highest number of a connection so far: theirs for strangers, ours for users.
    pub highest: u32,
    pub idle: Option<TimerId>,
    pub hello: Option<TimerId>,
    /// It rests from accepting until then.
    pub resume: Option<TimerId>,
    pub logs: LineRates,
    /// What it was started as.
    pub title: CString,
    pub started: Instant,
    /// The process ended and was waited for, or it is another's to wait for: its number may be
    /// somebody else's by now.
    pub collected: bool,
}

#[derive(Debug, Default)]
pub(super) struct Nets {
    all: BTreeMap<NetId, Net>,
    counter: Counter,
    /// To be buried at the end of the turn, with the reason.
    doomed: Vec<(NetId, String)>,
    /// Their links ended and they did not yet: how they did, the log still has to say.
    dying: Vec<Pid>,
}

impl Nets {
    pub(super) fn get(&self, id: NetId) -> Option<&Net> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: NetId) -> Option<&mut Net> {
        self.all.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NetId, &Net)> {
        self.all.iter().map(|(id, net)| (*id, net))
    }

    /// Gives the receive buffers back, for the time until somebody has something to say again.
    pub(super) fn release_buffers(&mut self) {
        for net in self.all.values_mut() {
            Link::release_buffer(&mut net.assembly);
        }
    }

    pub(super) fn remove(&mut self, id: NetId) -> Option<Net> {
        self.all.remove(&id)
    }

    pub(super) fn by_pid(&self, pid: Pid) -> Option<NetId> {
        self.iter()
            .find(|(_, net)| net.pid == pid)
            .map(|(id, _)| id)
    }

    /// Ends a `net` at the end of the turn.
    pub(super) fn doom(&mut self, id: NetId, why: impl Into<String>) {
        self.doomed.push((id, why.into()));
    }

    /// Remembers a process whose link closed until it is collected.
    pub(super) fn expect_end(&mut self, pid: Pid) {
        self.dying.push(pid);
    }

    /// Whether `pid` was expected to end; only once.
    pub(super) fn was_dying(&mut self, pid: Pid) -> bool {
        let index = self.dying.iter().position(|dying| *dying == pid);
        index.map(|index| self.dying.swap_remove(index)).is_some()
    }

    /// The processes are children of another process from now on.
    pub(super) fn disown(&mut self) {
        for net in self.all.values_mut() {
            net.collected = true;
        }
    }

    pub(super) fn take_doomed(&mut self) -> Vec<(NetId, String)> {
        std::mem::take(&mut self.doomed)
    }

    /// Sends without waiting. A `net` that takes no frames is doomed.
    pub(super) fn send(
        &mut self,
        poller: &Poller,
        id: NetId,
        number: u32,
        frame: &ToNet,
        descriptors: &[BorrowedFd<'_>],
    ) {
        let Some(net) = self.all.get_mut(&id) else {
            return;
        };
        let was_empty = net.outbox.is_empty();
        let sent = net
            .outbox
            .send(&net.link, number, frame.to_wire(), descriptors);
        if let Err(error) = sent {
            self.doom(id, error.to_string());
        } else if was_empty && !net.outbox.is_empty() {
            let _ = poller.want_room(&net.link, Source::Net(id), true);
        }
    }

    /// Bytes of frames that a `net` has not taken.
    pub(super) fn waiting_bytes(&self, id: NetId) -> usize {
        self.all.get(&id).map_or(0, |net| net.outbox.bytes())
    }

    /// The link has room again.
    pub(super) fn flush(&mut self, poller: &Poller, id: NetId) {
        let Some(net) = self.all.get_mut(&id) else {
            return;
        };
        let flushed = net.outbox.flush(&net.link);
        if net.outbox.is_empty() {
            let _ = poller.want_room(&net.link, Source::Net(id), false);
        }
        if let Err(error) = flushed {
            self.doom(id, error.to_string());
        }
    }

    /// The next frame, if a whole one is there.
    pub(super) fn receive(&mut self, id: NetId) -> Option<Received> {
        let net = self.all.get_mut(&id)?;
        match net.link.receive(&mut net.assembly, false) {
            Ok(received) => received,
            Err(error) => {
                let why = match error {
                    LinkError::Closed => "it ended".to_owned(),
                    error => error.to_string(),
                };
                self.doom(id, why);
                None
            }
        }
    }

    /// Wipes what the last frame left in the receive buffer.
    pub(super) fn wipe_buffer(&mut self, id: NetId) {
        if let Some(net) = self.all.get_mut(&id) {
            net.assembly.buffer().zeroize();
        }
    }

    /// The user's `net` for a login: one with the same rights, else one without any yet.
    pub(super) fn find_user(&self, uid: u32, rights: &[u8]) -> Option<NetId> {
        let with = |wanted: Option<&[u8]>| {
            self.iter().find_map(|(id, net)| match &net.role {
                Role::User { uid: of, rights }
                    if *of == uid && !net.retired && rights.as_deref() == wanted =>
                {
                    Some(id)
                }
                _ => None,
            })
        };
        with(Some(rights)).or_else(|| with(None))
    }

    /// Whether a login of `uid` may find a `net` at once.
    pub(super) fn has_user(&self, uid: u32) -> bool {
        self.iter().any(
            |(_, net)| matches!(net.role, Role::User { uid: of, .. } if of == uid && !net.retired),
        )
    }

    /// How many wait for a first login.
    pub(super) fn expected(&self) -> usize {
        self.iter()
            .filter(|(_, net)| matches!(net.role, Role::User { rights: None, .. }))
            .count()
    }

    /// Starts strangers' `net` with the listeners.
    pub(super) fn start_strangers(
        &mut self,
        host: &Host,
        poller: &Poller,
        ids: Option<Ids>,
        listeners: &[Listener],
    ) -> std::io::Result<NetId> {
        let listening: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        self.start(
            host,
            poller,
            Role::Strangers,
            c"agent: net",
            "strangers",
            ids,
            &listening,
        )
    }

    /// Starts a `net` for a user.
    pub(super) fn start_user(
        &mut self,
        host: &Host,
        poller: &Poller,
        uid: u32,
        name: &[u8],
    ) -> std::io::Result<NetId> {
        let title = CString::new([b"agent: net [", name, b"]"].concat())?;
        let role = Role::User { uid, rights: None };
        self.start(
            host,
            poller,
            role,
            &title,
            "users",
            host.users_net_ids(),
            &[],
        )
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "both kinds of net differ in nothing else"
    )]
    fn start(
        &mut self,
        host: &Host,
        poller: &Poller,
        role: Role,
        title: &CStr,
        kind: &str,
        ids: Option<Ids>,
        listeners: &[BorrowedFd<'_>],
    ) -> std::io::Result<NetId> {
        let (ours, theirs) = link::pair()?;
        let mut environment = Ids::environment(ids);
        environment.push(CString::new(format!("AGENT_NET={kind}"))?);
        environment.push(CString::new(format!(
            "AGENT_LISTENERS={}",
            listeners.len()
        ))?);
        let descriptors: Vec<_> = std::iter::once(theirs.as_fd())
            .chain(listeners.iter().copied())
            .collect();
        let launched = launch(&Launch {
            environment: &environment,
            descriptors: &descriptors,
            // Away from the terminal: Ctrl-C is for the monitor, which knows what to do.
            new_session: true,
            oom_score_adj: host.oom_score_adj,
            ..Launch::new(host.own.as_fd(), &[title])
        })?;
        let id = NetId(self.counter.next());
        poller.add(&ours, Source::Net(id))?;
        self.all
            .insert(id, net(role, title, launched, Link::new(ours)));
        Ok(id)
    }
}

/// One that was just started.
fn net(role: Role, title: &CStr, Launched { pid, pidfd }: Launched, link: Link) -> Net {
    let now = Instant::now();
    Net {
        role,
        pid,
        pidfd,
        link,
        assembly: Assembly::default(),
        outbox: Outbox::default(),
        greeted: false,
        retired: false,
        accepts_until: None,
        collected: false,
        connections: BTreeMap::new(),
        highest: 0,
        idle: None,
        hello: None,
        resume: None,
        logs: LineRates::new(now),
        title: title.to_owned(),
        started: now,
    }
}

/// How long to wait before strangers' `net` is started again, when the last `failures` ones died young.
pub(super) fn restart_delay(failures: u32) -> Duration {
    use crate::limits::RESTART_DELAY_MAX_MS;
    if failures == 0 {
        return Duration::ZERO;
    }
    let delay_ms = 25_u64
        .checked_shl(failures - 1)
        .unwrap_or(RESTART_DELAY_MAX_MS);
    Duration::from_millis(delay_ms.min(RESTART_DELAY_MAX_MS))
}

impl Net {
    /// Ends it, whatever it is doing; false where nobody here will hear of its end.
    pub(super) fn kill(&self) -> bool {
        match &self.pidfd {
            Some(pidfd) => drop(pidfd_send_signal(pidfd, Signal::KILL)),
            None if !self.collected => drop(kill_process(self.pid, Signal::KILL)),
            // Without a link it ends by itself, unless it has gone bad; then it is confined.
            None => {}
        }
        !self.collected
    }

    /// It was told to accept no more.
    pub(super) fn retire(&mut self) {
        self.retired = true;
        let time = Duration::from_millis(RETIRED_NET_ACCEPTS_MS);
        self.accepts_until.get_or_insert(Instant::now() + time);
    }

    /// Whether it may still say that it accepted a connection.
    pub(super) fn may_accept(&self) -> bool {
        self.role == Role::Strangers
            && self
                .accepts_until
                .is_none_or(|until| Instant::now() < until)
    }

    /// Frames wait for room on the link.
    pub(super) fn owes_frames(&self) -> bool {
        !self.outbox.is_empty()
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn a_pid_that_was_collected_is_nobodys_to_kill() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let (link, _other) = link::pair().unwrap();
        let launched = Launched {
            pid: Pid::from_child(&child),
            pidfd: None,
        };
        let mut net = net(Role::Strangers, c"agent: net", launched, Link::new(link));
        net.collected = true;
        assert!(!net.kill());
        std::thread::sleep(Duration::from_millis(50));
        assert!(child.try_wait().unwrap().is_none());
        net.collected = false;
        assert!(net.kill());
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn what_was_accepted_before_the_order_to_stop_has_time_to_arrive() {
        let (link, _other) = link::pair().unwrap();
        let launched = Launched {
            pid: rustix::process::getpid(),
            pidfd: None,
        };
        let mut net = net(Role::Strangers, c"agent: net", launched, Link::new(link));
        assert!(net.may_accept());
        net.retire();
        assert!(net.retired && net.may_accept());
        net.accepts_until = Some(Instant::now());
        net.retire();
        assert!(!net.may_accept(), "a second order gives no more time");
    }

    #[test]
    fn the_first_restart_is_immediate_and_later_ones_back_off() {
        assert_eq!(restart_delay(0), Duration::ZERO);
        assert_eq!(restart_delay(1), Duration::from_millis(25));
        assert_eq!(restart_delay(2), Duration::from_millis(50));
        assert_eq!(restart_delay(10), Duration::from_millis(5_000));
        assert_eq!(restart_delay(u32::MAX), Duration::from_millis(5_000));
    }
}
