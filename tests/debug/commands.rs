//! `agent debug`, and what it says when it does not work.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Output;

use rustix::process::geteuid;

use crate::server::{Server, agent, debug_command, directory};

fn text(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn the_level_is_shown_and_set() {
    let server = Server::start(&[]);
    let run = |words: &[&str]| text(&server.command(words));
    assert_eq!(
        run(&["get-log-level"]),
        (Some(0), "INFO\n".into(), String::new())
    );
    assert_eq!(run(&["set-log-level", "warn"]).0, Some(0));
    assert_eq!(run(&["get-log-level"]).1, "WARN\n");
    let (status, _, errors) = run(&["set-log-level", "loud"]);
    assert_eq!(status, Some(1));
    assert!(
        errors.contains("TRACE, DEBUG, INFO, WARN or ERROR"),
        "{errors}"
    );
}

#[test]
fn wrong_words_name_the_help() {
    let server = Server::start(&[]);
    for words in [
        &[][..],
        &["dance"],
        &["set-log-level"],
        &["get-log-level", "x"],
    ] {
        let (status, _, errors) = text(&server.command(words));
        assert_eq!(status, Some(2), "{words:?}");
        assert!(errors.contains("agent debug --help"), "{errors}");
    }
}

#[test]
fn known_commands_with_wrong_words_show_how_they_are_written() {
    let directory = directory();
    let config = directory.join("config");
    fs::write(&config, "").unwrap();
    for (words, usage) in [
        (
            &["set-log-level"][..],
            "write: agent debug set-log-level LEVEL;",
        ),
        (&["close", "x"], "write: agent debug close ID;"),
        (&["readyz", "x"], "write: agent debug readyz;"),
        (
            &["penalties", "x"],
            "write: agent debug penalties [clear [ADDRESS]];",
        ),
    ] {
        let (status, _, errors) = text(&debug_command(&config, words));
        assert_eq!(status, Some(2), "{words:?}");
        assert!(errors.contains(usage), "{errors}");
    }
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_configuration_that_cannot_be_read_is_what_is_told() {
    let directory = directory();
    let config = directory.join("config");
    for content in [None, Some("Port x\n")] {
        if let Some(content) = content {
            fs::write(&config, content).unwrap();
        }
        let (status, _, errors) = text(&debug_command(&config, &["readyz"]));
        assert_eq!(status, Some(1), "{errors}");
        assert!(errors.contains(config.to_str().unwrap()), "{errors}");
        assert!(errors.contains("name it with -c"), "{errors}");
    }
    fs::remove_dir_all(directory).unwrap();
}

/// Something that answers on the socket of a configuration, once for each of the answers.
fn pretend(answers: &'static [&'static [u8]]) -> (PathBuf, PathBuf) {
    let directory = directory();
    let config = directory.join("config");
    fs::create_dir(directory.join("run")).unwrap();
    fs::write(&config, format!("DataDir {}/run\n", directory.display())).unwrap();
    let listener = UnixListener::bind(directory.join("run/debug.sock")).unwrap();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut client, _) = listener.accept().unwrap();
            let _ = client.read(&mut [0; 1024]);
            let _ = client.write_all(answer);
        }
    });
    (directory, config)
}

#[test]
fn what_is_no_server_of_this_version_is_named() {
    let (directory, config) = pretend(&[
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 38\r\n\r\nnothing is here; GET / lists what there",
        b"SSH-2.0-x\r\n\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nINFO",
    ]);
    for (code, words) in [
        (5, "it is an older version"),
        (3, "what answers there is no agent"),
        (3, "without an answer"),
        (3, "is cut short"),
    ] {
        let (status, _, errors) = text(&debug_command(&config, &["get-log-level"]));
        assert_eq!(status, Some(code), "{errors}");
        assert!(errors.contains(words), "{errors}");
    }
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn without_a_server_it_asks_which_one_was_meant() {
    let directory = directory();
    let config = directory.join("config");
    let here = directory.display();
    fs::write(&config, format!("DataDir {here}/run\n")).unwrap();
    let (status, _, errors) = text(&debug_command(&config, &["get-log-level"]));
    assert_eq!(status, Some(3));
    assert!(
        errors.contains("run/debug.sock: no server answers there"),
        "{errors}"
    );
    fs::write(&config, format!("DataDir {here}/run\nDebugService no\n")).unwrap();
    let (status, _, errors) = text(&debug_command(&config, &["get-log-level"]));
    assert_eq!(status, Some(3));
    assert!(errors.contains("DebugService no"), "{errors}");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn without_permission_it_says_who_gives_it() {
    if !geteuid().is_root() {
        return;
    }
    let server = Server::start(&[]);
    let output = std::process::Command::new("setpriv")
        .args(["--reuid", "daemon", "--regid", "daemon", "--clear-groups"])
        .arg(agent())
        .arg("-c")
        .arg(&server.config)
        .args(["debug", "get-log-level"])
        .output()
        .unwrap();
    let (status, _, errors) = text(&output);
    assert_eq!(status, Some(4), "{errors}");
    assert!(errors.contains("DebugAllowUsers"), "{errors}");
}
