//! UseDNS: what a client's address is called. Looked up by a process of its own as soon as the client
//! is there; its first authentication request waits for the answer.

use agent_helper::wire::{Bytes, Wire};
use zeroize::Zeroizing;

use super::Monitor;
use super::connection::Connection;
use super::ids::ConnectionKey;
use super::one_shot::{Kind, OneShots};
use super::poller::Source;
use crate::client_name::form;
use crate::limits::CLIENT_NAMES_MAX;

/// What is known of a client's name.
#[derive(Debug)]
pub(super) enum ClientName {
    /// It has none that counts, or nobody asks.
    Unknown,
    /// It is being looked up; a request that came meanwhile waits.
    Sought {
        request: Option<Zeroizing<Vec<u8>>>,
    },
    Known(String),
}

impl ClientName {
    /// The look-up is over; gives the request that waited for it.
    fn settle(&mut self, name: Option<String>) -> Option<Zeroizing<Vec<u8>>> {
        let found = name.map_or(Self::Unknown, Self::Known);
        match std::mem::replace(self, found) {
            Self::Sought { request } => request,
            Self::Unknown | Self::Known(_) => None,
        }
    }

    /// The connection ends: the request that waits is not gone into any more.
    pub(super) fn drop_request(&mut self) {
        if let Self::Sought { request } = self {
            *request = None;
        }
    }
}

/// The processes that look names up.
pub(super) fn look_ups() -> OneShots {
    OneShots::new(Kind {
        title: c"agent: name",
        source: Source::Name,
        most: CLIENT_NAMES_MAX,
    })
}

/// The name in an answer. The process decodes what strangers' name servers say: it is asked to answer
/// in the form of a name, not trusted to.
fn believable(content: &[u8]) -> Option<String> {
    let name = Option::<Bytes>::from_wire(content).ok()??;
    form::usable(std::str::from_utf8(&name).ok()?)
}

impl Connection {
    /// The client's name, where it has one that leads back to its address.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.client_name {
            ClientName::Known(name) => Some(name),
            ClientName::Unknown | ClientName::Sought { .. } => None,
        }
    }
}

impl Monitor {
    /// Has the name of a new client looked up.
    pub(super) fn seek_name(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        connection.client_name = ClientName::Sought { request: None };
        let request = connection.peer().to_wire();
        if self.names.has_room() {
            self.start_look_up(key, &request);
        } else {
            self.names.queue(key, Zeroizing::new(request));
        }
    }

    fn start_look_up(&mut self, key: ConnectionKey, request: &[u8]) {
        let ids = self.host.name_ids();
        let started = self
            .names
            .start(&self.host, &self.poller, ids, key, request);
        if let Err(error) = started {
            log::error!("the name of a client could not be looked up: {error}");
            self.name_found(key, None);
        }
    }

    /// A process that looks a name up said something, or ended.
    pub(super) fn name_ready(&mut self, number: u64) {
        let Some((key, answer)) = self.names.take(&self.poller, number) else {
            return;
        };
        self.name_found(key, answer.ok().and_then(|content| believable(&content)));
        while let Some((key, request)) = self.names.next() {
            self.start_look_up(key, &request);
        }
    }

    fn name_found(&mut self, key: ConnectionKey, name: Option<String>) {
        self.speak_of(key);
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let place = connection.place();
        match &name {
            Some(name) => log::debug!("{place} is called {name}"),
            None => log::debug!("{place} has no name that leads back to it"),
        }
        if let Some(request) = connection.client_name.settle(name) {
            self.authenticate(key, &request);
        }
    }

    /// Keeps a request while the name is looked up; false where it need not wait.
    pub(super) fn waits_for_name(&mut self, key: ConnectionKey, arrived: &[u8]) -> bool {
        let Some(connection) = self.connections.get_mut(&key) else {
            return false;
        };
        match &mut connection.client_name {
            ClientName::Sought { request: Some(_) } => {
                self.attack(key, "a request while another was unanswered");
                true
            }
            ClientName::Sought { request } => {
                *request = Some(Zeroizing::new(arrived.to_vec()));
                true
            }
            ClientName::Unknown | ClientName::Known(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_waits_for_the_name_unless_the_connection_ends() {
        let sought = || ClientName::Sought {
            request: Some(Zeroizing::new(b"request".to_vec())),
        };
        let mut name = sought();
        assert_eq!(name.settle(None).as_deref(), Some(&b"request".to_vec()));
        assert!(name.settle(None).is_none());
        let mut name = sought();
        name.drop_request();
        assert!(name.settle(Some("host.example".to_owned())).is_none());
    }

    #[test]
    fn only_a_name_counts_as_a_name() {
        let answered = |name: &[u8]| believable(&Some(Bytes::from(name)).to_wire());
        assert_eq!(answered(b"host.example").as_deref(), Some("host.example"));
        for lie in [
            &b""[..],
            b"10.0.0.1",
            b"::1",
            b"a\nb",
            b"*",
            b"a,b",
            b"\xff",
            &[b'a'; 1000],
        ] {
            assert_eq!(answered(lie), None);
        }
        assert_eq!(believable(&None::<Bytes>.to_wire()), None);
        assert_eq!(believable(b"\x07"), None);
    }
}
