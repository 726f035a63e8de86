//! Who follows the log over the debug service.

use super::Monitor;
use crate::debug_frames::MonitorToDebug;
use crate::logging::{self, streams};

impl Monitor {
    /// Lets a client follow the log, or see its last lines.
    pub(super) fn follow_log(&mut self, number: u32, level: u8, last: bool, who: &str) {
        let level = match (level, last) {
            (0, true) => log::LevelFilter::Trace,
            (0, false) => self.log_level(),
            (level, _) => logging::level_filter(level),
        };
        let opened = if last {
            streams::last(level).map(Some)
        } else {
            log::info!("debug service: the log is followed at {level} by {who}");
            streams::follow(number, level)
        };
        let answer = match opened {
            Ok(Some(records)) => Ok((MonitorToDebug::Following { seconds: 0 }, records)),
            Ok(None) => Err(MonitorToDebug::Busy {
                seconds: RETRY_SECONDS,
            }),
            Err(error) => Err(MonitorToDebug::Invalid {
                what: format!("no socket: {error}").as_str().into(),
            }),
        };
        self.answer_with(number, answer.map_err(Box::new));
        self.tell_followed();
    }

    /// A client is gone, or all are.
    pub(super) fn end_following(&mut self, number: Option<u32>) {
        streams::end(number);
        self.tell_followed();
    }

    /// Other processes send what is followed, and no more.
    fn tell_followed(&mut self) {
        let level = streams::level();
        if self.debug.followed != level {
            self.debug.followed = level;
            self.tell_levels();
        }
    }
}

/// Nobody knows when others have seen enough.
const RETRY_SECONDS: u32 = 10;
