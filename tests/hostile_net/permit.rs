//! Every frame in every phase.

use agent::frames::{CloseReason, NetToMonitor, ToNet};
use agent_helper::wire::Wire;

use super::client::{Connection, exchange, key_line, new_key, none_request, user};
use super::runner::Test;
use super::world::{Puppet, Setting, World};

pub const TESTS: &[Test] = &[
    (
        "a_frame_out_of_turn_ends_its_connection_and_no_other",
        out_of_turn,
    ),
    (
        "a_frame_for_no_connection_ends_only_the_net_that_sent_it",
        no_connection,
    ),
    ("a_net_that_does_not_say_hello_first_is_replaced", no_hello),
    (
        "bytes_that_are_no_frame_end_only_the_net_that_sent_them",
        no_frame,
    ),
    ("a_user_net_reaches_no_connection_but_its_own", user_net),
];

/// One frame of every kind.
fn every_frame() -> Vec<NetToMonitor> {
    vec![
        NetToMonitor::Hello {
            build_id: agent::BUILD_ID,
            missing: Vec::new(),
        },
        NetToMonitor::Accept,
        NetToMonitor::Cookie,
        NetToMonitor::Sign {
            exchange: exchange(&[0; 16]),
        },
        NetToMonitor::Auth {
            request: none_request("root"),
        },
        NetToMonitor::Frozen {
            state: vec![0; 100].into(),
        },
        NetToMonitor::Closed {
            reason: CloseReason::Eof,
            detail: "".into(),
            bytes: (0, 0),
        },
        NetToMonitor::Log {
            level: 3,
            message: "a line".into(),
        },
        NetToMonitor::AcceptPaused { errno: 24 },
        NetToMonitor::ClientVersion {
            version: "SSH-2.0-hostile".into(),
        },
        NetToMonitor::AuthResponse {
            response: vec![0, 0, 0, 0].into(),
        },
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Accepted,
    Exchanged,
    Authenticating,
    HandingOver,
    Live,
}

/// Kinds that a connection in this phase may send (4 counts as an attack here, since its cookie is
/// never the right one).
fn permitted(phase: Phase) -> &'static [u8] {
    match phase {
        Phase::Accepted => &[7, 8, 10],
        Phase::Exchanged | Phase::Authenticating => &[3, 5, 7, 8],
        Phase::HandingOver => &[6, 7, 8],
        Phase::Live => &[3, 7, 8],
    }
}

fn out_of_turn() {
    let (key, name) = (new_key(), user());
    let setting = Setting {
        keys: vec![(name.clone(), key_line("", &key))],
        play_users: true,
        ..Setting::default()
    };
    let (mut world, mut puppet) = World::start(&setting);
    let mut number = 1;
    // Somebody else's connection, in the middle of authentication all the time.
    let bystander = Connection::authenticating(&world, &mut puppet, number, &name);
    let mut users: Option<Puppet> = None;
    for phase in [
        Phase::Accepted,
        Phase::Exchanged,
        Phase::Authenticating,
        Phase::HandingOver,
        Phase::Live,
    ] {
        for frame in every_frame() {
            if permitted(phase).contains(&frame.kind().0) {
                continue;
            }
            number += 1;
            let login = (name.as_str(), &key);
            let mut connection = match phase {
                Phase::Accepted => Connection::begin(&world, &mut puppet, number),
                Phase::Exchanged => Connection::exchanged(&world, &mut puppet, number),
                Phase::Authenticating => {
                    Connection::authenticating(&world, &mut puppet, number, &name)
                }
                Phase::HandingOver | Phase::Live => {
                    Connection::handing_over(&world, &mut puppet, number, login)
                }
            };
            let tag = frame.kind();
            // A frame about the whole process under a connection's number is no better.
            if phase == Phase::Live {
                puppet.say(
                    number,
                    &NetToMonitor::Frozen {
                        state: vec![1].into(),
                    },
                );
                let users = users.get_or_insert_with(|| {
                    let users = world.next_users();
                    users.hello();
                    users
                });
                // Past the end of the connection before.
                let adopted = loop {
                    let received = users.hear_raw().expect("no adoption");
                    if let Ok(ToNet::Adopt { .. }) = ToNet::from_wire(&received.content) {
                        break received;
                    }
                };
                users.say(adopted.connection, &frame);
            } else {
                if phase == Phase::HandingOver && users.is_none() {
                    let first = world.next_users();
                    first.hello();
                    users = Some(first);
                }
                if matches!(frame, NetToMonitor::Accept) {
                    puppet.say_with(number, &frame, &[&connection.accepted]);
                } else {
                    puppet.say(number, &frame);
                }
            }
            assert!(
                connection.is_cut_off(),
                "{tag:?} in {phase:?} did not end its connection"
            );
            assert!(world.is_running(), "{tag:?} in {phase:?} ended the server");
        }
    }
    // Nothing of this reached the bystander.
    let request = super::client::signed_request(&bystander.session_id, &name, &key);
    puppet.say(bystander.number, &NetToMonitor::Auth { request });
    assert!(matches!(
        puppet.hear(bystander.number),
        Some((ToNet::AuthSuccess, _))
    ));
    let attacks = world.log().matches("attack: the net process").count();
    assert!(attacks >= 25, "{attacks} attacks in the log");
}

fn no_connection() {
    let (world, mut puppet) = World::start(&Setting::default());
    let mut victim = Connection::begin(&world, &mut puppet, 7);
    // Its number never existed.
    puppet.say(
        8,
        &NetToMonitor::Sign {
            exchange: exchange(&victim.cookie),
        },
    );
    assert!(puppet.is_let_go());
    assert!(victim.is_cut_off());
    let mut next = world.next_strangers();
    next.hello();
    Connection::begin(&world, &mut next, 1);
}

fn no_hello() {
    let (world, first) = World::start(&Setting::default());
    drop(first);
    let mut silent = world.next_strangers();
    silent.say(
        0,
        &NetToMonitor::Log {
            level: 3,
            message: "no hello".into(),
        },
    );
    assert!(silent.is_let_go());
    let mut stranger = world.next_strangers();
    stranger.say(
        0,
        &NetToMonitor::Hello {
            build_id: [9; 16],
            missing: Vec::new(),
        },
    );
    assert!(stranger.is_let_go());
    let mut next = world.next_strangers();
    next.hello();
    Connection::begin(&world, &mut next, 1);
}

fn no_frame() {
    let garbage: [&[u8]; 4] = [&[], &[0], &[99, 1, 2, 3], &[4, 255, 255, 255, 255]];
    let (world, first) = World::start(&Setting::default());
    let mut puppet = first;
    for bytes in garbage {
        let _ = puppet.link.send_content(0, bytes, &[], true);
        assert!(puppet.is_let_go(), "{bytes:?}");
        puppet = world.next_strangers();
        puppet.hello();
    }
    // Datagrams without our header, straight into the socket.
    rustix::net::send(&puppet.link, b"garbage", rustix::net::SendFlags::empty()).unwrap();
    assert!(puppet.is_let_go());
    let mut next = world.next_strangers();
    next.hello();
    Connection::begin(&world, &mut next, 1);
}

fn user_net() {
    let (key, name) = (new_key(), user());
    let setting = Setting {
        keys: vec![(name.clone(), key_line("", &key))],
        play_users: true,
        ..Setting::default()
    };
    let (world, mut puppet) = World::start(&setting);
    let _stranger = Connection::exchanged(&world, &mut puppet, 1);
    let mut login = Connection::handing_over(&world, &mut puppet, 2, (&name, &key));
    puppet.say(
        2,
        &NetToMonitor::Frozen {
            state: vec![1].into(),
        },
    );
    let mut users = world.next_users();
    users.hello();
    let number = loop {
        let received = users.hear_raw().expect("no adoption");
        if received.connection != 0 {
            break received.connection;
        }
    };
    // Numbers of others, and an acceptance of its own making.
    for frame in every_frame() {
        users.say(number + 1, &frame);
    }
    assert!(users.is_let_go());
    assert!(login.is_cut_off());
    // The stranger, whose number it used as well, goes on.
    puppet.say(
        1,
        &NetToMonitor::Auth {
            request: none_request(&name),
        },
    );
    assert!(matches!(
        puppet.hear(1),
        Some((ToNet::AuthFailure { .. }, _))
    ));
}
