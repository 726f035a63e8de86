//! A dialogue between the test client and the core: bytes go to and fro, the test plays the driver.

use agent::frames::HostKeyPublic;
use agent::ssh::crypto::Random;
use agent::ssh::wire::Writer;
use agent::ssh::{ChannelId, Core, Event, ProtocolError, Setup, Stream, message};

use crate::client::{Client, Habits};

/// An event, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    ClientVersion(Vec<u8>),
    NeedCookie,
    NeedSignature,
    KeysChanged {
        first: bool,
    },
    AuthRequest(Vec<u8>),
    ChannelOpen {
        channel: u32,
        kind: Vec<u8>,
        extra: Vec<u8>,
    },
    ChannelOpened(u32),
    ChannelRefused {
        channel: u32,
        reason: u32,
    },
    ChannelRequest {
        channel: u32,
        kind: Vec<u8>,
        want_reply: bool,
        extra: Vec<u8>,
    },
    ChannelData {
        channel: u32,
        data: Vec<u8>,
    },
    ChannelEof(u32),
    ChannelClose(u32),
    GlobalRequest {
        name: Vec<u8>,
        want_reply: bool,
        extra: Vec<u8>,
    },
    GlobalReply(bool),
    Disconnect {
        reason: u32,
        message: Vec<u8>,
    },
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::ClientVersion(version) => Self::ClientVersion(version.to_vec()),
            Event::NeedCookie => Self::NeedCookie,
            Event::NeedSignature(_) => Self::NeedSignature,
            Event::KeysChanged { first } => Self::KeysChanged { first },
            Event::AuthRequest(request) => Self::AuthRequest(request.to_vec()),
            Event::ChannelOpen {
                channel,
                kind,
                extra,
            } => Self::ChannelOpen {
                channel: channel.0,
                kind: kind.into(),
                extra: extra.into(),
            },
            Event::ChannelOpened { channel } => Self::ChannelOpened(channel.0),
            Event::ChannelRefused { channel, reason } => Self::ChannelRefused {
                channel: channel.0,
                reason,
            },
            Event::ChannelRequest {
                channel,
                kind,
                want_reply,
                extra,
            } => Self::ChannelRequest {
                channel: channel.0,
                kind: kind.into(),
                want_reply,
                extra: extra.into(),
            },
            Event::ChannelData { channel, data } => Self::ChannelData {
                channel: channel.0,
                data: data.into(),
            },
            Event::ChannelEof { channel } => Self::ChannelEof(channel.0),
            Event::ChannelClose { channel } => Self::ChannelClose(channel.0),
            Event::GlobalRequest {
                name,
                want_reply,
                extra,
            } => Self::GlobalRequest {
                name: name.into(),
                want_reply,
                extra: extra.into(),
            },
            Event::GlobalReply { success } => Self::GlobalReply(success),
            Event::Disconnect { reason, message } => Self::Disconnect {
                reason,
                message: message.into(),
            },
            other => panic!("an event that the tests do not know: {other:?}"),
        }
    }
}

/// Both sides.
pub struct Dialogue {
    pub core: Core,
    pub client: Client,
    pub setup: Setup,
    /// What happened, in order; tests take it out.
    pub events: Vec<Seen>,
    pub error: Option<ProtocolError>,
    /// Answer cookies and signatures at once.
    pub answers_exchange: bool,
    /// Count channel data as consumed at once.
    pub consumes: bool,
    /// Most bytes that one read or write moves.
    pub chunk: usize,
    cookie: u8,
}

pub fn setup() -> Setup {
    let list = |names: &[&str]| names.iter().map(|name| (*name).into()).collect::<Vec<_>>();
    Setup {
        server_version: "SSH-2.0-agent_test".into(),
        kex: list(&[
            "mlkem768x25519-sha256",
            "curve25519-sha256",
            "curve25519-sha256@libssh.org",
            "ecdh-sha2-nistp256",
            "ecdh-sha2-nistp384",
        ]),
        host_keys: vec![HostKeyPublic {
            blob: "the host key".into(),
            algorithms: list(&["ssh-ed25519"]),
        }],
        ciphers: list(&[
            "chacha20-poly1305@openssh.com",
            "aes128-gcm@openssh.com",
            "aes256-gcm@openssh.com",
            "aes128-ctr",
            "aes192-ctr",
            "aes256-ctr",
        ]),
        macs: list(&[
            "hmac-sha2-256-etm@openssh.com",
            "hmac-sha2-512-etm@openssh.com",
            "hmac-sha2-256",
            "hmac-sha2-512",
        ]),
        compression: true,
        signature_algorithms: list(&["ssh-ed25519", "rsa-sha2-256"]),
        rekey_bytes: 0,
        rekey_s: 0,
        max_channels: 8,
    }
}

impl Dialogue {
    pub fn new(habits: Habits) -> Self {
        Self::with(setup(), habits)
    }

    pub fn with(setup: Setup, habits: Habits) -> Self {
        let core = Core::new(&setup, [7; 16], Random::system());
        Self {
            core,
            client: Client::new(habits),
            setup,
            events: Vec::new(),
            error: None,
            answers_exchange: true,
            consumes: true,
            chunk: usize::MAX,
            cookie: 0,
        }
    }

    /// A dialogue whose client has its keys.
    pub fn keyed(habits: Habits) -> Self {
        let mut dialogue = Self::new(habits);
        dialogue.run();
        assert_eq!(dialogue.error, None);
        assert!(dialogue.events.contains(&Seen::KeysChanged { first: true }));
        dialogue.events.clear();
        dialogue
    }

    /// A dialogue in which the service was accepted.
    pub fn in_auth(habits: Habits) -> Self {
        let mut dialogue = Self::keyed(habits);
        dialogue.client.send(&service_request(b"ssh-userauth"));
        dialogue.run();
        assert_eq!(dialogue.error, None);
        dialogue.forget();
        dialogue
    }

    /// A dialogue whose client is logged in.
    pub fn open(habits: Habits) -> Self {
        Self::open_with(setup(), habits)
    }

    pub fn open_with(setup: Setup, habits: Habits) -> Self {
        let mut dialogue = Self::with(setup, habits);
        dialogue.run();
        dialogue.client.send(&service_request(b"ssh-userauth"));
        dialogue.client.send(&auth_request());
        dialogue.run();
        dialogue.core.auth_success();
        dialogue.run();
        assert_eq!(dialogue.error, None);
        assert_eq!(
            dialogue.client.numbers.last(),
            Some(&message::USERAUTH_SUCCESS)
        );
        dialogue.forget();
        dialogue
    }

    /// A dialogue with one confirmed channel: 0 on the server's side, 100 on the client's.
    pub fn with_channel(habits: Habits) -> Self {
        let mut dialogue = Self::open(habits);
        dialogue.open_channel(100);
        dialogue
    }

    pub fn open_channel(&mut self, sender: u32) -> ChannelId {
        self.client.send(&channel_open(sender, 1 << 21, 32_768));
        self.run();
        let Some(Seen::ChannelOpen { channel, .. }) = self.events.pop() else {
            panic!("no channel open: {:?} {:?}", self.events, self.error);
        };
        self.core.open_confirm(ChannelId(channel), 1 << 21, 32_768);
        self.run();
        assert_eq!(
            self.client.numbers.last(),
            Some(&message::CHANNEL_OPEN_CONFIRMATION)
        );
        self.forget();
        ChannelId(channel)
    }

    /// Forgets what was seen so far, on both sides.
    pub fn forget(&mut self) {
        self.events.clear();
        self.client.inbox.clear();
        self.client.numbers.clear();
    }

    /// Moves bytes and takes events until nothing moves any more.
    pub fn run(&mut self) {
        while self.step() {}
    }

    /// Moves at most one chunk each way; false: nothing moved.
    pub fn step(&mut self) -> bool {
        let taken = self.take_events();
        let sent = self.flush();
        let wanted = self.core.wants_input();
        let room = self.core.inbox();
        assert_eq!(wanted, !room.is_empty());
        let len = room.len().min(self.client.wire.len()).min(self.chunk);
        room[..len].copy_from_slice(&self.client.wire[..len]);
        self.core.received(len);
        self.client.wire.drain(..len);
        let taken = self.take_events() || taken;
        let sent = self.flush() || sent;
        len > 0 || taken || sent
    }

    /// Writes the outbox to the client.
    pub fn flush(&mut self) -> bool {
        let outbox = self.core.outbox();
        let len = outbox.len().min(self.chunk);
        let bytes = outbox[..len].to_vec();
        self.core.sent(len);
        self.client.receive(&bytes);
        len > 0
    }

    /// Takes all events, answering what the dialogue answers by itself.
    pub fn take_events(&mut self) -> bool {
        let mut any = false;
        loop {
            let seen = match self.core.next_event() {
                Ok(None) => return any,
                Ok(Some(event)) => Seen::from(event),
                Err(error) => {
                    self.error = Some(error);
                    assert_eq!(
                        self.core.next_event().map(|_| ()),
                        Err(error),
                        "stays failed"
                    );
                    return any;
                }
            };
            any = true;
            match &seen {
                Seen::NeedCookie if self.answers_exchange => {
                    self.cookie += 1;
                    self.core.provide_cookie([self.cookie; 16]);
                }
                Seen::NeedSignature if self.answers_exchange => {
                    self.core.provide_signature(b"signature");
                }
                Seen::ChannelData { channel, data } if self.consumes => {
                    let len = u32::try_from(data.len()).unwrap();
                    self.core.consumed(ChannelId(*channel), len);
                }
                _ => {}
            }
            self.events.push(seen);
        }
    }

    /// Sends as much of `data` as the core takes; gives how much that was.
    pub fn send_data(&mut self, channel: ChannelId, data: &[u8]) -> usize {
        let mut sent = 0;
        while sent < data.len() {
            let room = self.core.send_room(channel);
            let Some(slot) = self.core.send_slot(channel, Stream::Data) else {
                assert_eq!(room, 0);
                break;
            };
            assert_eq!(slot.len(), room);
            let len = slot.len().min(data.len() - sent);
            slot[..len].copy_from_slice(&data[sent..sent + len]);
            self.core.send_commit(len);
            sent += len;
        }
        sent
    }

    /// The DISCONNECT reason that the client got, after everything moved.
    pub fn refused(&mut self) -> Option<u32> {
        self.run();
        self.client.disconnect().map(|(reason, _)| reason)
    }
}

pub fn service_request(name: &[u8]) -> Vec<u8> {
    let mut payload = vec![message::SERVICE_REQUEST];
    payload.put_string(name);
    payload
}

pub fn auth_request() -> Vec<u8> {
    let mut payload = vec![message::USERAUTH_REQUEST];
    payload.put_string(b"user");
    payload.put_string(b"ssh-connection");
    payload.put_string(b"none");
    payload
}

pub fn channel_open(sender: u32, window: u32, max_packet: u32) -> Vec<u8> {
    let mut payload = vec![message::CHANNEL_OPEN];
    payload.put_string(b"session");
    payload.put_u32(sender);
    payload.put_u32(window);
    payload.put_u32(max_packet);
    payload
}

pub fn channel_data(recipient: u32, data: &[u8]) -> Vec<u8> {
    let mut payload = vec![message::CHANNEL_DATA];
    payload.put_u32(recipient);
    payload.put_string(data);
    payload
}

pub fn channel_request(recipient: u32, kind: &[u8], want_reply: bool) -> Vec<u8> {
    let mut payload = vec![message::CHANNEL_REQUEST];
    payload.put_u32(recipient);
    payload.put_string(kind);
    payload.put_boolean(want_reply);
    payload
}

pub fn global_request(name: &[u8], want_reply: bool) -> Vec<u8> {
    let mut payload = vec![message::GLOBAL_REQUEST];
    payload.put_string(name);
    payload.put_boolean(want_reply);
    payload
}

/// A message with one number behind its own.
pub fn numbered(number: u8, field: u32) -> Vec<u8> {
    let mut payload = vec![number];
    payload.put_u32(field);
    payload
}
