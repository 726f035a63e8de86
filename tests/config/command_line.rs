//! Command lines that start nothing: what they say, and what they leave out.

use std::net::TcpListener;

use super::{Place, text};

#[test]
fn options_of_sshd_are_answered_with_ours() {
    let place = Place::new("command-line");
    for (arguments, expected) in [
        (&["-t"][..], "agent check"),
        (&["-T"], "agent check --dump"),
        (&["-D", "-e"], "leave it out"),
        (&["serve", "-f", "x"], "agent -c FILE serve"),
        (&["-p", "22", "serve"], "agent serve -p PORT"),
        (&["reload"], "agent --help lists the commands"),
    ] {
        let ran = place.agent(arguments);
        assert_eq!(ran.status.code(), Some(1), "{arguments:?}");
        let said = text(&ran.stderr);
        assert!(said.contains("Unrecognized argument: "), "{said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

/// Nobody is invited to a server that does not start.
#[test]
fn a_server_without_its_port_invites_nobody() {
    let place = Place::new("taken-port");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = place.config(&format!("ListenAddress {address}\nDebugService no"));
    let ran = place.agent(&["-c", config.to_str().unwrap(), "serve"]);
    assert_eq!(ran.status.code(), Some(1));
    let said = text(&ran.stderr);
    assert!(said.contains("the port is in use"), "{said}");
    assert!(!said.contains("try it"), "{said}");
}
