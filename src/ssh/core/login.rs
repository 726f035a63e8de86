//! Answers to authentication requests (RFC 4252, RFC 4256).

use agent_helper::wire::Bytes;

use super::Core;
use crate::ssh::connection::Service;
use crate::ssh::message;
use crate::ssh::wire::Writer;

impl Core {
    /// The user's keys may sign by these: goes to clients that take such news (RFC 8308, OpenSSH's
    /// `ext-info-in-auth`), ahead of the first answer to an authentication request.
    pub fn set_signature_algorithms(&mut self, names: Vec<Bytes>) {
        self.connection.setup.signature_algorithms = names;
    }

    /// Sends SSH_MSG_USERAUTH_BANNER; only before success.
    pub fn auth_banner(&mut self, text: &[u8]) {
        if !matches!(self.connection.service, Service::Auth { .. }) {
            return;
        }
        self.message(message::USERAUTH_BANNER, |fields| {
            fields.put_string(text);
            fields.put_string(b"");
        });
    }

    /// Answers with SSH_MSG_USERAUTH_FAILURE.
    pub fn auth_failure(&mut self, methods: &[&[u8]], partial: bool) {
        if self.take_auth_request() {
            self.message(message::USERAUTH_FAILURE, |fields| {
                fields.put_name_list(methods.iter().copied());
                fields.put_boolean(partial);
            });
        }
    }

    /// Answers with SSH_MSG_USERAUTH_PK_OK.
    pub fn auth_public_key_ok(&mut self, algorithm: &[u8], key: &[u8]) {
        if self.take_auth_request() {
            self.message(message::USERAUTH_PK_OK, |fields| {
                fields.put_string(algorithm);
                fields.put_string(key);
            });
        }
    }

    /// Answers with SSH_MSG_USERAUTH_PASSWD_CHANGEREQ (RFC 4252 section 8).
    pub fn auth_password_change(&mut self, prompt: &[u8]) {
        if self.take_auth_request() {
            self.message(message::USERAUTH_PASSWD_CHANGEREQ, |fields| {
                fields.put_string(prompt);
                fields.put_string(b"");
            });
        }
    }

    /// Answers with SSH_MSG_USERAUTH_INFO_REQUEST (RFC 4256 section 3.2); nothing that is typed is
    /// echoed.
    pub fn auth_info_request(&mut self, instruction: &[u8], prompts: &[&[u8]]) {
        if self.take_auth_request() {
            self.message(message::USERAUTH_INFO_REQUEST, |fields| {
                fields.put_string(b"");
                fields.put_string(instruction);
                fields.put_string(b"");
                fields.put_u32(u32::try_from(prompts.len()).unwrap_or(u32::MAX));
                for prompt in prompts {
                    fields.put_string(prompt);
                    fields.put_boolean(false);
                }
            });
            self.connection.service = Service::Auth {
                waiting: false,
                asked: true,
            };
        }
    }

    /// Answers with SSH_MSG_USERAUTH_SUCCESS: channels may open from here on.
    pub fn auth_success(&mut self) {
        if self.take_auth_request() {
            let compressed = self.connection.exchanges.compressed();
            self.connection.service = Service::Open;
            self.incoming.authenticated(compressed.incoming);
            self.message(message::USERAUTH_SUCCESS, |_| {});
            self.connection.outgoing.authenticated(compressed.outgoing);
        }
    }

    fn take_auth_request(&mut self) -> bool {
        let waiting = matches!(self.connection.service, Service::Auth { waiting: true, .. });
        if waiting {
            if self.begin_sending() {
                self.connection.update_extensions();
            }
            self.connection.service = Service::Auth {
                waiting: false,
                asked: false,
            };
        }
        waiting
    }
}
