//! What a connection tells the monitor and is told, and how it goes on to the user's `net`.
//!
//! The monitor is trusted, but its answers must fit: one that nobody asked for ends the connection.

use super::{Connection, Owed, Stop};
use crate::frames::{CloseReason, NetToMonitor, ToNet};
use crate::logging::level_filter;
use crate::net::threads::Leave;
use crate::net::{banner, logger};

impl Connection<'_> {
    /// As [`Self::tell`], for what holds a secret.
    pub(super) fn tell_secret(&self, frame: NetToMonitor) -> Result<(), Stop> {
        self.place
            .monitor
            .send_secret(self.place.number, frame)
            .map_err(|_| Stop::closed(CloseReason::Ended, "the monitor is gone"))
    }

    pub(super) fn tell(&self, frame: &NetToMonitor) -> Result<(), Stop> {
        self.place
            .monitor
            .send(self.place.number, frame, &[])
            .map_err(|_| Stop::closed(CloseReason::Ended, "the monitor is gone"))
    }

    /// Takes the monitor's answers.
    #[inline(never)]
    pub(super) fn mail(&mut self) -> Result<(), Stop> {
        while let Some(frame) = self.place.mailbox.take() {
            self.frame(frame)?;
        }
        Ok(())
    }

    fn frame(&mut self, frame: ToNet) -> Result<(), Stop> {
        match frame {
            ToNet::Cookie { cookie } if self.key_exchange_owed == Some(Owed::Cookie) => {
                self.key_exchange_owed = None;
                self.core.provide_cookie(cookie);
            }
            ToNet::Signature { blob } if self.key_exchange_owed == Some(Owed::Signature) => {
                self.key_exchange_owed = None;
                self.core.provide_signature(&blob);
            }
            ToNet::AuthFailure { methods, partial } if self.login_owed => {
                self.login_owed = false;
                let methods: Vec<&[u8]> = methods.iter().map(|method| &**method).collect();
                self.core.auth_failure(&methods, partial);
            }
            ToNet::AuthPublicKeyOk { algorithm, key } if self.login_owed => {
                self.login_owed = false;
                self.core.auth_public_key_ok(&algorithm, &key);
            }
            ToNet::AuthPasswordChange { prompt } if self.login_owed => {
                self.login_owed = false;
                self.core.auth_password_change(&prompt);
            }
            ToNet::AuthInfoRequest {
                instruction,
                prompts,
            } if self.login_owed => {
                self.login_owed = false;
                let prompts: Vec<&[u8]> = prompts.iter().map(|prompt| &**prompt).collect();
                self.core.auth_info_request(&instruction, &prompts);
            }
            ToNet::SignatureAlgorithms { names } if self.login_owed => {
                self.core.set_signature_algorithms(names);
            }
            ToNet::Banner { text } if self.login_owed => banner::send(&mut self.core, &text),
            // What is left to send of a banner goes first: the state that is handed over is small.
            ToNet::AuthSuccess if self.login_owed => self.accepted = true,
            ToNet::Disconnect { reason, message } => {
                self.core
                    .disconnect(reason, &String::from_utf8_lossy(&message));
                return Err(Stop::closed(CloseReason::Ended, ""));
            }
            ToNet::Proof { key, signature } => {
                let service = self.service.as_mut();
                let wanted = service.is_some_and(|it| it.proved(&mut self.core, &key, &signature));
                if !wanted {
                    return Err(Stop::closed(CloseReason::Fault, "a proof out of turn"));
                }
            }
            ToNet::SetLogLevel { level, .. } => {
                logger::set_connection(self.place.number, level_filter(level));
            }
            frame => {
                let (_, name) = frame.kind();
                return Err(Stop::closed(
                    CloseReason::Fault,
                    &format!("{name} out of turn"),
                ));
            }
        }
        Ok(())
    }

    /// Passes the connection on: keys, counters, and bytes that are not handled yet.
    #[inline(never)]
    pub(super) fn hand_over(self: Box<Self>) -> Leave {
        let Self {
            place,
            client,
            core,
            received_bytes,
            sent_bytes,
            ..
        } = *self;
        let bytes = (received_bytes, sent_bytes);
        let stop = match core.freeze() {
            Ok(state) => {
                let frame = NetToMonitor::Frozen {
                    state: state.into(),
                };
                match place.monitor.send_secret(place.number, frame) {
                    Ok(()) => {
                        client.release();
                        return Leave::HandedOver;
                    }
                    Err(_) => (CloseReason::Ended, "the monitor is gone".to_owned()),
                }
            }
            Err(error) => {
                let reason = CloseReason::Protocol {
                    code: error.disconnect_reason(),
                };
                (reason, error.to_string())
            }
        };
        let (reason, detail) = stop;
        Leave::Closed {
            reason,
            detail: detail.into(),
            bytes,
        }
    }
}
