//! The monitor: the one privileged process. It owns configuration, host keys, accounts, terminals,
//! records, logs and the other processes.
//!
//! One thread, one loop; it parses no packet, never reads from a client's socket, opens no path that
//! a user controls, resolves no name that a user gave. What a `net` or a helper sends is bounded,
//! decoded by one codec, and checked against [`permit`]. Events come in through [`poller`]; what
//! they mean is in the file of their subject.

mod accept;
mod aftermath;
mod allowed;
mod attempt;
mod authenticate;
mod budget;
mod clock;
mod connection;
mod counters;
mod credential;
mod debug;
mod debug_answers;
mod debug_log;
mod debug_peers;
mod debug_profile;
mod debug_socket;
mod delay;
mod end;
mod farewell;
mod file_events;
mod forwarding;
mod handover;
mod helpers;
mod host;
mod ids;
mod keeper;
mod key_lines;
mod key_reading;
mod keys;
mod levels;
mod listeners;
mod live;
mod log;
mod lookup;
mod methods;
mod names;
mod net_frames;
mod nets;
mod one_shot;
mod outbox;
mod passwords;
mod penalties;
mod permit;
mod policy;
mod poller;
mod probe;
mod proofs;
mod rate;
mod refusals;
mod reload;
mod resolvers;
mod revoked;
mod rights;
mod rundir;
mod setup;
mod sign;
mod signals;
mod socket;
mod start;
mod startups;
mod terminals;
mod timers;
mod title;
mod trace;
mod trust;
mod upgrade;
mod verify;
mod worker;

pub use probe::probe;
pub use trust::complaints;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::allocator;
use crate::config::{Config, Loaded};
use crate::footprint;
use crate::host_keys::HostKey;
use crate::memexec::HelperImage;
use crate::notify::Notifier;
use crate::program::Program;
use crate::take_over::TakenOver;

use aftermath::Aftermaths;
use budget::Budgets;
use connection::{Connection, Generation};
use counters::Counters;
use debug::Debug;
use debug_answers::Gathering;
use debug_profile::Profiles;
use farewell::Farewells;
use host::Host;
use ids::{ConnectionKey, Counter};
use keeper::Split;
use key_reading::Readers;
use listeners::Listener;
use nets::Nets;
use one_shot::OneShots;
use penalties::Penalties;
use poller::{Poller, Ready, Source};
use rate::Rate;
use refusals::Refusals;
use revoked::Revocations;
use rundir::Mark;
use signals::Signals;
use startups::Startups;
use timers::{Deadline, Timers};
use upgrade::Upgrade;
use worker::Worker;

/// What the command line hands over.
#[derive(Debug)]
pub struct Start {
    /// The checked configuration.
    pub loaded: Loaded,
    /// The host keys of that configuration.
    pub host_keys: Vec<Arc<HostKey>>,
    /// How this process was started, to be started so again in an upgrade.
    pub program: Program,
    /// From the program whose place this one takes.
    pub taken: Option<TakenOver>,
    /// What `-c` said: read again at SIGHUP.
    pub config_path: Option<PathBuf>,
    /// What `-o` and `-p` said: they win at SIGHUP too.
    pub overrides: Vec<(String, String)>,
    /// Serve the one connection on descriptors 0 and 1.
    pub inetd: bool,
    /// The effective user is root.
    pub as_root: bool,
    /// For standard error, once somebody can connect: how to try the server.
    pub welcome: Option<String>,
}

/// Serves until SIGTERM. The exit code is that of the process.
pub fn serve(start: Start) -> ExitCode {
    match Monitor::start(start) {
        Ok(mut monitor) => monitor.run(),
        Err(error) => {
            ::log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Ends the servers of this configuration and all their connections.
pub fn drain(config: &Config) -> ExitCode {
    let data_dir = config.global().data_dir;
    match rundir::signal_all(&data_dir) {
        Ok(0) => {
            ::log::error!("no server is running for {}", data_dir.display());
            ExitCode::FAILURE
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            ::log::error!("{}: {error}", data_dir.display());
            ExitCode::FAILURE
        }
    }
}

/// Seconds since 1970.
fn now_s() -> i64 {
    i64::try_from(clock::now().as_secs()).unwrap_or(i64::MAX)
}

/// Days since 1970.
fn today() -> i64 {
    const SECONDS_OF_A_DAY: i64 = 24 * 60 * 60;
    now_s() / SECONDS_OF_A_DAY
}

/// All that the monitor knows.
#[derive(Debug)]
struct Monitor {
    host: Host,
    helper_image: HelperImage,
    poller: Poller,
    timers: Timers,
    signals: Signals,
    worker: Worker,
    notifier: Notifier,
    mark: Option<Mark>,
    generation: Rc<Generation>,
    config_path: Option<PathBuf>,
    overrides: Vec<(String, String)>,
    listeners: Vec<Listener>,
    nets: Nets,
    connections: BTreeMap<ConnectionKey, Connection>,
    /// Connections that are over, where something may be left of them.
    aftermaths: Aftermaths,
    /// Helpers of such, which still have something to tell.
    farewells: Farewells,
    /// For lines about what users do to files.
    budgets: Budgets,
    /// Numbers of connections.
    keys: Counter,
    /// SO_COOKIE of every client's socket.
    cookies: HashSet<u64>,
    startups: Startups,
    penalties: Penalties,
    refusals: Refusals,
    revocations: Revocations,
    readers: Readers,
    debug: Debug,
    /// Processes that look at passwords.
    checks: OneShots,
    /// Processes that look up names of clients.
    names: OneShots,
    gathering: Gathering,
    profiles: Profiles,
    counters: Counters,
    /// Seconds since 1970.
    started_s: u64,
    /// Parts of the confinement that this kernel does not have.
    missing: Vec<agent_helper::wire::Bytes>,
    /// For the bytes of key readers.
    key_buffer: Vec<u8>,
    drop_lines: Rate,
    dropped_lines: u64,
    /// Strangers' `net`s in a row that died young.
    young_deaths: u32,
    restart_planned: bool,
    /// READY was said.
    announced: bool,
    /// One connection only.
    inetd: bool,
    /// Somebody was let in.
    logged_in: bool,
    /// No more connections are accepted; the end of the last ends this process.
    stopping: bool,
    /// Only what was there at the fork is served.
    is_keeper: bool,
    /// Where sockets listened before that: `net` may have accepted from them last.
    late_addresses: Vec<SocketAddr>,
    program: Program,
    upgrade: Upgrade,
}

impl Monitor {
    fn run(&mut self) -> ExitCode {
        let _registered = crate::profile::register();
        let mut ready = Vec::new();
        let mut quiet = true;
        loop {
            let next = self.timers.next_in(Instant::now());
            let timeout = if quiet {
                next
            } else {
                Some(next.map_or(footprint::QUIET, |next| next.min(footprint::QUIET)))
            };
            if quiet {
                self.nets.release_buffers();
                self.debug.release_buffers();
                allocator::give_back();
                self.poller.rest(timeout);
                self.poller.wait(Some(Duration::ZERO), &mut ready);
            } else {
                self.poller.wait(timeout, &mut ready);
            }
            quiet = !quiet && ready.is_empty() && timeout == Some(footprint::QUIET);
            for event in &ready {
                if self.event(*event) == Some(Split::Parent) {
                    return ExitCode::SUCCESS;
                }
            }
            let now = Instant::now();
            while let Some(deadline) = self.timers.pop_due(now) {
                self.deadline(deadline);
            }
            self.speak_of_all();
            self.bury();
            if self.is_finished() {
                self.settle_aftermaths();
                return self.exit_code();
            }
        }
    }

    /// Deals with one event; says who we are after a signal to stop.
    fn event(&mut self, event: Ready) -> Option<Split> {
        self.speak_of_all();
        if let Source::Helper(key) | Source::Keys(key) = event.source {
            self.speak_of(key);
        }
        match event.source {
            Source::Signals => return self.signal(),
            Source::Worker => {
                for done in self.worker.take() {
                    self.worked(done);
                }
            }
            Source::Net(id) => {
                if event.writable {
                    self.nets.flush(&self.poller, id);
                }
                if event.readable {
                    self.net_ready(id);
                }
            }
            Source::Helper(key) => self.helper_ready(key, event.readable, event.writable),
            Source::Keys(key) => self.keys_ready(key),
            Source::Password(check) => self.check_ready(check),
            Source::DebugListener => self.debug_wanted(),
            Source::Debug => self.debug_ready(event.readable, event.writable),
            Source::Name(number) => self.name_ready(number),
            Source::Probe => self.probe_says(),
        }
        None
    }

    fn signal(&mut self) -> Option<Split> {
        let arrived = self.signals.take();
        if arrived.child {
            self.reap();
        }
        if arrived.drain {
            self.drain();
        }
        if arrived.reload && !self.stopping && !self.inetd {
            self.reload();
        }
        // A keeper goes on; a server that drains leaves one behind.
        if arrived.stop && !self.is_keeper && !self.inetd {
            return Some(self.stop());
        }
        if arrived.upgrade {
            ::log::info!("Received SIGUSR2.");
            self.upgrade_wanted(None);
        }
        self.judge_probe()
    }

    fn deadline(&mut self, deadline: Deadline) {
        self.speak_of_all();
        if let Deadline::Grace(key)
        | Deadline::Answer(key)
        | Deadline::KeyReading(key)
        | Deadline::Ending(key)
        | Deadline::Farewell(key)
        | Deadline::HelperHello(key) = deadline
        {
            self.speak_of(key);
        }
        match deadline {
            Deadline::Grace(key) => self.grace_over(key),
            Deadline::Answer(key) => self.answer(key),
            Deadline::KeyReading(key) => self.keys_late(key),
            Deadline::Ending(key) => self.cut_off(key),
            Deadline::HelperRested(key) => self.helper_rested(key),
            Deadline::Farewell(key) => self.farewell_late(key),
            Deadline::HelperHello(key) => self.helper_lost(key, "it never said hello"),
            Deadline::Idle(id) => self.idle_over(id),
            Deadline::NetHello(id) => self.nets.doom(id, "it never said hello"),
            Deadline::Resume(id) => self.resume_accepting(id),
            Deadline::Restart => self.restart_strangers(),
            Deadline::DebugHello => self.debug_gone(Some("it never said hello")),
            Deadline::DebugRestart => self.debug_again(),
            Deadline::Aftermath(number) => self.aftermath_due(number),
            Deadline::Gathered => self.gathered(),
            Deadline::OwnProfile(kind) => self.own_profile_over(kind),
            Deadline::Probe => self.probe_late(),
        }
    }

    /// With --inetd the one connection's fate, as `sshd -i` has it.
    fn exit_code(&self) -> ExitCode {
        const NOBODY_LOGGED_IN: u8 = 255;
        if self.inetd && !self.logged_in {
            ExitCode::from(NOBODY_LOGGED_IN)
        } else {
            ExitCode::SUCCESS
        }
    }

    /// There are connections, or something is still to be told of one.
    fn serves_somebody(&self) -> bool {
        !self.connections.is_empty() || !self.farewells.is_empty()
    }

    /// What a `net` that accepts no more accepted last may still be on its way: it ends when all it
    /// had is over. Of one that is not our child, the link says so.
    fn expects_somebody(&self) -> bool {
        let mut nets = self.nets.iter();
        nets.any(|(_, it)| it.retired && (self.is_keeper || !it.collected))
    }

    fn is_finished(&self) -> bool {
        self.stopping && !self.serves_somebody() && !self.expects_somebody()
    }
}
