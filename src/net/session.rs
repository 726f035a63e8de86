//! One session channel (RFC 4254 section 6): what was asked for, what runs, how it ends.
//!
//! The order at the end is OpenSSH's: exit-status or exit-signal as soon as the program's first
//! process ended (its descendants may hold the pipes for longer), EOF when its output is over and, if
//! the process lives, a moment passed, CLOSE after both. A terminal's output is over when the process ended and what it printed is read.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use agent_helper::frame::{Ending, Program};
use agent_helper::wire::Bytes;
use rustix::fd::OwnedFd;
use rustix::termios::Winsize;

use super::requests::signal_name;
use super::streams::Streams;
use crate::limits::{END_TOGETHER_MS, ENVIRONMENT_MAX_BYTES, ENVIRONMENT_MAX_ENTRIES};
use crate::ssh::wire::Writer as _;
use crate::ssh::{ChannelId, Core};

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    /// The channel that carries it.
    pub channel: ChannelId,
    /// What the helper calls it. Never used twice, so a late frame names nobody.
    pub number: u32,
    pub stage: Stage,
    pub terminal: Terminal,
    pub streams: Streams,
    /// Forced commands and subsystems take no signals (OpenSSH).
    pub takes_signals: bool,
    /// There was an `x11-req`.
    pub display_asked: bool,
    /// As ChannelTimeout names it.
    pub kind: Vec<u8>,
    answers: Answers,
    end_of_write_due: bool,
    exit_told: bool,
    eof_sent: bool,
    /// EOF goes by itself if the program has not ended by then.
    eof_at: Option<Instant>,
    close_sent: bool,
    close_received: bool,
}

/// How far a session is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Nothing runs yet; what `env` asked for so far.
    Preparing(Environment),
    /// The helper was asked to start, or will be as soon as the terminal is there.
    Starting,
    /// The program runs.
    Running,
    /// The helper refused to start it.
    Refused,
    /// The program ended.
    Over,
}

/// A session's terminal.
#[derive(Debug)]
pub(super) enum Terminal {
    None,
    /// The helper was asked; a start and a new size that came meanwhile wait.
    Asked {
        then: Option<(Program, Environment)>,
        size: Option<Winsize>,
    },
    Open,
}

/// Variables that the client sets.
#[derive(Debug, Default)]
pub(super) struct Environment {
    pub variables: Vec<(Bytes, Bytes)>,
    bytes: usize,
}

impl Environment {
    /// Adds a variable; false when there are too many.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) -> bool {
        let bytes = self
            .bytes
            .saturating_add(name.len())
            .saturating_add(value.len());
        if self.variables.len() >= ENVIRONMENT_MAX_ENTRIES || bytes > ENVIRONMENT_MAX_BYTES {
            return false;
        }
        self.bytes = bytes;
        self.variables.push((name.into(), value.into()));
        true
    }
}

impl Session {
    pub(super) fn new(channel: ChannelId, number: u32) -> Self {
        Self {
            channel,
            number,
            stage: Stage::Preparing(Environment::default()),
            terminal: Terminal::None,
            streams: Streams::default(),
            takes_signals: true,
            display_asked: false,
            kind: b"session".to_vec(),
            answers: Answers::default(),
            end_of_write_due: false,
            exit_told: false,
            eof_sent: false,
            eof_at: None,
            close_sent: false,
            close_received: false,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running)
    }

    /// The program runs or ran; only then its streams are in use.
    pub(super) fn has_started(&self) -> bool {
        matches!(self.stage, Stage::Running | Stage::Over)
    }

    /// The channel stays until the program's first process ended, whatever the client does: without
    /// exit-status OpenSSH's multiplexing client takes an end for a failure. The streams close at
    /// once, which hangs a terminal up.
    pub(super) fn awaits_exit(&self) -> bool {
        self.is_running()
    }

    /// Counts against MaxSessions.
    pub(super) fn is_open(&self) -> bool {
        !self.close_sent
    }

    /// The channel is closed on both sides.
    pub(super) fn is_gone(&self) -> bool {
        self.close_sent && self.close_received
    }

    /// The client's window has another size; false where there is no terminal.
    pub(super) fn resize(&mut self, to: Winsize) -> bool {
        if let Terminal::Asked { size, .. } = &mut self.terminal {
            *size = Some(to);
            return true;
        }
        self.streams.resize(to)
    }

    /// The answer to a request with `want_reply` is known at once.
    pub(super) fn answer(&mut self, core: &mut Core, success: bool) {
        self.answers.0.push_back(Answer::Known(success));
        self.answers.flush(core, self.channel);
    }

    /// The answer will come from the helper. Without `want_reply` there is nothing to remember.
    pub(super) fn answer_later(&mut self, question: Question, want_reply: bool) {
        if want_reply {
            self.answers.0.push_back(Answer::Later(question));
        }
    }

    /// The helper answered `question`.
    pub(super) fn answered(&mut self, core: &mut Core, question: Question, success: bool) {
        for answer in &mut self.answers.0 {
            if *answer == Answer::Later(question) {
                *answer = Answer::Known(success);
            }
        }
        self.answers.flush(core, self.channel);
    }

    /// How many answers the client waits for.
    pub(super) fn answers_waiting(&self) -> usize {
        self.answers.0.len()
    }

    /// The helper opened the terminal. False: what it sent is none.
    pub(super) fn terminal_opened(&mut self, descriptors: Vec<OwnedFd>) -> bool {
        let Some(streams) = Streams::of_terminal(descriptors) else {
            return false;
        };
        self.replace_streams(streams);
        self.terminal = Terminal::Open;
        true
    }

    /// The program runs. False: the helper sent descriptors that do not fit.
    pub(super) fn started(&mut self, descriptors: Vec<OwnedFd>) -> bool {
        match self.terminal {
            Terminal::Open if descriptors.is_empty() => {}
            Terminal::Open => return false,
            _ => {
                let Some(streams) = Streams::of_pipes(descriptors) else {
                    return false;
                };
                self.replace_streams(streams);
            }
        }
        self.stage = Stage::Running;
        true
    }

    fn replace_streams(&mut self, streams: Streams) {
        let earlier = std::mem::replace(&mut self.streams, streams);
        self.streams.inherit_input(earlier);
    }

    /// Data of the client. Gives how many bytes are done with: written, or of use to nobody.
    pub(super) fn client_data(&mut self, data: &[u8]) -> usize {
        match self.streams.client_data(data, self.has_started()) {
            Ok(done) => done,
            Err(_) => self.close_input() + data.len(),
        }
    }

    /// The client sends no more.
    pub(super) fn client_eof(&mut self) {
        self.streams.client_eof();
        if self.has_started() {
            self.streams.end_drained_input();
        }
    }

    /// Writes what waits for the program; gives how many bytes are done with.
    pub(super) fn flush_input(&mut self) -> usize {
        if !self.is_running() {
            return 0;
        }
        let (mut done, result) = self.streams.flush_input();
        if result.is_err() {
            done += self.close_input();
        }
        self.streams.end_drained_input();
        done
    }

    /// Nobody reads what the client sends any more; gives how many bytes waited for that.
    fn close_input(&mut self) -> usize {
        let (waiting, was_open) = self.streams.close_input();
        self.end_of_write_due |= was_open;
        waiting
    }

    /// The program's first process ended.
    pub(super) fn ended(&mut self, core: &mut Core, ending: Ending) {
        self.stage = Stage::Over;
        if self.close_sent {
            return;
        }
        if self.output_is_over() {
            self.send_eof(core);
        }
        match ending {
            Ending::Exit { status } => {
                core.send_request(self.channel, b"exit-status", false, &status.to_be_bytes());
            }
            Ending::Signal {
                number,
                core_dumped,
            } => {
                let mut extra = Vec::new();
                extra.put_string(signal_name(number).as_bytes());
                extra.put_boolean(core_dumped);
                extra.put_string(b"");
                extra.put_string(b"");
                core.send_request(self.channel, b"exit-signal", false, &extra);
            }
        }
        self.exit_told = true;
        let waiting = self.close_input();
        consumed(core, self.channel, waiting);
    }

    fn output_is_over(&self) -> bool {
        self.has_started() && self.streams.output_is_over()
    }

    fn send_eof(&mut self, core: &mut Core) {
        if !self.eof_sent && !self.close_received {
            self.eof_sent = true;
            core.send_eof(self.channel);
        }
    }

    /// Most programs close their output by ending, and the news of that is under way: one packet to
    /// the client serves for both.
    fn holds_eof(&mut self) -> bool {
        if self.eof_sent || !self.is_running() {
            return false;
        }
        let now = Instant::now();
        let wait = Duration::from_millis(END_TOGETHER_MS.into());
        *self.eof_at.get_or_insert(now + wait) > now
    }

    /// When to settle this though nothing happens.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.eof_at
            .filter(|_| !self.eof_sent && self.is_running() && !self.close_received)
    }

    /// Ends it at once, whatever runs.
    pub(super) fn abandon(&mut self, core: &mut Core) {
        self.streams.close_all();
        self.close_sent = true;
        core.send_close(self.channel);
    }

    /// The client closed the channel: nobody reads what the program prints.
    pub(super) fn close_received(&mut self) {
        self.close_received = true;
        self.streams.close_all();
    }

    /// All decisions about EOF and CLOSE, after anything changed. `wants_eow`: the client knows
    /// eow@openssh.com (OpenSSH PROTOCOL 2.1), which says that nothing reads its data any more.
    pub(super) fn settle(&mut self, core: &mut Core, wants_eow: bool) {
        if self.close_sent {
            return;
        }
        if std::mem::take(&mut self.end_of_write_due) && wants_eow && !self.close_received {
            core.send_request(self.channel, b"eow@openssh.com", false, &[]);
        }
        if self.output_is_over() && !self.holds_eof() {
            self.send_eof(core);
        }
        let abandoned = self.close_received && !self.awaits_exit();
        if abandoned || (self.exit_told && self.eof_sent) {
            self.close_sent = true;
            self.streams.close_all();
            core.send_close(self.channel);
        }
    }
}

/// A connection that breaks is an end too: what files were read and written is told.
impl Drop for Session {
    fn drop(&mut self) {
        self.streams.close_input();
    }
}

/// Opens the window again by what the program took.
pub(super) fn consumed(core: &mut Core, channel: ChannelId, len: usize) {
    if len > 0 {
        // The window is a u32, and so is every sum of what came through it.
        core.consumed(channel, u32::try_from(len).unwrap_or(u32::MAX));
    }
}

/// A question to the helper that a client's request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    Terminal,
    Start,
    Agent,
    Display,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Later(Question),
    Known(bool),
}

/// Answers in the order of the requests (RFC 4254 section 4): one that is known waits for those
/// before it.
#[derive(Debug, Default)]
struct Answers(VecDeque<Answer>);

impl Answers {
    fn flush(&mut self, core: &mut Core, channel: ChannelId) {
        while let Some(Answer::Known(success)) = self.0.front() {
            core.reply(channel, *success);
            self.0.pop_front();
        }
        if self.0.is_empty() {
            self.0 = VecDeque::new();
        }
    }
}
