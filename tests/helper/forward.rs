//! Forwarding: sockets that the helper makes as the user, within the policy.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

use agent_helper::forward_frame::{
    Address, Addresses, Failure, ForwardAnswer, ForwardRequest, Forwarding, Gateway, Lookup, Place,
};
use agent_helper::frame::{HelperToMonitor, MonitorToHelper, NetToSession, SessionToNet};
use rustix::io::Errno;
use rustix::net::sockopt;

use crate::harness::*;

fn everything() -> Forwarding {
    Forwarding {
        tcp_local: true,
        tcp_remote: true,
        unix_local: true,
        unix_remote: true,
        agent: true,
        bind_mask: 0o177,
        ..Forwarding::default()
    }
}

fn login(change: impl FnOnce(&mut Forwarding)) -> Login {
    Login::with(|policy| {
        policy.forwarding = everything();
        change(&mut policy.forwarding);
    })
}

fn tcp(host: &str, port: u16) -> Place {
    Place::Tcp {
        host: host.into(),
        port,
    }
}

fn unix(path: &std::path::Path) -> Place {
    Place::Unix {
        path: path.to_str().unwrap().into(),
    }
}

impl Login {
    fn ask(&self, request: ForwardRequest) {
        self.net.send(&NetToSession::Forward { request }, &[]);
    }

    fn answer(&mut self) -> (ForwardAnswer, Vec<OwnedFd>) {
        match self.net.receive::<SessionToNet>() {
            (SessionToNet::Forward { answer }, descriptors) => (answer, descriptors),
            other => panic!("not about forwarding: {other:?}"),
        }
    }

    fn connect(&mut self, to: Place) -> Result<OwnedFd, Failure> {
        self.ask(ForwardRequest::Connect { number: 7, to });
        match self.answer() {
            (ForwardAnswer::Connected { number: 7 }, mut sockets) => {
                assert_eq!(sockets.len(), 1);
                Ok(sockets.pop().unwrap())
            }
            (ForwardAnswer::NotConnected { number: 7, failure }, sockets) => {
                assert!(sockets.is_empty());
                Err(failure)
            }
            other => panic!("{other:?}"),
        }
    }

    fn listen(&mut self, at: Place) -> Option<(Vec<OwnedFd>, u16)> {
        self.ask(ForwardRequest::Listen { number: 8, at });
        match self.answer() {
            (ForwardAnswer::Listening { number: 8, port }, sockets) => Some((sockets, port)),
            (ForwardAnswer::NotListening { number: 8 }, _) => None,
            other => panic!("{other:?}"),
        }
    }

    /// What the monitor hears besides log lines.
    fn monitor_hears(&mut self) -> HelperToMonitor {
        loop {
            match self.helper.monitor.receive().0 {
                HelperToMonitor::Log { .. } => {}
                frame => return frame,
            }
        }
    }

    /// Plays the monitor: hands over a resolver, whose end is given back.
    fn resolver(&mut self) -> End {
        assert_eq!(self.monitor_hears(), HelperToMonitor::StartResolver);
        let (ours, theirs) = pair();
        self.helper
            .monitor
            .send(&MonitorToHelper::Resolver, &[&theirs]);
        End::new(ours)
    }
}

fn system(errno: Errno) -> Failure {
    Failure::System {
        errno: errno.raw_os_error(),
    }
}

fn v4(last: u8) -> Address {
    Address::V4 {
        octets: [127, 0, 0, last],
    }
}

#[test]
fn a_connection_is_handed_over_whole() {
    let mut login = login(|_| {});
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut socket = TcpStream::from(login.connect(tcp("127.0.0.1", port)).unwrap());
    let (mut peer, _) = listener.accept().unwrap();
    assert!(socket.nodelay().unwrap());
    socket.set_nonblocking(false).unwrap();
    peer.write_all(b"hello").unwrap();
    drop(peer);
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    assert_eq!(
        text, "hello",
        "the helper kept no copy that would hold the end back"
    );
}

#[test]
fn failures_are_the_systems() {
    let mut login = login(|_| {});
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let refused = login.connect(tcp("127.0.0.1", free)).map(drop);
    assert_eq!(refused, Err(system(Errno::CONNREFUSED)));
    let missing = login.connect(unix(&login.home.0.join("none"))).map(drop);
    assert_eq!(missing, Err(system(Errno::NOENT)));
}

#[test]
fn the_peer_of_a_socket_sees_the_user() {
    let mut login = login(|_| {});
    let path = login.home.0.join("service");
    let listener = UnixListener::bind(&path).unwrap();
    // As another's service that lets everybody in would.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    let _socket = login.connect(unix(&path)).unwrap();
    let (peer, _) = listener.accept().unwrap();
    let credentials = sockopt::socket_peercred(&peer).unwrap();
    assert_eq!(credentials.uid.as_raw(), UID);
    assert_eq!(credentials.gid.as_raw(), GID);
}

#[test]
fn what_only_root_may_connect_to_is_refused() {
    let mut login = login(|_| {});
    let directory = Home::new();
    let path = directory.0.join("roots");
    let _listener = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let refused = login.connect(unix(&path)).map(drop);
    assert_eq!(refused, Err(system(Errno::ACCESS)));
    assert!(
        login.listen(tcp("127.0.0.1", 919)).is_none(),
        "a port of root's"
    );
}

#[test]
fn the_policy_is_asked_whatever_net_says() {
    let mut login = Login::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for to in [
        tcp("127.0.0.1", port),
        tcp("localhost", port),
        unix("/tmp/x".as_ref()),
    ] {
        assert_eq!(
            login.connect(to.clone()).map(drop),
            Err(Failure::Prohibited)
        );
        assert!(login.listen(to).is_none());
    }
    login.ask(ForwardRequest::ListenAgent { number: 1 });
    assert_eq!(login.answer().0, ForwardAnswer::NotListening { number: 1 });
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody connected");
}

#[test]
fn a_listener_is_bound_where_gateway_ports_lets_it() {
    for (gateway, host, loopback) in [
        (Gateway::No, "0.0.0.0", true),
        (Gateway::No, "", true),
        (Gateway::Yes, "127.0.0.1", false),
        (Gateway::ClientSpecified, "", false),
        (Gateway::ClientSpecified, "localhost", true),
        (Gateway::ClientSpecified, "127.0.0.5", true),
    ] {
        let mut login = login(|rules| rules.gateway = gateway);
        let (sockets, port) = login.listen(tcp(host, 0)).unwrap();
        assert_ne!(port, 0);
        for socket in sockets {
            let address = TcpListener::from(socket).local_addr().unwrap();
            assert_eq!(address.port(), port);
            assert_eq!(address.ip().is_loopback(), loopback, "{gateway:?} {host:?}");
        }
    }
}

#[test]
fn net_has_the_only_copy_of_a_listener() {
    let mut login = login(|_| {});
    let (sockets, port) = login.listen(tcp("127.0.0.1", 0)).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    assert!(TcpStream::connect(address).is_ok());
    drop(sockets);
    eventually("the port is closed", || {
        TcpStream::connect(address).is_err()
    });
    assert!(
        login.listen(tcp("127.0.0.1", port)).is_some(),
        "and the port is free"
    );
}

#[test]
fn a_socket_file_is_the_users_and_goes_with_its_listener() {
    let mut login = login(|_| {});
    let path = login.home.0.join("listening");
    let (_sockets, _) = login.listen(unix(&path)).unwrap();
    let found = std::fs::metadata(&path).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o777), (UID, 0o600));
    assert!(login.listen(unix(&path)).is_none(), "it is taken");
    login.ask(ForwardRequest::StopListening { number: 8 });
    eventually("the file goes", || !path.exists());
    let (_sockets, _) = login.listen(unix(&path)).unwrap();
    let Login { helper, net, home } = login;
    drop(net);
    eventually("the file goes with the connection", || !path.exists());
    drop((helper, home));
}

#[test]
fn names_are_looked_up_elsewhere_and_hold_nothing_up() {
    let mut login = login(|_| {});
    let listener = TcpListener::bind("127.0.0.3:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for number in 1..=2 {
        let to = tcp(&format!("host{number}.example"), port);
        login.ask(ForwardRequest::Connect { number, to });
    }
    let mut resolver = login.resolver();
    let lookups: Vec<Lookup> = (0..2).map(|_| resolver.receive().0).collect();
    assert_eq!(&*lookups[1].name, b"host2.example");
    // Meanwhile all else goes on.
    assert_eq!(login.run("echo on").0, "on\n");
    assert!(login.connect(tcp("127.0.0.3", port)).is_ok());
    let found = |number, addresses| Addresses { number, addresses };
    // An address that refuses, and one that does not.
    resolver.send(&found(lookups[1].number, vec![v4(9), v4(3)]), &[]);
    assert_eq!(login.answer().0, ForwardAnswer::Connected { number: 2 });
    resolver.send(&found(lookups[0].number, vec![]), &[]);
    let failure = Failure::Unresolved;
    assert_eq!(
        login.answer().0,
        ForwardAnswer::NotConnected { number: 1, failure }
    );
    // Nobody asked for this.
    resolver.send(&found(99, vec![v4(3)]), &[]);
    assert_eq!(login.run("echo on").0, "on\n");
}

#[test]
fn a_resolver_that_ended_is_replaced_and_one_that_is_not_to_be_had_is_a_failure() {
    let mut login = login(|_| {});
    let to = tcp("host.example", 1);
    login.ask(ForwardRequest::Connect { number: 1, to });
    let mut first = login.resolver();
    let _: (Lookup, _) = first.receive();
    drop(first);
    let mut second = login.resolver();
    let (lookup, _): (Lookup, _) = second.receive();
    assert_eq!(&*lookup.name, b"host.example", "asked anew");
    drop(second);
    assert_eq!(login.monitor_hears(), HelperToMonitor::StartResolver);
    login.helper.monitor.send(&MonitorToHelper::NoResolver, &[]);
    let failure = Failure::Unresolved;
    assert_eq!(
        login.answer().0,
        ForwardAnswer::NotConnected { number: 1, failure }
    );
}

#[test]
fn connections_under_way_are_bounded() {
    let mut login = login(|_| {});
    for number in 0..1000 {
        let to = tcp("slow.example", 80);
        login.ask(ForwardRequest::Connect { number, to });
        if number >= 128 {
            let failure = Failure::Busy;
            let refused = ForwardAnswer::NotConnected { number, failure };
            assert_eq!(login.answer().0, refused);
        }
    }
    assert_eq!(login.run("echo on").0, "on\n");
}

#[test]
fn the_agents_socket_is_in_the_environment_and_goes_with_the_connection() {
    let mut login = login(|_| {});
    assert_eq!(login.run("echo $SSH_AUTH_SOCK").0, "\n");
    login.ask(ForwardRequest::ListenAgent { number: 3 });
    let (answer, sockets) = login.answer();
    assert_eq!(answer, ForwardAnswer::Listening { number: 3, port: 0 });
    assert_eq!(sockets.len(), 1);
    let path = login.run("echo $SSH_AUTH_SOCK").0;
    let path = std::path::PathBuf::from(path.trim());
    assert!(UnixStream::connect(&path).is_ok());
    let directory = path.parent().unwrap().to_owned();
    let found = std::fs::metadata(&directory).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o777), (UID, 0o700));
    login.ask(ForwardRequest::ListenAgent { number: 4 });
    assert_eq!(login.answer().0, ForwardAnswer::NotListening { number: 4 });
    let Login { helper, net, home } = login;
    drop(net);
    eventually("the directory goes", || !directory.exists());
    drop((helper, home));
}

#[test]
fn the_fixed_path_leads_to_the_agent() {
    let mut login = Login::with(|policy| {
        policy.forwarding = everything();
        let link = [&policy.identity.home, b"/agent.sock".as_slice()].concat();
        policy.forwarding.agent_link = Some(link.into());
    });
    let link = login.home.0.join("agent.sock");
    login.ask(ForwardRequest::ListenAgent { number: 3 });
    let (answer, _listener) = login.answer();
    assert!(matches!(answer, ForwardAnswer::Listening { .. }));
    assert!(UnixStream::connect(&link).is_ok());
    let Login { helper, net, home } = login;
    drop(net);
    eventually("the link is taken back", || {
        link.symlink_metadata().is_err()
    });
    drop((helper, home));
}
