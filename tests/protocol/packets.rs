//! Packets that are none: lengths, padding, tags, and what they cost in memory.

use agent::ssh::{ProtocolError, message};

use crate::client::Habits;
use crate::dialogue::Dialogue;
use crate::login::{PROTECTIONS, protected};

fn before_keys(bytes: &[u8]) -> Dialogue {
    let mut dialogue = Dialogue::new(Habits {
        exchanges_keys: false,
        ..Habits::default()
    });
    dialogue.run();
    dialogue.client.wire.extend_from_slice(bytes);
    dialogue.run();
    dialogue
}

fn with_length(length: u32, padding: u8) -> Vec<u8> {
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.push(padding);
    bytes.resize(300, 0x14);
    bytes
}

#[test]
fn impossible_lengths_are_refused_before_keys() {
    for length in [u32::MAX, 0x7fff_ffff, 1 << 20, 40_000, 34_997, 13, 4, 1, 0] {
        let dialogue = before_keys(&with_length(length, 4));
        assert_eq!(
            dialogue.error,
            Some(ProtocolError::BadPacketLength),
            "{length}"
        );
        assert_eq!(
            dialogue.client.disconnect().map(|(reason, _)| reason),
            Some(2)
        );
    }
}

#[test]
fn impossible_padding_is_refused_before_keys() {
    for padding in [0, 3, 12, 13, 255] {
        let dialogue = before_keys(&with_length(12, padding));
        assert_eq!(dialogue.error, Some(ProtocolError::BadPadding), "{padding}");
    }
}

#[test]
fn a_packet_without_payload_is_refused() {
    let dialogue = before_keys(&with_length(12, 11));
    assert_eq!(
        dialogue.error,
        Some(ProtocolError::Truncated {
            field: "message number"
        })
    );
}

#[test]
fn a_packet_that_never_ends_waits_and_costs_what_came() {
    let mut claim = 34_996_u32.to_be_bytes().to_vec();
    claim.push(4);
    let mut dialogue = before_keys(&claim);
    assert_eq!(dialogue.error, None);
    for _ in 0..10 {
        dialogue.client.wire.extend_from_slice(&[0; 10]);
        dialogue.run();
    }
    let _ = dialogue.core.inbox();
    assert!(
        dialogue.core.buffer_bytes() < 20_000,
        "{}",
        dialogue.core.buffer_bytes()
    );
}

#[test]
fn the_largest_packets_of_the_rfc_pass_before_authentication() {
    let mut dialogue = Dialogue::keyed(Habits::default());
    let mut payload = vec![message::IGNORE];
    payload.resize(32_768, 0);
    dialogue.client.send(&payload);
    dialogue
        .client
        .send(&crate::dialogue::service_request(b"ssh-userauth"));
    dialogue.run();
    assert_eq!(dialogue.error, None);
    assert_eq!(
        dialogue.client.numbers.last(),
        Some(&message::SERVICE_ACCEPT)
    );
}

#[test]
fn after_authentication_opensshs_ceiling_holds() {
    for (bytes, good) in [(262_000, true), (263_000, false)] {
        let mut dialogue = Dialogue::open(Habits::default());
        let mut payload = vec![message::IGNORE];
        payload.resize(bytes, 0);
        dialogue.client.send(&payload);
        dialogue
            .client
            .send(&crate::dialogue::global_request(b"x", true));
        dialogue.run();
        assert_eq!(dialogue.error.is_none(), good, "{bytes}");
        if good {
            assert_eq!(dialogue.events.len(), 1);
            assert!(
                dialogue.core.buffer_bytes() <= 2 * 128 * 1024,
                "shrinks back"
            );
        }
    }
}

#[test]
fn any_flipped_bit_ends_the_connection() {
    for (cipher, mac) in PROTECTIONS {
        let mut bit = 0;
        loop {
            let mut dialogue = Dialogue::keyed(protected(cipher, mac));
            let mut packet = dialogue
                .client
                .packet(&crate::dialogue::service_request(b"ssh-userauth"));
            if bit >= packet.len() * 8 {
                break;
            }
            packet[bit / 8] ^= 1 << (bit % 8);
            dialogue.client.wire.extend_from_slice(&packet);
            dialogue.client.wire.extend_from_slice(&[0; 36_000]);
            dialogue.forget();
            dialogue.run();
            assert!(
                matches!(
                    dialogue.error,
                    Some(ProtocolError::BadTag | ProtocolError::BadPacketLength)
                ),
                "{cipher} {mac} bit {bit}: {:?}",
                dialogue.error
            );
            assert_eq!(dialogue.events, []);
            bit += 37;
        }
    }
}

#[test]
fn a_replayed_packet_ends_the_connection() {
    for (cipher, mac) in PROTECTIONS {
        let mut dialogue = Dialogue::keyed(protected(cipher, mac));
        let packet = dialogue
            .client
            .packet(&crate::dialogue::service_request(b"ssh-userauth"));
        for _ in 0..2 {
            dialogue.client.wire.extend_from_slice(&packet);
        }
        dialogue.client.wire.extend_from_slice(&[0; 36_000]);
        dialogue.run();
        assert!(
            matches!(
                dialogue.error,
                Some(ProtocolError::BadTag | ProtocolError::BadPacketLength)
            ),
            "{cipher} {mac}: {:?}",
            dialogue.error
        );
    }
}

#[test]
fn protected_packets_with_bad_lengths_or_padding_are_refused() {
    for (cipher, mac) in PROTECTIONS {
        for length in [u32::MAX, 1 << 20, 40_001, 15, 1, 0] {
            let mut dialogue = Dialogue::keyed(protected(cipher, mac));
            // Whole blocks, whatever the length field says.
            let payload = if mac_is_plain(cipher, mac) { 103 } else { 107 };
            let fields = vec![message::IGNORE; payload];
            let packet = dialogue.client.frame(length, 4, &fields, 4);
            dialogue.client.wire.extend_from_slice(&packet);
            dialogue.client.wire.extend_from_slice(&[0; 36_000]);
            dialogue.run();
            assert!(dialogue.error.is_some(), "{cipher} {mac} {length}");
        }
        for padding in [0, 3, 255] {
            let mut dialogue = Dialogue::keyed(protected(cipher, mac));
            // 1 + 27 + 4 and 4 + 1 + 23 + 4 are both multiples of 16.
            let payload = if mac_is_plain(cipher, mac) { 23 } else { 27 };
            let length = 1 + payload + 4;
            let fields = vec![message::IGNORE; payload as usize];
            let packet = dialogue.client.frame(length, padding, &fields, 4);
            dialogue.client.wire.extend_from_slice(&packet);
            dialogue.run();
            assert_eq!(
                dialogue.error,
                Some(ProtocolError::BadPadding),
                "{cipher} {mac} {padding}"
            );
        }
    }
}

fn mac_is_plain(cipher: &str, mac: &str) -> bool {
    cipher.ends_with("ctr") && !mac.contains("etm")
}

/// With encrypt-and-MAC the length is decrypted before anything is authenticated. A bad one ends the
/// connection in the words and with the code of a bad tag, and at once: a replayed packet decrypts to
/// a random length, and waiting for that many bytes would leave the connection open.
#[test]
fn encrypt_and_mac_says_bad_tag_for_a_bad_length_and_does_not_wait() {
    let habits = protected("aes128-ctr", "hmac-sha2-256");
    let mut dialogue = Dialogue::keyed(habits);
    let packet = dialogue
        .client
        .frame(u32::MAX, 4, &[message::IGNORE; 23], 4);
    dialogue.client.wire.extend_from_slice(&packet);
    dialogue.run();
    assert_eq!(dialogue.refused(), Some(5));
    assert_eq!(dialogue.error, Some(ProtocolError::BadTag));
}

#[test]
fn a_peer_that_asks_and_never_reads_is_not_listened_to_any_more() {
    let mut dialogue = Dialogue::open(Habits::default());
    let mut handled = 0;
    for _ in 0..100_000 {
        dialogue.client.send(&[119]);
        let room = dialogue.core.inbox();
        if room.is_empty() {
            break;
        }
        let len = room.len().min(dialogue.client.wire.len());
        room[..len].copy_from_slice(&dialogue.client.wire[..len]);
        dialogue.core.received(len);
        dialogue.client.wire.drain(..len);
        dialogue.take_events();
        handled += 1;
    }
    assert!(handled < 50_000, "{handled} answers wait");
    assert!(
        dialogue.core.buffer_bytes() < 1 << 20,
        "{}",
        dialogue.core.buffer_bytes()
    );
    assert_eq!(dialogue.error, None);
    // And it goes on once the peer reads.
    dialogue.run();
    assert!(!dialogue.core.inbox().is_empty());
}
