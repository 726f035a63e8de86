//! Steps of a login that must not be skipped, and passwords that must not be tried faster or more
//! often than the configuration says.

use std::time::Duration;

use agent::frames::{NetToMonitor, ToNet};
use agent::limits::PASSWORD_CHECKS_MAX;
use agent::ssh::wire::Writer;
use agent_helper::wire::Bytes;

use super::client::{
    CONNECTION_SERVICE, Connection, key_line, new_key, none_request, signed_request, user,
};
use super::runner::Test;
use super::world::{Puppet, Setting, World};

pub const TESTS: &[Test] = &[
    ("no_step_of_a_chain_is_skipped", steps),
    ("one_key_does_not_do_two_steps", one_key_twice),
    ("an_answer_to_no_question_is_an_attack", no_question),
    (
        "a_new_password_without_an_expired_one_is_refused",
        unasked_change,
    ),
    ("a_method_that_is_switched_off_lets_nobody_in", switched_off),
    ("password_checks_are_few_at_once", few_at_once),
];

pub fn password_request(user: &str, password: &[u8], new: Option<&[u8]>) -> Bytes {
    let mut request = Vec::new();
    request.put_string(user.as_bytes());
    request.put_string(CONNECTION_SERVICE);
    request.put_string(b"password");
    request.put_boolean(new.is_some());
    request.put_string(password);
    if let Some(new) = new {
        request.put_string(new);
    }
    request.into()
}

fn interactive_request(user: &str) -> Bytes {
    let mut request = Vec::new();
    request.put_string(user.as_bytes());
    request.put_string(CONNECTION_SERVICE);
    request.put_string(b"keyboard-interactive");
    request.put_string(b"");
    request.put_string(b"");
    request.into()
}

fn answers(texts: &[&[u8]]) -> Bytes {
    let mut response = Vec::new();
    response.put_u32(u32::try_from(texts.len()).unwrap());
    for text in texts {
        response.put_string(text);
    }
    response.into()
}

fn ask(puppet: &mut Puppet, number: u32, request: Bytes) -> ToNet {
    puppet.say(number, &NetToMonitor::Auth { request });
    puppet.hear(number).expect("the monitor answers").0
}

/// A failure, with the methods that may come next, and whether something was achieved.
fn failure(answer: ToNet) -> (String, bool) {
    match answer {
        ToNet::AuthFailure {
            methods, partial, ..
        } => {
            let names: Vec<_> = methods
                .iter()
                .map(|name| String::from_utf8_lossy(name).into_owned())
                .collect();
            (names.join(","), partial)
        }
        other => panic!("no failure: {other:?}"),
    }
}

fn steps() {
    let (key, name) = (new_key(), user());
    let setting = Setting {
        config: "AuthenticationMethods publickey,password\n".to_owned(),
        keys: vec![(name.clone(), key_line("", &key))],
        ..Setting::default()
    };
    let (mut world, mut puppet) = World::start(&setting);
    let mut connection = Connection::exchanged(&world, &mut puppet, 1);
    let expected = |methods: &str, partial| (methods.to_owned(), partial);
    let first = failure(ask(&mut puppet, 1, none_request(&name)));
    assert_eq!(first, expected("publickey", false));
    // The second step first.
    let early = failure(ask(&mut puppet, 1, password_request(&name, b"x", None)));
    assert_eq!(early, expected("publickey", false));
    let early = failure(ask(&mut puppet, 1, interactive_request(&name)));
    assert_eq!(early, expected("publickey", false));
    // The first step, and then the first step again.
    let signed = signed_request(&connection.session_id, &name, &key);
    let half = failure(ask(&mut puppet, 1, signed.clone()));
    assert_eq!(half, expected("password", true));
    let again = failure(ask(&mut puppet, 1, signed));
    assert_eq!(again, expected("password", false));
    let nothing = failure(ask(&mut puppet, 1, none_request(&name)));
    assert_eq!(nothing, expected("password", false));
    // As if it were done.
    puppet.say(
        1,
        &NetToMonitor::Frozen {
            state: vec![0; 100].into(),
        },
    );
    assert!(connection.is_cut_off());
    assert!(world.is_running());
    assert!(!world.log().contains("Accepted"), "{}", world.log());
}

fn one_key_twice() {
    let (key, other, name) = (new_key(), new_key(), user());
    let setting = Setting {
        config: "AuthenticationMethods publickey,publickey\n".to_owned(),
        keys: vec![(name.clone(), key_line("", &key) + &key_line("", &other))],
        ..Setting::default()
    };
    let (world, mut puppet) = World::start(&setting);
    let connection = Connection::exchanged(&world, &mut puppet, 1);
    let signed = |key| signed_request(&connection.session_id, &name, key);
    assert!(failure(ask(&mut puppet, 1, signed(&key))).1);
    assert!(!failure(ask(&mut puppet, 1, signed(&key))).1);
    match ask(&mut puppet, 1, signed(&other)) {
        ToNet::AuthSuccess => {}
        answer => panic!("two keys were refused: {answer:?}"),
    }
}

fn no_question() {
    let name = user();
    let (mut world, mut puppet) = World::start(&Setting::default());
    let response = || NetToMonitor::AuthResponse {
        response: answers(&[b"x"]),
    };
    let mut never_asked = Connection::authenticating(&world, &mut puppet, 1, &name);
    puppet.say(1, &response());
    assert!(never_asked.is_cut_off());
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // Asked once, answered twice.
    let mut twice = Connection::exchanged(&world, &mut puppet, 2);
    match ask(&mut puppet, 2, interactive_request(&name)) {
        ToNet::AuthInfoRequest { prompts, .. } => assert_eq!(prompts.len(), 1),
        other => panic!("nothing asked: {other:?}"),
    }
    puppet.say(2, &response());
    puppet.say(2, &response());
    assert!(twice.is_cut_off());
    // What was asked is gone with the next request.
    let mut dropped = Connection::exchanged(&world, &mut puppet, 3);
    ask(&mut puppet, 3, interactive_request(&name));
    failure(ask(&mut puppet, 3, none_request(&name)));
    puppet.say(3, &response());
    assert!(dropped.is_cut_off());
    // Too many answers, and too few, are a wrong password.
    let _connection = Connection::exchanged(&world, &mut puppet, 4);
    for texts in [&[][..], &[&b"a"[..], b"b"], &[b"a", b"b", b"b"]] {
        ask(&mut puppet, 4, interactive_request(&name));
        puppet.say(
            4,
            &NetToMonitor::AuthResponse {
                response: answers(texts),
            },
        );
        failure(puppet.hear(4).expect("the monitor answers").0);
    }
    assert!(world.is_running());
}

fn unasked_change() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (world, mut puppet) = World::start(&Setting::default());
    let _connection = Connection::exchanged(&world, &mut puppet, 1);
    let before = std::fs::read("/etc/shadow").unwrap();
    let request = password_request("daemon", b"x", Some(b"a new password"));
    failure(ask(&mut puppet, 1, request));
    assert!(!world.log().contains("changed"), "{}", world.log());
    assert_eq!(std::fs::read("/etc/shadow").unwrap(), before);
}

fn switched_off() {
    let (key, name) = (new_key(), user());
    let setting = Setting {
        config: "PubkeyAuthentication no\nKbdInteractiveAuthentication no\n".to_owned(),
        keys: vec![(name.clone(), key_line("", &key))],
        ..Setting::default()
    };
    let (world, mut puppet) = World::start(&setting);
    let connection = Connection::exchanged(&world, &mut puppet, 1);
    let signed = signed_request(&connection.session_id, &name, &key);
    if rustix::process::geteuid().is_root() {
        assert_eq!(failure(ask(&mut puppet, 1, signed)).0, "password");
        assert_eq!(
            failure(ask(&mut puppet, 1, interactive_request(&name))).0,
            "password"
        );
    } else {
        match ask(&mut puppet, 1, signed) {
            ToNet::Disconnect { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Whoever hangs up at once does not make room for the next check.
fn few_at_once() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (mut world, mut puppet) = World::start(&Setting::default());
    let mut most = 0;
    for number in 1..=40 {
        let connection = Connection::exchanged(&world, &mut puppet, number);
        puppet.say(
            number,
            &NetToMonitor::Auth {
                request: password_request("nobody-of-this-name", b"a guess", None),
            },
        );
        drop(connection);
        puppet.say(
            number,
            &NetToMonitor::Closed {
                reason: agent::frames::CloseReason::Eof,
                detail: "".into(),
                bytes: (0, 0),
            },
        );
        most = most.max(password_processes(&world));
    }
    for _ in 0..20 {
        most = most.max(password_processes(&world));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(most <= PASSWORD_CHECKS_MAX, "{most} at once");
    assert!(world.is_running());
}

/// How many look at passwords for this monitor.
fn password_processes(world: &World) -> usize {
    let parent = format!("PPid:\t{}\n", world.id());
    let is_one = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.ok()?.path();
        let command = std::fs::read(path.join("cmdline")).ok()?;
        let status = std::fs::read_to_string(path.join("status")).ok()?;
        (command.starts_with(b"agent: password") && status.contains(&parent)).then_some(())
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(is_one)
        .count()
}
