//! `agent debug`, and what it says when it does not work.

use std::fs;
use std::process::Output;

use rustix::process::geteuid;

use crate::server::{Server, debug_command, directory};

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
        .arg(env!("CARGO_BIN_EXE_agent"))
        .arg("-c")
        .arg(&server.config)
        .args(["debug", "get-log-level"])
        .output()
        .unwrap();
    let (status, _, errors) = text(&output);
    assert_eq!(status, Some(4), "{errors}");
    assert!(errors.contains("DebugAllowUsers"), "{errors}");
}
