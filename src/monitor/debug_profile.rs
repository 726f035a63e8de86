//! Profiles and traces for the debug service: one of a kind at a time, for a bounded time. What comes out goes
//! through a pipe from the profiled process to the one that asked, and not through here.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::Monitor;
use super::ids::NetId;
use super::nets::Role;
use super::timers::Deadline;
use crate::debug_frames::MonitorToDebug;
use crate::frames::ToNet;
use crate::limits::{PROFILE_DEFAULT_S, PROFILE_MAX_BYTES, PROFILE_MAX_HZ};
use crate::profile::{self, Kind, Running};

fn no_process() -> Refused {
    invalid("no such process: monitor, net or the pid of a net")
}

/// Profiles under way.
#[derive(Debug, Default)]
pub(super) struct Profiles {
    /// Until when each kind is taken.
    taken: BTreeMap<Kind, Instant>,
    /// Of this process, and where they go.
    own: BTreeMap<Kind, (Running, OwnedFd)>,
    /// Until when a trace is taken.
    tracing: Option<Instant>,
    /// Ours, as it was before we gave ourselves a title; a NUL behind each word.
    command_line: Vec<u8>,
}

impl Profiles {
    pub(super) fn new() -> Self {
        let words = std::env::args_os().map(|word| [word.as_encoded_bytes(), b"\0"].concat());
        Self {
            command_line: words.collect::<Vec<_>>().concat(),
            ..Self::default()
        }
    }
}

/// Whose profile is wanted.
enum Target {
    Monitor,
    Net(NetId),
}

/// What is wanted.
pub(super) struct Wanted {
    /// `profile::Kind`, by its number.
    pub kind: u8,
    /// 0: the usual time.
    pub seconds: u32,
    /// Samples of CPU time per second; 0: the usual number.
    pub hz: u32,
}

type Refused = Box<MonitorToDebug>;

fn invalid(what: &str) -> Refused {
    Box::new(MonitorToDebug::Invalid { what: what.into() })
}

fn busy(now: Instant, until: Instant) -> Refused {
    let left = until.saturating_duration_since(now).as_secs() + 1;
    Box::new(MonitorToDebug::Busy {
        seconds: u32::try_from(left).unwrap_or(u32::MAX),
    })
}

impl Monitor {
    /// Begins a profile for a client.
    pub(super) fn profile(
        &mut self,
        number: u32,
        wanted: &Wanted,
        process: Option<&[u8]>,
        who: &str,
    ) {
        let begun = self.begin_profile(wanted, process, who);
        let begun = begun.map(|pipe| (MonitorToDebug::Profiling, pipe));
        self.answer_with(number, begun);
    }

    /// Begins a trace for a client.
    pub(super) fn trace(&mut self, number: u32, seconds: u32, who: &str) {
        let begun = self.begin_tracing(number, seconds, who);
        self.answer_with(number, begun);
    }

    /// Answers with a descriptor, or with why there is none.
    pub(super) fn answer_with(
        &mut self,
        number: u32,
        answer: Result<(MonitorToDebug, OwnedFd), Refused>,
    ) {
        match answer {
            Ok((frame, descriptor)) => self.tell_debug(number, &frame, &[descriptor.as_fd()]),
            Err(refusal) => self.tell_debug(number, &refusal, &[]),
        }
    }

    fn begin_tracing(
        &mut self,
        number: u32,
        seconds: u32,
        who: &str,
    ) -> Result<(MonitorToDebug, OwnedFd), Refused> {
        let seconds = self.profile_seconds(seconds)?;
        let now = Instant::now();
        if let Some(until) = self.profiles.tracing.filter(|until| *until > now) {
            return Err(busy(now, until));
        }
        let records = self
            .begin_trace(number)
            .map_err(|error| invalid(&format!("no socket: {error}")))?;
        self.profiles.tracing = Some(now + Duration::from_secs(seconds.into()));
        log::info!("debug service: trace of {seconds} s by order of {who}");
        Ok((MonitorToDebug::Following { seconds }, records))
    }

    /// A client that had a trace is gone.
    pub(super) fn end_trace(&mut self, number: Option<u32>) {
        if super::trace::end(number) {
            self.profiles.tracing = None;
        }
    }

    fn profile_seconds(&self, seconds: u32) -> Result<u32, Refused> {
        let most = self.generation.options.debug.profile_max_s;
        match seconds {
            0 => Ok(PROFILE_DEFAULT_S.min(most)),
            seconds if seconds <= most => Ok(seconds),
            _ => Err(invalid(&format!(
                "at most {most} seconds: DebugProfileMaxSeconds says so"
            ))),
        }
    }

    fn begin_profile(
        &mut self,
        wanted: &Wanted,
        process: Option<&[u8]>,
        who: &str,
    ) -> Result<OwnedFd, Refused> {
        let hz = wanted.hz;
        let kind = Kind::from_number(wanted.kind).ok_or_else(|| invalid("no such profile"))?;
        if hz > PROFILE_MAX_HZ {
            return Err(invalid(&format!("hz is {PROFILE_MAX_HZ} at most")));
        }
        let seconds = self.profile_seconds(wanted.seconds)?;
        let seconds = if kind.takes_time() { seconds } else { 0 };
        let target = self.profile_target(process).ok_or_else(no_process)?;
        let now = Instant::now();
        if let Some(until) = self.profiles.taken.get(&kind)
            && *until > now
        {
            return Err(busy(now, *until));
        }
        let (reader, writer) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|error| invalid(&format!("no pipe: {error}")))?;
        let time = Duration::from_secs(seconds.into());
        match target {
            Target::Monitor => self.profile_monitor(kind, hz, time, writer)?,
            Target::Net(id) => {
                let frame = ToNet::Profile {
                    kind: kind.number(),
                    seconds,
                    hz,
                };
                self.nets
                    .send(&self.poller, id, 0, &frame, &[writer.as_fd()]);
            }
        }
        let rest = Duration::from_secs(1);
        self.profiles.taken.insert(kind, now + time + rest);
        log::info!(
            "debug service: {} of {seconds} s by order of {who}",
            kind.name()
        );
        Ok(reader)
    }

    /// As the process was started.
    pub(super) fn command_line(&self, process: Option<&[u8]>) -> MonitorToDebug {
        let process = process.or(Some(b"monitor"));
        let words = match self.profile_target(process) {
            None => return *no_process(),
            Some(Target::Monitor) => self.profiles.command_line.clone(),
            Some(Target::Net(id)) => {
                let title = self.nets.get(id).map(|net| net.title.clone());
                title.map_or_else(Vec::new, CString::into_bytes_with_nul)
            }
        };
        MonitorToDebug::CommandLine {
            words: words.into(),
        }
    }

    /// Without a name: the `net` that has the most to do, a user's before the strangers'.
    fn profile_target(&self, process: Option<&[u8]>) -> Option<Target> {
        let name = process.map(String::from_utf8_lossy);
        match name.as_deref() {
            Some("monitor") => Some(Target::Monitor),
            None | Some("net") => self
                .nets
                .iter()
                .filter(|(_, net)| net.greeted)
                .max_by_key(|(_, net)| (net.connections.len(), net.role != Role::Strangers))
                .map(|(id, _)| Target::Net(id)),
            Some(pid) => {
                let pid: i32 = pid.parse().ok()?;
                if pid.unsigned_abs() == std::process::id() {
                    return Some(Target::Monitor);
                }
                let found = self
                    .nets
                    .iter()
                    .find(|(_, net)| net.greeted && net.pid.as_raw_nonzero().get() == pid);
                found.map(|(id, _)| Target::Net(id))
            }
        }
    }

    fn profile_monitor(
        &mut self,
        kind: Kind,
        hz: u32,
        time: Duration,
        writer: OwnedFd,
    ) -> Result<(), Refused> {
        // This process never waits for a reader: the pipe takes all of it.
        let _ = fcntl_setpipe_size(&writer, PROFILE_MAX_BYTES);
        let _ = rustix::io::ioctl_fionbio(&writer, true);
        let Some(running) = profile::begin(kind, hz) else {
            return Err(Box::new(MonitorToDebug::Busy { seconds: 1 }));
        };
        self.profiles.own.insert(kind, (running, writer));
        self.timers.after(time, Deadline::OwnProfile(kind));
        Ok(())
    }

    /// Signals that take samples must not reach another program in this process.
    pub(super) fn end_own_profiles(&mut self) {
        for kind in self.profiles.own.keys().copied().collect::<Vec<_>>() {
            self.own_profile_over(kind);
        }
    }

    /// The time of our own profile is over.
    pub(super) fn own_profile_over(&mut self, kind: Kind) {
        if let Some((running, writer)) = self.profiles.own.remove(&kind) {
            let profile = running.end();
            match rustix::io::write(&writer, &profile) {
                Ok(len) if len == profile.len() => {}
                // The reader sees that it has no end.
                _ => log::warn!("debug service: the monitor's profile did not fit its pipe"),
            }
        }
    }
}
