//! zlib@openssh.com: when it begins, what new keys do to it, and streams that are no streams.

use agent::ssh::{ChannelId, ProtocolError, message};
use miniz_oxide::DataFormat;
use miniz_oxide::deflate::CompressionLevel;
use miniz_oxide::deflate::core::CompressorOxide;

use crate::client::{Habits, deflated};
use crate::dialogue::{
    Dialogue, Seen, auth_request, channel_data, global_request, numbered, service_request, setup,
};
use crate::handover::{hand_over, waiting};
use crate::login::{PROTECTIONS, protected};

const ZLIB: &[&str] = &["zlib@openssh.com", "none"];
const FIRST: ChannelId = ChannelId(0);

fn compressing() -> Habits {
    Habits {
        compression: ZLIB.to_vec(),
        ..Habits::default()
    }
}

/// What goes over the wire for 30,000 equal bytes, up and down.
fn moved(dialogue: &mut Dialogue) -> (usize, usize) {
    let data = [b'x'; 30_000];
    dialogue.client.send(&channel_data(0, &data));
    let up = dialogue.client.wire.len();
    dialogue.run();
    let came = dialogue.events.pop();
    assert_eq!(
        came,
        Some(Seen::ChannelData {
            channel: 0,
            data: data.to_vec()
        })
    );
    assert_eq!(dialogue.send_data(FIRST, &data), data.len());
    let down = dialogue.core.outbox().len();
    dialogue.run();
    let came = dialogue.client.inbox.pop_back().unwrap();
    assert!(came == channel_data(100, &data));
    assert_eq!(dialogue.error, None);
    dialogue.forget();
    (up, down)
}

#[test]
fn it_begins_behind_success_with_every_cipher_and_survives_the_hand_over() {
    for (cipher, mac) in PROTECTIONS {
        let mut dialogue = waiting(Habits {
            compression: ZLIB.to_vec(),
            ..protected(cipher, mac)
        });
        hand_over(&mut dialogue);
        dialogue.core.auth_banner(b"not compressed yet");
        dialogue.core.auth_success();
        dialogue.run();
        dialogue.forget();
        dialogue.open_channel(100);
        let (up, down) = moved(&mut dialogue);
        assert!(up < 500 && down < 500, "{cipher}: {up} {down}");
        assert!(dialogue.core.algorithms().ends_with(" zlib@openssh.com"));
    }
}

#[test]
fn streams_start_anew_with_new_keys_of_either_side() {
    let mut dialogue = Dialogue::with_channel(compressing());
    for round in 0..6 {
        moved(&mut dialogue);
        if round % 2 == 0 {
            dialogue.client.send_kexinit();
        } else {
            dialogue.core.rekey();
        }
        dialogue.run();
        assert_eq!(dialogue.error, None);
        assert_eq!(dialogue.client.exchanges, round + 2);
    }
    let (up, down) = moved(&mut dialogue);
    assert!(up < 500 && down < 500, "{up} {down}");
}

#[test]
fn messages_held_back_while_keys_change_are_in_the_new_stream() {
    let mut dialogue = Dialogue::with_channel(compressing());
    dialogue.answers_exchange = false;
    dialogue.client.send(&global_request(b"x", true));
    dialogue.core.rekey();
    dialogue.run();
    dialogue.core.provide_cookie([9; 16]);
    // Answered between our KEXINIT and NEWKEYS.
    dialogue.core.global_reply(true, &[b'y'; 1000]);
    dialogue.answers_exchange = true;
    dialogue.run();
    assert_eq!(dialogue.error, None);
    let reply = dialogue.client.inbox.pop_back().unwrap();
    assert_eq!((reply[0], reply.len()), (message::REQUEST_SUCCESS, 1001));
    moved(&mut dialogue);
}

/// What the last exchange says holds, from the authentication on.
#[test]
fn an_exchange_may_turn_it_on_and_off() {
    let mut dialogue = Dialogue::in_auth(Habits::default());
    dialogue.client.habits.compression = ZLIB.to_vec();
    dialogue.client.send_kexinit();
    dialogue.run();
    dialogue.client.send(&auth_request());
    dialogue.run();
    dialogue.core.auth_success();
    dialogue.run();
    dialogue.forget();
    dialogue.open_channel(100);
    assert!(moved(&mut dialogue).0 < 500, "on before the authentication");
    for (compression, is_on) in [(vec!["none"], false), (ZLIB.to_vec(), true)] {
        dialogue.client.habits.compression = compression;
        dialogue.client.send_kexinit();
        dialogue.run();
        let (up, down) = moved(&mut dialogue);
        assert_eq!((up < 500, down < 500), (is_on, is_on));
    }
}

#[test]
fn each_direction_has_its_own() {
    for (there, back) in [(vec!["none"], ZLIB.to_vec()), (ZLIB.to_vec(), vec!["none"])] {
        let is_on = (there[0] != "none", back[0] != "none");
        let mut dialogue = Dialogue::with_channel(Habits {
            compression: there,
            compression_back: Some(back),
            ..Habits::default()
        });
        let (up, down) = moved(&mut dialogue);
        assert_eq!((up < 500, down < 500), is_on);
        assert!(dialogue.core.algorithms().contains("zlib@openssh.com"));
    }
}

#[test]
fn the_clients_order_decides_and_the_server_may_not_offer_it() {
    let mut dialogue = Dialogue::with_channel(Habits {
        compression: vec!["none", "zlib@openssh.com"],
        ..Habits::default()
    });
    assert!(moved(&mut dialogue).0 > 30_000);
    assert!(!dialogue.core.algorithms().contains("zlib"));
    let mut setup = setup();
    setup.compression = false;
    let mut dialogue = Dialogue::open_with(setup.clone(), compressing());
    dialogue.open_channel(100);
    assert!(moved(&mut dialogue).0 > 30_000);
    let mut dialogue = Dialogue::with(
        setup,
        Habits {
            compression: vec!["zlib@openssh.com"],
            ..Habits::default()
        },
    );
    dialogue.run();
    let list = "compression";
    assert_eq!(
        dialogue.error,
        Some(ProtocolError::NoCommonAlgorithm { list })
    );
    assert_eq!(
        dialogue.core.unmatched(),
        Some("no matching compression method found. Their offer: zlib@openssh.com")
    );
}

#[test]
fn what_is_compressed_before_authentication_is_refused() {
    let mut dialogue = Dialogue::keyed(compressing());
    let mut stream = stream();
    let packed = deflated(&mut stream, &service_request(b"ssh-userauth"));
    let packet = dialogue.client.packet_as_is(&packed);
    dialogue.client.wire.extend_from_slice(&packet);
    dialogue.run();
    assert!(
        matches!(dialogue.error, Some(ProtocolError::Unexpected { .. }))
            || dialogue.client.numbers.contains(&message::UNIMPLEMENTED),
        "{:?}",
        dialogue.error
    );
    assert!(!dialogue.client.numbers.contains(&message::SERVICE_ACCEPT));
}

#[test]
fn a_bomb_ends_the_connection() {
    let mut dialogue = Dialogue::with_channel(compressing());
    let stream = dialogue.client.deflater.as_mut().unwrap();
    let bomb = deflated(stream, &channel_data(0, &vec![0; 50 << 20]));
    assert!(bomb.len() < 100_000);
    assert_ended(dialogue, &bomb, "inflates to more than a packet may have");
}

#[test]
fn garbage_and_plain_packets_end_the_connection() {
    let plain = global_request(b"not compressed", true);
    for garbage in [&[0xff; 64][..], &[0x78, 0x9c, 0xff, 0xff], &plain] {
        let dialogue = Dialogue::open(compressing());
        assert_ended(dialogue, garbage, "not a zlib stream");
        // In the middle of a stream that was good.
        let mut dialogue = Dialogue::with_channel(compressing());
        moved(&mut dialogue);
        assert_ended(dialogue, &[0xff; 64], "not a zlib stream");
    }
}

#[test]
fn a_stream_that_ends_and_one_that_starts_anew_end_the_connection() {
    let ended = miniz_oxide::deflate::compress_to_vec_zlib(&global_request(b"x", true), 6);
    let mut dialogue = Dialogue::open(compressing());
    let packet = dialogue.client.packet_as_is(&ended);
    dialogue.client.wire.extend_from_slice(&packet);
    assert_eq!(dialogue.refused(), Some(6));
    let mut dialogue = Dialogue::with_channel(compressing());
    moved(&mut dialogue);
    dialogue.client.deflater = Some(Box::new(stream()));
    dialogue.client.send(&global_request(b"x", true));
    dialogue.run();
    assert!(dialogue.error.is_some());
}

/// A packet that inflates to nothing has no message number.
#[test]
fn an_empty_payload_ends_the_connection() {
    let mut dialogue = Dialogue::open(compressing());
    let packet = dialogue.client.packet_as_is(&[]);
    dialogue.client.wire.extend_from_slice(&packet);
    assert_eq!(dialogue.refused(), Some(2));
}

#[test]
fn an_idle_connection_keeps_the_streams_and_no_buffer() {
    let mut dialogue = Dialogue::with_channel(compressing());
    moved(&mut dialogue);
    dialogue.core.release_buffers();
    let mut plain = Dialogue::with_channel(Habits::default());
    plain.core.release_buffers();
    assert_eq!(dialogue.core.buffer_bytes(), plain.core.buffer_bytes());
    moved(&mut dialogue);
}

/// Bytes that do not compress, in packets of every size, with new keys now and then.
#[test]
fn noise_comes_through() {
    let mut setup = setup();
    setup.rekey_bytes = 100_000;
    let mut dialogue = Dialogue::open_with(setup, compressing());
    dialogue.open_channel(100);
    let mut state = 1_u64;
    for round in 0..60_usize {
        let noise: Vec<u8> = (0..(round * 997) % 32_768 + 1)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        dialogue.client.send(&channel_data(0, &noise));
        dialogue.run();
        assert!(dialogue.events.contains(&Seen::ChannelData {
            channel: 0,
            data: noise.clone()
        }));
        assert_eq!(dialogue.send_data(FIRST, &noise), noise.len());
        dialogue.run();
        assert!(dialogue.client.inbox.contains(&channel_data(100, &noise)));
        let mut adjust = numbered(message::CHANNEL_WINDOW_ADJUST, 100);
        adjust[1..5].copy_from_slice(&0_u32.to_be_bytes());
        adjust.extend_from_slice(&32_768_u32.to_be_bytes());
        dialogue.client.send(&adjust);
        dialogue.run();
        dialogue.forget();
    }
    assert_eq!(dialogue.error, None);
    assert!(dialogue.client.exchanges > 5);
}

fn stream() -> CompressorOxide {
    CompressorOxide::with_format_and_level(DataFormat::Zlib, CompressionLevel::DefaultLevel)
}

/// The connection ends over this payload, and both sides know why.
fn assert_ended(mut dialogue: Dialogue, payload: &[u8], why: &str) {
    let packet = dialogue.client.packet_as_is(payload);
    dialogue.client.wire.extend_from_slice(&packet);
    dialogue.run();
    let Some(error @ ProtocolError::Compression { .. }) = dialogue.error else {
        panic!("{:?}", dialogue.error);
    };
    assert!(error.to_string().contains(why), "{error}");
    assert_eq!(dialogue.client.disconnect(), Some((6, error.to_string())));
}
