//! Profiles for the debug service: one of a kind at a time, for a bounded time. What comes out goes
//! through a pipe from the profiled process to the one that asked, and not through here.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::Monitor;
use super::ids::NetId;
use super::nets::Role;
use super::timers::Deadline;
use crate::debug_frames::MonitorToDebug;
use crate::frames::ToNet;
use crate::limits::{PROFILE_DEFAULT_S, PROFILE_MAX_BYTES};
use crate::profile::{self, Kind, Running};

/// Profiles under way.
#[derive(Debug, Default)]
pub(super) struct Profiles {
    /// Until when each kind is taken.
    taken: BTreeMap<Kind, Instant>,
    /// Of this process, and where it goes.
    own: Option<(Running, OwnedFd)>,
}

/// Whose profile is wanted.
enum Target {
    Monitor,
    Net(NetId),
}

impl Monitor {
    /// Begins a profile for a client.
    pub(super) fn profile(
        &mut self,
        number: u32,
        (kind, seconds): (u8, u32),
        process: Option<&[u8]>,
        who: &str,
    ) {
        let answer = match self.begin_profile(kind, seconds, process, who) {
            Ok(pipe) => {
                let frame = MonitorToDebug::Profiling;
                return self.tell_debug(number, &frame, &[pipe.as_fd()]);
            }
            Err(answer) => *answer,
        };
        self.tell_debug(number, &answer, &[]);
    }

    fn begin_profile(
        &mut self,
        kind: u8,
        seconds: u32,
        process: Option<&[u8]>,
        who: &str,
    ) -> Result<OwnedFd, Box<MonitorToDebug>> {
        let invalid = |what: &str| Box::new(MonitorToDebug::Invalid { what: what.into() });
        let kind = Kind::from_number(kind).ok_or_else(|| invalid("no such profile"))?;
        let most = self.generation.options.debug.profile_max_s;
        if seconds > most {
            let what = format!("at most {most} seconds: DebugProfileMaxSeconds says so");
            return Err(invalid(&what));
        }
        let seconds = match (kind, seconds) {
            (Kind::Threads | Kind::Heap, _) => 0,
            (Kind::Cpu, 0) => PROFILE_DEFAULT_S.min(most),
            (Kind::Cpu, seconds) => seconds,
        };
        let target = self
            .profile_target(process)
            .ok_or_else(|| invalid("no such process: monitor, net or the pid of a net"))?;
        let now = Instant::now();
        if let Some(until) = self.profiles.taken.get(&kind)
            && *until > now
        {
            let left = until.duration_since(now).as_secs() + 1;
            return Err(Box::new(MonitorToDebug::Busy {
                seconds: u32::try_from(left).unwrap_or(u32::MAX),
            }));
        }
        let (reader, writer) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|error| invalid(&format!("no pipe: {error}")))?;
        let time = Duration::from_secs(seconds.into());
        match target {
            Target::Monitor => self.profile_monitor(kind, time, writer)?,
            Target::Net(id) => {
                let frame = ToNet::Profile {
                    kind: kind.number(),
                    seconds,
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
        time: Duration,
        writer: OwnedFd,
    ) -> Result<(), Box<MonitorToDebug>> {
        // This process never waits for a reader: the pipe takes all of it.
        let _ = fcntl_setpipe_size(&writer, PROFILE_MAX_BYTES);
        let _ = rustix::io::ioctl_fionbio(&writer, true);
        let Some(running) = profile::begin(kind) else {
            return Err(Box::new(MonitorToDebug::Busy { seconds: 1 }));
        };
        self.profiles.own = Some((running, writer));
        self.timers.after(time, Deadline::OwnProfile);
        Ok(())
    }

    /// The time of our own profile is over.
    pub(super) fn own_profile_over(&mut self) {
        if let Some((running, writer)) = self.profiles.own.take() {
            let profile = running.end();
            match rustix::io::write(&writer, &profile) {
                Ok(len) if len == profile.len() => {}
                // The reader sees that it has no end.
                _ => log::warn!("debug service: the monitor's profile did not fit its pipe"),
            }
        }
    }
}
