//! The fuzz targets on stable Rust: over the checked-in corpora, and over mutations of them that are
//! the same in every run.

use std::path::PathBuf;

use agent::ssh::message;
use agent::ssh::wire::Writer;

use crate::bodies::{self, step};
use crate::client::{Client, Habits};
use crate::dialogue::{
    Dialogue, Seen, auth_request, channel_data, channel_open, channel_request, global_request,
    numbered, service_request,
};

type Body = fn(&[u8]);

/// Fuzz targets by name; each has a directory of seeds under `fuzz/corpus`.
const TARGETS: [(&str, Body); 6] = [
    ("ident", bodies::identification),
    ("packet", bodies::packet),
    ("core_preauth", bodies::before_authentication),
    ("core_postauth", bodies::after_authentication),
    ("core_compressed", bodies::compressed),
    ("core_thaw", bodies::hand_over),
];

fn directory(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target)
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(directory(target))
        .expect("each target has a corpus")
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{target} has seeds");
    files
        .into_iter()
        .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
        .collect()
}

#[test]
fn corpora_replay() {
    for (target, body) in TARGETS {
        for (path, input) in corpus(target) {
            eprintln!("{}", path.display());
            body(&input);
        }
    }
}

/// With AGENT_WRITE_CORPORA set, writes the seeds that this file makes; without, checks them.
#[test]
fn corpora_hold_the_seeds() {
    let write = std::env::var_os("AGENT_WRITE_CORPORA").is_some();
    for (target, name, bytes) in seeds() {
        let path = directory(target).join(name);
        if write {
            std::fs::create_dir_all(directory(target)).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(
            std::fs::read(&path).expect("a checked-in seed"),
            bytes,
            "{}",
            path.display()
        );
    }
}

#[test]
fn mutations_end_in_errors_not_in_panics() {
    let rounds = std::env::var("AGENT_MUTATIONS").map_or(400, |text| text.parse().unwrap());
    for (target, body) in TARGETS {
        let corpus = corpus(target);
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        for _ in 0..rounds {
            let mut input = corpus[dice.below(corpus.len())].1.clone();
            let other = &corpus[dice.below(corpus.len())].1;
            for _ in 0..=dice.below(4) {
                mutate(&mut input, other, &mut dice);
            }
            body(&input);
        }
    }
}

/// xorshift64: the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn mutate(input: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.below(input.len() + 1);
    let len = dice.below(20);
    match dice.below(7) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = dice.next() as u8;
            }
        }
        2 => {
            let end = (at + len).min(input.len());
            input.drain(at..end);
        }
        3 => {
            let end = (at + len).min(input.len());
            let copy = input[at..end].to_vec();
            input.splice(at..at, copy);
        }
        4 => {
            let from = dice.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        5 => {
            let values: [u32; 5] = [0, 1, u32::MAX, 0x7fff_ffff, 0x8000_0000];
            let value = values[dice.below(values.len())].to_be_bytes();
            let end = (at + 4).min(input.len());
            input.splice(at..end, value);
        }
        _ => input.truncate(at),
    }
}

/// Puts a script together.
#[derive(Default)]
struct Script(Vec<u8>);

impl Script {
    fn step(mut self, step: u8, fields: &[u8]) -> Self {
        self.0.push(step);
        self.0.extend_from_slice(fields);
        self
    }

    fn bytes(self, step: u8, fields: &[u8], bytes: &[u8]) -> Self {
        let mut script = self.step(step, fields);
        script
            .0
            .extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        script.0.extend_from_slice(bytes);
        script
    }

    fn payload(self, payload: &[u8]) -> Self {
        self.bytes(step::PAYLOAD, &[], payload)
    }
}

fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let kexinit = Client::new(Habits::default()).kexinit();
    let mut adjust = numbered(message::CHANNEL_WINDOW_ADJUST, 0);
    adjust.put_u32(100_000);
    let mut extended = numbered(message::CHANNEL_EXTENDED_DATA, 0);
    extended.put_u32(1);
    extended.put_string(b"stderr");
    let mut ping = vec![message::PING];
    ping.put_string(b"ping");
    let mut public = vec![message::KEX_ECDH_INIT];
    public.put_string(&[9; 32]);

    let login = || {
        Script::default()
            .step(step::KEXINIT, &[])
            .step(step::EXCHANGES, &[])
            .step(step::PUBLIC, &[])
    };
    let exchange = Script::default()
        .payload(&kexinit)
        .payload(&public)
        .payload(&[message::NEWKEYS])
        .0;
    let whole = Script::default()
        .step(step::EXCHANGES, &[])
        .payload(&service_request(b"ssh-userauth"))
        .payload(&auth_request())
        .bytes(step::AUTH, &[2], b"banner")
        .step(step::AUTH, &[0])
        .payload(&auth_request())
        .step(step::HAND_OVER, &[])
        .step(step::AUTH, &[3])
        .payload(&channel_open(5, 1000, 1000))
        .0;
    let session = Script(vec![0])
        .payload(&channel_request(0, b"exec", true))
        .step(step::ANSWER, &[0, 0])
        .payload(&channel_data(0, b"input"))
        .step(step::ANSWER, &[2, 0])
        .bytes(step::SEND, &[0], b"output")
        .payload(&adjust)
        .payload(&extended)
        .payload(&ping)
        .payload(&numbered(message::CHANNEL_EOF, 0))
        .step(step::END, &[0, 0])
        .step(step::END, &[2, 0])
        .step(step::END, &[1, 0])
        .payload(&numbered(message::CHANNEL_CLOSE, 0))
        .0;
    let rekeys = Script(vec![1])
        .step(step::REKEY, &[])
        .payload(&channel_data(0, b"in flight"))
        .step(step::KEXINIT, &[])
        .payload(&channel_data(0, b"behind"))
        .step(step::RELEASE, &[])
        .0;
    let requests = Script(vec![2])
        .payload(&global_request(b"tcpip-forward", true))
        .payload(&global_request(b"keepalive@openssh.com", true))
        .bytes(step::ANSWER, &[1], b"")
        .step(step::ANSWER, &[3])
        .payload(&[message::REQUEST_FAILURE])
        .payload(&[119, 1, 2, 3])
        .payload(&channel_open(6, 0, 0))
        .step(step::OPEN, &[15, 1])
        .payload(&channel_data(1, b"abc"))
        .payload(&numbered(message::DISCONNECT, 11))
        .0;
    vec![
        (
            "ident",
            "openssh",
            b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".to_vec(),
        ),
        ("ident", "both", b"SSH-1.99-x\nrest".to_vec()),
        ("ident", "http", b"GET / HTTP/1.0\r\n\r\n".to_vec()),
        ("packet", "zeros", vec![0; 64]),
        (
            "packet",
            "length",
            [&[2, 0, 0, 0, 28][..], &[7; 64]].concat(),
        ),
        ("core_preauth", "exchange", exchange),
        (
            "core_preauth",
            "login",
            login().payload(&service_request(b"ssh-userauth")).0,
        ),
        ("core_preauth", "whole", whole),
        (
            "core_preauth",
            "raw",
            Script::default()
                .bytes(step::RAW, &[], b"\0\0\0\x0c\x0a\x02")
                .0,
        ),
        ("core_postauth", "session", session),
        ("core_postauth", "rekeys", rekeys),
        ("core_postauth", "requests", requests),
        ("core_compressed", "session", compressed_session()),
        ("core_compressed", "bomb", compressed_bomb()),
        ("core_thaw", "short", vec![0; 20]),
    ]
}

/// Messages in a good stream, then garbage.
fn compressed_session() -> Vec<u8> {
    Script::default()
        .bytes(0, &[], &channel_open(100, 1 << 20, 32_768))
        .bytes(0, &[], &global_request(b"keepalive@openssh.com", true))
        .bytes(1, &[], b"\xff\xff no stream")
        .0
}

/// A stream that swells beyond what a packet may have.
fn compressed_bomb() -> Vec<u8> {
    let bomb = miniz_oxide::deflate::compress_to_vec_zlib(&vec![0; 1 << 20], 6);
    Script::default().bytes(1, &[], &bomb).0
}

/// A corpus that stops at the door teaches a fuzzer nothing.
#[test]
fn the_seeds_get_where_they_should() {
    let seed = |target: &str, name: &str| std::fs::read(directory(target).join(name)).unwrap();
    let seen = bodies::play_before_authentication(&seed("core_preauth", "whole"));
    assert!(
        matches!(seen.last(), Some(Seen::ChannelOpen { .. })),
        "{seen:?}"
    );
    let seen = bodies::play_after_authentication(&seed("core_postauth", "session"));
    assert_eq!(seen.last(), Some(&Seen::ChannelClose(0)), "{seen:?}");
    let seen = bodies::play_compressed(&seed("core_compressed", "session"));
    assert!(
        matches!(
            seen.as_slice(),
            [Seen::ChannelOpen { .. }, Seen::GlobalRequest { .. }]
        ),
        "{seen:?}"
    );
    let seen = bodies::play_after_authentication(&seed("core_postauth", "rekeys"));
    assert!(
        seen.contains(&Seen::KeysChanged { first: false }),
        "{seen:?}"
    );
    let seen = bodies::play_after_authentication(&seed("core_postauth", "requests"));
    assert!(
        matches!(seen.last(), Some(Seen::Disconnect { .. })),
        "{seen:?}"
    );
}

/// A state with real keys differs in every run, so the seed for it is made here and not checked in.
#[test]
fn mutations_of_a_frozen_connection_are_errors_or_connections() {
    let mut dialogue = Dialogue::in_auth(Habits::default());
    dialogue.client.send(&auth_request());
    dialogue.run();
    let frozen = dialogue.core.freeze().unwrap();
    let mut dice = Dice(1);
    for _ in 0..2000 {
        let mut input = frozen.clone();
        for _ in 0..=dice.below(3) {
            mutate(&mut input, &frozen, &mut dice);
        }
        bodies::hand_over(&input);
    }
}
