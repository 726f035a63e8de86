//! Channels and requests: windows to the byte, numbers, order, ends.

use std::time::Duration;

use agent::limits::OUTBOX_BYTES;
use agent::ssh::wire::{Reader, Writer};
use agent::ssh::{ChannelId, ProtocolError, Stream, message};

use crate::client::Habits;
use crate::dialogue::{
    Dialogue, Seen, channel_data, channel_open, channel_request, global_request, numbered,
};

const FIRST: ChannelId = ChannelId(0);

#[test]
fn a_window_overrun_ends_the_connection() {
    let mut dialogue = Dialogue::open(Habits::default());
    dialogue.client.send(&channel_open(100, 1 << 21, 32_768));
    dialogue.run();
    dialogue.core.open_confirm(FIRST, 100, 60);
    dialogue.consumes = false;
    dialogue.client.send(&channel_data(0, &[b'x'; 60]));
    dialogue.client.send(&channel_data(0, &[b'x'; 40]));
    dialogue.run();
    assert_eq!(dialogue.error, None);
    dialogue.client.send(&channel_data(0, b"x"));
    assert_eq!(dialogue.refused(), Some(2));
    assert_eq!(
        dialogue.error,
        Some(ProtocolError::WindowOverrun { channel: 0 })
    );
}

#[test]
fn extended_data_counts_against_the_window_and_goes_nowhere() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    let mut sent = 0;
    while sent < 8 << 20 {
        let mut payload = numbered(message::CHANNEL_EXTENDED_DATA, 0);
        payload.put_u32(1);
        payload.put_string(&[b'x'; 32_000]);
        dialogue.client.send(&payload);
        dialogue.run();
        assert_eq!(dialogue.error, None, "the window opens again by itself");
        sent += 32_000;
    }
    assert_eq!(dialogue.events, []);
}

#[test]
fn consumed_bytes_open_the_window_again_in_batches() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    dialogue.consumes = false;
    for _ in 0..10 {
        dialogue.client.send(&channel_data(0, &[b'x'; 32_768]));
    }
    dialogue.run();
    for _ in 0..10 {
        dialogue.core.consumed(FIRST, 32_768);
    }
    dialogue.run();
    let granted: Vec<u32> = dialogue
        .client
        .inbox
        .iter()
        .map(|payload| {
            let mut reader = Reader::new(&payload[1..]);
            assert_eq!((payload[0], reader.u32("channel")), (93, Ok(100)));
            reader.u32("bytes").unwrap()
        })
        .collect();
    assert_eq!(granted, [98_304; 3], "three packets at a time");
}

#[test]
fn what_the_program_does_not_take_keeps_the_window_closed() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    dialogue.consumes = false;
    for _ in 0..64 {
        dialogue.client.send(&channel_data(0, &[b'x'; 32_768]));
    }
    dialogue.run();
    assert!(dialogue.client.numbers.is_empty());
    dialogue.client.send(&channel_data(0, b"x"));
    dialogue.run();
    assert_eq!(
        dialogue.error,
        Some(ProtocolError::WindowOverrun { channel: 0 })
    );
}

#[test]
fn window_adjust_past_u32_is_refused() {
    let mut dialogue = Dialogue::open(Habits::default());
    dialogue.client.send(&channel_open(100, u32::MAX, 32_768));
    dialogue.run();
    dialogue.core.open_confirm(FIRST, 1000, 1000);
    assert_eq!(dialogue.send_data(FIRST, &[b'x'; 10]), 10);
    let adjust = |bytes| {
        let mut payload = numbered(message::CHANNEL_WINDOW_ADJUST, 0);
        payload.put_u32(bytes);
        payload
    };
    dialogue.client.send(&adjust(10));
    dialogue.run();
    assert_eq!(dialogue.error, None);
    dialogue.client.send(&adjust(1));
    assert_eq!(dialogue.refused(), Some(2));
    assert_eq!(
        dialogue.error,
        Some(ProtocolError::WindowOverflow { channel: 0 })
    );
}

#[test]
fn we_send_no_more_than_window_and_packet_allow() {
    let mut dialogue = Dialogue::open(Habits::default());
    dialogue.client.send(&channel_open(100, 100, 16));
    dialogue.run();
    dialogue.core.open_confirm(FIRST, 1000, 1000);
    dialogue.run();
    dialogue.forget();
    assert_eq!(dialogue.send_data(FIRST, &[b'x'; 1000]), 100);
    assert_eq!(dialogue.core.send_room(FIRST), 0);
    assert!(dialogue.core.send_slot(FIRST, Stream::Data).is_none());
    dialogue.run();
    let sizes: Vec<usize> = dialogue
        .client
        .inbox
        .iter()
        .map(|data| data.len() - 9)
        .collect();
    assert_eq!(sizes, [16, 16, 16, 16, 16, 16, 4]);
    let mut adjust = numbered(message::CHANNEL_WINDOW_ADJUST, 0);
    adjust.put_u32(7);
    dialogue.client.send(&adjust);
    dialogue.run();
    assert_eq!(dialogue.core.send_room(FIRST), 7);
}

/// sshnet/SSH.NET#1671 and others: a client that announces all of u32 and never adjusts.
#[test]
fn a_huge_window_that_is_never_adjusted_does_not_stall() {
    let mut dialogue = Dialogue::open(Habits::default());
    dialogue.client.send(&channel_open(100, u32::MAX, u32::MAX));
    dialogue.run();
    dialogue.core.open_confirm(FIRST, 1000, 1000);
    dialogue.run();
    dialogue.forget();
    let data = vec![b'x'; 1 << 20];
    for _ in 0..20 {
        let mut sent = 0;
        while sent < data.len() {
            sent += dialogue.send_data(FIRST, &data[sent..]);
            dialogue.run();
            dialogue.client.inbox.clear();
        }
    }
    assert_eq!(dialogue.core.send_room(FIRST), 32_768);
}

#[test]
fn data_stops_where_the_outbox_is_full_and_goes_on_behind_it() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    let sent = dialogue.send_data(FIRST, &vec![b'x'; 2 << 20]);
    assert!((256 * 1024..300 * 1024).contains(&sent), "{sent}");
    assert!(
        !dialogue.core.inbox().is_empty(),
        "data alone does not stop input"
    );
    dialogue.run();
    assert_eq!(dialogue.core.send_room(FIRST), 32_768);
}

/// Everything that `channel` may send at `now`, with the client reading but granting nothing.
fn send_all(dialogue: &mut Dialogue, channel: ChannelId, now: Duration) -> usize {
    let mut sent = 0;
    loop {
        dialogue.core.share(now);
        let more = dialogue.send_data(channel, &[b'x'; 32_768]);
        dialogue.run();
        if more == 0 {
            return sent;
        }
        sent += more;
    }
}

#[test]
fn while_somebody_types_other_channels_leave_the_way_free() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    let bulk = FIRST;
    let typed = dialogue.open_channel(101);
    let started = Duration::from_secs(5);
    assert_eq!(dialogue.core.share(started), None);
    assert!(dialogue.core.packets_per_turn(bulk) > 1);
    dialogue.client.send(&channel_data(typed.0, b"l"));
    dialogue.run();
    let sent = send_all(&mut dialogue, bulk, started);
    assert_eq!(sent, 128 << 10);
    assert_eq!(dialogue.core.packets_per_turn(bulk), 1);
    assert!(dialogue.core.share(started) > Some(started));
    // Who types is not held back.
    assert_eq!(dialogue.send_data(typed, b"list"), 4);
    let mut adjust = numbered(message::CHANNEL_WINDOW_ADJUST, bulk.0);
    adjust.put_u32(100_000);
    dialogue.client.send(&adjust);
    dialogue.run();
    assert_eq!(send_all(&mut dialogue, bulk, started), 128 << 10);
    // A second without a key: the rest of the window.
    let later = started + Duration::from_secs(2);
    let rest = (2 << 20) + 100_000 - (256 << 10);
    assert_eq!(send_all(&mut dialogue, bulk, later), rest);
}

#[test]
fn data_of_some_size_is_nobody_typing() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    let other = dialogue.open_channel(101);
    dialogue.client.send(&channel_data(other.0, &[b'x'; 1000]));
    dialogue.run();
    let now = Duration::from_secs(5);
    assert_eq!(send_all(&mut dialogue, FIRST, now), 2 << 20);
}

#[test]
fn a_slot_taken_back_sends_nothing() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    let slot = dialogue.core.send_slot(FIRST, Stream::Data).unwrap();
    slot.fill(b'x');
    dialogue.core.send_commit(0);
    dialogue.core.send_commit(5);
    dialogue.run();
    assert!(dialogue.client.numbers.is_empty());
    // Neither does one that another message took the place of.
    dialogue
        .core
        .send_slot(FIRST, Stream::Data)
        .unwrap()
        .fill(b'x');
    dialogue.core.send_eof(FIRST);
    dialogue.core.send_commit(5);
    dialogue.run();
    assert_eq!(dialogue.client.numbers, [message::CHANNEL_EOF]);
}

#[test]
fn messages_for_channels_that_are_not_there_end_the_connection() {
    let mut adjust = numbered(message::CHANNEL_WINDOW_ADJUST, 1);
    adjust.put_u32(5);
    let mut extended = numbered(message::CHANNEL_EXTENDED_DATA, 1);
    extended.put_u32(1);
    extended.put_string(b"x");
    let messages = [
        channel_data(1, b"x"),
        extended,
        adjust,
        numbered(message::CHANNEL_EOF, 1),
        numbered(message::CHANNEL_CLOSE, 1),
        channel_request(1, b"shell", true),
        numbered(message::CHANNEL_SUCCESS, 1),
        numbered(message::CHANNEL_FAILURE, 1),
        numbered(message::CHANNEL_OPEN_CONFIRMATION, 1),
        numbered(message::CHANNEL_OPEN_FAILURE, 1),
        channel_data(u32::MAX, b"x"),
    ];
    for payload in messages {
        let mut dialogue = Dialogue::with_channel(Habits::default());
        dialogue.client.send(&payload);
        assert_eq!(dialogue.refused(), Some(2), "{payload:?}");
        assert!(
            matches!(dialogue.error, Some(ProtocolError::UnknownChannel { .. })),
            "{payload:?} {:?}",
            dialogue.error
        );
    }
}

#[test]
fn a_channel_cannot_be_used_before_it_is_confirmed() {
    let mut dialogue = Dialogue::open(Habits::default());
    dialogue.client.send(&channel_open(100, 1000, 1000));
    dialogue.client.send(&channel_data(0, b"early"));
    dialogue.run();
    assert_eq!(
        dialogue.error,
        Some(ProtocolError::UnknownChannel { channel: 0 })
    );
}

#[test]
fn more_channels_than_configured_are_refused_without_the_driver() {
    let mut dialogue = Dialogue::open(Habits::default());
    for sender in 0..10 {
        dialogue.client.send(&channel_open(sender, 1000, 1000));
    }
    dialogue.run();
    assert_eq!(dialogue.events.len(), 8);
    assert_eq!(dialogue.client.numbers, [message::CHANNEL_OPEN_FAILURE; 2]);
    let mut reader = Reader::new(&dialogue.client.inbox[0][1..]);
    assert_eq!((reader.u32("channel"), reader.u32("code")), (Ok(8), Ok(4)));
}

#[test]
fn a_refused_channel_frees_its_number() {
    let mut dialogue = Dialogue::open(Habits::default());
    for _ in 0..20 {
        dialogue.client.send(&channel_open(5, 1000, 1000));
        dialogue.run();
        assert!(matches!(
            dialogue.events.pop(),
            Some(Seen::ChannelOpen { channel: 0, .. })
        ));
        dialogue.core.open_fail(FIRST, 1, "no");
        dialogue.run();
    }
    assert_eq!(dialogue.client.numbers, [message::CHANNEL_OPEN_FAILURE; 20]);
    dialogue.core.open_confirm(FIRST, 1000, 1000);
    dialogue.run();
    assert_eq!(dialogue.client.numbers.len(), 20, "answered is answered");
}

#[test]
fn a_number_comes_again_after_both_closes_only() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    dialogue.core.send_close(FIRST);
    dialogue.run();
    assert_eq!(dialogue.open_channel(101), ChannelId(1));
    dialogue.client.send(&numbered(message::CHANNEL_CLOSE, 0));
    dialogue.run();
    assert_eq!(dialogue.events, [Seen::ChannelClose(0)]);
    assert_eq!(dialogue.open_channel(102), FIRST);

    // The other order: theirs first.
    dialogue.client.send(&numbered(message::CHANNEL_CLOSE, 0));
    dialogue.run();
    dialogue.forget();
    assert_eq!(dialogue.open_channel(103), ChannelId(2));
    dialogue.core.send_close(FIRST);
    dialogue.run();
    assert_eq!(dialogue.open_channel(104), FIRST);
}

#[test]
fn what_comes_behind_our_close_is_dropped() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    dialogue.core.send_close(FIRST);
    dialogue.run();
    dialogue.forget();
    dialogue.client.send(&channel_data(0, b"late"));
    dialogue
        .client
        .send(&channel_request(0, b"window-change", false));
    dialogue.client.send(&channel_request(0, b"late", true));
    dialogue.run();
    assert_eq!((dialogue.error, &dialogue.events[..]), (None, &[][..]));
    assert!(
        dialogue.client.numbers.is_empty(),
        "nothing is sent behind CLOSE"
    );
}

#[test]
fn nothing_is_sent_behind_our_close() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    dialogue.client.send(&channel_request(0, b"shell", true));
    dialogue.run();
    dialogue.core.send_close(FIRST);
    dialogue.core.send_close(FIRST);
    dialogue.core.send_eof(FIRST);
    dialogue
        .core
        .send_request(FIRST, b"exit-status", false, &[0; 4]);
    dialogue.core.reply(FIRST, true);
    assert_eq!(dialogue.core.send_room(FIRST), 0);
    dialogue.run();
    assert_eq!(dialogue.client.numbers, [message::CHANNEL_CLOSE]);
}

#[test]
fn eof_is_told_once_and_data_behind_it_dropped() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    for _ in 0..3 {
        dialogue.client.send(&numbered(message::CHANNEL_EOF, 0));
        dialogue.client.send(&channel_data(0, b"late"));
    }
    dialogue.run();
    assert_eq!(dialogue.error, None);
    assert_eq!(dialogue.events, [Seen::ChannelEof(0)]);
    // The other direction goes on.
    assert_eq!(dialogue.send_data(FIRST, b"output"), 6);
}

#[test]
fn replies_go_to_the_channel_whichever_is_answered_first() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    let second = dialogue.open_channel(200);
    for _ in 0..2 {
        dialogue.client.send(&channel_request(0, b"a", true));
        dialogue.client.send(&channel_request(1, b"b", true));
        dialogue
            .client
            .send(&channel_request(1, b"no reply", false));
    }
    dialogue.run();
    dialogue.core.reply(second, true);
    dialogue.core.reply(second, false);
    dialogue.core.reply(second, true); // One too many.
    dialogue.core.reply(FIRST, false);
    dialogue.core.reply(FIRST, true);
    dialogue.run();
    let answers: Vec<_> = dialogue.client.inbox.iter().cloned().collect();
    let expected = [
        numbered(message::CHANNEL_SUCCESS, 200),
        numbered(message::CHANNEL_FAILURE, 200),
        numbered(message::CHANNEL_FAILURE, 100),
        numbered(message::CHANNEL_SUCCESS, 100),
    ];
    assert_eq!(answers, expected);
}

#[test]
fn global_requests_are_answered_in_order() {
    let mut dialogue = Dialogue::open(Habits::default());
    dialogue.client.send(&global_request(b"one", true));
    dialogue.client.send(&global_request(b"quiet", false));
    dialogue.client.send(&global_request(b"two", true));
    dialogue.run();
    assert_eq!(dialogue.events.len(), 3);
    dialogue.core.global_reply(true, &[0, 0, 8, 1]);
    dialogue.core.global_reply(false, b"dropped");
    dialogue.core.global_reply(true, b"nobody asked");
    dialogue.run();
    let answers: Vec<_> = dialogue.client.inbox.iter().cloned().collect();
    assert_eq!(answers, [vec![81, 0, 0, 8, 1], vec![82]]);
}

#[test]
fn answers_to_our_global_requests_are_counted() {
    let mut dialogue = Dialogue::open(Habits::default());
    dialogue
        .core
        .send_global_request(b"keepalive@openssh.com", true, b"");
    dialogue
        .core
        .send_global_request(b"hostkeys-00@openssh.com", false, b"keys");
    dialogue.run();
    assert_eq!(dialogue.client.numbers, [80, 80]);
    for _ in 0..3 {
        dialogue.client.send(&[message::REQUEST_FAILURE]);
    }
    dialogue.run();
    assert_eq!(
        dialogue.events,
        [Seen::GlobalReply(false)],
        "one was asked for"
    );
    assert_eq!(dialogue.error, None);
}

#[test]
fn keepalives_to_a_client_that_reads_nothing_do_not_pile_up() {
    let mut dialogue = Dialogue::open(Habits::default());
    for _ in 0..20_000 {
        dialogue
            .core
            .send_global_request(b"keepalive@openssh.com", true, b"");
    }
    assert!(dialogue.core.outbox().len() < OUTBOX_BYTES + 100);
    assert_eq!(dialogue.error, None);
}

#[test]
fn floods_of_requests_that_nobody_answered_yet_are_bounded() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    for _ in 0..300 {
        dialogue.client.send(&channel_request(0, b"exec", true));
    }
    dialogue.run();
    let what = "channel requests";
    assert_eq!(dialogue.error, Some(ProtocolError::TooMuchPending { what }));
    assert_eq!(dialogue.events.len(), 256);

    let mut dialogue = Dialogue::open(Habits::default());
    for _ in 0..300 {
        dialogue.client.send(&global_request(b"x", true));
    }
    dialogue.run();
    let what = "global requests";
    assert_eq!(dialogue.error, Some(ProtocolError::TooMuchPending { what }));
}

#[test]
fn messages_cut_short_or_too_long_are_refused() {
    let fixed = [
        channel_data(0, b"data"),
        numbered(message::CHANNEL_EOF, 0),
        numbered(message::CHANNEL_CLOSE, 0),
    ];
    for payload in fixed {
        for len in 1..payload.len() {
            let mut dialogue = Dialogue::with_channel(Habits::default());
            dialogue.client.send(&payload[..len]);
            dialogue.run();
            assert!(
                matches!(dialogue.error, Some(ProtocolError::Truncated { .. })),
                "{len}"
            );
        }
        let mut dialogue = Dialogue::with_channel(Habits::default());
        dialogue.client.send(&[&payload[..], b"x"].concat());
        dialogue.run();
        assert!(matches!(
            dialogue.error,
            Some(ProtocolError::TrailingBytes { .. })
        ));
    }
}

#[test]
fn what_was_sent_on_the_way_out_survives_the_error_behind_it() {
    let mut dialogue = Dialogue::with_channel(Habits::default());
    dialogue.client.send(&channel_data(0, b"last words"));
    dialogue.client.send(&[0]);
    dialogue.run();
    let data = Seen::ChannelData {
        channel: 0,
        data: b"last words".to_vec(),
    };
    assert_eq!(dialogue.events, [data]);
    assert!(dialogue.error.is_some());
}
