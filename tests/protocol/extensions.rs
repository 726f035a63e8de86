//! EXT_INFO of a client, and the second one of ours that it can ask for (RFC 8308, OpenSSH PROTOCOL).

use agent::ssh::message;
use agent::ssh::wire::Writer;

use crate::client::Habits;
use crate::dialogue::{Dialogue, Seen, auth_request, service_request};
use crate::handover::hand_over;

const IN_AUTH: (&[u8], &[u8]) = (b"ext-info-in-auth@openssh.com", b"0");

fn ext_info(extensions: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut payload = vec![message::EXT_INFO];
    payload.put_u32(u32::try_from(extensions.len()).expect("a few"));
    for (name, value) in extensions {
        payload.put_string(name);
        payload.put_string(value);
    }
    payload
}

/// A client with keys that has said these extensions, and asks who it may be.
fn asking(extensions: &[(&[u8], &[u8])]) -> Dialogue {
    let mut dialogue = Dialogue::keyed(Habits::default());
    dialogue.forget();
    dialogue.client.send(&ext_info(extensions));
    dialogue.client.send(&service_request(b"ssh-userauth"));
    dialogue.client.send(&auth_request());
    dialogue.run();
    assert_eq!(
        dialogue.events,
        [Seen::AuthRequest(auth_request()[1..].to_vec())]
    );
    assert_eq!(dialogue.client.numbers, [message::SERVICE_ACCEPT]);
    dialogue.forget();
    dialogue
}

fn signature_algorithms(names: &[u8]) -> Vec<u8> {
    ext_info(&[(b"server-sig-algs", names)])
}

#[test]
fn how_the_users_keys_may_sign_goes_ahead_of_the_first_answer() {
    let mut dialogue = asking(&[(b"unknown", b"\xff\0"), IN_AUTH, IN_AUTH]);
    let names = ["ssh-ed25519", "sk-ssh-ed25519@openssh.com"];
    dialogue
        .core
        .set_signature_algorithms(names.map(Into::into).into());
    dialogue.core.auth_failure(&[b"publickey"], false);
    dialogue.client.send(&auth_request());
    dialogue.run();
    dialogue.core.auth_public_key_ok(b"ssh-ed25519", b"blob");
    dialogue.client.send(&auth_request());
    dialogue.run();
    dialogue.core.auth_success();
    dialogue.run();
    assert_eq!(
        dialogue.client.numbers,
        [
            message::EXT_INFO,
            message::USERAUTH_FAILURE,
            message::USERAUTH_PK_OK,
            message::USERAUTH_SUCCESS
        ]
    );
    assert_eq!(
        dialogue.client.inbox.front(),
        Some(&signature_algorithms(
            b"ssh-ed25519,sk-ssh-ed25519@openssh.com"
        ))
    );
}

#[test]
fn a_user_with_no_list_of_its_own_has_everybodys() {
    let mut dialogue = asking(&[IN_AUTH]);
    dialogue.core.auth_failure(&[b"publickey"], false);
    dialogue.run();
    let everybodys = signature_algorithms(b"ssh-ed25519,rsa-sha2-256");
    assert_eq!(dialogue.client.inbox.front(), Some(&everybodys));
}

#[test]
fn it_comes_before_success_in_another_process_too() {
    let mut dialogue = asking(&[IN_AUTH]);
    hand_over(&mut dialogue);
    dialogue.core.auth_success();
    dialogue.run();
    let numbers = [message::EXT_INFO, message::USERAUTH_SUCCESS];
    assert_eq!(dialogue.client.numbers, numbers);
    dialogue.open_channel(7);
}

#[test]
fn who_does_not_ask_is_told_nothing_more() {
    for extensions in [
        &[][..],
        &[(IN_AUTH.0, b"1".as_slice())],
        &[(b"ext-info-in-auth", b"0")],
    ] {
        let mut dialogue = asking(extensions);
        dialogue.core.auth_failure(&[b"publickey"], false);
        dialogue.run();
        assert_eq!(dialogue.client.numbers, [message::USERAUTH_FAILURE]);
    }
}

#[test]
fn behind_success_it_is_not_even_read() {
    let mut dialogue = Dialogue::open(Habits::default());
    dialogue.client.send(&[message::EXT_INFO, 0xff]);
    dialogue.client.send(&ext_info(&[IN_AUTH]));
    dialogue.run();
    dialogue.open_channel(7);
    assert_eq!(dialogue.error, None);
}

#[test]
fn every_cut_of_it_and_any_surplus_ends_the_connection() {
    let whole = ext_info(&[(b"name", b"value"), IN_AUTH]);
    let mut broken: Vec<Vec<u8>> = (1..whole.len()).map(|len| whole[..len].to_vec()).collect();
    broken.push([&whole[..], b"\0"].concat());
    broken.push(vec![message::EXT_INFO, 0xff, 0xff, 0xff, 0xff]);
    for payload in broken {
        let mut dialogue = Dialogue::keyed(Habits::default());
        dialogue.client.gives_up = true;
        dialogue.client.send(&payload);
        dialogue.run();
        assert_eq!(dialogue.refused(), Some(2), "{} bytes", payload.len());
    }
}
