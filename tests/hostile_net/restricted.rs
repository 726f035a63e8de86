//! A restricted key in a compromised user's `net`: the helper does what the policy says, no more.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::Duration;

use agent::frames::{NetToMonitor, ToNet};
use agent_helper::frame::{NetToSession, Program, SessionToNet};
use agent_helper::link::{Assembly, Link, LinkError};
use agent_helper::wire::{Bytes, Wire};
use rustix::event::{PollFd, PollFlags, poll};

use super::client::{Connection, key_line, new_key, user};
use super::runner::Test;
use super::world::{PATIENCE, Puppet, Setting, World, timespec};

pub const TESTS: &[Test] = &[
    ("a_forced_command_is_all_that_runs", forced_command),
    ("a_restricted_key_gets_no_terminal", no_terminal),
    ("variables_are_filtered_by_the_helper", variables),
    ("sessions_are_limited_by_the_helper", too_many),
    ("a_helper_ends_at_what_is_no_frame_and_alone", no_frame),
];

/// A login with a restricted key, in the hands of a puppet, with its session socket.
pub struct Login {
    pub world: World,
    _strangers: Puppet,
    _users: Puppet,
    _connection: Connection,
    session: Link,
    assembly: Assembly,
}

pub fn log_in(options: &str, config: &str) -> Login {
    let (key, name) = (new_key(), user());
    let setting = Setting {
        config: config.into(),
        keys: vec![(name.clone(), key_line(options, &key))],
        play_users: true,
        ..Setting::default()
    };
    let (world, mut strangers) = World::start(&setting);
    let connection = Connection::handing_over(&world, &mut strangers, 1, (&name, &key));
    strangers.say(
        1,
        &NetToMonitor::Frozen {
            state: vec![1].into(),
        },
    );
    let mut users = world.next_users();
    users.hello();
    let mut descriptors = loop {
        let received = users.hear_raw().expect("no adoption");
        if let Ok(ToNet::Adopt { .. }) = ToNet::from_wire(&received.content) {
            break received.descriptors;
        }
    };
    let session = Link::new(descriptors.pop().unwrap());
    Login {
        world,
        _strangers: strangers,
        _users: users,
        _connection: connection,
        session,
        assembly: Assembly::default(),
    }
}

impl Login {
    pub fn say(&self, frame: &NetToSession) {
        self.session.send(0, frame, &[], true).unwrap();
    }

    pub fn hear(&mut self) -> Option<(SessionToNet, Vec<OwnedFd>)> {
        let mut polled = [PollFd::new(&self.session, PollFlags::IN)];
        let count = poll(&mut polled, Some(&timespec(PATIENCE))).unwrap();
        assert_eq!(count, 1, "the helper says nothing");
        match self.session.receive(&mut self.assembly, true) {
            Ok(Some(received)) => Some((
                SessionToNet::from_wire(&received.content).unwrap(),
                received.descriptors,
            )),
            Ok(None) | Err(LinkError::Closed | LinkError::System(_)) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Starts a program; gives what it writes, or `None` if the helper starts nothing.
    fn output(
        &mut self,
        session: u32,
        program: Program,
        environment: &[(&str, &str)],
    ) -> Option<String> {
        let environment: Vec<(Bytes, Bytes)> = environment
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        self.say(&NetToSession::Start {
            session,
            program,
            environment,
        });
        loop {
            match self.hear().expect("the helper is gone") {
                (SessionToNet::Started { .. }, descriptors) => {
                    let mut descriptors = descriptors.into_iter();
                    drop(descriptors.next());
                    let mut text = String::new();
                    let mut stdout = File::from(descriptors.next().unwrap());
                    stdout.read_to_string(&mut text).unwrap();
                    return Some(text);
                }
                (SessionToNet::NotStarted { .. }, _) => return None,
                _ => {}
            }
        }
    }
}

fn forced_command() {
    let mut login = log_in(
        "restrict,command=\"echo forced: $SSH_ORIGINAL_COMMAND\"",
        "",
    );
    let forced = "forced:";
    let mut session = 0;
    for program in [
        Program::Shell,
        Program::Command {
            line: "touch /tmp/should-not-be".into(),
        },
        Program::Command {
            line: "x\"; touch /tmp/should-not-be; \"".into(),
        },
        Program::Subsystem {
            name: "sftp".into(),
        },
        Program::Subsystem {
            name: "../../bin/sh".into(),
        },
    ] {
        session += 1;
        if let Some(text) = login.output(session, program.clone(), &[]) {
            assert!(
                text.starts_with(forced),
                "{program:?} ran something: {text}"
            );
        }
    }
    assert!(!std::path::Path::new("/tmp/should-not-be").exists());
}

fn no_terminal() {
    let mut login = log_in("restrict", "");
    login.say(&NetToSession::OpenTerminal {
        session: 1,
        term: "xterm".into(),
        size: [0; 16],
        modes: Bytes::default(),
    });
    assert!(matches!(
        login.hear(),
        Some((SessionToNet::NoTerminal { session: 1 }, _))
    ));
    assert!(!login.world.log().contains("/dev/pts"));
}

fn variables() {
    let mut login = log_in("", "AcceptEnv GOOD_*");
    let text = login
        .output(
            1,
            Program::Command { line: "env".into() },
            &[
                ("GOOD_ONE", "yes"),
                ("LD_PRELOAD", "/tmp/evil.so"),
                ("PATH", "/tmp/evil"),
                ("HOME", "/tmp/evil"),
                ("BAD=NAME", "x"),
            ],
        )
        .unwrap();
    assert!(text.contains("GOOD_ONE=yes"), "{text}");
    assert!(!text.contains("evil"), "{text}");
    assert!(!text.contains("BAD"), "{text}");
}

fn too_many() {
    let mut login = log_in("", "MaxSessions 2");
    for session in 1..=2 {
        login.say(&NetToSession::Start {
            session,
            program: Program::Command {
                line: "sleep 20".into(),
            },
            environment: Vec::new(),
        });
        assert!(matches!(
            login.hear(),
            Some((SessionToNet::Started { .. }, _))
        ));
    }
    for session in [3, 4, u32::MAX] {
        let started = login.output(
            session,
            Program::Command {
                line: "echo more".into(),
            },
            &[],
        );
        assert_eq!(started, None);
    }
    // A number that is taken is not started twice.
    assert_eq!(
        login.output(
            1,
            Program::Command {
                line: "echo more".into()
            },
            &[]
        ),
        None
    );
}

fn no_frame() {
    let mut login = log_in("", "");
    login
        .session
        .send_content(0, &[99, 1, 2, 3], &[], true)
        .unwrap();
    assert!(login.hear().is_none(), "the helper goes on");
    std::thread::sleep(Duration::from_millis(50));
    assert!(login.world.is_running());
}
