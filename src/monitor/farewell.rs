//! Helpers whose connection is over and that still have to tell what was done to files.
//!
//! An SFTP server sees the end of its client late: it first does what it was asked before. Its link
//! is read to the end, within the user's budget, so that no flood is made cheap by hanging up. What
//! takes too long is refused: a server whose word on what it did is not taken does nothing more.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_helper::frame::HelperToMonitor;
use agent_helper::link::Received;
use agent_helper::wire::Wire;
use log::LevelFilter;
use rustix::net::{Shutdown, shutdown};

use super::Monitor;
use super::aftermath::Aftermath;
use super::helpers::Helper;
use super::ids::ConnectionKey;
use super::timers::{Deadline, TimerId};
use crate::limits::FAREWELL_TIME_MS;

/// A helper without a connection.
#[derive(Debug)]
pub(super) struct Farewell {
    pub helper: Helper,
    /// For the log.
    place: String,
    pub log_level: LevelFilter,
    timer: TimerId,
    /// Begins when the helper has nothing more to do than to end what is left.
    aftermath: Option<Aftermath>,
}

impl Farewell {
    /// Whose connection it was.
    pub(super) fn is_of(&self, uid: u32) -> bool {
        let files = self.helper.files.as_ref();
        files.is_some_and(|files| files.uid == uid)
    }
}

/// All of them, by what their connections were.
pub(super) type Farewells = BTreeMap<ConnectionKey, Farewell>;

impl Monitor {
    /// The connection is over; its helper is told so and heard to the end.
    pub(super) fn hear_out(
        &mut self,
        key: ConnectionKey,
        helper: Helper,
        aftermath: Option<Aftermath>,
    ) {
        // Its end of the link to us says that all is over; the other way it goes on.
        let _ = shutdown(helper.link(), Shutdown::Write);
        let connection = self.connections.get(&key);
        let time = Duration::from_millis(FAREWELL_TIME_MS);
        let farewell = Farewell {
            helper,
            place: connection.map_or_else(String::new, |it| it.place()),
            log_level: connection.map_or(self.log_level(), |it| it.log_level),
            timer: self.timers.after(time, Deadline::Farewell(key)),
            aftermath,
        };
        self.farewells.insert(key, farewell);
    }

    /// A frame of such a helper: what else than files it speaks of is over.
    pub(super) fn farewell_frame(&mut self, key: ConnectionKey, received: &Received) {
        match HelperToMonitor::from_wire(&received.content) {
            Ok(HelperToMonitor::FileEvent { event }) => self.file_event(key, &event),
            Ok(HelperToMonitor::Log { level, message }) => self.helper_says(key, level, &message),
            Ok(_) => {}
            Err(_) => self.farewell_over(key),
        }
    }

    /// Nothing more is to be heard.
    pub(super) fn farewell_over(&mut self, key: ConnectionKey) {
        let Some(mut farewell) = self.farewells.remove(&key) else {
            return;
        };
        farewell.helper.say_lost(&farewell.place);
        self.timers.cancel(Some(farewell.timer));
        self.poller.remove(farewell.helper.link());
        drop(farewell.helper);
        if let Some(aftermath) = farewell.aftermath {
            self.leave_behind(aftermath);
        }
    }

    /// It took too long. What has been told is written; nothing more is taken.
    pub(super) fn farewell_late(&mut self, key: ConnectionKey) {
        let Some(farewell) = self.farewells.get(&key) else {
            return;
        };
        log::warn!(
            "more was done to files from {} than may be logged at once: what was asked for last is not done",
            farewell.place
        );
        // Who waits to send is refused, and what is on its way stays to be read.
        let _ = shutdown(farewell.helper.link(), Shutdown::Read);
        while let Some(farewell) = self.farewells.get_mut(&key) {
            match farewell.helper.receive() {
                Ok(Some(received)) => self.farewell_frame(key, &received),
                Ok(None) | Err(_) => self.farewell_over(key),
            }
        }
    }

    /// The place of a connection that is over, for a line.
    pub(super) fn farewell_place(&self, key: ConnectionKey) -> Option<String> {
        Some(self.farewells.get(&key)?.place.clone())
    }
}
