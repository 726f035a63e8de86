//! A program's three streams: what the client sends goes in, what it prints comes out.
//!
//! A byte from the client is written straight from the decrypted packet; only what the program does
//! not take at once is kept, and the channel's window bounds that. A byte for the client is read
//! straight into the packet being built.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::termios::{Winsize, tcsetwinsize};

use super::descriptors::{pipe_reader, pipe_writer, terminal_master};
use super::files::Files;
use crate::limits::PIPE_BYTES;
use crate::ssh::{ChannelId, Core, Stream};

/// The descriptors of one program. Each is dropped when its direction ends; all of them together
/// hang a terminal up.
#[derive(Debug, Default)]
pub(super) struct Streams {
    terminal: bool,
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    error: Option<OwnedFd>,
    /// What the program did not take yet.
    pending: Pending,
    /// The client sends no more: `input` ends after `pending`.
    client_ended: bool,
    output_ready: bool,
    error_ready: bool,
    /// Pipes that were made larger, since more passes than they hold: input, output.
    widened: (bool, bool),
    /// The program is our SFTP server.
    files: Option<Box<Files>>,
}

/// One of the streams, as the poll set names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Input,
    Output,
    Error,
}

impl Streams {
    /// The streams of a terminal. `None`: the descriptor is no terminal's master.
    pub(super) fn of_terminal(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let [master] = <[OwnedFd; 1]>::try_from(descriptors).ok()?;
        let output = terminal_master(master)?;
        let input = rustix::io::fcntl_dupfd_cloexec(&output, 0).ok()?;
        Some(Self {
            terminal: true,
            input: Some(input),
            output: Some(output),
            ..Self::default()
        })
    }

    /// The streams of a program with pipes: to its stdin, from its stdout and stderr.
    pub(super) fn of_pipes(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let [input, output, error] = <[OwnedFd; 3]>::try_from(descriptors).ok()?;
        Some(Self {
            input: Some(pipe_writer(input)?),
            output: Some(pipe_reader(output)?),
            error: Some(pipe_reader(error)?),
            ..Self::default()
        })
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Takes over what arrived before the program ran.
    pub(super) fn inherit_input(&mut self, earlier: Self) {
        self.pending = earlier.pending;
        self.client_ended = earlier.client_ended;
        self.files = earlier.files;
    }

    /// The program that is being started is our SFTP server.
    pub(super) fn serve_files(&mut self) {
        self.files = Some(Box::default());
    }

    /// The SFTP server hands a file over. False: the program is none.
    pub(super) fn add_file(&mut self, handle: u32, descriptor: OwnedFd) -> bool {
        match &mut self.files {
            Some(files) => {
                files.add(handle, descriptor);
                true
            }
            None => false,
        }
    }

    /// Where the SFTP server wants to know how much of its files was read and written. False: the
    /// program is none.
    pub(super) fn set_tally(&mut self, descriptor: Option<OwnedFd>) -> bool {
        match &mut self.files {
            Some(files) => {
                files.set_tally(descriptor);
                true
            }
            None => false,
        }
    }

    /// Files are served, and answers wait for room on the channel.
    pub(super) fn has_replies(&self) -> bool {
        self.files.as_ref().is_some_and(|files| files.has_replies())
    }

    /// There is more to do as soon as there is room on the channel, without anything to wait for: a
    /// terminal that a program in the background still has does not say that it is empty.
    pub(super) fn has_work(&self, over: bool) -> bool {
        self.has_replies() || (over && self.terminal && self.output.is_some())
    }

    /// How many packets of SFTP were acted on; `None` where no files are served.
    pub(super) fn packets_done(&self) -> Option<u64> {
        self.files.as_ref().map(|files| files.packets_done())
    }

    /// Data of the client. Gives how many bytes are done with; the others wait for the program.
    pub(super) fn client_data(&mut self, data: &[u8], running: bool) -> Result<usize, Errno> {
        if running && self.input.is_none() {
            // Nobody reads it any more; as OpenSSH, the client may go on sending.
            return Ok(data.len());
        }
        let written = match (&self.input, &mut self.files) {
            (Some(input), Some(files)) if running && self.pending.is_empty() => {
                files.take(data, input)?
            }
            (Some(input), None) if running && self.pending.is_empty() => write(input, data)?,
            _ => 0,
        };
        self.pending.push(data.get(written..).unwrap_or_default());
        if running && !self.terminal && !self.pending.is_empty() {
            widen(&self.input, &mut self.widened.0);
        }
        Ok(written)
    }

    /// The client sends no more.
    pub(super) fn client_eof(&mut self) {
        self.client_ended = true;
    }

    /// Writes what waits for the program; gives how much of it went, also where it met an error.
    pub(super) fn flush_input(&mut self) -> (usize, Result<(), Errno>) {
        let mut total = 0;
        let Some(input) = &self.input else {
            return (total, Ok(()));
        };
        loop {
            let waiting = self.pending.bytes();
            let written = match &mut self.files {
                // It may wait for something else than bytes.
                Some(files) => files.take(waiting, input),
                None if waiting.is_empty() => Ok(0),
                None => write(input, waiting),
            };
            match written {
                Ok(0) => return (total, Ok(())),
                Ok(written) => {
                    self.pending.take(written);
                    total += written;
                }
                Err(errno) => return (total, Err(errno)),
            }
        }
    }

    /// Ends the program's input if the client did and all before was written. On a terminal only
    /// the writing stops: the program sees no end, as with OpenSSH.
    pub(super) fn end_drained_input(&mut self) {
        let at_rest = self.files.as_ref().is_none_or(|files| files.is_at_rest());
        if self.client_ended && self.pending.is_empty() && at_rest {
            self.close_input();
        }
    }

    /// Stops feeding the program; gives how many bytes were dropped and whether it was open.
    pub(super) fn close_input(&mut self) -> (usize, bool) {
        let dropped = self.pending.bytes().len();
        self.pending = Pending::default();
        if let (Some(input), Some(files)) = (&self.input, &mut self.files) {
            files.end_input(input);
        }
        (dropped, self.input.take().is_some())
    }

    /// Nobody reads what the program prints: its next write tells it so.
    pub(super) fn close_output(&mut self) {
        if let Some(files) = &mut self.files {
            files.close();
        }
        self.output = None;
        self.error = None;
    }

    /// Ends everything.
    pub(super) fn close_all(&mut self) {
        self.close_input();
        self.close_output();
    }

    /// True when the program will print no more.
    pub(super) fn output_is_over(&self) -> bool {
        self.output.is_none() && self.error.is_none()
    }

    /// Reads what the program printed into packets of `channel`, as far as there is room.
    /// `over`: the program ended, so what a terminal does not have by now never comes.
    pub(super) fn pump_output(&mut self, core: &mut Core, channel: ChannelId, over: bool) {
        let drain = over && self.terminal;
        if let Some(files) = &mut self.files {
            files.flush(core, channel);
            if files.has_replies() {
                return;
            }
        }
        let files = &mut self.files;
        let mut observe = |bytes: &[u8]| {
            if let Some(files) = files {
                files.observe(bytes);
            }
        };
        if self.error_ready {
            let ready = &mut self.error_ready;
            let ended = pump(
                core,
                channel,
                Stream::Stderr,
                &self.error,
                ready,
                (false, &mut |_| {}),
            );
            if ended {
                self.error = None;
            }
        }
        if self.output_ready || drain {
            let mut ready = true;
            let ended = pump(
                core,
                channel,
                Stream::Data,
                &self.output,
                &mut ready,
                (self.terminal, &mut observe),
            );
            self.output_ready = ready;
            if ready && !ended && !self.terminal {
                widen(&self.output, &mut self.widened.1);
            }
            if ended || (drain && !ready) {
                self.output = None;
            }
        }
    }

    /// The descriptors to wait for: output where `room` is left for it, input where data waits.
    pub(super) fn poll_set(&self, room: bool) -> impl Iterator<Item = (Side, BorrowedFd<'_>)> {
        // With files, more can be waited for than the pipe.
        let waits = match &self.files {
            Some(files) => files.waits_for_pipe(),
            None => !self.pending.is_empty(),
        };
        let room = room && !self.has_replies();
        let input = self.input.as_ref().filter(|_| waits);
        [
            (Side::Input, input),
            (Side::Output, self.output.as_ref().filter(|_| room)),
            (Side::Error, self.error.as_ref().filter(|_| room)),
        ]
        .into_iter()
        .filter_map(|(side, descriptor)| Some((side, descriptor?.as_fd())))
    }

    /// The poll set said that output can be read.
    pub(super) fn set_ready(&mut self, side: Side) {
        match side {
            Side::Input => {}
            Side::Output => self.output_ready = true,
            Side::Error => self.error_ready = true,
        }
    }

    /// Sets the terminal's size; false where there is none.
    pub(super) fn resize(&self, size: Winsize) -> bool {
        let master = self.output.as_ref().filter(|_| self.terminal);
        master.is_some_and(|master| tcsetwinsize(master, size).is_ok())
    }
}

/// Makes a pipe larger, once: an idle session's memory in the kernel would be mostly pipes.
fn widen(pipe: &Option<OwnedFd>, done: &mut bool) {
    if let (Some(pipe), false) = (pipe, *done) {
        *done = true;
        // A user may hold only so much memory in pipes; smaller ones do.
        let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES);
    }
}

/// Is shown what passes.
type Observe<'a> = &'a mut dyn FnMut(&[u8]);

/// Reads until there is nothing more, no room, or another's turn. Clears `ready` when there is
/// nothing more for now; true: the stream ended. `observe` sees what passes.
pub(super) fn pump(
    core: &mut Core,
    channel: ChannelId,
    stream: Stream,
    descriptor: &Option<OwnedFd>,
    ready: &mut bool,
    (terminal, observe): (bool, Observe<'_>),
) -> bool {
    let Some(descriptor) = descriptor else {
        *ready = false;
        return false;
    };
    for _ in 0..core.packets_per_turn(channel) {
        let Some(slot) = core.send_slot(channel, stream) else {
            return false;
        };
        let room = slot.len();
        match rustix::io::retry_on_intr(|| rustix::io::read(descriptor, &mut *slot)) {
            Ok(0) => {
                core.send_commit(0);
                return true;
            }
            Ok(len) => {
                observe(slot.get(..len).unwrap_or_default());
                core.send_commit(len);
                if len < room && !terminal {
                    // Most likely empty now; if not, the poll set says so again. A terminal hands
                    // out what it holds in pieces of any size.
                    *ready = false;
                    return false;
                }
            }
            Err(Errno::AGAIN) => {
                core.send_commit(0);
                *ready = false;
                return false;
            }
            // EIO: nobody has the terminal open any more.
            Err(_) => {
                core.send_commit(0);
                return true;
            }
        }
    }
    false
}

/// Writes what fits, 0 where nothing does.
pub(super) fn write(descriptor: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    match rustix::io::retry_on_intr(|| rustix::io::write(descriptor, bytes)) {
        Err(Errno::AGAIN) => Ok(0),
        result => result,
    }
}

/// Bytes in a row, added at the end, taken from the front.
#[derive(Debug, Default)]
pub(super) struct Pending {
    buffer: Vec<u8>,
    start: usize,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.buffer.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.start > self.buffer.len() / 2 {
            // Moving at most half of it keeps the cost of a byte constant.
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    pub(super) fn take(&mut self, len: usize) {
        self.start = self.buffer.len().min(self.start + len);
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

    fn pipes() -> (Streams, OwnedFd, OwnedFd, OwnedFd) {
        let (stdin, input) = rustix::pipe::pipe().unwrap();
        let (output, stdout) = rustix::pipe::pipe().unwrap();
        let (error, stderr) = rustix::pipe::pipe().unwrap();
        (
            Streams::of_pipes(vec![input, output, error]).unwrap(),
            stdin,
            stdout,
            stderr,
        )
    }

    #[test]
    fn what_the_program_does_not_take_waits_in_order() {
        let (mut streams, stdin, _stdout, _stderr) = pipes();
        let data: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut done = 0;
        for piece in data.chunks(30_000) {
            done += streams.client_data(piece, true).unwrap();
        }
        streams.client_eof();
        assert!(done < data.len());
        let mut seen = Vec::new();
        while seen.len() < data.len() {
            let mut buffer = [0; 7_777];
            let len = rustix::io::read(&stdin, &mut buffer).unwrap();
            seen.extend_from_slice(&buffer[..len]);
            let (more, result) = streams.flush_input();
            result.unwrap();
            done += more;
            streams.end_drained_input();
        }
        assert_eq!(seen, data);
        assert_eq!(done, data.len());
        assert_eq!(rustix::io::read(&stdin, &mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn a_pipe_is_as_large_as_what_passes_needs() {
        let (mut streams, stdin, ..) = pipes();
        let size = || rustix::pipe::fcntl_getpipe_size(&stdin).unwrap();
        let small = size();
        assert_eq!(streams.client_data(b"a line\n", true), Ok(7));
        assert_eq!(size(), small);
        streams.client_data(&vec![0; 2 * small], true).unwrap();
        assert_eq!(size(), PIPE_BYTES);
    }

    #[test]
    fn data_before_the_program_runs_is_kept() {
        let mut early = Streams::default();
        assert_eq!(early.client_data(b"early", false), Ok(0));
        early.client_eof();
        let (mut streams, stdin, _stdout, _stderr) = pipes();
        streams.inherit_input(early);
        assert_eq!(streams.flush_input(), (5, Ok(())));
        streams.end_drained_input();
        let mut buffer = [0; 16];
        assert_eq!(rustix::io::read(&stdin, &mut buffer).unwrap(), 5);
        assert_eq!(rustix::io::read(&stdin, &mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_program_without_input_lets_the_client_send_on() {
        let (mut streams, stdin, _stdout, _stderr) = pipes();
        drop(stdin);
        assert_eq!(streams.client_data(b"x", true), Err(Errno::PIPE));
        assert_eq!(streams.close_input(), (0, true));
        assert_eq!(streams.client_data(b"xyz", true), Ok(3));
    }

    #[test]
    fn what_went_before_an_error_is_counted() {
        let (mut streams, ..) = pipes();
        let data = vec![7; 1 << 20];
        assert_eq!(streams.client_data(&data, false), Ok(0));
        // A pipe that blocks: the reader closes it within the first write.
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        streams.input = Some(writer);
        let program = std::thread::spawn(move || rustix::io::read(&reader, &mut [0; 100]).unwrap());
        let (taken, result) = streams.flush_input();
        assert_eq!(program.join().unwrap(), 100);
        assert_eq!(result, Err(Errno::PIPE));
        assert!(taken > 0);
        assert_eq!(streams.close_input(), (data.len() - taken, true));
    }

    #[test]
    fn a_program_whose_output_nobody_reads_is_told_by_its_next_write() {
        let (mut streams, _stdin, stdout, stderr) = pipes();
        streams.close_output();
        assert!(streams.output_is_over());
        for pipe in [stdout, stderr] {
            assert_eq!(rustix::io::write(&pipe, b"x"), Err(Errno::PIPE));
        }
    }

    #[test]
    fn what_a_terminal_has_left_at_the_end_is_fetched_unasked() {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let master = openpt(flags).unwrap();
        unlockpt(&master).unwrap();
        let _background = ioctl_tiocgptpeer(&master, flags).unwrap();
        let mut streams = Streams::of_terminal(vec![master]).unwrap();
        assert!(!streams.has_work(false));
        assert!(streams.has_work(true));
        streams.close_output();
        assert!(!streams.has_work(true));
        // A pipe ends by itself.
        let (streams, ..) = pipes();
        assert!(!streams.has_work(true));
    }

    #[test]
    fn surplus_missing_and_wrong_descriptors_are_refused() {
        assert!(Streams::of_pipes(Vec::new()).is_none());
        assert!(Streams::of_terminal(Vec::new()).is_none());
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        assert!(Streams::of_pipes(vec![reader, writer]).is_none());
        let (a, b) = rustix::pipe::pipe().unwrap();
        let (c, _d) = rustix::pipe::pipe().unwrap();
        assert!(Streams::of_pipes(vec![a, b, c]).is_none());
    }
}
