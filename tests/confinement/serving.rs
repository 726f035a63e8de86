//! A confined process still does its work, and ends when its monitor does.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use agent::frames::{CloseReason, NetToMonitor, ToNet};
use rustix::process::{Signal, kill_process};

use super::launched::Net;

#[test]
fn a_connection_is_announced_with_its_socket_and_refused_with_a_text() {
    let mut net = Net::start();
    let mut client = TcpStream::connect(net.address).unwrap();
    client.write_all(b"SSH-2.0-test\r\n").unwrap();
    let (number, frame, descriptors) = net.receive();
    assert_eq!((number, frame), (1, NetToMonitor::Accept));
    let [socket] = <[_; 1]>::try_from(descriptors).unwrap();
    let peer = rustix::net::getpeername(socket.as_fd()).unwrap().unwrap();
    let peer = std::net::SocketAddr::try_from(peer).unwrap();
    assert_eq!(peer, client.local_addr().unwrap());

    net.send(
        number,
        &ToNet::Refused {
            text: "Not today\r\n".into(),
        },
        &[],
    );
    drop(socket);
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "Not today\r\n");
    client.shutdown(Shutdown::Both).unwrap();
    let (number, frame, _) = net.receive();
    assert!(matches!(
        (number, frame),
        (
            1,
            NetToMonitor::Closed {
                reason: CloseReason::Ended,
                ..
            }
        )
    ));
}

#[test]
fn it_ends_with_its_monitor() {
    let net = Net::start();
    let client = TcpStream::connect(net.address).unwrap();
    assert_eq!(net.hang_up().exit_status(), Some(0));
    client
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    assert!(matches!((&client).read(&mut [0; 1]), Ok(0) | Err(_)));
}

#[test]
fn it_ends_after_its_last_connection_when_told_to_accept_no_more() {
    let mut net = Net::start();
    let client = TcpStream::connect(net.address).unwrap();
    let (number, _, _) = net.receive();
    net.send(0, &ToNet::StopAccepting, &[]);
    net.send(number, &ToNet::Refused { text: "".into() }, &[]);
    drop(client);
    assert_eq!(net.wait().exit_status(), Some(0));
    assert!(TcpStream::connect(net.address).is_err());
}

/// Were the filter off, the handler of std would catch this one too: the test of the tests.
#[test]
fn a_process_that_was_killed_shows_as_such() {
    let mut net = Net::start();
    kill_process(
        rustix::process::Pid::from_raw(net.pid().cast_signed()).unwrap(),
        Signal::KILL,
    )
    .unwrap();
    assert_eq!(net.wait().terminating_signal(), Some(Signal::KILL.as_raw()));
}

/// The monitor tells connections apart by numbers that only grow; threads start in any order.
#[test]
fn connections_are_announced_in_the_order_of_their_numbers() {
    let mut net = Net::start();
    let _clients: Vec<TcpStream> = (0..60)
        .map(|_| TcpStream::connect(net.address).unwrap())
        .collect();
    for expected in 1..=60 {
        let (number, frame, _) = net.receive();
        assert_eq!((number, frame), (expected, NetToMonitor::Accept));
    }
}
