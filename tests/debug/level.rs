//! The log level, changed while the server runs.

use rustix::process::Signal;

use crate::server::{Server, wait};

#[test]
fn is_told_and_changed_in_any_case_of_letters() {
    let server = Server::start(&["LogLevel VERBOSE"]);
    let told = server.get("/log-level");
    assert_eq!(told.text(), "DEBUG\n");
    assert!(
        told.head.contains("Content-Type: text/plain"),
        "{}",
        told.head
    );
    for (word, level) in [
        ("warn", "WARN\n"),
        ("Trace\n", "TRACE\n"),
        ("ERROR", "ERROR\n"),
        ("info", "INFO\n"),
    ] {
        let answer = server.put("/log-level", word);
        assert_eq!((answer.status, answer.text().as_str()), (200, level));
        assert_eq!(server.get("/log-level").text(), level);
    }
    assert!(
        server.log().contains("log level TRACE by order of "),
        "{}",
        server.log()
    );
}

#[test]
fn a_level_that_does_not_exist_is_answered_with_those_that_do() {
    let server = Server::start(&[]);
    for word in ["", "LOUD", "INFO INFO", "off"] {
        let answer = server.put("/log-level", word);
        assert_eq!(answer.status, 422, "{word:?}");
        for level in ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"] {
            assert!(answer.text().contains(level));
        }
    }
    assert_eq!(server.put("/log-level", &"x".repeat(1025)).status, 413);
    assert_eq!(server.with_body("POST", "/log-level", "INFO").status, 405);
    assert_eq!(server.get("/log-level").text(), "INFO\n");
}

#[test]
fn counts_at_once_and_until_the_configuration_is_read_again() {
    let server = Server::start(&[]);
    assert!(server.greets());
    assert!(!server.log().contains("debug: Connection from"));
    server.put("/log-level", "DEBUG");
    assert!(server.greets());
    server.wait_for_log("debug: Connection from");
    server.signal(Signal::HUP);
    server.wait_for_log("reading the configuration again");
    wait("the configured level", || {
        server.get("/log-level").text() == "INFO\n"
    });
}

#[test]
fn the_processes_that_run_already_hear_of_it() {
    let server = Server::start(&[]);
    // Its thread in net has a level of its own, from before.
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    wait("the greeting", || {
        let mut byte = [0];
        stream.peek(&mut byte).is_ok_and(|len| len == 1)
    });
    server.put("/log-level", "TRACE");
    std::io::Write::write_all(&mut stream, b"SSH-2.0-probe\r\n").unwrap();
    server.wait_for_log("is SSH-2.0-probe");
}
