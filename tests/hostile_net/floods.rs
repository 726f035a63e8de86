//! Too much of everything: bounded, and no concern of other connections.

use std::time::{Duration, Instant};

use agent::frames::{NetToMonitor, ToNet};

use super::client::{
    Connection, exchange, key_line, new_key, none_request, publickey_request, signed_request, user,
};
use super::runner::Test;
use super::world::{Puppet, Setting, World};

pub const TESTS: &[Test] = &[
    ("log_lines_are_limited", log_lines),
    ("pauses_are_one_at_a_time", pauses),
    ("pauses_are_for_those_who_accept", users_pause),
    ("exchanges_are_limited", exchanges),
    ("failures_are_limited_and_take_their_time", failures),
    ("queries_are_limited", queries),
    ("logins_work_beside_a_flood", beside),
    ("a_net_that_takes_nothing_is_replaced", deaf),
    ("a_killed_net_is_replaced_within_100_ms", killed),
    ("unauthenticated_connections_are_limited", startups),
    ("grace_time_is_the_monitors_own", grace),
];

fn log_lines() {
    let (world, mut puppet) = World::start(&Setting::default());
    for _ in 0..20_000 {
        puppet.say(
            0,
            &NetToMonitor::Log {
                level: 1,
                message: vec![b'x'; 30_000].into(),
            },
        );
    }
    let connection = Connection::begin(&world, &mut puppet, 1);
    drop(connection);
    let log = world.log();
    assert!(log.len() < 1024 * 1024, "{} bytes of log", log.len());
    assert!(log.lines().all(|line| line.len() < 8 * 1024));
}

fn pauses() {
    let (world, mut puppet) = World::start(&Setting::default());
    let pause = NetToMonitor::AcceptPaused { errno: 24 };
    puppet.say(0, &pause);
    while !matches!(puppet.hear(0).unwrap().0, ToNet::ResumeAccepting) {}
    let begin = Instant::now();
    for _ in 0..10_000 {
        puppet.say(0, &pause);
    }
    Connection::begin(&world, &mut puppet, 1);
    // Every half second one is over; the first was before.
    let most = usize::try_from(begin.elapsed().as_millis() / 500).unwrap() + 2;
    let lines = world.log().matches("no connections are accepted").count();
    assert!((2..=most).contains(&lines), "{lines} lines, {most} pauses");
}

fn users_pause() {
    let (key, name) = (new_key(), user());
    let setting = Setting {
        keys: vec![(name.clone(), key_line("", &key))],
        play_users: true,
        ..Setting::default()
    };
    let (world, mut puppet) = World::start(&setting);
    login(&world, &mut puppet, 1, &name, &key);
    let mut users = world.next_users();
    users.hello();
    users.say(0, &NetToMonitor::AcceptPaused { errno: 24 });
    assert!(users.is_let_go());
    world.wait_log("it has nothing to accept from");
}

fn exchanges() {
    let (world, mut puppet) = World::start(&Setting::default());
    let mut connection = Connection::exchanged(&world, &mut puppet, 1);
    let begin = Instant::now();
    let mut count = 0;
    loop {
        puppet.say(1, &NetToMonitor::Cookie);
        let Some((ToNet::Cookie { cookie }, _)) = puppet.hear(1) else {
            break;
        };
        puppet.say(
            1,
            &NetToMonitor::Sign {
                exchange: exchange(&cookie),
            },
        );
        let Some((ToNet::Signature { .. }, _)) = puppet.hear(1) else {
            break;
        };
        count += 1;
        if begin.elapsed() > Duration::from_secs(5) {
            // Slower than the limit: then it is the machine that limits.
            return;
        }
    }
    assert!(count >= 100, "only {count} exchanges");
    assert!(connection.is_cut_off());
}

fn failures() {
    let (world, mut puppet) = World::start(&Setting::default());
    let mut connection = Connection::authenticating(&world, &mut puppet, 1, "nobody-knows");
    let mut count = 0;
    loop {
        let begin = Instant::now();
        puppet.say(
            1,
            &NetToMonitor::Auth {
                request: publickey_request("nobody-knows", new_key().public(), None),
            },
        );
        match puppet.hear(1) {
            Some((ToNet::AuthFailure { .. }, _)) => count += 1,
            Some((ToNet::Disconnect { .. }, _)) => break,
            other => panic!("{other:?}"),
        }
        assert!(
            begin.elapsed() >= Duration::from_millis(5),
            "{:?}",
            begin.elapsed()
        );
    }
    assert_eq!(count, 5, "MaxAuthTries 6: the sixth failure ends it");
    world.wait_log("maximum authentication attempts exceeded for invalid user nobody-knows");
    assert!(connection.is_cut_off());
}

fn queries() {
    let (key, name) = (new_key(), user());
    let setting = Setting {
        keys: vec![(name.clone(), key_line("", &key))],
        ..Setting::default()
    };
    let (world, mut puppet) = World::start(&setting);
    let _connection = Connection::exchanged(&world, &mut puppet, 1);
    let request = publickey_request(&name, key.public(), None);
    let mut count = 0;
    loop {
        puppet.say(
            1,
            &NetToMonitor::Auth {
                request: request.clone(),
            },
        );
        match puppet.hear(1) {
            Some((ToNet::AuthPublicKeyOk { .. }, _)) => count += 1,
            Some((ToNet::Disconnect { .. }, _)) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(count, 15);
}

/// Whether a login comes through.
fn login(
    world: &World,
    puppet: &mut Puppet,
    number: u32,
    name: &str,
    key: &agent::ssh::crypto::private_key::PrivateKey,
) {
    let connection = Connection::exchanged(world, puppet, number);
    let request = signed_request(&connection.session_id, name, key);
    puppet.say(number, &NetToMonitor::Auth { request });
    assert!(matches!(puppet.hear(number), Some((ToNet::AuthSuccess, _))));
}

fn beside() {
    let (key, name) = (new_key(), user());
    let setting = Setting {
        keys: vec![(name.clone(), key_line("", &key))],
        play_users: true,
        ..Setting::default()
    };
    let (world, mut puppet) = World::start(&setting);
    let flooded: Vec<_> = (1..=40)
        .map(|number| Connection::exchanged(&world, &mut puppet, number))
        .collect();
    for _ in 0..3 {
        for connection in &flooded {
            puppet.say(
                connection.number,
                &NetToMonitor::Log {
                    level: 5,
                    message: vec![0; 100_000].into(),
                },
            );
            puppet.say(
                connection.number,
                &NetToMonitor::Auth {
                    request: publickey_request("nobody-knows", new_key().public(), None),
                },
            );
        }
    }
    // Most of those are attacks by now (two requests at once).
    let begin = Instant::now();
    login(&world, &mut puppet, 100, &name, &key);
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
}

fn deaf() {
    let (mut world, puppet) = World::start(&Setting::default());
    // Each connection is answered, and the answers are never read.
    let mut clients = Vec::new();
    for number in 1..=900 {
        let (client, accepted) = world.connect(&puppet);
        puppet.say_with(number, &NetToMonitor::Accept, &[&accepted]);
        puppet.say(
            number,
            &NetToMonitor::Sign {
                exchange: exchange(&[0; 16]),
            },
        );
        clients.push(client);
    }
    assert!(world.is_running());
    drop(puppet);
    let mut next = world.next_strangers();
    next.hello();
    Connection::begin(&world, &mut next, 1);
}

fn killed() {
    let (world, puppet) = World::start(&Setting::default());
    let begin = Instant::now();
    let pid = rustix::process::Pid::from_raw(i32::try_from(puppet.pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let mut next = world.next_strangers();
    assert!(
        begin.elapsed() < Duration::from_millis(100),
        "{:?}",
        begin.elapsed()
    );
    next.hello();
    Connection::begin(&world, &mut next, 1);
}

fn startups() {
    let setting = Setting {
        config: "MaxStartups 3:100:3".into(),
        ..Setting::default()
    };
    let (world, mut puppet) = World::start(&setting);
    let open: Vec<_> = (1..=3)
        .map(|number| Connection::begin(&world, &mut puppet, number))
        .collect();
    let (_client, accepted) = world.connect(&puppet);
    puppet.say_with(4, &NetToMonitor::Accept, &[&accepted]);
    match puppet.hear(4) {
        Some((ToNet::Refused { text }, _)) => assert!(text.starts_with(b"Not allowed")),
        other => panic!("{other:?}"),
    }
    world.wait_log("past MaxStartups");
    // A `net` cannot win back room by dying: the places are those of sockets.
    drop(open);
    drop(puppet);
    let mut next = world.next_strangers();
    next.hello();
    Connection::begin(&world, &mut next, 1);
}

fn grace() {
    let setting = Setting {
        config: "LoginGraceTime 1".into(),
        ..Setting::default()
    };
    let (world, mut puppet) = World::start(&setting);
    let mut connection = Connection::authenticating(&world, &mut puppet, 1, "nobody-knows");
    let begin = Instant::now();
    assert!(connection.is_cut_off());
    assert!(begin.elapsed() < Duration::from_secs(3));
    world.wait_log("Timeout before authentication for connection from 127.0.0.1");
    puppet.say(
        1,
        &NetToMonitor::Auth {
            request: none_request("nobody-knows"),
        },
    );
    Connection::begin(&world, &mut puppet, 2);
}
