//! Forwards that a login may not have, asked for by a compromised user's `net`; and a compromised
//! helper that wants resolvers.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use agent_helper::forward_frame::{Failure, ForwardAnswer, ForwardRequest, Place};
use agent_helper::frame::{NetToSession, SessionToNet};

use super::restricted::{Login, log_in};
use super::runner::Test;

pub const TESTS: &[Test] = &[
    ("a_restricted_key_forwards_nothing", restricted),
    ("permitopen_is_the_helpers_to_hold", permitopen),
    ("permitlisten_is_the_helpers_to_hold", permitlisten),
    ("a_forced_command_is_not_gone_around_by_a_socket", forced),
    ("connections_are_made_in_bounds", many),
];

fn tcp(host: &str, port: u16) -> Place {
    Place::Tcp {
        host: host.into(),
        port,
    }
}

fn ask(login: &mut Login, request: ForwardRequest) -> (ForwardAnswer, Vec<OwnedFd>) {
    login.say(&NetToSession::Forward { request });
    loop {
        if let (SessionToNet::Forward { answer }, descriptors) = login.hear().expect("an answer") {
            return (answer, descriptors);
        }
    }
}

fn connects(login: &mut Login, to: Place) -> bool {
    match ask(login, ForwardRequest::Connect { number: 1, to }) {
        (ForwardAnswer::Connected { .. }, sockets) => sockets.len() == 1,
        (ForwardAnswer::NotConnected { failure, .. }, sockets) => {
            assert!(sockets.is_empty());
            assert_eq!(failure, Failure::Prohibited);
            false
        }
        other => panic!("{other:?}"),
    }
}

fn listens(login: &mut Login, at: Place) -> bool {
    match ask(login, ForwardRequest::Listen { number: 1, at }) {
        (ForwardAnswer::Listening { .. }, sockets) => !sockets.is_empty(),
        (ForwardAnswer::NotListening { .. }, sockets) => !sockets.is_empty(),
        other => panic!("{other:?}"),
    }
}

fn service() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn restricted() {
    let (listener, port) = service();
    let mut login = log_in("restrict", "");
    for place in [
        tcp("127.0.0.1", port),
        tcp("localhost", port),
        Place::Unix {
            path: "/tmp/should-not-be".into(),
        },
    ] {
        assert!(!connects(&mut login, place.clone()));
        assert!(!listens(&mut login, place));
    }
    let agent = ForwardRequest::ListenAgent { number: 1 };
    assert!(ask(&mut login, agent).1.is_empty());
    assert!(!std::path::Path::new("/tmp/should-not-be").exists());
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody connected");
}

fn permitopen() {
    let (_listener, port) = service();
    let (_other, other_port) = service();
    let mut login = log_in(&format!("permitopen=\"127.0.0.1:{port}\""), "");
    assert!(connects(&mut login, tcp("127.0.0.1", port)));
    for (host, port) in [
        ("127.0.0.1", other_port),
        // The same place by other names.
        ("localhost", port),
        ("127.1", port),
        ("0", port),
        ("::ffff:127.0.0.1", port),
        ("127.0.0.1\0", port),
    ] {
        assert!(!connects(&mut login, tcp(host, port)), "{host}");
    }
}

fn permitlisten() {
    let port = service().1;
    let mut login = log_in("", &format!("PermitListen 127.0.0.1:{port}"));
    assert!(listens(&mut login, tcp("127.0.0.1", port)));
    for (host, port) in [("127.0.0.1", 0), ("127.0.0.1", port - 1), ("", port)] {
        assert!(!listens(&mut login, tcp(host, port)), "{host} {port}");
    }
}

fn forced() {
    let path = format!("/tmp/agent-hostile-{}", std::process::id());
    let _ = std::fs::remove_file(&path);
    let _listener = UnixListener::bind(&path).unwrap();
    let mut login = log_in("command=\"true\"", "");
    let place = Place::Unix {
        path: path.as_str().into(),
    };
    assert!(!connects(&mut login, place.clone()));
    assert!(!listens(&mut login, place));
    std::fs::remove_file(&path).unwrap();
}

/// Ten thousand names that nobody answers for: refused beyond a bound, and the server lives.
fn many() {
    let mut login = log_in("", "");
    let mut refused = 0;
    for number in 0..10_000 {
        let to = tcp("name.invalid", 1);
        let request = ForwardRequest::Connect { number, to };
        if let (ForwardAnswer::NotConnected { .. }, _) = {
            login.say(&NetToSession::Forward { request });
            if number < 128 {
                continue;
            }
            match login.hear().expect("an answer") {
                (SessionToNet::Forward { answer }, descriptors) => (answer, descriptors),
                other => panic!("{other:?}"),
            }
        } {
            refused += 1;
        }
    }
    assert!(refused > 9_000);
    assert!(login.world.is_running());
}
