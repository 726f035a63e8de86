//! The first key exchange: negotiation, strict KEX, guesses, bad values.

use agent::ssh::wire::Writer;
use agent::ssh::{ProtocolError, message};

use crate::client::Habits;
use crate::dialogue::{Dialogue, Seen};

/// CVE-2023-48795 (Terrapin): with strict KEX agreed even a harmless message before NEWKEYS must end
/// the connection, since it shifts the sequence numbers: whoever injected it could cut the first
/// protected message without being noticed.
#[test]
fn strict_kex_refuses_harmless_messages_before_newkeys() {
    for number in [message::IGNORE, message::DEBUG, message::UNIMPLEMENTED] {
        for newkeys in [false, true] {
            let habits = Habits {
                exchanges_keys: false,
                ..Habits::default()
            };
            let mut dialogue = Dialogue::new(habits);
            dialogue.client.send_kexinit();
            if newkeys {
                dialogue.client.send_public();
            }
            dialogue.run();
            dialogue.events.clear();
            dialogue.client.send_now(&[number, 0, 0, 0, 0, 0, 0, 0, 0]);
            dialogue.run();
            let phase = if newkeys {
                "await newkeys, strict"
            } else {
                "strict key exchange"
            };
            assert_eq!(
                dialogue.error,
                Some(ProtocolError::Unexpected { number, phase })
            );
            assert_eq!(dialogue.events, [], "nothing reached the driver");
        }
    }
}

#[test]
fn strict_kex_wants_kexinit_as_the_first_packet() {
    let mut dialogue = Dialogue::new(Habits::default());
    dialogue.client.send_now(&[message::IGNORE, 0, 0, 0, 0]);
    dialogue.run();
    assert!(matches!(
        dialogue.error,
        Some(ProtocolError::Unexpected { number: 20, .. })
    ));
}

#[test]
fn without_strict_kex_harmless_messages_are_let_through() {
    let mut dialogue = Dialogue::new(Habits {
        strict: false,
        ..Habits::default()
    });
    dialogue.client.send_now(&[message::IGNORE, 0, 0, 0, 0]);
    dialogue.client.send_kexinit();
    dialogue
        .client
        .send_now(&[message::DEBUG, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    dialogue.run();
    assert_eq!(dialogue.error, None);
    assert!(dialogue.events.contains(&Seen::KeysChanged { first: true }));
}

#[test]
fn strict_kex_resets_both_sequence_numbers() {
    let habits = Habits {
        ciphers: vec!["aes128-gcm@openssh.com"],
        ..Habits::default()
    };
    assert_eq!(Dialogue::keyed(habits).client.send_sequence, 0);
    // GCM counts for itself; the others have the sequence number in their tag.
    let mut dialogue = Dialogue::keyed(Habits {
        ciphers: vec!["aes128-ctr"],
        ..Habits::default()
    });
    assert_eq!(dialogue.client.send_sequence, 0);
    assert_eq!(dialogue.client.receive_sequence, 1, "EXT_INFO");
    // And a client that does not reset its own is not understood.
    dialogue.client.send_sequence = 3;
    dialogue
        .client
        .send(&crate::dialogue::service_request(b"ssh-userauth"));
    assert_eq!(dialogue.refused(), Some(5));
    assert_eq!(dialogue.error, Some(ProtocolError::BadTag));
}

#[test]
fn a_second_kexinit_during_the_exchange_is_refused() {
    for strict in [true, false] {
        let habits = Habits {
            strict,
            exchanges_keys: false,
            ..Habits::default()
        };
        let mut dialogue = Dialogue::new(habits);
        dialogue.client.send_kexinit();
        dialogue.client.send_kexinit();
        dialogue.run();
        assert!(matches!(
            dialogue.error,
            Some(ProtocolError::Unexpected { number: 20, .. })
        ));
    }
}

#[test]
fn a_wrong_guess_is_dropped_once() {
    let mut guess = vec![message::KEX_ECDH_INIT];
    guess.put_string(b"a value of another method");
    let habits = Habits {
        kex: vec!["curve25519-sha256"],
        host_key: vec!["ssh-made-up", "ssh-ed25519"],
        guess: Some(guess),
        ..Habits::default()
    };
    let mut dialogue = Dialogue::new(habits);
    dialogue.run();
    assert_eq!(dialogue.error, None);
    assert!(dialogue.events.contains(&Seen::KeysChanged { first: true }));
}

#[test]
fn a_guess_for_another_method_has_another_number() {
    let habits = Habits {
        kex: vec!["diffie-hellman-group-exchange-sha256", "curve25519-sha256"],
        guess: Some(vec![34, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 8, 0]),
        ..Habits::default()
    };
    let mut dialogue = Dialogue::new(habits);
    dialogue.run();
    assert_eq!(dialogue.error, None);
    assert!(dialogue.events.contains(&Seen::KeysChanged { first: true }));
}

#[test]
fn a_right_guess_counts() {
    let mut dialogue = Dialogue::new(Habits {
        // Our first names, so the guess is right and its bad value is not dropped.
        kex: vec!["mlkem768x25519-sha256"],
        guess: Some(vec![message::KEX_ECDH_INIT, 0, 0, 0, 1, 9]),
        ..Habits::default()
    });
    dialogue.run();
    assert_eq!(
        dialogue.error,
        Some(ProtocolError::KeyExchange {
            what: "public value"
        })
    );
}

#[test]
fn nothing_in_common_says_which_list() {
    let cases = [
        (
            Habits {
                kex: vec!["made-up"],
                ..Habits::default()
            },
            "key exchange method",
        ),
        (
            Habits {
                host_key: vec!["made-up"],
                ..Habits::default()
            },
            "host key algorithm",
        ),
        (
            Habits {
                ciphers: vec!["made-up"],
                ..Habits::default()
            },
            "cipher",
        ),
        (
            Habits {
                ciphers: vec!["aes128-ctr"],
                macs: vec!["made-up"],
                ..Habits::default()
            },
            "MAC",
        ),
        (
            Habits {
                compression: vec!["zlib"],
                ..Habits::default()
            },
            "compression",
        ),
        // A marker name is no method, though both sides have it or nearly so.
        (
            Habits {
                kex: vec!["ext-info-s"],
                ..Habits::default()
            },
            "key exchange method",
        ),
        (
            Habits {
                kex: vec![],
                ..Habits::default()
            },
            "key exchange method",
        ),
    ];
    for (habits, list) in cases {
        let mut dialogue = Dialogue::new(Habits {
            exchanges_keys: false,
            ..habits
        });
        dialogue.client.send_kexinit();
        assert_eq!(dialogue.refused(), Some(3), "{list}");
        assert_eq!(
            dialogue.error,
            Some(ProtocolError::NoCommonAlgorithm { list })
        );
        let unmatched = dialogue.core.unmatched().unwrap();
        assert!(unmatched.contains("found. Their offer: "), "{unmatched}");
    }
}

#[test]
fn an_aead_cipher_needs_no_common_mac() {
    let habits = Habits {
        macs: vec!["umac-128@openssh.com"],
        ..Habits::default()
    };
    let dialogue = Dialogue::new(Habits {
        exchanges_keys: false,
        ..habits
    });
    let mut dialogue = dialogue;
    dialogue.client.send_kexinit();
    dialogue.run();
    assert_eq!(dialogue.error, None);
}

#[test]
fn the_clients_order_decides() {
    let habits = Habits {
        ciphers: vec!["aes256-ctr", "chacha20-poly1305@openssh.com"],
        macs: vec!["hmac-sha2-512", "hmac-sha2-256-etm@openssh.com"],
        ..Habits::default()
    };
    let dialogue = Dialogue::keyed(habits);
    assert_eq!(
        dialogue.core.algorithms(),
        "curve25519-sha256 ssh-ed25519 aes256-ctr hmac-sha2-512"
    );
}

#[test]
fn a_kexinit_cut_anywhere_is_refused() {
    let whole = Dialogue::new(Habits::default()).client.kexinit();
    for len in 1..whole.len() {
        let mut dialogue = Dialogue::new(Habits {
            exchanges_keys: false,
            ..Habits::default()
        });
        dialogue.client.send_now(&whole[..len]);
        dialogue.run();
        assert!(dialogue.error.is_some(), "{len}");
    }
    let mut longer = whole;
    longer.push(0);
    let mut dialogue = Dialogue::new(Habits {
        exchanges_keys: false,
        ..Habits::default()
    });
    dialogue.client.send_now(&longer);
    dialogue.run();
    assert_eq!(
        dialogue.error,
        Some(ProtocolError::TrailingBytes { number: 20 })
    );
}

#[test]
fn bad_public_values_are_refused() {
    let low_order = [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
    ]
    .into_iter()
    .chain([
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16,
    ])
    .chain([0x5f, 0x49, 0xb8, 0x00])
    .collect::<Vec<u8>>();
    let values = [
        vec![],
        vec![0; 32],
        vec![5; 31],
        vec![5; 33],
        vec![5; 5000],
        low_order,
    ];
    for value in values {
        let mut dialogue = Dialogue::new(Habits {
            exchanges_keys: false,
            ..Habits::default()
        });
        dialogue.client.send_kexinit();
        let mut payload = vec![message::KEX_ECDH_INIT];
        payload.put_string(&value);
        dialogue.client.send_now(&payload);
        assert_eq!(dialogue.refused(), Some(3), "{} bytes", value.len());
        assert_eq!(
            dialogue.error,
            Some(ProtocolError::KeyExchange {
                what: "public value"
            })
        );
        assert!(!dialogue.events.contains(&Seen::NeedSignature));
    }
}

#[test]
fn nothing_is_read_while_the_signature_is_awaited() {
    let mut dialogue = Dialogue::new(Habits::default());
    dialogue.answers_exchange = false;
    dialogue.run();
    assert_eq!(dialogue.events.last(), Some(&Seen::NeedSignature));
    assert!(dialogue.core.inbox().is_empty());
    dialogue.core.provide_signature(b"signature");
    dialogue.run();
    assert_eq!(
        dialogue.events.last(),
        Some(&Seen::KeysChanged { first: true })
    );
}

#[test]
fn answers_at_the_wrong_time_do_nothing() {
    let mut dialogue = Dialogue::new(Habits {
        exchanges_keys: false,
        ..Habits::default()
    });
    dialogue.core.provide_signature(b"signature");
    dialogue.core.provide_cookie([1; 16]);
    dialogue.run();
    assert_eq!(dialogue.client.numbers, [message::KEXINIT]);
    assert_eq!(dialogue.error, None);
}

#[test]
fn the_cookie_is_in_our_kexinit() {
    let dialogue = {
        let mut dialogue = Dialogue::new(Habits {
            exchanges_keys: false,
            ..Habits::default()
        });
        dialogue.run();
        dialogue
    };
    assert_eq!(dialogue.client.inbox[0][1..17], [7; 16]);
}
