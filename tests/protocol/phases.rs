//! Every message number in every phase, against the permit table.

use agent::ssh::permit::{PHASES, Permit, Phase};
use agent::ssh::wire::Reader;
use agent::ssh::{ProtocolError, message};

use crate::client::Habits;
use crate::dialogue::{Dialogue, auth_request};

/// A dialogue in which the client's next message is handled in `phase`.
fn reach(phase: Phase) -> Dialogue {
    let strict = matches!(phase, Phase::StrictExchange | Phase::StrictNewKeys);
    let habits = Habits {
        strict,
        exchanges_keys: false,
        ..Habits::default()
    };
    match phase {
        Phase::FirstInit => {
            let mut dialogue = Dialogue::new(habits);
            dialogue.run();
            dialogue
        }
        Phase::FirstExchange | Phase::StrictExchange => {
            let mut dialogue = Dialogue::new(habits);
            dialogue.client.send_kexinit();
            dialogue.run();
            dialogue
        }
        Phase::FirstNewKeys | Phase::StrictNewKeys => {
            let mut dialogue = Dialogue::new(habits);
            dialogue.client.send_kexinit();
            dialogue.client.send_public();
            dialogue.run();
            dialogue
        }
        Phase::RekeyExchange | Phase::RekeyNewKeys => {
            let mut dialogue = Dialogue::open(Habits::default());
            dialogue.client.habits.exchanges_keys = false;
            dialogue.client.send_kexinit();
            if phase == Phase::RekeyNewKeys {
                dialogue.client.send_public();
            }
            dialogue.run();
            dialogue
        }
        Phase::Service => Dialogue::keyed(Habits::default()),
        Phase::Auth => Dialogue::in_auth(Habits::default()),
        Phase::Open => Dialogue::open(Habits::default()),
    }
}

#[test]
fn every_message_number_in_every_phase() {
    for phase in PHASES {
        for number in 0..=u8::MAX {
            let mut dialogue = reach(phase);
            assert_eq!(dialogue.error, None, "{phase:?}");
            dialogue.forget();
            let sequence = dialogue.client.send_sequence;
            dialogue.client.send_now(&[number]);
            dialogue.run();
            check(phase, number, sequence, &dialogue);
        }
    }
}

fn check(phase: Phase, number: u8, sequence: u32, dialogue: &Dialogue) {
    let unexpected = ProtocolError::Unexpected {
        number,
        phase: phase.name(),
    };
    let context = format!("{phase:?} {number}");
    match phase.permit(number) {
        Permit::Refuse => {
            assert_eq!(dialogue.error, Some(unexpected), "{context}");
            assert_eq!(dialogue.events, [], "{context}");
            // Where the keys just changed on one side, the test client cannot read the rest.
            if !matches!(
                phase,
                Phase::FirstNewKeys | Phase::StrictNewKeys | Phase::RekeyNewKeys
            ) {
                let (reason, text) = dialogue.client.disconnect().expect(&context);
                assert_eq!((reason, text), (2, unexpected.to_string()), "{context}");
            }
        }
        Permit::Ignore => {
            assert_eq!(dialogue.error, None, "{context}");
            assert_eq!(dialogue.events, [], "{context}");
            assert!(dialogue.client.numbers.is_empty(), "{context}");
        }
        Permit::Unimplemented => {
            assert_eq!(dialogue.error, None, "{context}");
            if matches!(
                phase,
                Phase::FirstNewKeys | Phase::StrictNewKeys | Phase::RekeyNewKeys
            ) {
                return;
            }
            let answer = dialogue.client.inbox.back().expect(&context);
            assert_eq!(answer[0], message::UNIMPLEMENTED, "{context}");
            let mut reader = Reader::new(&answer[1..]);
            assert_eq!(reader.u32("sequence"), Ok(sequence), "{context}");
        }
        Permit::Accept => {
            // An empty message is mostly malformed, which is another error.
            assert_ne!(dialogue.error, Some(unexpected), "{context}");
        }
    }
}

/// The libssh bug of 2018: a client's own SUCCESS must open nothing.
#[test]
fn a_client_cannot_let_itself_in() {
    for number in [
        message::USERAUTH_SUCCESS,
        message::USERAUTH_FAILURE,
        message::USERAUTH_PK_OK,
    ] {
        let mut dialogue = Dialogue::in_auth(Habits::default());
        dialogue.client.send(&[number]);
        dialogue
            .client
            .send(&crate::dialogue::channel_open(0, 1000, 1000));
        dialogue.run();
        assert!(dialogue.error.is_some());
        assert_eq!(dialogue.events, []);
        assert!(
            !dialogue
                .client
                .numbers
                .contains(&message::CHANNEL_OPEN_CONFIRMATION)
        );
    }
}

#[test]
fn authentication_needs_its_service_first() {
    let mut dialogue = Dialogue::keyed(Habits::default());
    dialogue.client.send(&auth_request());
    dialogue.run();
    assert!(matches!(
        dialogue.error,
        Some(ProtocolError::Unexpected { number: 50, .. })
    ));
    assert_eq!(dialogue.events, []);
}

#[test]
fn no_other_service_is_there() {
    for name in [&b"ssh-connection"[..], b"made-up", b""] {
        let mut dialogue = Dialogue::keyed(Habits::default());
        dialogue
            .client
            .send(&crate::dialogue::service_request(name));
        assert_eq!(dialogue.refused(), Some(7));
        assert_eq!(dialogue.error, Some(ProtocolError::ServiceNotAvailable));
    }
}

#[test]
fn requests_after_success_are_ignored_silently() {
    let mut dialogue = Dialogue::open(Habits::default());
    dialogue.client.send(&auth_request());
    dialogue.run();
    assert_eq!((dialogue.error, &dialogue.events[..]), (None, &[][..]));
    assert!(dialogue.client.numbers.is_empty());
}

#[test]
fn one_authentication_request_at_a_time() {
    let mut dialogue = Dialogue::in_auth(Habits::default());
    for _ in 0..3 {
        dialogue.client.send(&auth_request());
    }
    for answered in 1..=3 {
        dialogue.run();
        assert_eq!(dialogue.events.len(), answered);
        dialogue.core.auth_failure(&[b"publickey"], false);
    }
    dialogue.run();
    assert_eq!(dialogue.client.numbers, [51, 51, 51]);
}

#[test]
fn answers_nobody_waits_for_are_not_sent() {
    let mut dialogue = Dialogue::in_auth(Habits::default());
    dialogue.core.auth_failure(&[b"publickey"], false);
    dialogue.core.auth_public_key_ok(b"a", b"b");
    dialogue.core.auth_success();
    dialogue.run();
    assert!(dialogue.client.numbers.is_empty());
    dialogue
        .client
        .send(&crate::dialogue::channel_open(0, 1000, 1000));
    dialogue.run();
    assert!(dialogue.error.is_some(), "no success, no channel");
}

#[test]
fn a_disconnect_is_told_and_is_the_end() {
    for phase in PHASES {
        let mut dialogue = reach(phase);
        dialogue.forget();
        let mut payload = crate::dialogue::numbered(message::DISCONNECT, 11);
        agent::ssh::wire::Writer::put_string(&mut payload, b"bye");
        agent::ssh::wire::Writer::put_string(&mut payload, b"");
        dialogue.client.send_now(&payload);
        dialogue.client.send_now(&payload);
        dialogue.run();
        let seen = crate::dialogue::Seen::Disconnect {
            reason: 11,
            message: b"bye".to_vec(),
        };
        assert_eq!(dialogue.events, [seen], "{phase:?}");
        assert_eq!(dialogue.error, None);
        assert!(dialogue.core.inbox().is_empty());
    }
}

#[test]
fn our_disconnect_is_the_last_thing_sent() {
    let mut dialogue = Dialogue::open(Habits::default());
    dialogue.core.disconnect(11, "done");
    dialogue.core.send_global_request(b"late", false, b"");
    dialogue.core.disconnect(2, "again");
    dialogue.run();
    assert_eq!(dialogue.client.numbers, [message::DISCONNECT]);
    assert_eq!(dialogue.client.disconnect(), Some((11, "done".to_owned())));
}

#[test]
fn harmless_messages_do_nothing() {
    let mut dialogue = Dialogue::open(Habits::default());
    for _ in 0..1000 {
        dialogue.client.send(&[message::IGNORE, 0, 0, 0, 1, b'x']);
        dialogue
            .client
            .send(&[message::DEBUG, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        dialogue.client.send(&[message::UNIMPLEMENTED, 0, 0, 0, 9]);
    }
    dialogue.run();
    assert_eq!((dialogue.error, &dialogue.events[..]), (None, &[][..]));
    assert!(dialogue.client.numbers.is_empty());
}

#[test]
fn pings_are_answered_in_order_with_their_data() {
    for mut dialogue in [
        Dialogue::in_auth(Habits::default()),
        Dialogue::open(Habits::default()),
    ] {
        for data in [&b"one"[..], b"", b"three"] {
            let mut payload = vec![message::PING];
            agent::ssh::wire::Writer::put_string(&mut payload, data);
            dialogue.client.send(&payload);
        }
        dialogue.run();
        let answers: Vec<_> = dialogue
            .client
            .inbox
            .iter()
            .map(|payload| &payload[5..])
            .collect();
        assert_eq!(answers, [&b"one"[..], b"", b"three"]);
        assert_eq!(dialogue.client.numbers, [message::PONG; 3]);
    }
}
