//! Frames of a `net`: decoded, judged by the permit table, given to their subject.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use agent_helper::link::Received;
use agent_helper::wire::Wire;
use zeroize::Zeroize;

use super::Monitor;
use super::connection::Phase;
use super::ids::{ConnectionKey, NetId};
use super::nets::Role;
use super::permit::{Stage, Verdict};
use super::timers::Deadline;
use crate::frames::{NetToMonitor, ToNet};
use crate::limits::{ACCEPT_PAUSE_MS, FRAMES_PER_TURN};

impl Monitor {
    /// Frames of a `net`, a bounded number at once.
    pub(super) fn net_ready(&mut self, id: NetId) {
        for _ in 0..FRAMES_PER_TURN {
            let Some(received) = self.nets.receive(id) else {
                return;
            };
            self.net_frame(id, received);
            self.speak_of_all();
        }
    }

    fn net_frame(&mut self, id: NetId, received: Received) {
        let Received {
            connection: number,
            mut content,
            descriptors,
        } = received;
        let mut decoded = NetToMonitor::from_wire(&content);
        if decoded
            .as_mut()
            .map_or(true, |frame| frame.secret().is_some())
        {
            content.zeroize();
            self.nets.wipe_buffer(id);
        }
        let frame = match decoded {
            Ok(frame) => frame,
            Err(error) => return self.nets.doom(id, error.to_string()),
        };
        let Some(net) = self.nets.get(id) else { return };
        let greeted = net.greeted;
        match frame {
            NetToMonitor::Hello { build_id, missing } if !greeted && number == 0 => {
                self.greet(id, build_id, &missing);
            }
            NetToMonitor::Log { level, message } if !greeted && number == 0 => {
                // Why it cannot start: what follows is its end.
                if self.may_log(id, level) {
                    self.log_of_net(id, None, level, &message);
                }
                self.nets.doom(id, "it did not say hello first");
            }
            _ if !greeted => self.nets.doom(id, "it did not say hello first"),
            NetToMonitor::Accept if number != 0 => self.accept_frame(id, number, descriptors),
            frame if !descriptors.is_empty() => {
                self.nets
                    .doom(id, format!("it sent descriptors with {}", frame.kind().1));
            }
            NetToMonitor::AcceptPaused { errno } if number == 0 => self.accept_paused(id, errno),
            NetToMonitor::Report { connections, last } if number == 0 => {
                self.reported(id, connections, last);
            }
            NetToMonitor::Log { level, message } if number == 0 => {
                if self.may_log(id, level) {
                    self.log_of_net(id, None, level, &message);
                }
            }
            frame => self.connection_frame(id, number, frame),
        }
    }

    fn greet(&mut self, id: NetId, build_id: [u8; 16], missing: &[agent_helper::wire::Bytes]) {
        if build_id != crate::BUILD_ID {
            return self.nets.doom(id, "it is of another build");
        }
        let Some(net) = self.nets.get_mut(id) else {
            return;
        };
        net.greeted = true;
        self.timers.cancel(net.hello.take());
        let strangers = net.role == Role::Strangers;
        self.tell_level(id);
        if strangers && !self.announced {
            self.announced = true;
            self.missing = missing.iter().take(16).cloned().collect();
            if !missing.is_empty() {
                let parts: Vec<_> = missing
                    .iter()
                    .take(16)
                    .map(|part| super::log::peer_text(part))
                    .collect();
                log::warn!(
                    "this kernel does not have all of the confinement: no {}",
                    parts.join(", ")
                );
            }
            self.notifier.ready();
        }
    }

    fn accept_frame(&mut self, id: NetId, number: u32, descriptors: Vec<OwnedFd>) {
        let known = self
            .nets
            .get(id)
            .and_then(|net| net.connections.get(&number).copied());
        match known {
            Some(key) => self.attack(key, "Accept for a connection that it has"),
            None => self.accept(id, number, descriptors),
        }
    }

    fn connection_frame(&mut self, id: NetId, number: u32, frame: NetToMonitor) {
        let Some(net) = self.nets.get(id) else { return };
        let Some(key) = net.connections.get(&number).copied() else {
            // Frames cross our own end of a connection on the way; other numbers never existed.
            if number == 0 || number > net.highest {
                self.nets
                    .doom(id, format!("it sent {} for no connection", frame.kind().1));
            }
            return;
        };
        self.speak_of(key);
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        match connection.permit.judge(frame.kind().0, Instant::now()) {
            Verdict::Permitted => self.permitted(id, key, frame),
            Verdict::Dropped => {}
            Verdict::Attack => {
                let stage = super::log::stage_name(connection.permit.stage());
                self.attack(
                    key,
                    &format!("{} {stage}, or too many of them", frame.kind().1),
                );
            }
        }
    }

    fn permitted(&mut self, id: NetId, key: ConnectionKey, frame: NetToMonitor) {
        match frame {
            NetToMonitor::Cookie => self.cookie(key),
            NetToMonitor::Sign { mut exchange } => {
                self.sign(key, &exchange);
                exchange.shared_secret.0.zeroize();
            }
            NetToMonitor::Auth { mut request } => {
                self.authenticate(key, &request);
                request.0.zeroize();
            }
            NetToMonitor::AuthResponse { mut response } => {
                self.dialog_answered(key, &response);
                response.0.zeroize();
            }
            NetToMonitor::Frozen { state } => self.frozen(key, state),
            NetToMonitor::Closed {
                reason,
                detail,
                bytes,
            } => {
                self.closed(key, reason, &detail, bytes);
            }
            NetToMonitor::Log { level, message } => {
                if self.may_log(id, level) {
                    self.log_of_net(id, Some(key), level, &message);
                }
            }
            NetToMonitor::Prove { key: blob } => self.prove(key, &blob),
            NetToMonitor::ClientVersion { version } => self.client_version(key, version.0),
            NetToMonitor::Hello { .. }
            | NetToMonitor::Accept
            | NetToMonitor::AcceptPaused { .. }
            | NetToMonitor::Report { .. } => self.attack(key, "a frame about its process"),
        }
    }

    fn client_version(&mut self, key: ConnectionKey, mut version: Vec<u8>) {
        if let Some(connection) = self.connections.get_mut(&key)
            && matches!(connection.phase, Phase::Greeting)
            && connection.permit.stage() == Stage::Accepted
        {
            version.truncate(crate::limits::PEER_TEXT_MAX_BYTES);
            log::debug!(
                "{} is {}",
                connection.place(),
                super::log::peer_text(&version)
            );
            connection.client_version = version;
        }
    }

    fn may_log(&mut self, id: NetId, level: u8) -> bool {
        let net = self.nets.get_mut(id);
        net.is_some_and(|net| net.logs.take(level))
    }

    fn accept_paused(&mut self, id: NetId, errno: i32) {
        let Some(net) = self.nets.get_mut(id) else {
            return;
        };
        if net.role != Role::Strangers {
            return self.nets.doom(id, "it has nothing to accept from");
        }
        if net.resume.is_some() || net.retired {
            return;
        }
        let time = Duration::from_millis(ACCEPT_PAUSE_MS);
        net.resume = Some(self.timers.after(time, Deadline::Resume(id)));
        self.counters.accept_errors += 1;
        if self.may_log(id, log::Level::Warn as u8) {
            let error = std::io::Error::from_raw_os_error(errno);
            log::warn!("no connections are accepted for a moment: {error}");
        }
    }

    pub(super) fn resume_accepting(&mut self, id: NetId) {
        if let Some(net) = self.nets.get_mut(id) {
            net.resume = None;
        }
        self.nets
            .send(&self.poller, id, 0, &ToNet::ResumeAccepting, &[]);
    }
}
