//! The helper of one connection: launched at the first request that needs it, gone with the link.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use agent_helper::frame::{HelperToMonitor, MonitorToHelper};
use agent_helper::link::{self, Assembly, Link, LinkError, Received};
use agent_helper::wire::Wire;

use super::Monitor;
use super::connection::{Connection, Phase, Step};
use super::farewell::Farewells;
use super::file_events::FileLog;
use super::ids::ConnectionKey;
use super::levels::{LineRates, helper_level};
use super::log::{helper_line, level_of};
use super::outbox::Outbox;
use super::poller::{Poller, Source};
use super::timers::{Deadline, TimerId};
use crate::limits::{FRAMES_PER_TURN, HELLO_TIME_MS};
use crate::memexec::HelperImage;

#[derive(Debug)]
pub(super) struct Helper {
    link: Link,
    assembly: Assembly,
    outbox: Outbox,
    pub stage: HelperStage,
    /// It was sent the policy, perhaps before its hello arrived here.
    pub accepted: bool,
    pub hello: Option<TimerId>,
    pub logs: LineRates,
    /// It tells what is done to files.
    pub files: Option<FileLog>,
    /// It told too much: for a moment it is not listened to, and not in the poll set.
    rests: bool,
    pub pid: u32,
    /// Up to the hand-over, which knows whether it is of use.
    pub process: Option<OwnedFd>,
}

/// What the helper was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HelperStage {
    /// Started; everything it sends before its hello is an error.
    Started,
    /// Root, reads keys when asked.
    Waiting,
    /// It was given the policy: it becomes the user.
    Accepted,
    /// It is the user: nothing it says is believed.
    Ready,
}

impl Helper {
    pub(super) fn launch(
        image: &mut HelperImage,
        poller: &Poller,
        key: ConnectionKey,
    ) -> std::io::Result<Self> {
        let (ours, theirs) = link::pair()?;
        let launched = image.launch(c"agent-helper: [auth]", theirs.as_fd())?;
        poller.add(&ours, Source::Helper(key))?;
        Ok(Self {
            link: Link::new(ours),
            assembly: Assembly::default(),
            outbox: Outbox::default(),
            stage: HelperStage::Started,
            accepted: false,
            hello: None,
            logs: LineRates::new(Instant::now()),
            files: None,
            rests: false,
            pid: launched.pid.as_raw_nonzero().get().unsigned_abs(),
            process: launched.pidfd,
        })
    }

    /// Sends without waiting. An error ends the helper's connection.
    pub(super) fn send(
        &mut self,
        poller: &Poller,
        key: ConnectionKey,
        frame: &MonitorToHelper,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), LinkError> {
        let was_empty = self.outbox.is_empty();
        self.outbox
            .send(&self.link, 0, frame.to_wire(), descriptors)?;
        if was_empty && !self.outbox.is_empty() {
            let _ = poller.want_room(&self.link, Source::Helper(key), true);
        }
        Ok(())
    }

    pub(super) fn receive(&mut self) -> Result<Option<Received>, LinkError> {
        self.link.receive(&mut self.assembly, false)
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Puts it into a poll set, unless it rests.
    pub(super) fn watch(&self, poller: &Poller, key: ConnectionKey) {
        let source = Source::Helper(key);
        if self.rests {
            return;
        }
        if let Err(error) = poller.add(&self.link, source) {
            log::error!("{source:?} cannot be watched: {error}");
        }
        if !self.outbox.is_empty() {
            let _ = poller.want_room(&self.link, source, true);
        }
    }

    /// Says how many of its lines were left out, if any were.
    pub(super) fn say_lost(&mut self, place: &str) {
        let lost = self.logs.take_lost();
        if lost > 0 {
            log::warn!("helper {place}: {lost} lines were left out, too many at once");
        }
    }
}

/// The helper of a connection, or of one that is over.
pub(super) fn helper_of<'a>(
    connections: &'a mut BTreeMap<ConnectionKey, Connection>,
    farewells: &'a mut Farewells,
    key: ConnectionKey,
) -> Option<&'a mut Helper> {
    let own = connections.get_mut(&key).and_then(|it| it.helper.as_mut());
    own.or_else(|| Some(&mut farewells.get_mut(&key)?.helper))
}

impl Monitor {
    /// Starts the helper of a connection that has none. Says whether there is one now.
    pub(super) fn ensure_helper(&mut self, key: ConnectionKey) -> bool {
        let Some(connection) = self.connections.get_mut(&key) else {
            return false;
        };
        if connection.helper.is_some() {
            return true;
        }
        let begun = Instant::now();
        match Helper::launch(&mut self.helper_image, &self.poller, key) {
            Ok(mut helper) => {
                self.counters.launches.note(begun.elapsed());
                let time = std::time::Duration::from_millis(HELLO_TIME_MS);
                helper.hello = Some(self.timers.after(time, Deadline::HelperHello(key)));
                connection.helper = Some(helper);
                // Where it is another than a helper begins with.
                let level = helper_level(self.debug.level, connection.log_level);
                if level != ::log::LevelFilter::Info {
                    self.tell_helper_level(key);
                }
                true
            }
            Err(error) => {
                self.counters.launch_failures += 1;
                log::error!("the helper could not be started: {error}");
                false
            }
        }
    }

    /// Forgets the helper: the end of the link ends the process, and with it its sessions.
    pub(super) fn drop_helper(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let aftermath = match &mut connection.phase {
            Phase::Live(live) => live.aftermath.take(),
            _ => None,
        };
        if let Some(mut helper) = connection.helper.take() {
            self.timers.cancel(helper.hello);
            if helper.files.is_some() {
                return self.hear_out(key, helper, aftermath);
            }
            helper.say_lost(&connection.place());
            self.poller.remove(helper.link());
        }
        if let Some(aftermath) = aftermath {
            self.leave_behind(aftermath);
        }
    }

    /// Input, room or the end on a helper's link.
    pub(super) fn helper_ready(&mut self, key: ConnectionKey, readable: bool, writable: bool) {
        if writable {
            let helper = helper_of(&mut self.connections, &mut self.farewells, key);
            if let Some(helper) = helper {
                let flushed = helper.outbox.flush(&helper.link);
                if helper.outbox.is_empty() {
                    let _ = self
                        .poller
                        .want_room(&helper.link, Source::Helper(key), false);
                }
                if let Err(error) = flushed {
                    self.helper_lost(key, &error.to_string());
                }
            }
        }
        if !readable {
            return;
        }
        for _ in 0..FRAMES_PER_TURN {
            let helper = helper_of(&mut self.connections, &mut self.farewells, key);
            let Some(helper) = helper else { return };
            let user = helper.files.as_ref().map(|files| files.uid);
            let wait = user.and_then(|uid| self.budgets.wait(uid, Instant::now()));
            if let Some(time) = wait {
                helper.rests = true;
                self.poller.remove(helper.link());
                self.timers.after(time, Deadline::HelperRested(key));
                return;
            }
            match helper.receive() {
                Ok(Some(received)) => self.helper_frame(key, &received),
                Ok(None) => {
                    // 32 KiB for each idle session would be its largest part.
                    Link::release_buffer(&mut helper.assembly);
                    return;
                }
                Err(LinkError::Closed) => return self.helper_lost(key, "it ended"),
                Err(error) => return self.helper_lost(key, &error.to_string()),
            }
        }
    }

    fn helper_frame(&mut self, key: ConnectionKey, received: &Received) {
        if self.farewells.contains_key(&key) {
            return self.farewell_frame(key, received);
        }
        if !received.descriptors.is_empty() {
            return self.helper_lost(key, "it sent descriptors");
        }
        let frame = match HelperToMonitor::from_wire(&received.content) {
            Ok(frame) => frame,
            Err(error) => return self.helper_lost(key, &error.to_string()),
        };
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let Some(helper) = connection.helper.as_mut() else {
            return;
        };
        match (helper.stage, frame) {
            (HelperStage::Started, HelperToMonitor::Hello { build_id }) => {
                if build_id != crate::BUILD_ID {
                    return self.helper_lost(key, "it is of another build");
                }
                self.timers.cancel(helper.hello.take());
                helper.stage = if helper.accepted {
                    HelperStage::Accepted
                } else {
                    HelperStage::Waiting
                };
            }
            (HelperStage::Waiting | HelperStage::Accepted, HelperToMonitor::KeysRead { ok }) => {
                if !ok {
                    log::debug!("a key reader could not become its user");
                }
            }
            (HelperStage::Accepted, HelperToMonitor::Ready) => {
                helper.stage = HelperStage::Ready;
                self.helper_is_ready(key);
            }
            (HelperStage::Accepted, HelperToMonitor::Failed { step, errno }) => {
                let error = std::io::Error::from_raw_os_error(errno);
                let step = crate::logging::escape(&step);
                self.login_failed_late(key, &format!("{step}: {error}"));
            }
            (_, HelperToMonitor::Log { level, message }) => {
                self.helper_says(key, level, &message);
            }
            (HelperStage::Ready, frame) => self.session_frame(key, frame),
            (_, frame) => {
                self.helper_lost(key, &format!("it sent {} out of turn", frame.kind().1));
            }
        }
    }

    /// A line for the log.
    pub(super) fn helper_says(&mut self, key: ConnectionKey, level: u8, message: &[u8]) {
        let place = match self.connections.get(&key) {
            Some(connection) => Some(connection.place()),
            None => self.farewell_place(key),
        };
        let helper = helper_of(&mut self.connections, &mut self.farewells, key);
        let (Some(helper), Some(place)) = (helper, place) else {
            return;
        };
        match &helper.files {
            Some(files) if files.has_line(level) => {
                files.line(&place, level, message, &mut self.budgets);
            }
            _ if helper.logs.take(level) => {
                helper.say_lost(&place);
                log::log!(level_of(level), "{}", helper_line(&place, message));
            }
            _ => {}
        }
    }

    /// It is listened to again.
    pub(super) fn helper_rested(&mut self, key: ConnectionKey) {
        let helper = helper_of(&mut self.connections, &mut self.farewells, key);
        if let Some(helper) = helper.filter(|helper| helper.rests) {
            helper.rests = false;
            helper.watch(&self.poller, key);
        }
    }

    /// The helper is gone, or is to go.
    pub(super) fn helper_lost(&mut self, key: ConnectionKey, why: &str) {
        if self.farewells.contains_key(&key) {
            return self.farewell_over(key);
        }
        self.drop_helper(key);
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        match &connection.phase {
            Phase::Live(_) => {
                log::debug!("the helper of {} is gone: {why}", connection.place());
                self.end_sessions(key);
                // Its net sees the end of the session socket and says goodbye; if not, we do.
                self.end_soon(key);
            }
            Phase::HandingOver(_) => self.login_failed_late(key, why),
            Phase::Authenticating(attempt) => {
                log::error!("the helper of {} is gone: {why}", connection.place());
                if matches!(&attempt.pending, Some(pending) if !matches!(pending.step, Step::Answering { .. }))
                {
                    self.keys_unreadable(key, "the helper is gone");
                }
            }
            Phase::Greeting | Phase::Ending { .. } => {}
        }
    }
}
