//! A compromised helper: the user, with a socket to the monitor.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use agent::frames::CloseReason;
use agent::frames::{NetToMonitor, ToNet};
use agent_helper::frame::{FileEvent, FileOperation, HelperToMonitor, KeyRecord, MonitorToHelper};
use agent_helper::wire::Wire;

use super::client::{Connection, new_key, publickey_request, signed_request, user};
use super::runner::Test;
use super::world::{Puppet, Setting, World};

pub const TESTS: &[Test] = &[
    (
        "a_helper_that_speaks_out_of_turn_logs_nobody_in",
        out_of_turn,
    ),
    ("a_key_reader_that_lies_finds_no_key", lying_reader),
    ("a_key_reader_that_never_ends_is_given_up", endless_reader),
    ("terminals_are_the_policys_and_few", terminals),
    ("a_helpers_lines_are_no_login_lines", lines),
    ("what_is_told_of_files_is_bounded_and_whole", told_of_files),
    (
        "who_asks_for_a_log_of_files_asks_for_no_flood",
        logged_of_files,
    ),
];

fn setting() -> Setting {
    Setting {
        config: "HelperMode self".into(),
        play_helper: true,
        play_users: true,
        ..Setting::default()
    }
}

/// A connection whose key question is with a puppet helper, and the pipe for the answer.
fn asked(
    world: &World,
    strangers: &mut Puppet,
    number: u32,
    request: impl Fn(&Connection) -> agent_helper::wire::Bytes,
) -> (Connection, Puppet, OwnedFd) {
    let connection = Connection::exchanged(world, strangers, number);
    strangers.say(
        number,
        &NetToMonitor::Auth {
            request: request(&connection),
        },
    );
    let mut helper = world.next_helper();
    helper.say(
        0,
        &HelperToMonitor::Hello {
            build_id: agent::BUILD_ID,
        },
    );
    loop {
        let mut received = helper.hear_raw().unwrap();
        match MonitorToHelper::from_wire(&received.content).unwrap() {
            MonitorToHelper::SetLogLevel { .. } => {}
            MonitorToHelper::ReadKeys { .. } => {
                return (connection, helper, received.descriptors.pop().unwrap());
            }
            other => panic!("{other:?}"),
        }
    }
}

fn record(file: u32, status: u32, content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len()).unwrap();
    [
        [file, status, len].map(u32::to_le_bytes).concat(),
        content.to_vec(),
    ]
    .concat()
}

fn write(pipe: &OwnedFd, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(pipe, rest) {
            Ok(len) => rest = &rest[len..],
            Err(_) => return, // the monitor has heard enough
        }
    }
}

fn out_of_turn() {
    let (world, mut strangers) = World::start(&setting());
    let frames = [
        HelperToMonitor::Hello {
            build_id: agent::BUILD_ID,
        },
        HelperToMonitor::Ready,
        HelperToMonitor::Failed {
            step: "\nAccepted publickey for root".into(),
            errno: -1,
        },
        HelperToMonitor::OpenTerminal { session: 1 },
        HelperToMonitor::SessionStarted { session: 1, pid: 1 },
        HelperToMonitor::SessionEnded { session: 1 },
    ];
    let name = user();
    for (number, frame) in (1..).zip(frames) {
        let request = |_: &Connection| publickey_request(&name, new_key().public(), None);
        let (_connection, mut helper, _pipe) = asked(&world, &mut strangers, number, request);
        helper.say(0, &frame);
        assert!(helper.is_let_go(), "{:?}", frame.kind());
        assert!(matches!(
            strangers.hear(number),
            Some((ToNet::AuthFailure { .. }, _))
        ));
    }
    assert!(!world.log().contains("agent-helper: Accepted"));
}

fn lying_reader() {
    let (world, mut strangers) = World::start(&setting());
    let key = new_key();
    let name = user();
    let line = super::client::key_line("", &key);
    let chunk = record(0, KeyRecord::CHUNK, line.as_bytes());
    let lies: [Vec<u8>; 6] = [
        // No end: the reader died in the middle.
        chunk.clone(),
        // An end in the middle of a file.
        [chunk.clone(), record(0, KeyRecord::END, b"")].concat(),
        // Two files at once.
        [chunk.clone(), record(1, KeyRecord::CHUNK, b"x")].concat(),
        // A file that was refused in the middle counts for nothing.
        [record(0, KeyRecord::REFUSED, b"no"), record(0, 77, b"")].concat(),
        // Lengths beyond reason.
        [
            record(0, KeyRecord::CHUNK, b""),
            u32::MAX.to_le_bytes().repeat(3),
        ]
        .concat(),
        Vec::new(),
    ];
    for (number, lie) in (1..).zip(lies) {
        let request = |_: &Connection| publickey_request(&name, key.public(), None);
        let (_connection, _helper, pipe) = asked(&world, &mut strangers, number, request);
        write(&pipe, &lie);
        drop(pipe);
        assert!(
            matches!(strangers.hear(number), Some((ToNet::AuthFailure { .. }, _))),
            "{number}"
        );
    }
}

fn endless_reader() {
    let (world, mut strangers) = World::start(&setting());
    let name = user();
    let request = |_: &Connection| publickey_request(&name, new_key().public(), None);
    // Endless bytes.
    let (_one, _helper, pipe) = asked(&world, &mut strangers, 1, request);
    for _ in 0..20 {
        write(
            &pipe,
            &record(0, KeyRecord::CHUNK, &vec![b'#'; 1024 * 1024]),
        );
    }
    assert!(matches!(
        strangers.hear(1),
        Some((ToNet::AuthFailure { .. }, _))
    ));
    // Endless silence.
    let (_two, _helper, _pipe) = asked(&world, &mut strangers, 2, request);
    assert!(matches!(
        strangers.hear(2),
        Some((ToNet::AuthFailure { .. }, _))
    ));
    world.wait_log("it took too long");
}

/// A login whose helper is a puppet. (Its key file says what it likes: it reads as root until then,
/// and is the monitor's own sealed image; what is tested is what it may do as the user.)
fn logged_in(world: &World, strangers: &mut Puppet, options: &str) -> (Connection, Puppet, Puppet) {
    let key = new_key();
    let name = user();
    let signed = |connection: &Connection| signed_request(&connection.session_id, &name, &key);
    let (connection, mut helper, pipe) = asked(world, strangers, 1, signed);
    let line = super::client::key_line(options, &key);
    let file = [
        record(0, KeyRecord::CHUNK, line.as_bytes()),
        record(0, KeyRecord::COMPLETE, b""),
        record(0, KeyRecord::END, b""),
    ];
    write(&pipe, &file.concat());
    drop(pipe);
    assert!(matches!(strangers.hear(1), Some((ToNet::AuthSuccess, _))));
    strangers.say(
        1,
        &NetToMonitor::Frozen {
            state: vec![1].into(),
        },
    );
    let accepted = helper.hear_raw().unwrap();
    assert!(matches!(
        MonitorToHelper::from_wire(&accepted.content),
        Ok(MonitorToHelper::Accepted { .. })
    ));
    helper.say(0, &HelperToMonitor::Ready);
    let mut users = world.next_users();
    users.hello();
    while users.hear_raw().expect("no adoption").connection == 0 {}
    (connection, helper, users)
}

fn terminals() {
    let (world, mut strangers) = World::start(&setting());
    let root = rustix::process::geteuid().is_root();
    let (_connection, mut helper, _users) = logged_in(&world, &mut strangers, "");
    let mut opened = Vec::new();
    for session in 0..200 {
        helper.say(0, &HelperToMonitor::OpenTerminal { session });
        let received = helper.hear_raw().unwrap();
        match MonitorToHelper::from_wire(&received.content).unwrap() {
            MonitorToHelper::Terminal { .. } => opened.push(received.descriptors),
            MonitorToHelper::NoTerminal { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(opened.len(), if root { 64 } else { 0 });
    let log = std::fs::read_to_string(world.directory.join("log")).unwrap();
    let refusals = log.matches("no terminal for 127.0.0.1 port ").count();
    let expected = if root { 1..=136 } else { 0..=0 };
    assert!(expected.contains(&refusals), "{refusals}: {log}");
    drop((helper, strangers));

    let (world, mut strangers) = World::start(&setting());
    let (_connection, mut helper, _users) = logged_in(&world, &mut strangers, "restrict");
    helper.say(0, &HelperToMonitor::OpenTerminal { session: 1 });
    let received = helper.hear_raw().unwrap();
    assert!(
        received.descriptors.is_empty(),
        "a terminal for a key without pty"
    );
}

/// What a user's log may hold after so long, and some for all other lines.
fn log_bound(time: Duration) -> u64 {
    const BURST_BYTES: u64 = 8 << 20;
    const BYTES_PER_SECOND: u64 = 256 << 10;
    BURST_BYTES + BYTES_PER_SECOND * (time.as_secs() + 1) + (512 << 10)
}

/// Floods for a while; gives how many frames the monitor took or will take.
fn flood(world: &World, helper: &Puppet, frame: impl Fn(u32) -> HelperToMonitor) -> u32 {
    let begin = Instant::now();
    let mut count = 0;
    while begin.elapsed() < Duration::from_secs(4) {
        helper.say(0, &frame(count));
        count += 1;
    }
    let log = std::fs::metadata(world.directory.join("log"))
        .unwrap()
        .len();
    let bound = log_bound(begin.elapsed());
    assert!(log < bound, "{log} bytes of log for {count} frames");
    count
}

/// The connection is over, and what was told of it before is in the log yet.
fn is_whole(world: &World, users: &Puppet, helper: Puppet, count: u32, mark: &str) {
    users.say(
        1,
        &NetToMonitor::Closed {
            reason: CloseReason::Eof,
            detail: "".into(),
            bytes: (0, 0),
        },
    );
    drop(helper);
    world.wait_log(&format!("{mark}{:06}", count - 1));
    let log = world.log();
    let numbers: Vec<u32> = log
        .lines()
        .filter_map(|line| line.split_once(mark)?.1.get(..6)?.parse().ok())
        .collect();
    assert!(numbers.into_iter().eq(0..count), "holes in the log");
}

fn told_of_files() {
    let setting = Setting {
        config: "HelperMode self\nSftpAudit yes".into(),
        ..setting()
    };
    let (world, mut strangers) = World::start(&setting);
    let (_connection, helper, users) = logged_in(&world, &mut strangers, "");
    let path = [b'\n'; 4000];
    let count = flood(&world, &helper, |number| HelperToMonitor::FileEvent {
        event: FileEvent {
            operation: FileOperation::Rename,
            path: [format!("mark{number:06}").as_bytes(), &path]
                .concat()
                .into(),
            second: path.to_vec().into(),
            status: 0,
            read_bytes: 0,
            written_bytes: 0,
            is_scp: false,
        },
    });
    is_whole(&world, &users, helper, count, "mark");
}

fn logged_of_files() {
    let setting = Setting {
        config: "HelperMode self\nSubsystem sftp internal-sftp -l DEBUG".into(),
        ..setting()
    };
    let (world, mut strangers) = World::start(&setting);
    let (_connection, helper, users) = logged_in(&world, &mut strangers, "");
    let text = "x".repeat(900);
    let count = flood(&world, &helper, |number| HelperToMonitor::Log {
        level: 4,
        message: format!("mark{number:06} {text}").as_str().into(),
    });
    is_whole(&world, &users, helper, count, "mark");
}

fn lines() {
    let (world, mut strangers) = World::start(&setting());
    let (_connection, helper, _users) = logged_in(&world, &mut strangers, "");
    let forged = "\nAccepted publickey for root from 192.0.2.66 port 22 ssh2";
    for _ in 0..5000 {
        helper.say(
            0,
            &HelperToMonitor::Log {
                level: 1,
                message: forged.into(),
            },
        );
    }
    helper.say(
        0,
        &HelperToMonitor::SessionStarted {
            session: 1,
            pid: u32::MAX,
        },
    );
    std::thread::sleep(Duration::from_millis(200));
    let log = world.log();
    let forged: Vec<_> = log
        .lines()
        .filter(|line| line.contains("192.0.2.66"))
        .collect();
    assert!(!forged.is_empty() && forged.len() < 1000);
    assert!(
        forged
            .iter()
            .all(|line| line.contains(" agent[") && line.contains(": helper "))
    );
    // What is not there is not hidden either.
    drop(helper);
    world.wait_log(" lines were left out, too many at once");
}
