//! The version exchange: RFC 4253 section 4.2 and what scanners send instead.

use agent::ssh::ProtocolError;

use crate::client::Habits;
use crate::dialogue::{Dialogue, Seen};

fn said(bytes: &[u8]) -> Dialogue {
    let mut dialogue = Dialogue::new(Habits {
        exchanges_keys: false,
        ..Habits::default()
    });
    dialogue.client.wire = bytes.to_vec();
    dialogue.run();
    dialogue
}

#[test]
fn the_servers_line_comes_first_and_kexinit_right_behind() {
    let dialogue = said(b"");
    assert_eq!(
        dialogue.client.server_version.as_deref(),
        Some(&b"SSH-2.0-agent_test"[..])
    );
    assert_eq!(dialogue.client.numbers, [20]);
    assert_eq!(dialogue.events, []);
}

#[test]
fn garbage_is_answered_with_a_plain_line_and_the_end() {
    for garbage in [
        &b"GET / HTTP/1.0\r\n\r\n"[..],
        b"\0\0\0\0\0\0",
        b"\r\n",
        b"SSH-1.5-old\r\n",
        b"ssh-2.0-lower\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
    ] {
        let dialogue = said(garbage);
        assert_eq!(
            dialogue.error,
            Some(ProtocolError::BadVersion),
            "{garbage:?}"
        );
        assert_eq!(
            dialogue.client.unparsed(),
            b"Invalid SSH identification string.\r\n"
        );
        assert_eq!(dialogue.events, []);
    }
}

#[test]
fn a_line_without_end_is_cut_off_and_costs_no_memory() {
    let mut dialogue = Dialogue::new(Habits::default());
    dialogue.client.wire = b"SSH-2.0-".to_vec();
    dialogue.client.wire.resize(300_000, b'a');
    dialogue.run();
    assert_eq!(dialogue.error, Some(ProtocolError::BadVersion));
    assert!(
        dialogue.client.wire.len() > 250_000,
        "the rest was not even read"
    );
    assert!(dialogue.core.buffer_bytes() < 64 * 1024);
}

#[test]
fn after_the_end_nothing_is_read() {
    let mut dialogue = said(b"junk\r\n");
    assert!(dialogue.core.inbox().is_empty());
}

#[test]
fn packets_may_follow_the_line_at_once() {
    let mut dialogue = Dialogue::new(Habits::default());
    dialogue.client.send_kexinit();
    dialogue.run();
    assert_eq!(
        dialogue.events[0],
        Seen::ClientVersion(b"SSH-2.0-test".to_vec())
    );
    assert_eq!(dialogue.error, None);
    assert!(dialogue.events.contains(&Seen::KeysChanged { first: true }));
}

#[test]
fn a_bare_line_feed_and_protocol_1_99_will_do() {
    for (line, version) in [
        (&b"SSH-2.0-x\n"[..], &b"SSH-2.0-x"[..]),
        (b"SSH-1.99-x\r\n", b"SSH-1.99-x"),
        (
            b"SSH-2.0-with comment and \xff\r\n",
            b"SSH-2.0-with comment and \xff",
        ),
    ] {
        let dialogue = said(line);
        assert_eq!(dialogue.events, [Seen::ClientVersion(version.to_vec())]);
        assert_eq!(dialogue.core.client_version(), version);
    }
}
