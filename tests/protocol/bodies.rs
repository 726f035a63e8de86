//! What the fuzz targets do with their input; also replayed over the checked-in corpora by
//! `cargo test`, so it must run on stable Rust and without a fuzzer.
//!
//! Input to the core targets is a script: a byte picks a step, the bytes behind it feed it. Steps are
//! what a client can send, framed and sealed as it should be (otherwise nothing would get past the
//! tag), and what a driver can answer, at any time.

use std::sync::OnceLock;

use agent::ssh::crypto::Random;
use agent::ssh::{ChannelId, Core, Stream, ident};

use crate::client::{Client, Habits, Snapshot};
use crate::dialogue::{self, Dialogue, Seen, setup};

/// More buffer memory than any dialogue may make the core hold.
const MEMORY_MAX_BYTES: usize = 2 << 20;

/// The client's identification line.
pub fn identification(input: &[u8]) {
    if let Ok(Some((whole, line))) = ident::parse(input) {
        assert!(whole <= input.len() && line.len() < whole);
        assert!(line.starts_with(b"SSH-"));
        assert!(!line.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')));
    }
    // What was refused stays refused, whatever follows.
    for len in 0..input.len().min(64) {
        if ident::parse(&input[..len]).is_err() {
            assert!(ident::parse(input).is_err());
        }
    }
}

/// Bytes without a valid tag on a protected connection: nothing of them may reach the driver.
pub fn packet(input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else {
        return;
    };
    let mut dialogue = authenticating(usize::from(*first));
    dialogue.client.wire = bytes.to_vec();
    dialogue.chunk = 1 + usize::from(*first);
    dialogue.run();
    assert_eq!(dialogue.events, []);
    check(&dialogue);
}

/// A script from the first byte on.
pub fn before_authentication(input: &[u8]) {
    play_before_authentication(input);
}

/// The same; gives what the driver saw.
pub fn play_before_authentication(input: &[u8]) -> Vec<Seen> {
    let mut dialogue = Dialogue::new(Habits {
        exchanges_keys: false,
        ..Habits::default()
    });
    dialogue.client.gives_up = true;
    run(dialogue, input)
}

/// A script on a connection whose client is logged in.
pub fn after_authentication(input: &[u8]) {
    play_after_authentication(input);
}

/// The same; gives what the driver saw.
pub fn play_after_authentication(input: &[u8]) -> Vec<Seen> {
    let Some((first, script)) = input.split_first() else {
        return Vec::new();
    };
    let mut dialogue = authenticating(usize::from(*first));
    dialogue.core.auth_success();
    dialogue.run();
    dialogue
        .client
        .send(&dialogue::channel_open(100, 1 << 20, 32_768));
    dialogue.run();
    dialogue.core.open_confirm(ChannelId(0), 1 << 20, 32_768);
    dialogue.client.gives_up = true;
    run(dialogue, script)
}

/// A logged-in client whose packets are compressed, or say so: pieces of a stream of its own making
/// and messages in a good one.
pub fn compressed(input: &[u8]) {
    play_compressed(input);
}

/// The same; gives what the driver saw.
pub fn play_compressed(input: &[u8]) -> Vec<Seen> {
    static READY: OnceLock<(Vec<u8>, Snapshot)> = OnceLock::new();
    let (frozen, snapshot) = READY.get_or_init(|| {
        make_ready(Habits {
            compression: vec!["zlib@openssh.com"],
            ..Habits::default()
        })
    });
    let mut dialogue = resumed(frozen, snapshot);
    dialogue.core.auth_success();
    dialogue.run();
    assert!(dialogue.client.deflater.is_some(), "compression has begun");
    dialogue.client.gives_up = true;
    let mut script = Script { rest: input };
    let mut all = Vec::new();
    while let Some(kind) = script.byte() {
        let piece = script.bytes();
        if kind % 2 == 0 {
            dialogue.client.send_now(piece);
        } else {
            let packet = dialogue.client.packet_as_is(piece);
            dialogue.client.wire.extend_from_slice(&packet);
        }
        dialogue.run();
        check(&dialogue);
        all.append(&mut dialogue.events);
        dialogue.forget();
        if dialogue.error.is_some() {
            break;
        }
    }
    all
}

/// State that a hostile process hands over, and what is said to it then.
pub fn hand_over(input: &[u8]) {
    if let Ok(mut core) = Core::thaw(input, &setup(), Random::system()) {
        core.auth_success();
        while let Ok(Some(_)) = core.next_event() {}
        core.rekey();
        while let Ok(Some(_)) = core.next_event() {}
        core.provide_cookie([0; 16]);
        core.disconnect(11, "over");
        assert!(core.buffer_bytes() < MEMORY_MAX_BYTES);
    }
}

const PROTECTIONS: [(&str, &str); 4] = [
    ("chacha20-poly1305@openssh.com", "hmac-sha2-256"),
    ("aes128-gcm@openssh.com", "hmac-sha2-256"),
    ("aes256-ctr", "hmac-sha2-512"),
    ("aes128-ctr", "hmac-sha2-256-etm@openssh.com"),
];

/// A dialogue with an unanswered authentication request. The key exchange was made once.
fn authenticating(choice: usize) -> Dialogue {
    static READY: OnceLock<Vec<(Vec<u8>, Snapshot)>> = OnceLock::new();
    let ready = READY.get_or_init(|| {
        let habits = |(cipher, mac)| Habits {
            ciphers: vec![cipher],
            macs: vec![mac],
            ..Habits::default()
        };
        PROTECTIONS.map(habits).map(make_ready).into()
    });
    let (frozen, snapshot) = &ready[choice % ready.len()];
    resumed(frozen, snapshot)
}

fn resumed(frozen: &[u8], snapshot: &Snapshot) -> Dialogue {
    let mut dialogue = Dialogue::new(Habits::default());
    dialogue.core = Core::thaw(frozen, &dialogue.setup, Random::system()).unwrap();
    dialogue.client = Client::resume(snapshot);
    dialogue
}

fn make_ready(habits: Habits) -> (Vec<u8>, Snapshot) {
    let mut dialogue = Dialogue::in_auth(habits);
    dialogue.client.send(&dialogue::auth_request());
    dialogue.run();
    let snapshot = dialogue.client.snapshot();
    (dialogue.core.freeze().unwrap(), snapshot)
}

/// Steps of a script.
pub mod step {
    pub const RAW: u8 = 0;
    pub const PAYLOAD: u8 = 1;
    pub const KEXINIT: u8 = 2;
    pub const PUBLIC: u8 = 3;
    pub const EXCHANGES: u8 = 4;
    pub const AUTH: u8 = 5;
    pub const OPEN: u8 = 6;
    pub const ANSWER: u8 = 7;
    pub const SEND: u8 = 8;
    pub const END: u8 = 9;
    pub const REKEY: u8 = 10;
    pub const RELEASE: u8 = 11;
    pub const HAND_OVER: u8 = 12;
    pub const COUNT: u8 = 13;
}

/// Takes a script apart.
struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// Two bytes of length, then as much of that as there is.
    fn bytes(&mut self) -> &'a [u8] {
        let len =
            usize::from(self.byte().unwrap_or(0)) << 8 | usize::from(self.byte().unwrap_or(0));
        let (bytes, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        bytes
    }
}

fn run(mut dialogue: Dialogue, input: &[u8]) -> Vec<Seen> {
    let mut all = Vec::new();
    let mut script = Script { rest: input };
    // Without an answer of success there is no channel, whatever the client says.
    let mut let_in = dialogue.core.send_room(ChannelId(0)) > 0;
    while let Some(step) = script.byte() {
        let_in |= step % step::COUNT == step::AUTH;
        dialogue = play(dialogue, step % step::COUNT, &mut script);
        dialogue.run();
        check(&dialogue);
        let opened = dialogue
            .events
            .iter()
            .any(|seen| matches!(seen, Seen::ChannelOpen { .. }));
        assert!(let_in || !opened);
        all.append(&mut dialogue.events);
        dialogue.forget();
        if dialogue.error.is_some() {
            break;
        }
    }
    dialogue.core.disconnect(11, "over");
    dialogue.core.release_buffers();
    all
}

fn play(mut dialogue: Dialogue, step: u8, script: &mut Script<'_>) -> Dialogue {
    let Dialogue { core, client, .. } = &mut dialogue;
    let channel = |script: &mut Script<'_>| ChannelId(u32::from(script.byte().unwrap_or(0) % 4));
    match step {
        step::RAW => client.wire.extend_from_slice(script.bytes()),
        step::PAYLOAD => client.send_now(script.bytes()),
        step::KEXINIT => client.send_kexinit(),
        step::PUBLIC => client.send_public(),
        step::EXCHANGES => client.habits.exchanges_keys ^= true,
        step::AUTH => match script.byte().unwrap_or(0) % 4 {
            0 => core.auth_failure(&[b"publickey"], false),
            1 => core.auth_public_key_ok(b"ssh-ed25519", script.bytes()),
            2 => core.auth_banner(script.bytes()),
            _ => core.auth_success(),
        },
        step::OPEN => match script.byte().unwrap_or(0) {
            0 => core.open_fail(channel(script), 1, "no"),
            small @ 1..16 => core.open_confirm(channel(script), u32::from(small), 3),
            _ => core.open_confirm(channel(script), 1 << 20, 32_768),
        },
        step::ANSWER => match script.byte().unwrap_or(0) % 4 {
            0 => core.reply(channel(script), true),
            1 => core.global_reply(true, script.bytes()),
            2 => core.consumed(channel(script), u32::MAX),
            _ => core.send_global_request(b"keepalive@openssh.com", true, b""),
        },
        step::SEND => {
            let to = channel(script);
            let data = script.bytes();
            let room = core.send_room(to);
            if let Some(slot) = core.send_slot(to, Stream::Stderr) {
                assert_eq!(slot.len(), room);
                let len = room.min(data.len());
                slot[..len].copy_from_slice(&data[..len]);
                core.send_commit(len);
            }
        }
        step::END => match script.byte().unwrap_or(0) % 3 {
            0 => core.send_eof(channel(script)),
            1 => core.send_close(channel(script)),
            _ => core.send_request(channel(script), b"exit-status", false, &[0; 4]),
        },
        step::REKEY => core.rekey(),
        step::RELEASE => core.release_buffers(),
        _ => return replace_core(dialogue),
    }
    dialogue
}

/// Hands the connection over where it can be.
fn replace_core(mut dialogue: Dialogue) -> Dialogue {
    let other = Core::new(&dialogue.setup, [0; 16], Random::system());
    match std::mem::replace(&mut dialogue.core, other).freeze() {
        Ok(frozen) => {
            let core = Core::thaw(&frozen, &dialogue.setup, Random::system());
            dialogue.core = core.expect("what was frozen can be thawed");
        }
        Err(error) => dialogue.error = Some(error),
    }
    dialogue
}

fn check(dialogue: &Dialogue) {
    let memory = dialogue.core.buffer_bytes();
    assert!(memory < MEMORY_MAX_BYTES, "{memory} bytes held");
}
