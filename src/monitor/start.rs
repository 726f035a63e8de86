//! Coming up: sockets, `net`, helper, in the order that makes the server accept soonest.

use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::connection::Generation;
use super::debug::Debug;
use super::host::Host;
use super::ids::{Counter, NetId};
use super::listeners::{Listener, exchange, for_addresses};
use super::nets::{Nets, restart_delay};
use super::penalties::Penalties;
use super::poller::{Poller, Source};
use super::rate::Rate;
use super::refusals::Refusals;
use super::revoked::Revocations;
use super::rundir::{Mark, remove_pid_file, write_pid_file};
use super::signals::Signals;
use super::socket::Client;
use super::timers::{Deadline, Timers};
use super::worker::Worker;
use super::{Monitor, Start};
use crate::config::Options;
use crate::limits::{HELLO_TIME_MS, RESTART_GOOD_MS};
use crate::notify::{self, Notifier};
use crate::replace::release_signals;

impl Monitor {
    /// Brings the server up.
    ///
    /// # Errors
    ///
    /// A whole sentence about what is missing; nothing serves then.
    pub(super) fn start(start: Start) -> Result<Self, String> {
        let Start {
            loaded,
            host_keys,
            config_path,
            overrides,
            inetd,
            as_root,
            program,
            taken,
            welcome,
        } = start;
        let is_upgrade = taken.is_some();
        let taken = taken.unwrap_or_default();
        let passed = notify::take_listen_descriptors();
        let options = loaded.config.global();
        let mut listeners = Vec::new();
        let mut connected = None;
        for socket in passed {
            match Listener::handed_over(socket) {
                Ok(listener) => listeners.push(listener),
                // Accept=yes: the socket is one connection.
                Err(socket) => connected = Some(socket),
            }
        }
        let inetd_pair = inetd_pair(inetd, connected)?;
        if inetd_pair.is_none() && listeners.is_empty() {
            listeners = match is_upgrade {
                true => taken_listeners(&options, taken.listeners),
                false => open_all(&options)?,
            };
        }
        let text = |what: &'static str| move |error| format!("{what}: {error}");
        let poller = Poller::new().map_err(|error| text("no poll set")(error.into()))?;
        let signals = Signals::register().map_err(text("signals cannot be caught"))?;
        poller
            .add(&signals, Source::Signals)
            .map_err(|error| text("signals cannot be waited for")(error.into()))?;
        if is_upgrade {
            release_signals();
        }
        let host = Host::new(as_root, taken.image).map_err(|error| error.to_string())?;
        // It comes up while the helper is inflated and tried.
        let mut nets = Nets::default();
        let net = nets
            .start_strangers(&host, &poller, host.net_ids(&options), &listeners)
            .map_err(text("net could not be started"))?;
        let helper_image = host
            .prepare_helper(&options)
            .map_err(|error| error.to_string())?;
        let worker = Worker::new().map_err(|error| text("no worker")(error.into()))?;
        poller
            .add(&worker, Source::Worker)
            .map_err(|error| text("the worker cannot be waited for")(error.into()))?;
        let mut monitor = Self {
            host,
            helper_image,
            poller,
            timers: Timers::default(),
            signals,
            worker,
            notifier: Notifier::from_environment(),
            mark: None,
            generation: Rc::new(Generation {
                config: loaded.config,
                options,
                host_keys,
            }),
            config_path,
            overrides,
            listeners,
            nets,
            connections: std::collections::BTreeMap::new(),
            keys: Counter::default(),
            aftermaths: super::aftermath::Aftermaths::default(),
            cookies: std::collections::HashSet::new(),
            startups: super::startups::Startups::default(),
            readers: super::key_reading::Readers::default(),
            checks: super::passwords::checks(),
            names: super::names::look_ups(),
            penalties: Penalties::default(),
            refusals: Refusals::default(),
            revocations: Revocations::default(),
            debug: Debug::new(),
            profiles: super::debug_profile::Profiles::new(),
            gathering: super::debug_answers::Gathering::default(),
            counters: super::counters::Counters::default(),
            started_s: super::clock::now().as_secs(),
            missing: Vec::new(),
            key_buffer: Vec::new(),
            farewells: super::farewell::Farewells::default(),
            budgets: super::budget::Budgets::default(),
            drop_lines: Rate::new(8, 1, Instant::now()),
            dropped_lines: 0,
            young_deaths: 0,
            restart_planned: false,
            announced: false,
            inetd: inetd_pair.is_some(),
            logged_in: false,
            stopping: false,
            is_keeper: false,
            late_addresses: Vec::new(),
            program,
            upgrade: super::upgrade::Upgrade::default(),
        };
        monitor.watch_hello(net);
        super::title::set("agent: monitor");
        match inetd_pair {
            Some((input, output)) => {
                let (client, ends) = Client::inherited(input, output);
                monitor.stopping = true;
                monitor.serve_inherited(net, client, ends);
            }
            None => {
                monitor.debug.take_over(taken.debug_socket);
                if let Some(text) = welcome {
                    let _ = std::io::stderr().write_all(text.as_bytes());
                }
                monitor.settle();
            }
        }
        if is_upgrade {
            monitor.remove_old_files(taken.pid_file, taken.mark);
            // Of children that ended during the exec nobody hears any more.
            monitor.reap();
            log::info!("upgraded: agent {} goes on", env!("CARGO_PKG_VERSION"));
        }
        Ok(monitor)
    }

    /// Those of the program whose place this one took, where the configuration wants them elsewhere
    /// now.
    fn remove_old_files(&self, pid_file: Option<PathBuf>, mark: Option<PathBuf>) {
        if let Some(old) = &pid_file
            && self.generation.options.pid_file != pid_file
        {
            remove_pid_file(old);
        }
        if let Some(old) = mark
            && self.mark.as_ref().is_none_or(|mark| mark.path() != old)
        {
            let _ = std::fs::remove_file(old);
        }
    }

    /// What can be done while `net` comes up.
    fn settle(&mut self) {
        let options = &self.generation.options;
        self.mark = Mark::leave(&options.data_dir, self.host.as_root);
        if let Some(path) = &options.pid_file {
            write_pid_file(path);
        }
        self.settle_debug();
        self.log_listeners();
    }

    pub(super) fn log_listeners(&self) {
        for listener in &self.listeners {
            let address = listener.address;
            log::info!(
                "Server listening on {} port {}.",
                address.ip(),
                address.port()
            );
        }
    }

    /// Starts a `net` for strangers.
    pub(super) fn start_strangers(&mut self) -> Option<NetId> {
        let ids = self.host.net_ids(&self.generation.options);
        match self
            .nets
            .start_strangers(&self.host, &self.poller, ids, &self.listeners)
        {
            Ok(id) => {
                self.watch_hello(id);
                Some(id)
            }
            Err(error) => {
                log::error!("net could not be started: {error}");
                self.plan_restart();
                None
            }
        }
    }

    pub(super) fn watch_hello(&mut self, id: NetId) {
        let timer = self
            .timers
            .after(Duration::from_millis(HELLO_TIME_MS), Deadline::NetHello(id));
        if let Some(net) = self.nets.get_mut(id) {
            net.hello = Some(timer);
        }
    }

    /// Strangers' `net` is gone: a new one, at once unless they keep dying.
    pub(super) fn replace_strangers(&mut self, lived: Duration) {
        if self.stopping {
            return;
        }
        if lived >= Duration::from_millis(RESTART_GOOD_MS) {
            self.young_deaths = 0;
        }
        self.plan_restart();
    }

    fn plan_restart(&mut self) {
        if self.restart_planned {
            return;
        }
        let delay = restart_delay(self.young_deaths);
        self.young_deaths = self.young_deaths.saturating_add(1);
        if delay.is_zero() {
            self.start_strangers();
        } else {
            self.restart_planned = true;
            self.timers.after(delay, Deadline::Restart);
        }
    }

    pub(super) fn restart_strangers(&mut self) {
        self.restart_planned = false;
        if !self.stopping {
            self.start_strangers();
        }
    }
}

/// The descriptors of the one connection, with --inetd or from a service manager's Accept=yes.
fn inetd_pair(
    inetd: bool,
    connected: Option<OwnedFd>,
) -> Result<Option<(OwnedFd, OwnedFd)>, String> {
    let copy = |descriptor: std::os::fd::BorrowedFd<'_>| {
        descriptor
            .try_clone_to_owned()
            .map_err(|error| format!("no connection to serve: {error}"))
    };
    match connected {
        Some(socket) => Ok(Some((copy(socket.as_fd())?, socket))),
        None if inetd => {
            let pair = (
                copy(std::io::stdin().as_fd())?,
                copy(std::io::stdout().as_fd())?,
            );
            // The originals would keep the connection open after its end.
            let null = rustix::fs::open(
                "/dev/null",
                rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            );
            if let Ok(null) = null {
                let _ = rustix::stdio::dup2_stdin(&null);
                let _ = rustix::stdio::dup2_stdout(&null);
            }
            Ok(Some(pair))
        }
        None => Ok(None),
    }
}

/// The sockets of the program before, as this configuration wants them. An upgrade never ends without
/// any: then the old ones stay.
fn taken_listeners(options: &Options, taken: Vec<(OwnedFd, bool)>) -> Vec<Listener> {
    let taken: Vec<_> = taken.into_iter().filter_map(Listener::taken_over).collect();
    let (listeners, errors) = for_addresses(&options.listen, &taken);
    for (_, error) in errors {
        log::error!("{error}");
    }
    if listeners.is_empty() {
        log::error!("cannot listen on any address; listening where the server did before");
        return taken;
    }
    exchange(taken, listeners)
}

fn open_all(options: &Options) -> Result<Vec<Listener>, String> {
    let mut listeners = Vec::new();
    let mut errors = Vec::new();
    for address in &options.listen {
        match Listener::open(*address) {
            Ok(listener) => listeners.push(listener),
            Err(error) => errors.push(error),
        }
    }
    // As sshd: a host without IPv6 serves on IPv4 all the same.
    if listeners.is_empty() {
        errors.push("cannot listen on any address".into());
        return Err(errors.join("; "));
    }
    for error in errors {
        log::error!("{error}");
    }
    Ok(listeners)
}
