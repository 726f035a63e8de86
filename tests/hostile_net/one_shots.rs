//! Processes that are asked one thing: what they say beyond it, or too late, counts for nothing.

use std::time::{Duration, Instant};

use agent::frames::{NetToMonitor, ToNet};
use agent::password::frames::Verdict;
use agent_helper::wire::Bytes;
use rustix::process::{Pid, Signal, kill_process};

use super::client::{Connection, none_request};
use super::methods::password_request;
use super::runner::Test;
use super::world::{PATIENCE, Setting, World};

pub const TESTS: &[Test] = &[
    ("a_hash_that_nobody_asked_for_is_not_stored", unasked_hash),
    ("a_name_that_is_none_is_not_believed", bad_name),
    ("a_name_that_comes_after_the_end_begins_nothing", late_name),
];

/// The process was given no account to look at: the method may not let root in.
fn unasked_hash() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let setting = Setting {
        config: "PermitRootLogin prohibit-password".to_owned(),
        play_passwords: true,
        ..Setting::default()
    };
    let (world, mut puppet) = World::start(&setting);
    let _connection = Connection::exchanged(&world, &mut puppet, 1);
    let request = password_request("root", b"a guess", None);
    puppet.say(1, &NetToMonitor::Auth { request });
    let mut process = world.next_password();
    process.hear_raw().unwrap();
    let hash = "$6$forged$hash".into();
    process.say(0, &Verdict::Hashed { hash });
    let answer = puppet.hear(1);
    assert!(matches!(answer, Some((ToNet::AuthFailure { .. }, _))));
    world.wait_log("attack: the process answered what it was not asked");
}

fn with_names() -> Setting {
    Setting {
        config: "UseDNS yes".to_owned(),
        play_names: true,
        ..Setting::default()
    }
}

fn bad_name() {
    let (world, mut puppet) = World::start(&with_names());
    let _connection = Connection::begin(&world, &mut puppet, 1);
    let mut process = world.next_name();
    process.hear_raw().unwrap();
    process.say(0, &Some(Bytes::from("10.0.0.1")));
    world.wait_log("has no name that leads back to it");
}

fn late_name() {
    let (mut world, mut puppet) = World::start(&with_names());
    let _connection = Connection::exchanged(&world, &mut puppet, 1);
    let mut process = world.next_name();
    process.hear_raw().unwrap();
    let request = none_request("nobody-knows");
    puppet.say(1, &NetToMonitor::Auth { request });
    // What came before this is waiting now.
    let _next = Connection::begin(&world, &mut puppet, 2);
    let monitor = Pid::from_raw(world.id().cast_signed()).unwrap();
    kill_process(monitor, Signal::USR1).unwrap();
    assert!(matches!(
        puppet.hear(1),
        Some((ToNet::Disconnect { .. }, _))
    ));
    process.say(0, &Some(Bytes::from("localhost")));
    let begin = Instant::now();
    while world.is_running() {
        assert!(begin.elapsed() < PATIENCE, "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    let log = world.log();
    assert!(log.contains("is called localhost"), "{log}");
    assert!(!log.contains("nobody-knows"), "{log}");
}
