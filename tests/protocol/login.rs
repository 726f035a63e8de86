//! The straight way: from the first byte to data in both directions, with every cipher.

use agent::ssh::wire::{Reader, Writer};
use agent::ssh::{ChannelId, Stream, message};

use crate::client::Habits;
use crate::dialogue::{
    Dialogue, Seen, auth_request, channel_data, channel_open, channel_request, service_request,
};

pub const PROTECTIONS: [(&str, &str); 13] = [
    ("chacha20-poly1305@openssh.com", "hmac-sha2-256"),
    ("aes128-gcm@openssh.com", "hmac-sha2-256"),
    ("aes256-gcm@openssh.com", "hmac-sha2-256"),
    ("aes128-ctr", "hmac-sha2-256"),
    ("aes192-ctr", "hmac-sha2-256"),
    ("aes256-ctr", "hmac-sha2-256"),
    ("aes128-ctr", "hmac-sha2-512"),
    ("aes256-ctr", "hmac-sha2-512"),
    ("aes128-ctr", "hmac-sha2-256-etm@openssh.com"),
    ("aes192-ctr", "hmac-sha2-256-etm@openssh.com"),
    ("aes256-ctr", "hmac-sha2-256-etm@openssh.com"),
    ("aes128-ctr", "hmac-sha2-512-etm@openssh.com"),
    ("aes256-ctr", "hmac-sha2-512-etm@openssh.com"),
];

pub fn protected(cipher: &'static str, mac: &'static str) -> Habits {
    Habits {
        ciphers: vec![cipher],
        macs: vec![mac],
        ..Habits::default()
    }
}

fn whole_login(habits: Habits, chunk: usize) {
    let mut dialogue = Dialogue::new(habits);
    dialogue.chunk = chunk;
    dialogue.run();
    assert_eq!(dialogue.error, None);
    assert_eq!(
        dialogue.events,
        [
            Seen::ClientVersion(b"SSH-2.0-test".to_vec()),
            Seen::NeedSignature,
            Seen::KeysChanged { first: true },
        ]
    );
    assert_eq!(dialogue.core.session_id(), dialogue.client.session_id);
    dialogue.forget();

    dialogue.client.send(&service_request(b"ssh-userauth"));
    dialogue.client.send(&auth_request());
    dialogue.run();
    assert_eq!(
        dialogue.events,
        [Seen::AuthRequest(auth_request()[1..].to_vec())]
    );
    assert!(dialogue.core.inbox().is_empty(), "one request at a time");
    dialogue.core.auth_banner(b"hello\r\n");
    dialogue
        .core
        .auth_failure(&[b"publickey", b"password"], false);
    dialogue.client.send(&auth_request());
    dialogue.run();
    dialogue.core.auth_public_key_ok(b"ssh-ed25519", b"blob");
    dialogue.client.send(&auth_request());
    dialogue.run();
    dialogue.core.auth_success();
    dialogue.run();
    let numbers = [
        message::SERVICE_ACCEPT,
        message::USERAUTH_BANNER,
        message::USERAUTH_FAILURE,
        message::USERAUTH_PK_OK,
        message::USERAUTH_SUCCESS,
    ];
    assert_eq!(dialogue.client.numbers, numbers);
    dialogue.forget();

    session(&mut dialogue);
}

/// Opens a channel, talks both ways, closes it.
fn session(dialogue: &mut Dialogue) {
    dialogue.client.send(&channel_open(100, 1 << 21, 32_768));
    dialogue.run();
    let open = Seen::ChannelOpen {
        channel: 0,
        kind: b"session".to_vec(),
        extra: Vec::new(),
    };
    assert_eq!(dialogue.events, [open]);
    dialogue.core.open_confirm(ChannelId(0), 1 << 21, 32_768);
    dialogue.client.send(&channel_request(0, b"exec", true));
    dialogue.client.send(&channel_data(0, b"input"));
    dialogue.run();
    dialogue.core.reply(ChannelId(0), true);
    let slot = dialogue
        .core
        .send_slot(ChannelId(0), Stream::Stderr)
        .unwrap();
    slot[..6].copy_from_slice(b"errors");
    dialogue.core.send_commit(6);
    assert_eq!(dialogue.send_data(ChannelId(0), b"output"), 6);
    dialogue.core.send_eof(ChannelId(0));
    dialogue
        .core
        .send_request(ChannelId(0), b"exit-status", false, &[0, 0, 0, 0]);
    dialogue.core.send_close(ChannelId(0));
    dialogue.run();
    let data = Seen::ChannelData {
        channel: 0,
        data: b"input".to_vec(),
    };
    assert_eq!(dialogue.events[2..], [data]);
    assert_eq!(dialogue.client.numbers, [91, 99, 95, 94, 96, 98, 97]);
    let stderr = &dialogue.client.inbox[2];
    let mut reader = Reader::new(&stderr[1..]);
    assert_eq!(reader.u32("channel"), Ok(100));
    assert_eq!(reader.u32("code"), Ok(1));
    assert_eq!(reader.string("data"), Ok(&b"errors"[..]));
    dialogue.forget();
    dialogue
        .client
        .send(&crate::dialogue::numbered(message::CHANNEL_CLOSE, 0));
    dialogue.run();
    assert_eq!(dialogue.events, [Seen::ChannelClose(0)]);
    assert_eq!(dialogue.error, None);
}

#[test]
fn every_cipher_and_mac_carries_a_login() {
    for (cipher, mac) in PROTECTIONS {
        whole_login(protected(cipher, mac), usize::MAX);
    }
}

#[test]
fn a_login_arrives_byte_by_byte() {
    for (cipher, mac) in [
        PROTECTIONS[0],
        PROTECTIONS[1],
        PROTECTIONS[3],
        PROTECTIONS[8],
    ] {
        whole_login(protected(cipher, mac), 1);
    }
}

#[test]
fn a_client_without_markers_is_served() {
    whole_login(
        Habits {
            strict: false,
            ext_info: false,
            ..Habits::default()
        },
        usize::MAX,
    );
}

#[test]
fn ext_info_is_the_first_packet_behind_newkeys() {
    let dialogue = Dialogue::keyed(Habits::default());
    assert_eq!(
        dialogue.client.numbers,
        [
            message::KEXINIT,
            message::KEX_ECDH_REPLY,
            message::NEWKEYS,
            message::EXT_INFO
        ]
    );
    let mut expected = vec![message::EXT_INFO];
    expected.put_u32(4);
    expected.put_string(b"server-sig-algs");
    expected.put_string(b"ssh-ed25519,rsa-sha2-256");
    expected.put_string(b"publickey-hostbound@openssh.com");
    expected.put_string(b"0");
    expected.put_string(b"ping@openssh.com");
    expected.put_string(b"0");
    expected.put_string(b"agent-forward");
    expected.put_string(b"0");
    assert_eq!(dialogue.client.inbox.back(), Some(&expected));
}

#[test]
fn ext_info_goes_to_clients_that_ask_for_it_only() {
    let dialogue = Dialogue::keyed(Habits {
        ext_info: false,
        ..Habits::default()
    });
    assert!(!dialogue.client.numbers.contains(&message::EXT_INFO));
}

#[test]
fn algorithms_are_told_in_words() {
    let dialogue = Dialogue::keyed(protected("aes128-ctr", "hmac-sha2-256"));
    assert_eq!(
        dialogue.core.algorithms(),
        "curve25519-sha256 ssh-ed25519 aes128-ctr hmac-sha2-256"
    );
}

#[test]
fn every_curve_carries_a_login_and_a_re_exchange() {
    for kex in [
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384",
    ] {
        let mut dialogue = Dialogue::open(Habits {
            kex: vec![kex],
            ..Habits::default()
        });
        dialogue.core.rekey();
        dialogue.run();
        assert_eq!(dialogue.error, None, "{kex}");
        assert_eq!(dialogue.client.exchanges, 2);
        dialogue.forget();
        session(&mut dialogue);
    }
}

/// Debug output ends up in logs: it must not hold what passes through.
#[test]
fn debug_output_holds_no_content() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    dialogue.client.send(&channel_data(0, b"SECRET-in"));
    dialogue
        .client
        .send(&channel_request(0, b"SECRET-request", true));
    assert_eq!(dialogue.send_data(ChannelId(0), b"SECRET-out"), 10);
    dialogue.core.rekey();
    let wire = std::mem::take(&mut dialogue.client.wire);
    dialogue.core.inbox()[..wire.len()].copy_from_slice(&wire);
    dialogue.core.received(wire.len());
    dialogue.take_events();
    dialogue
        .core
        .send_request(ChannelId(0), b"SECRET-held", false, b"");
    let list = |bytes: &[u8]| format!("{bytes:?}").trim_matches(['[', ']']).to_owned();
    let debug = format!("{:?}", dialogue.core);
    assert!(
        !debug.contains("SECRET") && !debug.contains(&list(b"SECRET")),
        "{debug}"
    );
    let event = agent::ssh::Event::ChannelData {
        channel: ChannelId(3),
        data: b"SECRET",
    };
    assert_eq!(format!("{event:?}"), "ChannelData [channel 3, 6 bytes]");
}
