//! What a logged-in client is served: sessions, forwards, and the requests about the connection.
//!
//! The helper does what is asked as the user and enforces the login's policy; this side answers
//! early where it knows the answer, and keeps answers in the order of the requests.

use std::collections::VecDeque;
use std::time::Instant;

use agent_helper::forward_frame::{ForwardAnswer, Place};
use agent_helper::frame::{Policy, SessionToNet};
use agent_helper::link::{Link, LinkError};
use rustix::event::PollFlags;
use rustix::fd::{BorrowedFd, OwnedFd};

use super::forward_requests::{
    CONNECT_FAILED, ListenRequest, PROHIBITED, UNKNOWN_TYPE, target, tunnel,
};
use super::forwards::{Answered, Cancelled, Forwards, Listening};
use super::helper_queue::HelperQueue;
use super::host_keys::{HostKeys, Progress};
use super::idle::{Idle, Seen};
use super::session::consumed;
use super::sessions::{Opening, Sessions, Verdict};
use super::streams::Side;
use crate::limits::{
    FORWARD_WINDOW_BYTES, GLOBAL_REPLIES_WAITING, NARROW_WINDOW_BYTES, WIDE_CHANNELS,
};
use crate::ssh::{ChannelId, Core, Event, ProtocolError};

/// Why a connection cannot be served any further.
#[derive(Debug)]
pub(super) enum ServiceError {
    /// The peer broke the protocol.
    Protocol(ProtocolError),
    /// The client opened a session after it had ruled that out itself.
    NoMoreSessions,
    /// The helper is gone or sent what none of ours sends.
    Helper(LinkError),
}

impl From<ProtocolError> for ServiceError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

impl From<LinkError> for ServiceError {
    fn from(error: LinkError) -> Self {
        Self::Helper(error)
    }
}

/// All that is served on one connection.
#[derive(Debug)]
pub(super) struct Service {
    helper: HelperQueue,
    sessions: Sessions,
    forwards: Forwards,
    replies: Replies,
    host_keys: HostKeys,
    idle: Idle,
    may_forward: MayForward,
    forwards_first: bool,
}

/// What of the policy helps to refuse early.
#[derive(Debug, Clone, Copy)]
struct MayForward {
    tcp_local: bool,
    tcp_remote: bool,
    unix_local: bool,
    unix_remote: bool,
    agent: bool,
    x11: bool,
    tunnel: bool,
}

/// What a descriptor in the poll set belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Spot {
    Program(usize, Side),
    Forward(u32),
    Listener(u32),
}

/// What the core is told about an event, once nothing of it is borrowed any more.
#[derive(Debug)]
pub(super) enum Act {
    Nothing,
    OpenSession(ChannelId),
    Refuse(ChannelId, u32, &'static str),
    /// The answer to a session's request, which has its place among others.
    SessionReply(ChannelId, bool),
    Reply(ChannelId, bool),
    Consumed(ChannelId, usize),
    /// All sessions' requests for the agent have this answer.
    AgentAnswered(bool),
    /// The session's request for a display has this answer.
    DisplayAnswered(u32, bool),
    GlobalReplies,
    /// The monitor is to prove these host keys.
    Prove(Vec<Vec<u8>>),
}

impl Service {
    pub(super) fn new(
        helper: Link,
        policy: Policy,
        host_keys: HostKeys,
        idle: Idle,
        wants_eow: bool,
    ) -> Self {
        let forwarding = &policy.forwarding;
        let may_forward = MayForward {
            tcp_local: forwarding.tcp_local,
            tcp_remote: forwarding.tcp_remote,
            unix_local: forwarding.unix_local,
            unix_remote: forwarding.unix_remote,
            agent: forwarding.agent,
            x11: forwarding.x11.is_some(),
            tunnel: forwarding.tunnel.point_to_point || forwarding.tunnel.ethernet,
        };
        Self {
            helper: HelperQueue::new(helper),
            sessions: Sessions::new(policy, wants_eow),
            forwards: Forwards::default(),
            replies: Replies::default(),
            host_keys,
            idle,
            may_forward,
            forwards_first: false,
        }
    }

    /// Tells the client which host keys there are, so that it learns the new ones in time.
    pub(super) fn announce(&self, core: &mut Core) {
        let keys = self.host_keys.announcement();
        if !keys.is_empty() {
            core.send_global_request(b"hostkeys-00@openssh.com", false, &keys);
        }
    }

    /// A proof that [`Act::Prove`] asked for; false: nobody did.
    pub(super) fn proved(&mut self, core: &mut Core, key: &[u8], signature: &[u8]) -> bool {
        let Some(progress) = self.host_keys.proved(key, signature) else {
            return false;
        };
        if let Progress::Done(proofs) = progress {
            let waiting = self
                .replies
                .0
                .iter_mut()
                .find(|it| matches!(it, Reply::Proofs));
            if let Some(reply) = waiting {
                *reply = Reply::Known(!proofs.is_empty(), proofs);
            }
            self.replies.flush(core);
        }
        true
    }

    /// No more of the client's messages can be served now.
    pub(super) fn is_full(&self) -> bool {
        self.helper.is_full() || self.replies.0.len() >= GLOBAL_REPLIES_WAITING
    }

    /// For what holds of sessions only.
    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Accepting failed for want of descriptors or memory; [`Service::wake_listeners`] is due later.
    pub(super) fn listeners_rest(&self) -> bool {
        self.forwards.is_resting()
    }

    /// Accepts again.
    pub(super) fn wake_listeners(&mut self) {
        self.forwards.wake();
    }

    /// Handles an event about channels, as far as that goes while the core's bytes are borrowed.
    pub(super) fn event(&mut self, event: Event<'_>) -> Result<Act, ServiceError> {
        Ok(match event {
            Event::ChannelOpen {
                channel,
                kind,
                extra,
            } => return self.open(channel, kind, extra),
            Event::ChannelOpened { channel } => {
                self.forwards.opened(channel);
                Act::Nothing
            }
            Event::ChannelRefused { channel, .. } => {
                self.forwards.refused(channel);
                Act::Nothing
            }
            Event::ChannelRequest {
                channel,
                want_reply,
                ..
            } if self.forwards.has(channel) => {
                // None is known on such channels.
                if want_reply {
                    Act::Reply(channel, false)
                } else {
                    Act::Nothing
                }
            }
            Event::ChannelRequest {
                channel,
                kind,
                want_reply,
                extra,
            } => {
                let helper = &mut self.helper;
                let request = self
                    .sessions
                    .request(helper, channel, kind, want_reply, extra);
                match request? {
                    Verdict::Known(success) if want_reply => Act::SessionReply(channel, success),
                    Verdict::Known(_) | Verdict::Later => Act::Nothing,
                    Verdict::Display(request, _) if !self.may_forward.x11 => {
                        Act::DisplayAnswered(request.session, false)
                    }
                    Verdict::Display(request, single) => {
                        let session = request.session;
                        match self
                            .forwards
                            .listen_x11(&mut self.helper, request, single)?
                        {
                            true => Act::Nothing,
                            false => Act::DisplayAnswered(session, false),
                        }
                    }
                    Verdict::Agent(_) if !self.may_forward.agent => Act::AgentAnswered(false),
                    Verdict::Agent(kind) => {
                        match self.forwards.listen_agent(&mut self.helper, kind)? {
                            Some(success) => Act::AgentAnswered(success),
                            None => Act::Nothing,
                        }
                    }
                }
            }
            Event::ChannelData { channel, data } => {
                let done = if self.forwards.has(channel) {
                    self.forwards.client_data(channel, data)
                } else {
                    self.sessions.client_data(channel, data)
                };
                Act::Consumed(channel, done)
            }
            Event::ChannelEof { channel } => {
                if self.forwards.has(channel) {
                    self.forwards.client_eof(channel);
                } else {
                    self.sessions.client_eof(channel);
                }
                Act::Nothing
            }
            Event::ChannelClose { channel } => {
                if self.forwards.has(channel) {
                    self.forwards.client_close(channel);
                } else {
                    self.sessions.client_close(&mut self.helper, channel)?;
                }
                Act::Nothing
            }
            Event::GlobalRequest {
                name,
                want_reply,
                extra,
            } => {
                if name == b"hostkeys-prove-00@openssh.com" && want_reply {
                    match self.host_keys.ask(extra) {
                        Some(asked) => {
                            self.replies.0.push_back(Reply::Proofs);
                            Act::Prove(asked)
                        }
                        None => {
                            self.replies.0.push_back(Reply::known(false));
                            Act::GlobalReplies
                        }
                    }
                } else {
                    self.global_request(name, want_reply, extra)?;
                    Act::GlobalReplies
                }
            }
            _ => Act::Nothing,
        })
    }

    /// Does what [`Service::event`] left to do.
    pub(super) fn apply(&mut self, act: Act, core: &mut Core) {
        match act {
            // Its caller's: the monitor is none of ours.
            Act::Nothing | Act::Prove(_) => {}
            Act::OpenSession(channel) => {
                let window = self.window();
                self.sessions.open(core, channel, window);
            }
            Act::Refuse(channel, code, why) => core.open_fail(channel, code, why),
            Act::SessionReply(channel, success) => self.sessions.answer(core, channel, success),
            Act::Reply(channel, success) => core.reply(channel, success),
            Act::Consumed(channel, len) => consumed(core, channel, len),
            Act::AgentAnswered(success) => self.sessions.agent_answered(core, success),
            Act::DisplayAnswered(session, success) => {
                self.sessions.display_answered(core, session, success);
            }
            Act::GlobalReplies => self.replies.flush(core),
        }
    }

    fn open(&mut self, channel: ChannelId, kind: &[u8], extra: &[u8]) -> Result<Act, ServiceError> {
        if kind == b"session" {
            return Ok(match self.sessions.may_open()? {
                Opening::Session => Act::OpenSession(channel),
                Opening::Refuse(code, why) => Act::Refuse(channel, code, why),
            });
        }
        if kind == b"tun@openssh.com" {
            return Ok(match tunnel(extra)? {
                Some(wish) if self.may_forward.tunnel => {
                    self.forwards.open_tunnel(&mut self.helper, channel, wish)?;
                    Act::Nothing
                }
                // sshd's code, whatever the reason.
                _ => Act::Refuse(channel, CONNECT_FAILED, "open failed"),
            });
        }
        let may = match kind {
            b"direct-tcpip" => self.may_forward.tcp_local,
            b"direct-streamlocal@openssh.com" => self.may_forward.unix_local,
            _ => return Ok(Act::Refuse(channel, UNKNOWN_TYPE, "unknown channel type")),
        };
        match target(kind, extra)? {
            Some(to) if may => {
                self.forwards.connect(&mut self.helper, channel, to)?;
                Ok(Act::Nothing)
            }
            _ => Ok(Act::Refuse(channel, PROHIBITED, "open failed")),
        }
    }

    fn global_request(
        &mut self,
        name: &[u8],
        want_reply: bool,
        extra: &[u8],
    ) -> Result<(), ServiceError> {
        let reply = match ListenRequest::decode(name, extra)? {
            ListenRequest::Begin(at) => self.listen(at, want_reply)?,
            ListenRequest::Cancel(at) => match self.forwards.cancel(&mut self.helper, &at)? {
                Cancelled::Known(success) => Reply::known(success),
                Cancelled::Later(number) => Reply::AfterListening(number),
            },
            ListenRequest::Impossible => Reply::known(false),
            ListenRequest::None => {
                let known = name == b"no-more-sessions@openssh.com";
                if known {
                    self.sessions.forbid_more();
                }
                Reply::known(known)
            }
        };
        if want_reply {
            self.replies.0.push_back(reply);
        }
        Ok(())
    }

    fn listen(&mut self, at: Place, want_reply: bool) -> Result<Reply, ServiceError> {
        let may = match &at {
            // A port that nobody learns of is of no use (OpenSSH refuses it too).
            Place::Tcp { port, .. } => self.may_forward.tcp_remote && (want_reply || *port != 0),
            Place::Unix { .. } => self.may_forward.unix_remote,
        };
        if !may {
            return Ok(Reply::known(false));
        }
        Ok(match self.forwards.listen(&mut self.helper, at)? {
            Some(number) => Reply::Later(number),
            None => Reply::known(false),
        })
    }

    /// Handles what the helper sent.
    pub(super) fn helper_frames(&mut self, core: &mut Core) -> Result<(), ServiceError> {
        while let Some((frame, descriptors)) = self.helper.receive()? {
            match frame {
                SessionToNet::Forward { answer } => self.forwarded(core, &answer, descriptors)?,
                frame => {
                    self.sessions
                        .helper_frame(core, &mut self.helper, frame, descriptors)?;
                }
            }
        }
        Ok(())
    }

    fn forwarded(
        &mut self,
        core: &mut Core,
        answer: &ForwardAnswer,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), ServiceError> {
        let window = self.window();
        let helper = &mut self.helper;
        let answered = self
            .forwards
            .answer(core, helper, answer, descriptors, window)?;
        match answered {
            None => {}
            Some(Answered::Display(session, success)) => {
                self.sessions.display_answered(core, session, success);
            }
            Some(Answered::Agent(success)) => self.sessions.agent_answered(core, success),
            Some(Answered::Listening(listening)) => {
                self.replies.answered(&listening);
                self.replies.flush(core);
            }
        }
        Ok(())
    }

    /// Sends what waits for the helper.
    pub(super) fn flush_helper(&mut self) -> Result<(), ServiceError> {
        Ok(self.helper.flush()?)
    }

    /// The helper's socket, and whether frames wait for it.
    pub(super) fn helper(&self) -> (BorrowedFd<'_>, bool) {
        self.helper.poll()
    }

    /// Nothing happened for a while: gives buffers back.
    pub(super) fn release_buffers(&mut self) {
        self.helper.release_buffer();
    }

    /// Reads what programs and sockets give. Terminals are first always, since a person waits there;
    /// then sessions and forwards in turn, so that none keeps the others from the outbox.
    pub(super) fn pump(&mut self, core: &mut Core) {
        self.sessions.pump_terminals(core);
        if self.forwards_first {
            self.forwards.pump(core);
        }
        self.sessions.pump(core);
        let sessions = &self.sessions;
        self.forwards.end_displays(|number| sessions.has(number));
        if !self.forwards_first {
            self.forwards.pump(core);
        }
        self.forwards_first = !self.forwards_first;
    }

    /// There is more to do without anything to wait for.
    pub(super) fn has_work(&self, core: &Core) -> bool {
        self.sessions.has_work(core)
    }

    /// Ends channels that rested for too long; true: the whole connection has.
    pub(super) fn end_idle(&mut self, core: &mut Core, now: Instant) -> Result<bool, ServiceError> {
        if self.idle.has_rules() {
            let kinds = self.sessions.kinds().chain(self.forwards.kinds());
            let seen = kinds.map(|(number, kind)| Seen {
                number,
                kind,
                moved: core.take_moved(ChannelId(number)),
            });
            let over = self.idle.look(seen, now);
            for number in over {
                let channel = ChannelId(number);
                if self.forwards.has(channel) {
                    self.forwards.abandon(core, channel);
                } else {
                    self.sessions.abandon(&mut self.helper, core, channel)?;
                }
            }
        }
        let used = self.sessions.count() + self.forwards.count() > 0;
        Ok(self.idle.is_over(used, now))
    }

    /// When to go on though nothing happens.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let moments = [self.idle.next(), self.sessions.next_due()];
        moments.into_iter().flatten().min()
    }

    /// Calls `watch` with every descriptor to wait for.
    pub(super) fn poll_set<'a>(
        &'a self,
        core: &'a Core,
        mut watch: impl FnMut(Spot, BorrowedFd<'a>, PollFlags),
    ) {
        for (index, side, descriptor) in self.sessions.poll_set(core) {
            let flags = if side == Side::Input {
                PollFlags::OUT
            } else {
                PollFlags::IN
            };
            watch(Spot::Program(index, side), descriptor, flags);
        }
        for (number, socket, flags) in self.forwards.poll_set(core) {
            watch(Spot::Forward(number), socket, flags);
        }
        for (number, socket) in self.forwards.listening(core) {
            watch(Spot::Listener(number), socket, PollFlags::IN);
        }
    }

    /// A descriptor became ready.
    pub(super) fn ready(&mut self, core: &mut Core, spot: Spot, flags: PollFlags) {
        match spot {
            Spot::Program(index, side) => self.sessions.stream_ready(core, index, side),
            Spot::Forward(number) => self.forwards.ready(core, number, flags),
            Spot::Listener(number) => {
                let window = self.window();
                self.forwards.accept(core, number, window);
            }
        }
    }

    /// The window for one more channel: what clients may have under way in all is bounded.
    fn window(&self) -> u32 {
        if self.sessions.count() + self.forwards.count() < WIDE_CHANNELS {
            FORWARD_WINDOW_BYTES
        } else {
            NARROW_WINDOW_BYTES
        }
    }
}

/// Answers to global requests, in the order of the requests (RFC 4254 section 4): one that is known
/// waits for those before it. The core bounds how many there are.
#[derive(Debug, Default)]
struct Replies(VecDeque<Reply>);

#[derive(Debug)]
enum Reply {
    /// Whether it succeeded, and what the answer carries.
    Known(bool, Vec<u8>),
    /// The helper is asked to listen under this number.
    Later(u32),
    /// As that, for a request to listen there no more.
    AfterListening(u32),
    /// Host keys are being proven.
    Proofs,
}

impl Reply {
    fn known(success: bool) -> Self {
        Self::Known(success, Vec::new())
    }
}

impl Replies {
    fn answered(&mut self, listening: &Listening) {
        let success = listening.port.is_some();
        for reply in &mut self.0 {
            match reply {
                Reply::Later(number) if *number == listening.number => {
                    let named = listening.port.filter(|(_, open)| *open);
                    let port = named.map(|(port, _)| u32::from(port).to_be_bytes().to_vec());
                    *reply = Reply::Known(success, port.unwrap_or_default());
                }
                Reply::AfterListening(number) if *number == listening.number => {
                    *reply = Reply::known(success);
                }
                _ => {}
            }
        }
    }

    fn flush(&mut self, core: &mut Core) {
        while let Some(Reply::Known(success, extra)) = self.0.front() {
            core.global_reply(*success, extra);
            self.0.pop_front();
        }
        if self.0.is_empty() {
            self.0 = VecDeque::new();
        }
    }
}
