//! Upgrade: another program takes this server's place in the same process, and no session is cut.
//!
//! Asked for by SIGUSR2 or over the debug service, it goes in three steps:
//!
//! 1. **Which file**: `program.rs`. The path this server was started by, opened anew and checked.
//! 2. **Proof**: that file runs as a child, `serve --probe` with this server's own arguments and all
//!    that it would take over, for a bounded time. It reads configuration and host keys, tries the
//!    helper and the confinement of `net`, looks for its addresses, and says that it understands the
//!    hand-over (`probe.rs`). Meanwhile this server serves; a signal to stop ends the probe.
//! 3. **Hand-over**: a fork keeps all connections, those of strangers included, with the program that
//!    they began with (`keeper.rs`). It waits for the exec, and is ended if that fails. The process
//!    itself becomes the new program (`replace.rs`), with the listening sockets, the debug service's
//!    socket and host keys that only memory holds (`take_over.rs`); standard streams, environment and
//!    working directory stay. What this server changed for itself (limit on descriptors, protection
//!    from the OOM killer) is put back first, and signals wait for the new program's handlers. The
//!    service manager sees a reload: RELOADING from here, READY from there.
//!
//! Whatever fails up to the exec leaves this server as it was, with one ERROR that says why. The
//! sockets listen all the time: who connects meanwhile is served by one program or the other.
//!
//! Children stay children of this process: the new program collects those of the old one too.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitStatus, kill_process_group};

use super::Monitor;
use super::end::describe;
use super::keeper::{Forked, Split, fork_keeper};
use super::poller::Source;
use super::timers::{Deadline, TimerId};
use crate::debug_frames::MonitorToDebug;
use crate::launch::{FIRST_DESCRIPTOR, Launch, Stdio, launch};
use crate::limits::{DEBUG_QUESTIONS_MAX, PROBE_OUTPUT_MAX_BYTES, PROBE_TIME_MS};
use crate::logging::escape;
use crate::replace::{Replacement, hold_signals, replace};
use crate::take_over::{self, HandOver};

/// The upgrade that is under way, if one is.
#[derive(Debug, Default)]
pub(super) struct Upgrade {
    probe: Option<Probe>,
}

/// A file that is being proven.
#[derive(Debug)]
struct Probe {
    pid: Pid,
    path: PathBuf,
    /// What was opened: this, and nothing that has its name later, takes over.
    image: OwnedFd,
    /// Both of its streams.
    output: OwnedFd,
    said: Vec<u8>,
    timer: TimerId,
    is_late: bool,
    ended: Option<WaitStatus>,
    askers: Vec<Asker>,
}

/// A client of the debug service that waits for the outcome: its number means something to this
/// process only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asker {
    pub process: Pid,
    pub number: u32,
}

impl Monitor {
    /// Somebody wants an upgrade.
    pub(super) fn upgrade_wanted(&mut self, asker: Option<Asker>) {
        if let Some(probe) = &mut self.upgrade.probe {
            log::info!("an upgrade is under way already");
            let fresh = asker.filter(|asker| !probe.askers.contains(asker));
            if probe.askers.len() < DEBUG_QUESTIONS_MAX {
                probe.askers.extend(fresh);
            }
            return;
        }
        match self.begin_probe() {
            Ok(mut probe) => {
                log::info!("upgrade: proving {}", probe.path.display());
                probe.askers.extend(asker);
                self.upgrade.probe = Some(probe);
            }
            Err(why) => self.no_upgrade(&[why], &Vec::from_iter(asker)),
        }
    }

    /// This server goes on.
    fn no_upgrade(&mut self, why: &[String], askers: &[Asker]) {
        self.speak_of_all();
        for (index, line) in why.iter().enumerate() {
            match index {
                0 => log::error!("no upgrade, the server goes on as it is: {line}"),
                _ => log::error!("  {line}"),
            }
        }
        let what = format!("the server goes on as it is: {}", why.join("\n  "));
        self.tell_askers(
            askers,
            &MonitorToDebug::Invalid {
                what: what.as_str().into(),
            },
        );
    }

    fn tell_askers(&mut self, askers: &[Asker], frame: &MonitorToDebug) {
        for asker in askers {
            if self.debug.process_id() == Some(asker.process) {
                self.tell_debug(asker.number, frame, &[]);
            }
        }
    }

    fn begin_probe(&mut self) -> Result<Probe, String> {
        if self.stopping || self.inetd {
            let what = "it accepts no more connections; start the new program instead";
            return Err(what.to_owned());
        }
        let path = self.program.path.clone().ok_or(
            "it is not known which file it was started from; start it by a path once, and upgrades work",
        )?;
        let image = crate::program::open(&path)?;
        let keys = self.keys_in_memory()?;
        let hand_over = self.hand_over(&path, &image, &keys);
        let number = |index: usize, _: std::os::fd::BorrowedFd<'_>| {
            i32::try_from(index).map_or(-1, |index| FIRST_DESCRIPTOR + index)
        };
        let environment = hand_over.environment(number)?;
        let mut argv: Vec<&CStr> = self
            .program
            .arguments
            .iter()
            .map(|it| it.as_c_str())
            .collect();
        argv.push(c"--probe");
        let failed =
            |what: &str, error: std::io::Error| format!("{}: {what} ({error})", path.display());
        let (output, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| failed("it cannot be tried", error.into()))?;
        rustix::io::ioctl_fionbio(&output, true)
            .and_then(|()| self.poller.add(&output, Source::Probe))
            .map_err(|error| failed("it cannot be watched", error.into()))?;
        let launched = launch(&Launch {
            environment: &environment,
            descriptors: &hand_over.descriptors(),
            stdio: Stdio::Output(writer.as_fd()),
            new_session: true,
            oom_score_adj: self.host.oom_score_adj,
            ..Launch::new(image.as_fd(), &argv)
        });
        let launched = launched.map_err(|error| {
            self.poller.remove(&output);
            failed(reason_of(&error), error)
        })?;
        let time = Duration::from_millis(PROBE_TIME_MS);
        Ok(Probe {
            pid: launched.pid,
            image,
            output,
            said: Vec::new(),
            timer: self.timers.after(time, Deadline::Probe),
            is_late: false,
            ended: None,
            askers: Vec::new(),
            path,
        })
    }

    /// Host keys that no disk took: without them the server's clients would meet another one.
    fn keys_in_memory(&self) -> Result<Vec<(OwnedFd, PathBuf)>, String> {
        let keys = self.generation.host_keys.iter();
        keys.filter(|key| !key.persisted)
            .map(|key| Ok((take_over::host_key_file(key)?, key.path.clone())))
            .collect::<std::io::Result<_>>()
            .map_err(|error| format!("the host key cannot be handed over ({error})"))
    }

    /// All that the new program gets.
    fn hand_over<'a>(
        &'a self,
        path: &Path,
        image: &'a OwnedFd,
        keys: &'a [(OwnedFd, PathBuf)],
    ) -> HandOver<'a> {
        let mut hand_over = HandOver::default();
        hand_over.descriptor("image", image.as_fd(), b"");
        hand_over.path("program", path);
        for listener in &self.listeners {
            let word = match listener.handed_over {
                true => "handed-over-listener",
                false => "listener",
            };
            hand_over.descriptor(word, listener.as_fd(), b"");
        }
        if let Some(socket) = self.debug.socket() {
            hand_over.descriptor("debug-socket", socket.as_fd(), &socket.described());
        }
        for (file, path) in keys {
            let path = path.as_os_str().as_encoded_bytes();
            hand_over.descriptor("host-key", file.as_fd(), path);
        }
        if let Some(path) = &self.generation.options.pid_file {
            hand_over.path("pid-file", path);
        }
        if let Some(mark) = &self.mark {
            hand_over.path("mark", mark.path());
        }
        hand_over
    }

    /// The probe says something, or nothing more.
    pub(super) fn probe_says(&mut self) {
        let Some(probe) = &mut self.upgrade.probe else {
            return;
        };
        let mut piece = [0; 4096];
        loop {
            match rustix::io::read(&probe.output, &mut piece) {
                Ok(len @ 1..) => {
                    let room = PROBE_OUTPUT_MAX_BYTES.saturating_sub(probe.said.len());
                    let piece = piece.get(..len.min(room)).unwrap_or_default();
                    probe.said.extend_from_slice(piece);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Ok(0) | Err(_) => return self.poller.remove(&probe.output),
            }
        }
    }

    /// It takes too long; its end is the rest.
    pub(super) fn probe_late(&mut self) {
        if let Some(probe) = &mut self.upgrade.probe {
            probe.is_late = true;
            end(probe.pid);
        }
    }

    /// A child was collected; true where it was the probe.
    pub(super) fn probe_collected(&mut self, pid: Pid, status: WaitStatus) -> bool {
        match &mut self.upgrade.probe {
            Some(probe) if probe.pid == pid => {
                probe.ended = Some(status);
                true
            }
            _ => false,
        }
    }

    /// Ends a probe for whose outcome there is no use any more.
    pub(super) fn give_up_upgrade(&mut self, why: &str) {
        if let Some(probe) = self.take_probe() {
            if probe.ended.is_none() {
                end(probe.pid);
            }
            self.no_upgrade(&[why.to_owned()], &probe.askers);
        }
    }

    fn take_probe(&mut self) -> Option<Probe> {
        let probe = self.upgrade.probe.take()?;
        self.timers.cancel(Some(probe.timer));
        self.poller.remove(&probe.output);
        Some(probe)
    }

    /// Goes on where the probe has ended. Says who we are then.
    pub(super) fn judge_probe(&mut self) -> Option<Split> {
        let status = self.upgrade.probe.as_ref()?.ended?;
        self.probe_says();
        let probe = self.take_probe()?;
        match judge(&probe, status) {
            Ok(word) => self.make_way(&probe, &word),
            Err(why) => {
                self.no_upgrade(&why, &probe.askers);
                None
            }
        }
    }

    /// Becomes the new program; the keeper returns, and this process where it could not.
    fn make_way(&mut self, probe: &Probe, word: &str) -> Option<Split> {
        let what = word.into();
        self.tell_askers(&probe.askers, &MonitorToDebug::Upgrading { what });
        self.end_own_profiles();
        self.settle_aftermaths();
        self.stop_worker();
        match self.exchange(probe, word) {
            Ok(split) => Some(split),
            Err(why) => {
                self.no_upgrade(&[why], &probe.askers);
                None
            }
        }
    }

    fn exchange(&mut self, probe: &Probe, word: &str) -> Result<Split, String> {
        let path = probe.path.display();
        let keys = self.keys_in_memory()?;
        let hand_over = self.hand_over(&probe.path, &probe.image, &keys);
        let environment = hand_over.environment(|_, descriptor| descriptor.as_raw_fd())?;
        let descriptors = hand_over.descriptors();
        let held = hold_signals();
        let waiting = match fork_keeper() {
            Ok(Forked::Keeper) => {
                self.keep_after_upgrade();
                return Ok(Split::Keeper);
            }
            Ok(Forked::Parent(waiting)) => waiting,
            Err(error) => return Err(format!("no process to keep the sessions ({error})")),
        };
        log::info!(
            "upgrade: {path} takes over ({word}); {} connections stay with process {}",
            self.connections.len(),
            waiting.pid()
        );
        self.notifier.reloading();
        self.host.undo_own_limits();
        let error = replace(&Replacement {
            image: probe.image.as_fd(),
            argv: &self.program.arguments,
            environment: &environment,
            descriptors: &descriptors,
        });
        self.host.set_own_limits();
        waiting.dismiss();
        self.notifier.ready();
        drop(held);
        Err(format!(
            "{path} passed its probe and was not executed ({error}); try again"
        ))
    }
}

/// Ends a probe that was not collected yet, and what it started in its session.
fn end(probe: Pid) {
    let _ = kill_process_group(probe, Signal::KILL);
}

/// What a program that cannot even be started is likely to be.
fn reason_of(error: &std::io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOEXEC) => "it is damaged, or for another kind of machine",
        Some(libc::ETXTBSY) => {
            "somebody writes to it; replace files by rename (mv, install), and try again"
        }
        Some(libc::ENOENT) => "it needs a loader or library that is not here; use the static file",
        _ => "it cannot be executed",
    }
}

/// What a successful probe says of itself, or what is wrong.
fn judge(probe: &Probe, status: WaitStatus) -> Result<String, Vec<String>> {
    let said = String::from_utf8_lossy(&probe.said);
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let shown = |line: &&str| escape(line.as_bytes());
    let path = probe.path.display();
    let first = if probe.is_late {
        format!(
            "{path} did not finish its probe within {} s",
            PROBE_TIME_MS / 1000
        )
    } else if status.exit_status() != Some(0) {
        format!("{path} failed its probe, {}", describe(status))
    } else if !lines.contains(&take_over::PROOF) {
        format!(
            "{path} cannot take over from this version; stop the server and start that one, sessions live on"
        )
    } else {
        let own = lines.iter().find(|line| line.starts_with("agent "));
        return Ok(own.map_or_else(String::new, shown));
    };
    Err(std::iter::once(first)
        .chain(lines.iter().map(shown))
        .collect())
}
