//! The level at which is logged: of the configuration, of a connection (LogLevel may stand under
//! `Match`), or, over both, what was asked for while the server runs. Whoever follows the log may have
//! more from all processes, without more of it being logged.

use std::time::Instant;

use log::LevelFilter;

use super::Monitor;
use super::ids::ConnectionKey;
use super::log::level_of;
use super::rate::Rate;
use super::setup::level_number;
use crate::frames::ToNet;
use crate::limits::{LOG_LINES_BURST, LOG_LINES_PER_SECOND};
use crate::logging::{self, streams};

/// How many lines of another process may be logged. Lines that are only followed never take the place
/// of others, and what is too much of either is said to whoever follows.
#[derive(Debug)]
pub(super) struct LineRates {
    logged: Rate,
    followed: Rate,
    /// Lines that are not in the log.
    lost: u64,
}

impl LineRates {
    pub(super) fn new(now: Instant) -> Self {
        let rate = Rate::new(LOG_LINES_BURST, LOG_LINES_PER_SECOND, now);
        Self {
            logged: rate.clone(),
            followed: rate,
            lost: 0,
        }
    }

    /// How many lines for the log were too much, since this was asked last.
    pub(super) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// For a line of this level, by its number.
    pub(super) fn take(&mut self, level: u8) -> bool {
        let level = level_of(level);
        let is_followed = logging::is_for_streams(level);
        let rate = if is_followed {
            &mut self.followed
        } else {
            &mut self.logged
        };
        let taken = rate.take(Instant::now());
        if !taken {
            streams::lost(level, 1);
            self.lost += u64::from(!is_followed);
        }
        taken
    }
}

impl Monitor {
    /// What is logged from here on is about this connection.
    pub(super) fn speak_of(&self, key: ConnectionKey) {
        let own = self.connections.get(&key).map(|it| it.log_level);
        let own = own.or_else(|| Some(self.farewells.get(&key)?.log_level));
        if let Some(level) = self.debug.level.or(own) {
            logging::set_level(level);
        }
    }

    /// What is logged from here on is about no connection in particular.
    pub(super) fn speak_of_all(&self) {
        logging::set_level(self.log_level());
    }

    /// The level for what concerns no connection in particular.
    pub(super) fn log_level(&self) -> LevelFilter {
        self.debug
            .level
            .unwrap_or(self.generation.options.log_level)
    }

    /// From here on this level counts everywhere, whatever the configuration says; `None`: the
    /// configuration again.
    pub(super) fn force_log_level(&mut self, level: Option<LevelFilter>) {
        self.debug.level = level;
        self.tell_levels();
    }

    /// Every process learns what is logged, and what is followed.
    pub(super) fn tell_levels(&mut self) {
        self.speak_of_all();
        let nets: Vec<_> = self.nets.iter().map(|(id, _)| id).collect();
        for id in nets {
            self.tell_level(id);
        }
        let helpers: Vec<_> = self.connections.keys().copied().collect();
        for key in helpers {
            self.tell_helper_level(key);
        }
    }

    /// Tells a `net` at which level it logs.
    pub(super) fn tell_level(&mut self, id: super::ids::NetId) {
        let frame = ToNet::SetLogLevel {
            level: level_number(self.log_level()),
            forced: self.debug.level.is_some(),
            followed: level_number(streams::level()),
        };
        self.nets.send(&self.poller, id, 0, &frame, &[]);
    }

    /// Tells a connection's helper at which level it logs.
    pub(super) fn tell_helper_level(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let level = helper_level(self.debug.level, connection.log_level);
        let frame = agent_helper::frame::MonitorToHelper::SetLogLevel {
            level: level_number(level),
        };
        let Some(helper) = &mut connection.helper else {
            return;
        };
        if let Err(error) = helper.send(&self.poller, key, &frame, &[]) {
            self.helper_lost(key, &error.to_string());
        }
    }
}

/// At which level a helper logs: as was asked for while the server runs, else as its connection; and
/// whatever somebody follows.
pub(super) fn helper_level(forced: Option<LevelFilter>, own: LevelFilter) -> LevelFilter {
    forced.unwrap_or(own).max(streams::level())
}
