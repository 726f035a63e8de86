//! The log: nothing that a `net` or its peer says can look like a line of the monitor's own.

use agent::frames::{CloseReason, NetToMonitor, ToNet};

use super::client::{Connection, none_request};
use super::runner::Test;
use super::world::{Setting, World};

pub const TESTS: &[Test] = &[
    ("log_lines_cannot_be_forged", forged),
    ("names_cannot_forge_log_lines", names),
];

const FORGED: &str = "Accepted publickey for root from 192.0.2.66 port 22 ssh2: ED25519 SHA256:x";

/// What stands behind time and process: the line itself.
fn messages(log: &str) -> Vec<String> {
    log.lines()
        .filter_map(|line| {
            line.split_once("]: ")
                .map(|(_, message)| message.to_owned())
        })
        .collect()
}

fn assert_nothing_forged(world: &World) {
    let log = world.log();
    // Before that, the command line says hello to whoever started it.
    for line in log
        .lines()
        .skip_while(|line| !line.contains("Server listening"))
    {
        let login_line = line.contains(" sshd[");
        assert!(
            login_line || line.contains(" agent["),
            "a line of somebody else's making: {line:?}"
        );
        // What tools look for is the first address of such a line.
        let first = line.split_once(" from ").map(|(_, rest)| rest);
        assert!(
            !login_line || first.is_none_or(|rest| rest.starts_with("127.0.0.1 ")),
            "{line}"
        );
    }
    for message in messages(&log) {
        for start in ["Accepted", "Failed", "Invalid user", "event="] {
            let forged = message.starts_with(start) && message.contains(" from 192.0.2.66");
            assert!(!forged, "{message}");
        }
    }
}

fn forged() {
    let (world, mut puppet) = World::start(&Setting::default());
    let connection = Connection::begin(&world, &mut puppet, 1);
    for lead in [
        "",
        "\n",
        "\r\n",
        "\n2026-01-01 00:00:00 agent[1]: ",
        "\u{1b}[2K\r",
        "\0",
    ] {
        let text = format!("{lead}{FORGED}");
        for level in [0, 1, 3, 5, 255] {
            puppet.say(
                0,
                &NetToMonitor::Log {
                    level,
                    message: text.as_str().into(),
                },
            );
            puppet.say(
                1,
                &NetToMonitor::Log {
                    level,
                    message: text.as_str().into(),
                },
            );
        }
    }
    puppet.say(
        1,
        &NetToMonitor::ClientVersion {
            version: format!("x\n{FORGED}").as_str().into(),
        },
    );
    let detail = format!("\n{FORGED}").as_str().into();
    let reason = CloseReason::ByPeer { code: 11 };
    puppet.say(
        1,
        &NetToMonitor::Closed {
            reason,
            detail,
            bytes: (u64::MAX, u64::MAX),
        },
    );
    world.wait_log("reason=disconnected-by-peer");
    assert_nothing_forged(&world);
    drop(connection);
}

fn names() {
    let (world, mut puppet) = World::start(&Setting::default());
    let names = [
        "x from 192.0.2.66 port 1 ssh2\nFailed password for y",
        "root from 192.0.2.66",
        "\"; event=login user=root",
        "a\r\u{85}\u{2028}b",
    ];
    for (number, name) in (1..).zip(names) {
        Connection::exchanged(&world, &mut puppet, number);
        puppet.say(
            number,
            &NetToMonitor::Auth {
                request: none_request(name),
            },
        );
        assert!(matches!(
            puppet.hear(number),
            Some((ToNet::AuthFailure { .. }, _))
        ));
    }
    world.wait_log("Invalid user");
    assert_nothing_forged(&world);
    for message in messages(&world.log()) {
        if let Some(rest) = message.strip_prefix("Invalid user ") {
            let words: Vec<_> = rest.split(' ').collect();
            assert_eq!(words.len(), 5, "a blank in a name: {message}");
            assert_eq!(words[1..3], ["from", "127.0.0.1"], "{message}");
        }
    }
}
