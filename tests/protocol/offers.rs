//! Channels that the server opens: forwarded connections, agents, X11.

use agent::ssh::wire::{Reader, Writer};
use agent::ssh::{ChannelId, ProtocolError, message};

use crate::client::Habits;
use crate::dialogue::{
    Dialogue, Seen, channel_data, channel_open, channel_request, numbered, setup,
};

const WINDOW: u32 = 1 << 16;
const PACKET: u32 = 1 << 14;

fn offer(dialogue: &mut Dialogue) -> Option<ChannelId> {
    let core = &mut dialogue.core;
    core.offer(b"forwarded-tcpip", WINDOW, PACKET, b"fields")
}

fn confirmation(ours: ChannelId, theirs: u32, window: u32, max_packet: u32) -> Vec<u8> {
    let mut payload = numbered(message::CHANNEL_OPEN_CONFIRMATION, ours.0);
    payload.put_u32(theirs);
    payload.put_u32(window);
    payload.put_u32(max_packet);
    payload
}

fn refusal(ours: ChannelId, reason: u32) -> Vec<u8> {
    let mut payload = numbered(message::CHANNEL_OPEN_FAILURE, ours.0);
    payload.put_u32(reason);
    payload.put_string(b"no");
    payload.put_string(b"");
    payload
}

/// A dialogue with an offered channel that the client calls 7 and takes 100 bytes on.
fn with_offer() -> (Dialogue, ChannelId) {
    let mut dialogue = Dialogue::open(Habits::default());
    let channel = offer(&mut dialogue).unwrap();
    dialogue.run();
    dialogue.client.send(&confirmation(channel, 7, 100, 60));
    dialogue.run();
    assert_eq!(dialogue.events, [Seen::ChannelOpened(channel.0)]);
    dialogue.forget();
    (dialogue, channel)
}

#[test]
fn an_offer_carries_type_number_window_and_fields() {
    let mut dialogue = Dialogue::open(Habits::default());
    let channel = offer(&mut dialogue).unwrap();
    dialogue.run();
    let payload = dialogue.client.inbox.pop_front().unwrap();
    let mut reader = Reader::new(&payload[1..]);
    assert_eq!(payload[0], message::CHANNEL_OPEN);
    assert_eq!(reader.string("type"), Ok(&b"forwarded-tcpip"[..]));
    assert_eq!(reader.u32("number"), Ok(channel.0));
    assert_eq!(reader.u32("window"), Ok(WINDOW));
    assert_eq!(reader.u32("packet"), Ok(PACKET));
    assert_eq!(reader.rest(), b"fields");
}

#[test]
fn data_flows_both_ways_within_both_windows() {
    let (mut dialogue, channel) = with_offer();
    assert_eq!(dialogue.send_data(channel, &[b'x'; 200]), 100);
    dialogue.client.send(&channel_data(channel.0, b"answer"));
    dialogue.run();
    let data = Seen::ChannelData {
        channel: channel.0,
        data: b"answer".to_vec(),
    };
    assert_eq!(dialogue.events, [data]);
    let numbers: Vec<u32> = dialogue
        .client
        .inbox
        .iter()
        .map(|payload| Reader::new(&payload[1..]).u32("channel").unwrap())
        .collect();
    assert_eq!(
        numbers,
        [7, 7],
        "under the client's number, in packets of its size"
    );
}

#[test]
fn nothing_is_sent_or_taken_before_the_client_agreed() {
    let mut dialogue = Dialogue::open(Habits::default());
    let channel = offer(&mut dialogue).unwrap();
    dialogue.run();
    dialogue.forget();
    assert_eq!(dialogue.send_data(channel, b"early"), 0);
    dialogue.core.send_eof(channel);
    dialogue.core.send_close(channel);
    dialogue.core.send_request(channel, b"x", false, b"");
    // Answers to opens of the client, which this is not.
    dialogue.core.open_confirm(channel, 1, 1);
    dialogue.core.open_fail(channel, 1, "");
    dialogue.run();
    assert!(dialogue.client.numbers.is_empty());
    dialogue.client.send(&channel_data(channel.0, b"early"));
    dialogue.run();
    assert_eq!(
        dialogue.error,
        Some(ProtocolError::UnknownChannel { channel: channel.0 })
    );
}

#[test]
fn a_refused_offer_frees_its_number() {
    let mut dialogue = Dialogue::open(Habits::default());
    let channel = offer(&mut dialogue).unwrap();
    dialogue.run();
    dialogue.client.send(&refusal(channel, 1));
    dialogue.run();
    let refused = Seen::ChannelRefused {
        channel: channel.0,
        reason: 1,
    };
    assert_eq!(dialogue.events, [refused]);
    assert_eq!(offer(&mut dialogue), Some(channel));
}

#[test]
fn answers_to_nothing_end_the_connection() {
    let answers = |channel| [confirmation(channel, 7, 1, 1), refusal(channel, 1)];
    for index in 0..2 {
        // Never offered; the client's own, unanswered; confirmed before.
        let mut none = Dialogue::open(Habits::default());
        none.client.send(&answers(ChannelId(0))[index]);
        let mut own = Dialogue::open(Habits::default());
        own.client.send(&channel_open(100, 1, 1));
        own.client.send(&answers(ChannelId(0))[index]);
        let (mut twice, channel) = with_offer();
        twice.client.send(&answers(channel)[index]);
        for mut dialogue in [none, own, twice] {
            assert_eq!(dialogue.refused(), Some(2));
            let unknown = ProtocolError::UnknownChannel { channel: 0 };
            assert_eq!(dialogue.error, Some(unknown));
        }
    }
}

#[test]
fn every_cut_of_an_answer_is_refused() {
    let whole = [
        confirmation(ChannelId(0), 7, 1, 1),
        // The words behind the reason are for people; a client may leave them out.
        refusal(ChannelId(0), 1)[..9].to_vec(),
    ];
    for payload in whole {
        for len in 1..payload.len() {
            let mut dialogue = Dialogue::open(Habits::default());
            offer(&mut dialogue).unwrap();
            dialogue.run();
            dialogue.client.send(&payload[..len]);
            dialogue.run();
            assert!(
                matches!(dialogue.error, Some(ProtocolError::Truncated { .. })),
                "{len}"
            );
        }
    }
}

#[test]
fn offers_and_opens_share_one_bound() {
    let mut dialogue = Dialogue::open(Habits::default());
    let max = setup().max_channels;
    for _ in 1..max {
        assert!(offer(&mut dialogue).is_some());
    }
    assert!(dialogue.core.can_offer());
    dialogue.open_channel(100);
    assert!(!dialogue.core.can_offer());
    assert_eq!(offer(&mut dialogue), None);
    dialogue.client.send(&channel_open(101, 1, 1));
    dialogue.run();
    assert_eq!(
        dialogue.client.numbers.last(),
        Some(&message::CHANNEL_OPEN_FAILURE)
    );
}

#[test]
fn an_offer_made_while_keys_change_goes_out_behind_them() {
    let mut dialogue = Dialogue::open(Habits::default());
    dialogue.answers_exchange = false;
    dialogue.core.rekey();
    dialogue.run();
    dialogue.core.provide_cookie([9; 16]);
    let channel = offer(&mut dialogue).unwrap();
    dialogue.run();
    assert!(!dialogue.client.numbers.contains(&message::CHANNEL_OPEN));
    dialogue.core.provide_signature(b"signature");
    dialogue.run();
    assert!(dialogue.client.numbers.contains(&message::CHANNEL_OPEN));
    dialogue.client.send(&confirmation(channel, 7, 1, 1));
    dialogue.run();
    assert!(dialogue.events.contains(&Seen::ChannelOpened(channel.0)));
}

#[test]
fn nothing_is_offered_before_the_login() {
    let mut dialogue = Dialogue::in_auth(Habits::default());
    assert!(!dialogue.core.can_offer());
    assert_eq!(offer(&mut dialogue), None);
}

#[test]
fn requests_and_ends_work_as_on_any_channel() {
    let (mut dialogue, channel) = with_offer();
    dialogue
        .client
        .send(&channel_request(channel.0, b"x", true));
    dialogue
        .client
        .send(&numbered(message::CHANNEL_EOF, channel.0));
    dialogue.run();
    dialogue.core.reply(channel, false);
    dialogue.core.send_eof(channel);
    dialogue.core.send_close(channel);
    dialogue
        .client
        .send(&numbered(message::CHANNEL_CLOSE, channel.0));
    dialogue.run();
    assert_eq!(dialogue.client.numbers, [100, 96, 97]);
    assert_eq!(offer(&mut dialogue), Some(channel), "both sides closed it");
}
