//! Freeze and thaw: the connection goes on in another process as if nothing had happened.

use agent::ssh::crypto::Random;
use agent::ssh::{Core, Frozen, ProtocolError, Setup, message};
use agent_helper::wire::Wire;

use crate::client::Habits;
use crate::dialogue::{
    Dialogue, Seen, auth_request, channel_open, global_request, service_request, setup,
};
use crate::login::{PROTECTIONS, protected};

/// A dialogue with an unanswered authentication request.
pub fn waiting(habits: Habits) -> Dialogue {
    let mut dialogue = Dialogue::in_auth(habits);
    dialogue.client.send(&auth_request());
    dialogue.run();
    assert_eq!(dialogue.events.len(), 1);
    dialogue
}

/// Puts the thawed core in the place of the frozen one.
pub fn hand_over(dialogue: &mut Dialogue) {
    let other = Core::new(&setup(), [0; 16], Random::system());
    let frozen = std::mem::replace(&mut dialogue.core, other)
        .freeze()
        .unwrap();
    dialogue.core = Core::thaw(&frozen, &dialogue.setup, Random::system()).unwrap();
}

#[test]
fn every_cipher_goes_on_after_a_hand_over() {
    for (cipher, mac) in PROTECTIONS {
        for strict in [true, false] {
            let mut dialogue = waiting(Habits {
                strict,
                ..protected(cipher, mac)
            });
            hand_over(&mut dialogue);
            assert_eq!(dialogue.core.session_id(), dialogue.client.session_id);
            assert_eq!(dialogue.core.client_version(), b"SSH-2.0-test");
            dialogue.forget();
            dialogue.core.auth_banner(b"welcome");
            dialogue.core.auth_success();
            dialogue.run();
            assert_eq!(dialogue.client.numbers, [53, 52]);
            dialogue.open_channel(7);
            dialogue.client.send_kexinit();
            dialogue.run();
            dialogue.core.rekey();
            dialogue.run();
            assert_eq!(dialogue.error, None);
            assert_eq!(dialogue.client.exchanges, 3, "first, theirs, ours");
        }
    }
}

#[test]
fn pipelined_bytes_and_unsent_bytes_go_along() {
    for (cipher, mac) in PROTECTIONS {
        let mut dialogue = Dialogue::keyed(protected(cipher, mac));
        dialogue.forget();
        dialogue.client.send(&service_request(b"ssh-userauth"));
        dialogue.client.send(&auth_request());
        // A client that knows its key is good may send on at once.
        dialogue.client.send(&channel_open(9, 1000, 1000));
        dialogue.client.send(&global_request(b"x", true));
        let partial = dialogue.client.packet(&global_request(b"cut", false));
        let wire = std::mem::take(&mut dialogue.client.wire);
        let half = partial.len() / 2;
        let all = [&wire[..], &partial[..half]].concat();
        dialogue.core.inbox()[..all.len()].copy_from_slice(&all);
        dialogue.core.received(all.len());
        dialogue.take_events();
        assert_eq!(dialogue.events.len(), 1);
        assert!(!dialogue.core.outbox().is_empty(), "SERVICE_ACCEPT waits");
        hand_over(&mut dialogue);
        dialogue.core.auth_success();
        dialogue.client.wire.extend_from_slice(&partial[half..]);
        dialogue.run();
        assert_eq!(dialogue.error, None, "{cipher} {mac}");
        assert!(matches!(dialogue.events[1], Seen::ChannelOpen { .. }));
        assert!(matches!(dialogue.events[2], Seen::GlobalRequest { .. }));
        assert!(matches!(dialogue.events[3], Seen::GlobalRequest { .. }));
        assert_eq!(
            dialogue.client.numbers,
            [message::SERVICE_ACCEPT, message::USERAUTH_SUCCESS]
        );
    }
}

#[test]
fn there_is_one_moment_for_it() {
    let freeze = |dialogue: Dialogue| dialogue.core.freeze().is_err();
    assert!(freeze(Dialogue::new(Habits::default())));
    assert!(freeze(Dialogue::keyed(Habits::default())));
    assert!(freeze(Dialogue::in_auth(Habits::default())));
    assert!(freeze(Dialogue::open(Habits::default())));
    let mut dialogue = waiting(Habits::default());
    dialogue.core.disconnect(11, "over");
    assert!(freeze(dialogue));
}

#[test]
fn a_refusal_after_the_hand_over_is_possible_too() {
    let mut dialogue = waiting(Habits::default());
    hand_over(&mut dialogue);
    dialogue.forget();
    dialogue.core.auth_failure(&[b"publickey"], true);
    dialogue.client.send(&auth_request());
    dialogue.run();
    assert_eq!(dialogue.client.numbers, [message::USERAUTH_FAILURE]);
    assert_eq!(dialogue.events.len(), 1);
}

/// What arrives may come from a hostile process: every cut and every changed byte ends in an error or
/// in a connection, never in a panic, whatever the client says then.
#[test]
fn damaged_state_never_panics() {
    for (cipher, mac) in [
        PROTECTIONS[0],
        PROTECTIONS[1],
        PROTECTIONS[3],
        PROTECTIONS[8],
    ] {
        let mut dialogue = waiting(protected(cipher, mac));
        dialogue.client.send(&global_request(b"x", true));
        let wire = dialogue.client.wire.clone();
        let setup = dialogue.setup.clone();
        let frozen = dialogue.core.freeze().unwrap();
        for len in 0..frozen.len() {
            assert!(
                Core::thaw(&frozen[..len], &setup, Random::system()).is_err(),
                "{len}"
            );
        }
        for at in 0..frozen.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = frozen.clone();
                damaged[at] ^= flip;
                let Ok(mut core) = Core::thaw(&damaged, &setup, Random::system()) else {
                    continue;
                };
                core.auth_success();
                let room = core.inbox();
                let len = wire.len().min(room.len());
                room[..len].copy_from_slice(&wire[..len]);
                core.received(len);
                while let Ok(Some(_)) = core.next_event() {}
                core.rekey();
                while let Ok(Some(_)) = core.next_event() {}
                core.provide_cookie([0; 16]);
                core.disconnect(11, "over");
            }
        }
    }
}

#[test]
fn a_state_without_protection_is_refused() {
    let mut dialogue = waiting(Habits::default());
    let setup = dialogue.setup.clone();
    let other = Core::new(&setup, [0; 16], Random::system());
    let frozen = std::mem::replace(&mut dialogue.core, other)
        .freeze()
        .unwrap();
    let good = || Frozen::from_wire(&frozen).unwrap();
    let mut plain = Vec::new();
    agent::ssh::crypto::cipher::Opener::none().freeze(&mut plain);
    let mut state = good();
    state.ciphers.0 = plain.clone().into();
    assert!(thaw(&state, &setup).is_err());
    let mut state = good();
    state.ciphers.1 = plain.into();
    assert!(thaw(&state, &setup).is_err());
    for change in [
        |state: &mut Frozen| state.session_id = Vec::new().into(),
        |state: &mut Frozen| state.session_id = vec![0; 65].into(),
        |state: &mut Frozen| state.unread = vec![0; 1 << 20].into(),
        |state: &mut Frozen| state.unsent = vec![0; 1 << 20].into(),
        |state: &mut Frozen| state.client_version = vec![b'x'; 10_000].into(),
        |state: &mut Frozen| state.algorithms = "two\nlines".into(),
    ] {
        let mut state = good();
        change(&mut state);
        assert!(matches!(
            thaw(&state, &setup),
            Err(ProtocolError::BadValue { .. })
        ));
    }
    assert!(thaw(&good(), &setup).is_ok());
}

/// A connection that carried this many packets under its keys, logged in.
fn aged(packets: u64) -> Dialogue {
    let mut dialogue = waiting(Habits::default());
    let other = Core::new(&setup(), [0; 16], Random::system());
    let frozen = std::mem::replace(&mut dialogue.core, other)
        .freeze()
        .unwrap();
    let mut state = Frozen::from_wire(&frozen).unwrap();
    state.since_keys.0.1 = packets;
    dialogue.core = thaw(&state, &dialogue.setup).unwrap();
    dialogue.core.auth_success();
    dialogue.events.clear();
    dialogue
}

#[test]
fn two_to_the_31_packets_start_an_exchange() {
    let mut dialogue = aged((1 << 31) - 1);
    dialogue.run();
    assert_eq!(dialogue.events, []);
    dialogue.client.send(&global_request(b"one more", false));
    dialogue.run();
    assert!(
        dialogue
            .events
            .contains(&Seen::KeysChanged { first: false })
    );
    assert_eq!(dialogue.error, None);
}

/// A peer that ignores our KEXINIT for as long must not make sequence numbers repeat under one key.
#[test]
fn keys_that_were_never_changed_end_the_connection() {
    let mut dialogue = aged(u64::from(u32::MAX));
    dialogue.answers_exchange = false;
    dialogue.client.send(&global_request(b"one more", false));
    dialogue.run();
    assert_eq!(dialogue.error, Some(ProtocolError::SequenceWrapped));
}

fn thaw(state: &Frozen, setup: &Setup) -> Result<Core, ProtocolError> {
    Core::thaw(&state.to_wire(), setup, Random::system())
}
