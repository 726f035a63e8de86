//! Descriptors and addresses: only what our listeners accepted, once, and the kernel says from where.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use agent::frames::{CloseReason, NetToMonitor, ToNet};
use rustix::process::{Pid, Signal, kill_process};

use super::client::{Connection, key_line, new_key, user};
use super::runner::Test;
use super::world::{PATIENCE, Setting, World};

pub const TESTS: &[Test] = &[
    (
        "only_sockets_that_our_listeners_accepted_are_taken",
        foreign_descriptors,
    ),
    ("one_socket_makes_one_connection", one_socket_once),
    ("numbers_of_connections_only_rise", numbers),
    (
        "descriptors_where_none_belong_end_the_net",
        stray_descriptors,
    ),
    ("the_address_is_the_sockets_own", address),
    (
        "one_that_should_accept_no_more_is_heard_and_ended",
        told_to_stop,
    ),
    ("whoever_came_in_time_outlives_the_server", just_in_time),
];

/// A server that is stopped, and a connection that its `net` accepted and has not told of: sshd would
/// have forked for it by now. Once at once, and once when this process has long gone.
fn just_in_time() {
    for delay_ms in [0, 1000] {
        let (mut world, mut puppet) = World::start(&Setting::default());
        let (_client, accepted) = world.connect(&puppet);
        let server = Pid::from_raw(i32::try_from(world.id()).unwrap()).unwrap();
        kill_process(server, Signal::TERM).unwrap();
        while !matches!(puppet.hear(0), Some((ToNet::StopAccepting, _))) {}
        std::thread::sleep(Duration::from_millis(delay_ms));
        puppet.say_with(1, &NetToMonitor::Accept, &[&accepted]);
        let answer = puppet.hear(1);
        assert!(
            matches!(answer, Some((ToNet::Accepted { .. }, _))),
            "after {delay_ms} ms: {answer:?}"
        );
        let end = Instant::now() + PATIENCE;
        while world.is_running() {
            assert!(Instant::now() < end, "the server does not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
        // Whoever keeps the connection goes with it.
        let closed = NetToMonitor::Closed {
            reason: CloseReason::Ended,
            detail: "".into(),
            bytes: (0, 0),
        };
        puppet.say(1, &closed);
        assert!(puppet.is_let_go());
    }
}

/// What it accepted last is taken; without a connection it is given a moment to go.
fn told_to_stop() {
    let (world, mut old) = World::start(&Setting::default());
    let server = Pid::from_raw(i32::try_from(world.id()).unwrap()).unwrap();
    kill_process(server, Signal::HUP).unwrap();
    let next = world.next_strangers();
    next.hello();
    while !matches!(old.hear(0), Some((ToNet::StopAccepting, _))) {}
    let connection = Connection::begin(&world, &mut old, 1);
    let closed = NetToMonitor::Closed {
        reason: CloseReason::Ended,
        detail: "".into(),
        bytes: (0, 0),
    };
    old.say(connection.number, &closed);
    assert!(old.is_let_go());
    let status = format!("/proc/{}/stat", old.pid);
    let lives = || std::fs::read_to_string(&status).is_ok_and(|it| !it.contains(") Z "));
    let end = Instant::now() + PATIENCE;
    while lives() {
        assert!(Instant::now() < end, "it lives on, with our listeners");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn foreign_descriptors() {
    let (world, mut puppet) = World::start(&Setting::default());
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(elsewhere.local_addr().unwrap()).unwrap();
    let (near, _) = elsewhere.accept().unwrap();
    let ours = TcpStream::connect(world.address).unwrap();
    let unconnected = TcpListener::bind("127.0.0.1:0").unwrap();
    let foreign: Vec<(&str, OwnedFd)> = vec![
        ("the client's end", ours.into()),
        ("another server's connection", near.into()),
        ("a connection to elsewhere", far.into()),
        ("a listener", unconnected.into()),
        ("a UNIX socket", UnixStream::pair().unwrap().0.into()),
        ("a pipe", rustix::pipe::pipe().unwrap().0),
        ("a file", std::fs::File::open("/etc/passwd").unwrap().into()),
    ];
    for (number, (what, descriptor)) in (1..).zip(&foreign) {
        puppet.say_with(number, &NetToMonitor::Accept, &[descriptor]);
        match puppet.hear(number) {
            Some((ToNet::Refused { text }, _)) => assert!(text.is_empty()),
            other => panic!("{what}: {other:?}"),
        }
    }
}

fn one_socket_once() {
    let (world, mut puppet) = World::start(&Setting::default());
    let connection = Connection::begin(&world, &mut puppet, 1);
    puppet.say_with(2, &NetToMonitor::Accept, &[&connection.accepted]);
    assert!(puppet.is_let_go());
    world.wait_log("passed one socket for two connections");
    let mut next = world.next_strangers();
    next.hello();
    Connection::begin(&world, &mut next, 1);
}

fn numbers() {
    let (world, mut puppet) = World::start(&Setting::default());
    let _connection = Connection::begin(&world, &mut puppet, 5);
    let (_client, accepted) = world.connect(&puppet);
    puppet.say_with(4, &NetToMonitor::Accept, &[&accepted]);
    assert!(puppet.is_let_go());
    let mut next = world.next_strangers();
    next.hello();
    // Zero is the process itself.
    let (_client, accepted) = world.connect(&next);
    next.say_with(0, &NetToMonitor::Accept, &[&accepted]);
    assert!(next.is_let_go());
}

fn stray_descriptors() {
    let (world, mut puppet) = World::start(&Setting::default());
    let (_client, accepted) = world.connect(&puppet);
    puppet.say_with(1, &NetToMonitor::Accept, &[&accepted, &accepted]);
    assert!(puppet.is_let_go());
    let mut next = world.next_strangers();
    next.hello();
    next.say(1, &NetToMonitor::Accept);
    assert!(next.is_let_go());
    let mut next = world.next_strangers();
    next.hello();
    let _connection = Connection::begin(&world, &mut next, 1);
    next.say_with(1, &NetToMonitor::Cookie, &[&accepted]);
    assert!(next.is_let_go());
}

/// `from=` in the key line is judged by the socket: nothing that `net` says has an address in it.
fn address() {
    let (key, name) = (new_key(), user());
    let setting = Setting {
        keys: vec![(name.clone(), key_line("from=\"192.0.2.1\"", &key))],
        ..Setting::default()
    };
    let (world, mut puppet) = World::start(&setting);
    let connection = Connection::exchanged(&world, &mut puppet, 1);
    let request = super::client::signed_request(&connection.session_id, &name, &key);
    puppet.say(1, &NetToMonitor::Auth { request });
    assert!(matches!(
        puppet.hear(1),
        Some((ToNet::AuthFailure { .. }, _))
    ));
    let port = connection.client.local_addr().unwrap().port();
    world.wait_log(&format!("127.0.0.1 port {port} ssh2"));
    world.wait_log("from= does not permit this client");
}
