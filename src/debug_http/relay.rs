//! From the fence to tiny_http and back: one thread for each of its connections.
//!
//! A request goes in whole; the response is copied to the client as it comes. A client that reads
//! slowly holds up this thread and nobody else; one that stopped reading is dropped, and the rest of
//! its response is read and thrown away, so that the connection can be used again. A response that is
//! no HTTP, or none in time, ends the process. Where the answer is a stream, tiny_http gives its head
//! only, and a thread the rest.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::head::Refusal;
use super::questions::Monitor;
use super::streams::Stream;
use crate::limits::{DEBUG_HEAD_MAX_BYTES, DEBUG_WRITE_TIME_MS, STREAM_STACK_BYTES};

/// A whole request, and whose it is.
pub(super) struct Job {
    pub number: u32,
    pub client: UnixStream,
    pub request: Vec<u8>,
    /// The response has a body (not to HEAD).
    pub has_body: bool,
    pub slow: bool,
}

/// Requests on their way to a thread; as many as there are clients at most.
pub(super) struct Queue {
    state: Mutex<State>,
    added: Condvar,
    /// Tells the gate, which waits for something else, that there is less to do.
    ended: OwnedFd,
}

struct State {
    jobs: VecDeque<Job>,
    running: usize,
    slow: usize,
    last_work: Instant,
}

impl AsFd for Queue {
    /// Readable after a request ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }
}

impl Queue {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                running: 0,
                slow: 0,
                last_work: Instant::now(),
            }),
            added: Condvar::new(),
            ended: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Forgets the ends so far.
    pub(super) fn clear_ended(&self) {
        let _ = rustix::io::read(&self.ended, &mut [0; 8]);
    }

    pub(super) fn add(&self, job: Job) {
        let mut state = self.state();
        state.slow += usize::from(job.slow);
        state.jobs.push_back(job);
        self.added.notify_one();
    }

    /// Waits until all that was asked is answered; for a bounded time.
    pub(super) fn finish(&self, most: Duration) {
        let is_busy = |state: &mut State| state.running > 0 || !state.jobs.is_empty();
        let _ = self.added.wait_timeout_while(self.state(), most, is_busy);
    }

    /// Clients that are being served or wait for it.
    pub(super) fn len(&self) -> usize {
        let state = self.state();
        state.running + state.jobs.len()
    }

    /// Those of them that may take long.
    pub(super) fn slow(&self) -> usize {
        self.state().slow
    }

    /// Since when nothing happened; `None`: something does.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.running == 0 && state.jobs.is_empty()).then_some(state.last_work)
    }

    pub(super) fn is_idle_for(&self, ms: u64) -> bool {
        self.idle_since()
            .is_some_and(|since| since.elapsed() >= Duration::from_millis(ms))
    }

    /// Somebody came.
    pub(super) fn touch(&self) {
        self.state().last_work = Instant::now();
    }

    fn take(&self) -> Job {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                state.running += 1;
                return job;
            }
            state = self
                .added
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, slow: bool) {
        let mut state = self.state();
        state.running -= 1;
        state.slow -= usize::from(slow);
        state.last_work = Instant::now();
        self.added.notify_all();
        let _ = rustix::io::write(&self.ended, &1_u64.to_ne_bytes());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves one of tiny_http's connections.
pub(super) fn work(inner: &UnixStream, queue: &Arc<Queue>, monitor: &Arc<Monitor>) {
    loop {
        let job = queue.take();
        let mut relay = Relay {
            inner,
            job: &job,
            monitor,
            buffer: Vec::new(),
            abandoned: false,
            stream: None,
        };
        if let Err(what) = relay.run() {
            // tiny_http or a thread of ours is broken: the next process starts afresh.
            monitor.log(
                log::Level::Error,
                &format!("the HTTP server failed: {what}"),
            );
            #[expect(clippy::exit, reason = "nothing here can go on")]
            std::process::exit(1);
        }
        match relay.stream.take() {
            Some(stream) => {
                let job = Arc::new(job);
                let (its, queues, monitors) =
                    (Arc::clone(&job), Arc::clone(queue), Arc::clone(monitor));
                let thread = std::thread::Builder::new().stack_size(STREAM_STACK_BYTES);
                let started = thread.spawn(move || {
                    stream.run(&its.client);
                    done(&its, &queues, &monitors);
                });
                // Without a thread, the client sees an end.
                if started.is_err() {
                    done(&job, queue, monitor);
                }
            }
            None => done(&job, queue, monitor),
        }
    }
}

fn done(job: &Job, queue: &Queue, monitor: &Monitor) {
    let _ = job.client.shutdown(Shutdown::Write);
    let _ = (&job.client).read(&mut [0; 4096]);
    monitor.forget(job.number);
    queue.done(job.slow);
}

struct Relay<'a> {
    inner: &'a UnixStream,
    job: &'a Job,
    monitor: &'a Monitor,
    /// Read from tiny_http and not used yet.
    buffer: Vec<u8>,
    /// The client is gone.
    abandoned: bool,
    /// What follows the head.
    stream: Option<Stream>,
}

/// How a response's body ends.
enum Body {
    None,
    Length(usize),
    Chunked,
}

type Broken = &'static str;

impl Relay<'_> {
    fn run(&mut self) -> Result<(), Broken> {
        let mut inner = self.inner;
        inner
            .write_all(&self.job.request)
            .map_err(|_| "it takes no request")?;
        let end = loop {
            if let Some(end) = self.find(b"\r\n\r\n") {
                break end;
            }
            if self.buffer.len() > DEBUG_HEAD_MAX_BYTES {
                return Err("a response without an end of its head");
            }
            self.more()?;
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let head = String::from_utf8(head).map_err(|_| "a response that is no text")?;
        self.stream = self.monitor.take_stream(self.job.number);
        let body = self.begin(&head)?;
        match body {
            Body::None => Ok(()),
            Body::Length(len) => self.copy(len),
            Body::Chunked => self.chunks(),
        }
    }

    /// Sends the head on: the connection ends with the response.
    fn begin(&mut self, head: &str) -> Result<Body, Broken> {
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap_or_default();
        let mut body = Body::None;
        let mut sent = format!("{status}\r\nConnection: close\r\n");
        for line in lines {
            let (name, value) = line.split_once(": ").ok_or("a response with a bad field")?;
            match name {
                "Transfer-Encoding" => {
                    body = Body::Chunked;
                    continue;
                }
                // Its end is that of the connection.
                "Content-Length" if self.stream.is_some() => continue,
                "Content-Length" => {
                    body = Body::Length(value.parse().map_err(|_| "a response of no length")?);
                }
                "Server" => continue,
                _ => {}
            }
            sent.push_str(line);
            sent.push_str("\r\n");
        }
        sent.push_str("\r\n");
        self.send(sent.as_bytes());
        Ok(if self.job.has_body { body } else { Body::None })
    }

    fn copy(&mut self, mut left: usize) -> Result<(), Broken> {
        while left > 0 {
            if self.buffer.is_empty() {
                self.more()?;
            }
            let len = left.min(self.buffer.len());
            let piece: Vec<u8> = self.buffer.drain(..len).collect();
            self.send(&piece);
            left -= len;
        }
        Ok(())
    }

    fn chunks(&mut self) -> Result<(), Broken> {
        loop {
            let len = self.line()?;
            let len = usize::from_str_radix(&len, 16).map_err(|_| "a chunk of no length")?;
            self.copy(len)?;
            if !self.line()?.is_empty() {
                return Err("a chunk without an end");
            }
            if len == 0 {
                return Ok(());
            }
        }
    }

    fn line(&mut self) -> Result<String, Broken> {
        loop {
            if let Some(end) = self.find(b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(|_| "a line that is no text");
            }
            if self.buffer.len() > DEBUG_HEAD_MAX_BYTES {
                return Err("a line without an end");
            }
            self.more()?;
        }
    }

    fn find(&self, what: &[u8]) -> Option<usize> {
        self.buffer
            .windows(what.len())
            .position(|window| window == what)
    }

    /// Reads more of the response. A client that hangs up meanwhile needs no more of it.
    fn more(&mut self) -> Result<(), Broken> {
        let mut inner = self.inner;
        loop {
            let mut set = vec![PollFd::new(inner, PollFlags::IN)];
            if !self.abandoned {
                set.push(PollFd::new(&self.job.client, PollFlags::empty()));
            }
            poll(&mut set, None).map_err(|_| "no poll")?;
            let response = set.first().is_some_and(|it| !it.revents().is_empty());
            let gone = set.get(1).is_some_and(|it| !it.revents().is_empty());
            if gone && !response {
                self.abandon();
                continue;
            }
            let mut piece = [0; 16 * 1024];
            match inner.read(&mut piece) {
                Ok(0) => return Err("it closed a connection"),
                Ok(len) => {
                    self.buffer
                        .extend_from_slice(piece.get(..len).unwrap_or_default());
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err("it cannot be read from"),
            }
        }
    }

    fn abandon(&mut self) {
        self.abandoned = true;
        self.monitor.abandon(self.job.number);
    }

    /// Sends to the client, who may be slow but not idle.
    fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.abandoned {
            match (&self.job.client).write(bytes) {
                Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !has_room(&self.job.client) {
                        self.abandon();
                    }
                }
                Err(_) => self.abandon(),
            }
        }
    }
}

/// Waits for room to write; false: there was none for too long.
fn has_room(client: &UnixStream) -> bool {
    let patience = Timespec::try_from(Duration::from_millis(DEBUG_WRITE_TIME_MS)).ok();
    let mut set = [PollFd::new(client, PollFlags::OUT)];
    poll(&mut set, patience.as_ref()).is_ok_and(|ready| ready > 0)
}

/// Answers a request that goes no further; what the client does not take is lost.
pub(super) fn refuse(mut client: &UnixStream, (status, text): Refusal) {
    let (retry, reason) = match status {
        403 => ("", "Forbidden"),
        429 => ("Retry-After: 10\r\n", "Too Many Requests"),
        _ => ("", "Refused"),
    };
    let answer = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n{retry}\
         Connection: close\r\n\r\n{text}\n",
        text.len() + 1
    );
    let _ = client.write_all(answer.as_bytes());
    let _ = client.shutdown(Shutdown::Write);
}
