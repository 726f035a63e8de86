//! New keys on a running connection: from either side, from both at once, under load.

use agent::ssh::wire::{Reader, Writer};
use agent::ssh::{ChannelId, ProtocolError, message};

use crate::client::Habits;
use crate::dialogue::{
    Dialogue, Seen, channel_data, channel_open, channel_request, global_request, numbered, setup,
};
use crate::login::{PROTECTIONS, protected};

const FIRST: ChannelId = ChannelId(0);

fn keys_changed(dialogue: &Dialogue) -> usize {
    dialogue
        .events
        .iter()
        .filter(|seen| **seen == Seen::KeysChanged { first: false })
        .count()
}

/// The connection works: a request is answered.
fn check_alive(dialogue: &mut Dialogue) {
    dialogue.forget();
    dialogue.client.send(&global_request(b"alive", true));
    dialogue.run();
    dialogue.core.global_reply(true, b"");
    dialogue.run();
    assert_eq!(dialogue.error, None);
    assert_eq!(dialogue.client.numbers, [message::REQUEST_SUCCESS]);
}

#[test]
fn the_client_starts() {
    for (cipher, mac) in PROTECTIONS {
        for strict in [true, false] {
            let mut dialogue = Dialogue::with_channel(Habits {
                strict,
                ..protected(cipher, mac)
            });
            let session_id = dialogue.core.session_id().to_vec();
            for _ in 0..3 {
                dialogue.client.send_kexinit();
                dialogue.run();
                assert_eq!(dialogue.error, None);
            }
            assert_eq!(keys_changed(&dialogue), 3);
            assert_eq!(dialogue.core.session_id(), session_id, "it never changes");
            check_alive(&mut dialogue);
        }
    }
}

#[test]
fn the_server_starts() {
    for (cipher, mac) in PROTECTIONS {
        let mut dialogue = Dialogue::with_channel(protected(cipher, mac));
        for round in 1..4 {
            dialogue.core.rekey();
            dialogue.run();
            assert_eq!(dialogue.error, None);
            assert_eq!(keys_changed(&dialogue), round);
        }
        assert!(
            !dialogue.client.numbers.contains(&message::EXT_INFO),
            "only behind the first"
        );
        check_alive(&mut dialogue);
    }
}

#[test]
fn both_start_at_once() {
    for (cipher, mac) in PROTECTIONS {
        let mut dialogue = Dialogue::with_channel(protected(cipher, mac));
        dialogue.core.rekey();
        dialogue.client.send_kexinit();
        dialogue.run();
        assert_eq!(dialogue.error, None);
        assert_eq!(keys_changed(&dialogue), 1);
        check_alive(&mut dialogue);
    }
}

/// The two KEXINIT cross: ours went out before the client's was read.
#[test]
fn the_two_kexinit_cross() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    dialogue.core.rekey();
    dialogue.take_events();
    assert!(dialogue.core.is_changing_keys());
    dialogue.client.send_kexinit();
    dialogue.run();
    assert_eq!(dialogue.error, None);
    assert_eq!(keys_changed(&dialogue), 1);
    assert!(!dialogue.core.is_changing_keys());
    check_alive(&mut dialogue);
}

/// The client's KEXINIT comes while the cookie for ours is on its way.
#[test]
fn the_clients_kexinit_overtakes_our_cookie() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    dialogue.answers_exchange = false;
    dialogue.core.rekey();
    dialogue.run();
    assert_eq!(dialogue.events, [Seen::NeedCookie]);
    assert!(!dialogue.core.is_changing_keys(), "nothing was sent yet");
    assert_eq!(dialogue.send_data(FIRST, b"still"), 5);
    dialogue.client.send_kexinit();
    dialogue.run();
    assert_eq!(dialogue.events, [Seen::NeedCookie], "one cookie is enough");
    assert!(dialogue.core.inbox().is_empty());
    dialogue.answers_exchange = true;
    dialogue.core.provide_cookie([9; 16]);
    dialogue.run();
    assert_eq!(dialogue.error, None);
    assert_eq!(keys_changed(&dialogue), 1);
    check_alive(&mut dialogue);
}

/// Until the client saw our KEXINIT it may send anything; the answers wait for the new keys.
#[test]
fn what_was_under_way_is_handled_and_answered_behind_the_new_keys() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    dialogue.core.rekey();
    dialogue.take_events();
    dialogue.client.send(&channel_data(0, b"data"));
    dialogue.client.send(&channel_request(0, b"exec", true));
    dialogue.client.send(&global_request(b"x", true));
    dialogue.client.send(&channel_open(300, 1000, 1000));
    let mut ping = vec![message::PING];
    ping.put_string(b"ping");
    dialogue.client.send(&ping);
    dialogue.client.send(&[119]);
    // The core reads all that before the client reads anything.
    let wire = std::mem::take(&mut dialogue.client.wire);
    dialogue.core.inbox()[..wire.len()].copy_from_slice(&wire);
    dialogue.core.received(wire.len());
    dialogue.take_events();
    assert_eq!(dialogue.events.len(), 5, "{:?}", dialogue.events);
    dialogue.core.reply(FIRST, true);
    dialogue.core.global_reply(false, b"");
    dialogue.core.open_confirm(ChannelId(1), 1000, 1000);
    dialogue.core.send_eof(FIRST);
    dialogue.core.send_close(FIRST);
    assert_eq!(dialogue.core.send_room(FIRST), 0);
    dialogue.run();
    assert_eq!(dialogue.error, None);
    let expected = [
        message::KEXINIT,
        message::UNIMPLEMENTED, // May be sent at any time.
        message::KEX_ECDH_REPLY,
        message::NEWKEYS,
        message::PONG,
        message::CHANNEL_SUCCESS,
        message::REQUEST_FAILURE,
        message::CHANNEL_OPEN_CONFIRMATION,
        message::CHANNEL_EOF,
        message::CHANNEL_CLOSE,
    ];
    assert_eq!(dialogue.client.numbers, expected);
}

/// As OpenSSH 10.5: once the client's own KEXINIT came, only the exchange may follow.
#[test]
fn what_follows_the_clients_kexinit_ends_the_connection() {
    let messages = [
        channel_data(0, b"x"),
        global_request(b"x", true),
        channel_open(5, 1, 1),
        numbered(message::CHANNEL_CLOSE, 0),
        vec![message::PING, 0, 0, 0, 0],
        vec![message::SERVICE_REQUEST],
        vec![message::USERAUTH_REQUEST],
    ];
    for payload in messages {
        for ours_first in [false, true] {
            let mut dialogue = Dialogue::with_channel(Habits::default());
            dialogue.client.habits.exchanges_keys = false;
            if ours_first {
                dialogue.core.rekey();
                dialogue.run();
            }
            dialogue.client.send_kexinit();
            dialogue.client.send_now(&payload);
            dialogue.run();
            assert!(
                matches!(dialogue.error, Some(ProtocolError::Unexpected { .. })),
                "{payload:?}"
            );
        }
    }
}

#[test]
fn a_second_kexinit_in_a_re_exchange_ends_the_connection() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    dialogue.client.habits.exchanges_keys = false;
    dialogue.client.send_kexinit();
    dialogue.client.send_kexinit();
    dialogue.run();
    assert!(matches!(
        dialogue.error,
        Some(ProtocolError::Unexpected { number: 20, .. })
    ));
}

/// A bug of dropbear before 2026.92: requests while the server rekeys must not pile up.
#[test]
fn a_flood_while_answers_are_held_back_is_bounded() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    dialogue.client.habits.exchanges_keys = false;
    dialogue.core.rekey();
    dialogue.run();
    let mut ping = vec![message::PING];
    ping.put_string(&[0; 1000]);
    for _ in 0..1000 {
        dialogue.client.send_now(&ping);
        dialogue.run();
        if dialogue.error.is_some() {
            break;
        }
    }
    let what = "messages during a key exchange";
    assert_eq!(dialogue.error, Some(ProtocolError::TooMuchPending { what }));
    assert!(dialogue.core.buffer_bytes() < 512 * 1024);
}

#[test]
fn windows_open_again_behind_the_new_keys() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    dialogue.core.rekey();
    dialogue.take_events();
    for _ in 0..8 {
        dialogue.client.send(&channel_data(0, &[b'x'; 32_768]));
    }
    while dialogue.client.wire.len() > 100 {
        let room = dialogue.core.inbox();
        let len = room.len().min(dialogue.client.wire.len());
        room[..len].copy_from_slice(&dialogue.client.wire[..len]);
        dialogue.core.received(len);
        dialogue.client.wire.drain(..len);
        dialogue.take_events();
    }
    dialogue.run();
    assert_eq!(dialogue.error, None);
    let adjust = dialogue
        .client
        .inbox
        .iter()
        .find(|payload| payload[0] == 93)
        .unwrap();
    let mut reader = Reader::new(&adjust[1..]);
    assert_eq!(
        (reader.u32("channel"), reader.u32("bytes")),
        (Ok(100), Ok(8 * 32_768))
    );
}

#[test]
fn the_limit_starts_an_exchange_by_itself() {
    for outgoing in [false, true] {
        let mut setup = setup();
        setup.rekey_bytes = 100_000;
        let mut dialogue = Dialogue::open_with(setup, Habits::default());
        dialogue.open_channel(100);
        let mut moved = 0;
        while moved < 1_000_000 {
            if outgoing {
                moved += dialogue.send_data(FIRST, &[b'x'; 10_000]);
            } else {
                dialogue.client.send(&channel_data(0, &[b'x'; 10_000]));
                moved += 10_000;
            }
            dialogue.run();
            let mut adjust = numbered(message::CHANNEL_WINDOW_ADJUST, 0);
            adjust.put_u32(if outgoing { 10_000 } else { 0 });
            dialogue.client.send(&adjust);
            dialogue.run();
        }
        assert_eq!(dialogue.error, None);
        assert!(
            (8..=11).contains(&keys_changed(&dialogue)),
            "{}",
            keys_changed(&dialogue)
        );
    }
}

#[test]
fn no_exchange_of_ours_before_authentication() {
    let mut setup = setup();
    setup.rekey_bytes = 1;
    let mut dialogue = Dialogue::with(setup, Habits::default());
    dialogue.run();
    dialogue.core.rekey();
    dialogue
        .client
        .send(&crate::dialogue::service_request(b"ssh-userauth"));
    dialogue.run();
    assert_eq!(keys_changed(&dialogue), 0);
    // The client may.
    dialogue.client.send_kexinit();
    dialogue.run();
    assert_eq!((dialogue.error, keys_changed(&dialogue)), (None, 1));
}

#[test]
fn bulk_both_ways_with_exchanges_from_both_sides_in_between() {
    for (cipher, mac) in [
        PROTECTIONS[0],
        PROTECTIONS[1],
        PROTECTIONS[3],
        PROTECTIONS[8],
    ] {
        for chunk in [usize::MAX, 4099] {
            bulk(cipher, mac, chunk);
        }
    }
}

fn bulk(cipher: &'static str, mac: &'static str, chunk: usize) {
    let mut setup = setup();
    setup.rekey_bytes = 150_000;
    let mut dialogue = Dialogue::open_with(setup, protected(cipher, mac));
    dialogue.open_channel(100);
    dialogue.chunk = chunk;
    let total = 1_500_000;
    let pattern: Vec<u8> = (0..total)
        .map(|at: usize| (at * 31 + at / 977) as u8)
        .collect();
    let (mut up, mut down) = (0, 0);
    let (mut got_up, mut got_down) = (Vec::new(), Vec::new());
    let mut rounds = 0;
    while got_up.len() < total || got_down.len() < total {
        rounds += 1;
        assert!(
            rounds < 100_000,
            "stalled at {} up, {} down",
            got_up.len(),
            got_down.len()
        );
        if up < total && dialogue.client.wire.len() < 200_000 {
            let len = (total - up).min(20_000);
            dialogue
                .client
                .send(&channel_data(0, &pattern[up..up + len]));
            up += len;
        }
        down += dialogue.send_data(FIRST, &pattern[down..(down + 20_000).min(total)]);
        if rounds % 37 == 0 && !dialogue.client.is_changing_keys() {
            dialogue.client.send_kexinit();
        }
        if rounds % 41 == 0 {
            dialogue.core.rekey();
        }
        dialogue.step();
        for seen in std::mem::take(&mut dialogue.events) {
            if let Seen::ChannelData { data, .. } = seen {
                got_up.extend_from_slice(&data);
            }
        }
        while let Some(payload) = dialogue.client.next() {
            if payload[0] == message::CHANNEL_DATA {
                got_down.extend_from_slice(&payload[9..]);
                let mut adjust = numbered(message::CHANNEL_WINDOW_ADJUST, 0);
                adjust.put_u32(payload.len() as u32 - 9);
                dialogue.client.send(&adjust);
            }
        }
        assert_eq!(dialogue.error, None, "{cipher} {mac} {chunk}");
    }
    assert!(got_up == pattern, "up: the bytes that were sent");
    assert!(got_down == pattern, "down: the bytes that were sent");
    assert!(
        dialogue.client.exchanges > 5,
        "{} exchanges",
        dialogue.client.exchanges
    );
}

#[test]
fn a_failed_re_exchange_ends_the_connection() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    dialogue.client.habits.exchanges_keys = false;
    dialogue.client.send_kexinit();
    dialogue
        .client
        .send_now(&[message::KEX_ECDH_INIT, 0, 0, 0, 0]);
    assert_eq!(dialogue.refused(), Some(3));
    assert_eq!(
        dialogue.error,
        Some(ProtocolError::KeyExchange {
            what: "public value"
        })
    );
    assert_eq!(dialogue.core.send_room(FIRST), 0);
}
