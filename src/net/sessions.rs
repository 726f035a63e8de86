//! All sessions of one connection, and the helper that runs their programs.
//!
//! `net` holds a copy of the login's policy to answer clients early; the helper enforces it.

use std::time::Instant;

use agent_helper::forward_frame::X11Request;
use agent_helper::frame::{NetToSession, Policy, Program, SessionToNet};
use agent_helper::link::LinkError;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::termios::Winsize;

use super::forward_requests::CONNECT_FAILED;
use super::helper_queue::HelperQueue;
use super::requests::Request;
use super::service::ServiceError;
use super::session::{Environment, Question, Session, Stage, Terminal, consumed};
use super::streams::Side;
use crate::limits::{CHANNEL_ANSWERS_MAX, SESSION_PACKET_BYTES};
use crate::pattern;
use crate::ssh::{ChannelId, Core, ProtocolError};

/// The sessions, and what they share.
#[derive(Debug)]
pub(super) struct Sessions {
    rules: Rules,
    sessions: Vec<Session>,
    next_number: u32,
    /// The client sent no-more-sessions@openssh.com.
    no_more: bool,
    /// Some session started a program.
    started_any: bool,
    /// Whose output is read first in the next turn.
    first: usize,
    /// The client knows eow@openssh.com.
    wants_eow: bool,
}

/// What of the policy helps to answer early.
#[derive(Debug)]
struct Rules {
    max_sessions: usize,
    permit_pty: bool,
    forced_command: bool,
    accept_env: Vec<Vec<u8>>,
    subsystems: Vec<Vec<u8>>,
}

impl Sessions {
    pub(super) fn new(policy: Policy, wants_eow: bool) -> Self {
        let rules = Rules {
            max_sessions: usize::try_from(policy.max_sessions).unwrap_or(usize::MAX),
            permit_pty: policy.permit_pty,
            forced_command: policy.forced_command.is_some(),
            accept_env: policy
                .accept_env
                .into_iter()
                .map(|pattern| pattern.0)
                .collect(),
            subsystems: policy
                .subsystems
                .into_iter()
                .map(|(name, _)| name.0)
                .collect(),
        };
        Self {
            rules,
            sessions: Vec::new(),
            next_number: 1,
            no_more: false,
            started_any: false,
            first: 0,
            wants_eow,
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.sessions.len()
    }

    /// A program runs or ran.
    pub(super) fn started_any(&self) -> bool {
        self.started_any
    }

    /// Some session has a terminal.
    pub(super) fn has_terminal(&self) -> bool {
        self.sessions
            .iter()
            .any(|session| session.streams.is_terminal())
    }

    /// SSH_MSG_CHANNEL_OPEN: whether to open one more, with OpenSSH's refusal where not.
    pub(super) fn may_open(&self) -> Result<Opening, ServiceError> {
        if self.no_more {
            return Err(ServiceError::NoMoreSessions);
        }
        let open = self.sessions.iter().filter(|session| session.is_open());
        if open.count() < self.rules.max_sessions {
            Ok(Opening::Session)
        } else {
            Ok(Opening::Refuse(CONNECT_FAILED, "open failed"))
        }
    }

    /// Opens a session on `channel` with a window of so many bytes.
    pub(super) fn open(&mut self, core: &mut Core, channel: ChannelId, window: u32) {
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        self.sessions.push(Session::new(channel, number));
        core.open_confirm(channel, window, SESSION_PACKET_BYTES);
    }

    /// no-more-sessions@openssh.com.
    pub(super) fn forbid_more(&mut self) {
        self.no_more = true;
    }

    /// SSH_MSG_CHANNEL_REQUEST: decides, and keeps what has to be asked of the helper.
    pub(super) fn request(
        &mut self,
        helper: &mut HelperQueue,
        channel: ChannelId,
        kind: &[u8],
        want_reply: bool,
        extra: &[u8],
    ) -> Result<Verdict, ServiceError> {
        let Some(session) = self
            .sessions
            .iter_mut()
            .find(|session| session.channel == channel)
        else {
            return Ok(Verdict::Later);
        };
        if session.answers_waiting() >= CHANNEL_ANSWERS_MAX {
            return Err(ProtocolError::TooMuchPending {
                what: "channel requests",
            }
            .into());
        }
        let request = Request::decode(kind, extra)?;
        serve(session, &self.rules, helper, request, want_reply)
    }

    /// The answer to a request, now that nothing of the core is borrowed any more.
    pub(super) fn answer(&mut self, core: &mut Core, channel: ChannelId, success: bool) {
        if let Some(session) = self.by_channel(channel) {
            session.answer(core, success);
        }
    }

    /// Whether the client's agent can be reached is known, for all that asked.
    pub(super) fn agent_answered(&mut self, core: &mut Core, success: bool) {
        for session in &mut self.sessions {
            session.answered(core, Question::Agent, success);
        }
    }

    /// Whether the display of the session can be reached.
    pub(super) fn display_answered(&mut self, core: &mut Core, number: u32, success: bool) {
        let of = |session: &&mut Session| session.number == number;
        if let Some(session) = self.sessions.iter_mut().find(of) {
            session.answered(core, Question::Display, success);
        }
    }

    /// The sessions whose program was asked for, with their types as ChannelTimeout names them.
    pub(super) fn kinds(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let open = self.sessions.iter().filter(|session| session.is_open());
        open.map(|session| (session.channel.0, session.kind.as_slice()))
    }

    /// Ends a session that rested for too long; its program is on its own.
    pub(super) fn abandon(
        &mut self,
        helper: &mut HelperQueue,
        core: &mut Core,
        channel: ChannelId,
    ) -> Result<(), ServiceError> {
        if let Some(session) = self.by_channel(channel) {
            session.abandon(core);
            let number = session.number;
            helper.send(&NetToSession::Close { session: number })?;
        }
        Ok(())
    }

    /// Whether the session is there yet.
    pub(super) fn has(&self, number: u32) -> bool {
        self.sessions.iter().any(|session| session.number == number)
    }

    /// SSH_MSG_CHANNEL_DATA; gives how many bytes are done with.
    pub(super) fn client_data(&mut self, channel: ChannelId, data: &[u8]) -> usize {
        match self.by_channel(channel) {
            Some(session) => session.client_data(data),
            None => data.len(),
        }
    }

    /// SSH_MSG_CHANNEL_EOF.
    pub(super) fn client_eof(&mut self, channel: ChannelId) {
        if let Some(session) = self.by_channel(channel) {
            session.client_eof();
        }
    }

    /// SSH_MSG_CHANNEL_CLOSE. The number may be another channel's with the next message.
    pub(super) fn client_close(
        &mut self,
        helper: &mut HelperQueue,
        channel: ChannelId,
    ) -> Result<(), ServiceError> {
        let Some(session) = self.by_channel(channel) else {
            return Ok(());
        };
        // A program that ended, or was never asked for, is nothing that the helper knows of.
        let helper_knows = match &session.stage {
            Stage::Preparing(_) => !matches!(session.terminal, Terminal::None),
            // What waits for its end is told nothing: it would be forgotten, and its status with it.
            Stage::Running => !session.awaits_exit(),
            Stage::Starting | Stage::Refused => true,
            Stage::Over => false,
        };
        session.close_received();
        let number = session.number;
        if helper_knows {
            helper.send(&NetToSession::Close { session: number })?;
        }
        self.sessions.retain(|session| !session.is_gone());
        Ok(())
    }

    /// Handles what the helper sent.
    pub(super) fn helper_frame(
        &mut self,
        core: &mut Core,
        helper: &mut HelperQueue,
        frame: SessionToNet,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), ServiceError> {
        let number = match &frame {
            SessionToNet::TerminalOpened { session }
            | SessionToNet::NoTerminal { session }
            | SessionToNet::Started { session, .. }
            | SessionToNet::NotStarted { session }
            | SessionToNet::ServesFiles { session }
            | SessionToNet::File { session, .. }
            | SessionToNet::Tally { session }
            | SessionToNet::Ended { session, .. } => *session,
            SessionToNet::Forward { .. } => return Err(unexpected("a forward for sessions")),
        };
        let takes_descriptors = matches!(
            frame,
            SessionToNet::TerminalOpened { .. }
                | SessionToNet::Started { .. }
                | SessionToNet::File { .. }
                | SessionToNet::Tally { .. }
        );
        if !takes_descriptors && !descriptors.is_empty() {
            return Err(unexpected("descriptors where none belong"));
        }
        // The client may have closed the channel meanwhile; the descriptors close here.
        let Some(session) = self
            .sessions
            .iter_mut()
            .find(|s| s.number == number && s.is_open())
        else {
            return Ok(());
        };
        match frame {
            SessionToNet::TerminalOpened { .. } | SessionToNet::NoTerminal { .. } => {
                let Terminal::Asked { then, size } =
                    std::mem::replace(&mut session.terminal, Terminal::None)
                else {
                    return Err(unexpected("a terminal that nobody asked for"));
                };
                // Where there is no place for its descriptors, the client is told that there is none.
                let opened = takes_descriptors && session.terminal_opened(descriptors);
                if takes_descriptors && !opened {
                    helper.send(&NetToSession::Close { session: number })?;
                }
                if let Some(size) = size {
                    session.resize(size);
                }
                session.answered(core, Question::Terminal, opened);
                if let Some((program, environment)) = then {
                    start(helper, session.number, program, environment)?;
                }
            }
            SessionToNet::Started { .. } => {
                if !matches!(session.stage, Stage::Starting) {
                    return Err(unexpected("a program that nobody asked for"));
                }
                if descriptors.is_empty() && !matches!(session.terminal, Terminal::Open) {
                    // There is no place for them here, and nobody at the other ends any more.
                    helper.send(&NetToSession::Close { session: number })?;
                    session.stage = Stage::Refused;
                    session.answered(core, Question::Start, false);
                    return Ok(());
                }
                if !session.started(descriptors) {
                    return Err(unexpected("a program that does not fit its session"));
                }
                self.started_any = true;
                session.answered(core, Question::Start, true);
                let done = session.flush_input();
                consumed(core, session.channel, done);
            }
            SessionToNet::NotStarted { .. } => {
                if !matches!(session.stage, Stage::Starting) {
                    return Err(unexpected("an answer that nobody asked for"));
                }
                session.stage = Stage::Refused;
                session.answered(core, Question::Start, false);
            }
            SessionToNet::Ended { ending, .. } => {
                if matches!(session.stage, Stage::Refused) {
                    // Refused here, it ended at once.
                    return Ok(());
                }
                if !session.is_running() {
                    return Err(unexpected("the end of a program that does not run"));
                }
                session.ended(core, ending);
            }
            SessionToNet::ServesFiles { .. } => {
                if !matches!(session.stage, Stage::Starting) {
                    return Err(unexpected("a file server that nobody asked for"));
                }
                session.streams.serve_files();
            }
            SessionToNet::File { handle, .. } => {
                if descriptors.is_empty() {
                    // There is no place for it here: the server does what is asked of it.
                    return Ok(());
                }
                let [file] = <[OwnedFd; 1]>::try_from(descriptors)
                    .map_err(|_| unexpected("a file with several descriptors"))?;
                if !session.streams.add_file(handle, file) {
                    return Err(unexpected("a file where none are served"));
                }
            }
            SessionToNet::Tally { .. } => {
                let file = descriptors.into_iter().next();
                if !session.streams.set_tally(file) {
                    return Err(unexpected("a tally where no files are served"));
                }
            }
            SessionToNet::Forward { .. } => {}
        }
        Ok(())
    }

    /// Reads what programs print on terminals.
    pub(super) fn pump_terminals(&mut self, core: &mut Core) {
        self.pump_kind(core, true);
    }

    /// Reads what other programs print. Then settles what ended.
    pub(super) fn pump(&mut self, core: &mut Core) {
        self.pump_kind(core, false);
        self.first = self.first.wrapping_add(1);
        for session in &mut self.sessions {
            session.settle(core, self.wants_eow);
        }
        self.sessions.retain(|session| !session.is_gone());
    }

    fn pump_kind(&mut self, core: &mut Core, terminals: bool) {
        let count = self.sessions.len();
        for step in 0..count {
            let Some(index) = self.first.wrapping_add(step).checked_rem(count) else {
                continue;
            };
            let Some(session) = self.sessions.get_mut(index) else {
                continue;
            };
            if session.streams.is_terminal() == terminals && session.has_started() {
                let over = matches!(session.stage, Stage::Over);
                session.streams.pump_output(core, session.channel, over);
                pump_files(core, session, over);
            }
        }
    }

    /// The programs' streams to wait for, each with its session's index.
    pub(super) fn poll_set<'a>(
        &'a self,
        core: &'a Core,
    ) -> impl Iterator<Item = (usize, Side, BorrowedFd<'a>)> {
        self.sessions
            .iter()
            .enumerate()
            .filter(|(_, session)| session.has_started())
            .flat_map(|(index, session)| {
                let room = core.send_room(session.channel) > 0;
                session
                    .streams
                    .poll_set(room)
                    .map(move |(side, descriptor)| (index, side, descriptor))
            })
    }

    /// When something is due though nothing happens.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.sessions.iter().filter_map(Session::next_due).min()
    }

    /// There is more to do as soon as the outbox is empty, without anything to wait for.
    pub(super) fn has_work(&self, core: &Core) -> bool {
        self.sessions.iter().any(|session| {
            let over = matches!(session.stage, Stage::Over);
            session.streams.has_work(over) && core.send_room(session.channel) > 0
        })
    }

    /// A stream of the session at `index` became ready.
    pub(super) fn stream_ready(&mut self, core: &mut Core, index: usize, side: Side) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        if side == Side::Input {
            let done = session.flush_input();
            consumed(core, session.channel, done);
        } else {
            session.streams.set_ready(side);
        }
    }

    fn by_channel(&mut self, channel: ChannelId) -> Option<&mut Session> {
        self.sessions
            .iter_mut()
            .find(|session| session.channel == channel)
    }
}

/// Where files are served: does what the client asked for, as long as answers find room.
fn pump_files(core: &mut Core, session: &mut Session, over: bool) {
    while let Some(before) = session.streams.packets_done() {
        let done = session.flush_input();
        consumed(core, session.channel, done);
        session.streams.pump_output(core, session.channel, over);
        let no_more = done == 0 && session.streams.packets_done() == Some(before);
        if no_more || session.streams.has_replies() {
            return;
        }
    }
}

/// What to do with SSH_MSG_CHANNEL_OPEN.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    Session,
    Refuse(u32, &'static str),
}

/// What became of a channel request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Known(bool),
    /// The helper decides; the answer is registered.
    Later,
    /// The client's agent is to be reached through channels of this type; the answer is registered.
    Agent(&'static [u8]),
    /// The client's display is to be reached, for one connection or for all; the answer is
    /// registered.
    Display(X11Request, bool),
}

fn unexpected(what: &'static str) -> ServiceError {
    ServiceError::Helper(LinkError::Protocol(what))
}

fn start(
    helper: &mut HelperQueue,
    session: u32,
    program: Program,
    environment: Environment,
) -> Result<(), LinkError> {
    helper.send(&NetToSession::Start {
        session,
        program,
        environment: environment.variables,
    })
}

fn serve(
    session: &mut Session,
    rules: &Rules,
    helper: &mut HelperQueue,
    request: Request<'_>,
    want_reply: bool,
) -> Result<Verdict, ServiceError> {
    let number = session.number;
    let program = match request {
        Request::Terminal { term, size, modes } => {
            let preparing = matches!(session.stage, Stage::Preparing(_));
            if !preparing || !rules.permit_pty || !matches!(session.terminal, Terminal::None) {
                return Ok(Verdict::Known(false));
            }
            let frame = NetToSession::OpenTerminal {
                session: number,
                term: term.into(),
                size,
                modes: modes.into(),
            };
            helper.send(&frame)?;
            session.terminal = Terminal::Asked {
                then: None,
                size: None,
            };
            session.answer_later(Question::Terminal, want_reply);
            return Ok(Verdict::Later);
        }
        Request::Environment { name, value } => {
            let Stage::Preparing(environment) = &mut session.stage else {
                return Ok(Verdict::Known(false));
            };
            let accepted = rules
                .accept_env
                .iter()
                .any(|pattern| pattern::matches_one(name, pattern));
            return Ok(Verdict::Known(accepted && environment.add(name, value)));
        }
        Request::WindowChange {
            columns,
            rows,
            width,
            height,
        } => {
            let cells = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
            let size = Winsize {
                ws_row: cells(rows),
                ws_col: cells(columns),
                ws_xpixel: cells(width),
                ws_ypixel: cells(height),
            };
            return Ok(Verdict::Known(session.resize(size)));
        }
        Request::Signal(name) => {
            // The helper does one thing after the other: a program that it was asked to start gets it.
            let will_run = matches!(session.stage, Stage::Starting)
                && !matches!(session.terminal, Terminal::Asked { .. });
            let is_known = agent_helper::signal::by_name(name).is_some();
            if !(session.is_running() || will_run) || !session.takes_signals || !is_known {
                return Ok(Verdict::Known(false));
            }
            helper.send(&NetToSession::Signal {
                session: number,
                name: name.into(),
            })?;
            return Ok(Verdict::Known(true));
        }
        Request::Break => {
            if !session.is_running() || !session.streams.is_terminal() {
                return Ok(Verdict::Known(false));
            }
            helper.send(&NetToSession::Break { session: number })?;
            return Ok(Verdict::Known(true));
        }
        Request::EndOfWrite => {
            session.streams.close_output();
            return Ok(Verdict::Known(session.has_started()));
        }
        Request::X11 {
            single,
            protocol,
            cookie,
            screen,
        } => {
            // OpenSSH's rule: one display for each session, and before its program.
            if !matches!(session.stage, Stage::Preparing(_)) || session.display_asked {
                return Ok(Verdict::Known(false));
            }
            session.display_asked = true;
            session.answer_later(Question::Display, want_reply);
            let request = X11Request {
                session: number,
                protocol: protocol.into(),
                cookie: cookie.into(),
                screen,
            };
            return Ok(Verdict::Display(request, single));
        }
        Request::Agent(kind) => {
            session.answer_later(Question::Agent, want_reply);
            return Ok(Verdict::Agent(kind));
        }
        Request::Unknown => return Ok(Verdict::Known(false)),
        Request::Shell => Program::Shell,
        Request::Command(line) => Program::Command { line: line.into() },
        Request::Subsystem(name) => {
            if !rules.subsystems.iter().any(|known| known == name) {
                return Ok(Verdict::Known(false));
            }
            Program::Subsystem { name: name.into() }
        }
    };
    let environment = match std::mem::replace(&mut session.stage, Stage::Starting) {
        Stage::Preparing(environment) => environment,
        // One program for each channel (RFC 4254 section 6.5).
        earlier => {
            session.stage = earlier;
            return Ok(Verdict::Known(false));
        }
    };
    session.takes_signals = !rules.forced_command && !matches!(program, Program::Subsystem { .. });
    session.kind = match &program {
        Program::Shell => b"session:shell".to_vec(),
        Program::Command { .. } => b"session:command".to_vec(),
        Program::Subsystem { name } => [b"session:subsystem:", &**name].concat(),
    };
    session.answer_later(Question::Start, want_reply);
    match &mut session.terminal {
        Terminal::Asked { then, .. } => *then = Some((program, environment)),
        Terminal::None | Terminal::Open => start(helper, number, program, environment)?,
    }
    Ok(Verdict::Later)
}

#[cfg(test)]
mod tests;
