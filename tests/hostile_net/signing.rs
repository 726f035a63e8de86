//! Signatures that must not be had, and logins that must not be had with others' signatures.

use agent::frames::{Exchange, NetToMonitor, ToNet};

use super::client::{
    Connection, exchange, key_line, new_key, none_request, other_user, publickey_request,
    signed_request, user,
};
use super::runner::Test;
use super::world::{Puppet, Setting, World};

pub const TESTS: &[Test] = &[
    (
        "only_an_exchange_with_the_monitors_own_cookie_is_signed",
        own_cookie_only,
    ),
    ("a_cookie_serves_one_exchange", cookie_once),
    ("a_re_exchange_needs_a_cookie_of_its_own", re_exchange),
    ("a_recorded_login_cannot_be_replayed", replay),
    (
        "a_signature_of_another_session_logs_nobody_in",
        other_session,
    ),
    ("a_signature_of_another_user_logs_nobody_in", another_users),
    ("user_and_service_do_not_change", change),
    ("a_request_before_the_exchange_is_an_attack", no_session),
    ("two_requests_at_once_are_an_attack", two_at_once),
];

fn refused(
    world: &World,
    puppet: &mut Puppet,
    number: u32,
    what: &str,
    spoil: impl Fn(&mut Exchange),
) {
    let mut connection = Connection::begin(world, puppet, number);
    let mut exchange = exchange(&connection.cookie);
    spoil(&mut exchange);
    puppet.say(number, &NetToMonitor::Sign { exchange });
    assert!(connection.is_cut_off(), "{what} was not refused");
    match puppet.hear(number) {
        Some((ToNet::Disconnect { .. }, _)) => {}
        other => panic!("{what}: {other:?}"),
    }
}

type Spoil = (&'static str, fn(&mut Exchange));

fn own_cookie_only() {
    let (world, mut puppet) = World::start(&Setting::default());
    let spoils: [Spoil; 14] = [
        ("another cookie", |exchange| {
            exchange.server_kexinit.0[5] ^= 1
        }),
        ("the cookie one byte later", |exchange| {
            exchange.server_kexinit.0.insert(1, 0)
        }),
        ("no cookie", |exchange| {
            exchange.server_kexinit.0.truncate(16)
        }),
        ("no KEXINIT", |exchange| exchange.server_kexinit.0.clear()),
        ("another message", |exchange| {
            exchange.server_kexinit.0[0] = 50
        }),
        ("an authentication request", |exchange| {
            exchange.server_kexinit = none_request("root")
        }),
        ("a key of another type", |exchange| {
            exchange.host_key_algorithm = "rsa-sha2-256".into()
        }),
        ("an unknown algorithm", |exchange| {
            exchange.host_key_algorithm = "".into()
        }),
        ("an unknown method", |exchange| {
            exchange.kex = "diffie-hellman-group1-sha1".into()
        }),
        ("a marker as method", |exchange| {
            exchange.kex = "ext-info-s".into()
        }),
        ("an endless version", |exchange| {
            exchange.client_version = vec![b'x'; 9000].into()
        }),
        ("an endless KEXINIT", |exchange| {
            exchange.client_kexinit = vec![0; 100_000].into()
        }),
        ("an endless value", |exchange| {
            exchange.client_public = vec![0; 10_000].into()
        }),
        ("an endless secret", |exchange| {
            exchange.shared_secret = vec![0; 10_000].into()
        }),
    ];
    for (number, (what, spoil)) in (1..).zip(spoils) {
        refused(&world, &mut puppet, number, what, spoil);
    }
}

fn cookie_once() {
    let (world, mut puppet) = World::start(&Setting::default());
    let mut connection = Connection::exchanged(&world, &mut puppet, 1);
    puppet.say(
        1,
        &NetToMonitor::Sign {
            exchange: exchange(&connection.cookie),
        },
    );
    assert!(connection.is_cut_off());
    // The same cookie in another connection is as foreign as any.
    let mut other = Connection::begin(&world, &mut puppet, 2);
    puppet.say(
        2,
        &NetToMonitor::Sign {
            exchange: exchange(&connection.cookie),
        },
    );
    assert!(other.is_cut_off());
}

fn re_exchange() {
    let (world, mut puppet) = World::start(&Setting::default());
    let mut connection = Connection::exchanged(&world, &mut puppet, 1);
    for _ in 0..3 {
        puppet.say(1, &NetToMonitor::Cookie);
        let Some((ToNet::Cookie { cookie }, _)) = puppet.hear(1) else {
            panic!("no cookie")
        };
        assert_ne!(cookie, connection.cookie);
        let exchange = exchange(&cookie);
        let hash = connection.hash(&world, &exchange);
        puppet.say(1, &NetToMonitor::Sign { exchange });
        let Some((ToNet::Signature { blob }, _)) = puppet.hear(1) else {
            panic!("no signature")
        };
        world
            .host_key
            .public()
            .verify(b"ssh-ed25519", &hash, &blob)
            .unwrap();
        connection.cookie = cookie;
    }
    // Two cookies at once would be one to keep.
    puppet.say(1, &NetToMonitor::Cookie);
    puppet.say(1, &NetToMonitor::Cookie);
    assert!(connection.is_cut_off());
}

fn login_setting() -> (agent::ssh::crypto::private_key::PrivateKey, String, Setting) {
    let (key, name) = (new_key(), user());
    let mut keys = vec![(name.clone(), key_line("", &key))];
    if let Some(other) = other_user() {
        keys.push((other, key_line("", &new_key())));
    }
    let setting = Setting {
        keys,
        play_users: true,
        ..Setting::default()
    };
    (key, name, setting)
}

/// Everything of a login that succeeded, said again on a new connection.
fn replay() {
    let (key, name, setting) = login_setting();
    let (world, mut puppet) = World::start(&setting);
    let first = Connection::begin(&world, &mut puppet, 1);
    let recorded = exchange(&first.cookie);
    let session_id = first.hash(&world, &recorded);
    let request = signed_request(&session_id, &name, &key);
    puppet.say(
        1,
        &NetToMonitor::Sign {
            exchange: recorded.clone(),
        },
    );
    assert!(matches!(puppet.hear(1), Some((ToNet::Signature { .. }, _))));
    puppet.say(
        1,
        &NetToMonitor::Auth {
            request: request.clone(),
        },
    );
    assert!(matches!(puppet.hear(1), Some((ToNet::AuthSuccess, _))));

    let mut again = Connection::begin(&world, &mut puppet, 2);
    puppet.say(2, &NetToMonitor::Sign { exchange: recorded });
    puppet.say(
        2,
        &NetToMonitor::Auth {
            request: request.clone(),
        },
    );
    assert!(again.is_cut_off());

    // With an exchange of its own the recorded request signs another session.
    Connection::exchanged(&world, &mut puppet, 3);
    puppet.say(3, &NetToMonitor::Auth { request });
    assert!(matches!(
        puppet.hear(3),
        Some((ToNet::AuthFailure { .. }, _))
    ));
    assert_eq!(
        world.log().matches("Accepted publickey").count(),
        0,
        "{}",
        world.log()
    );
}

fn other_session() {
    let (key, name, setting) = login_setting();
    let (world, mut puppet) = World::start(&setting);
    let one = Connection::exchanged(&world, &mut puppet, 1);
    let _two = Connection::exchanged(&world, &mut puppet, 2);
    let request = signed_request(&one.session_id, &name, &key);
    puppet.say(2, &NetToMonitor::Auth { request });
    assert!(matches!(
        puppet.hear(2),
        Some((ToNet::AuthFailure { .. }, _))
    ));
    // The session id is what the monitor hashed, whatever the client signs.
    for claimed in [&b""[..], &[0; 32]] {
        let request = signed_request(claimed, &name, &key);
        puppet.say(2, &NetToMonitor::Auth { request });
        assert!(matches!(
            puppet.hear(2),
            Some((ToNet::AuthFailure { .. }, _))
        ));
    }
}

fn another_users() {
    let (key, name, setting) = login_setting();
    let Some(other) = other_user() else {
        eprintln!("needs root: an ordinary user's server has one user only");
        return;
    };
    let (world, mut puppet) = World::start(&setting);
    let connection = Connection::exchanged(&world, &mut puppet, 1);
    // Signed by one user's key, for the other's account.
    let request = signed_request(&connection.session_id, &other, &key);
    puppet.say(1, &NetToMonitor::Auth { request });
    assert!(matches!(
        puppet.hear(1),
        Some((ToNet::AuthFailure { .. }, _))
    ));

    // One user's signature in a request for the other.
    let connection = Connection::exchanged(&world, &mut puppet, 2);
    let theirs = signed_request(&connection.session_id, &name, &key);
    let signature_at = theirs.len() - (4 + 11 + 4 + 64);
    let signature = &theirs[signature_at..];
    let request = publickey_request(&other, key.public(), Some(signature));
    puppet.say(2, &NetToMonitor::Auth { request });
    assert!(matches!(
        puppet.hear(2),
        Some((ToNet::AuthFailure { .. }, _))
    ));
}

fn change() {
    let (key, name, setting) = login_setting();
    let (world, mut puppet) = World::start(&setting);
    let mut connection = Connection::authenticating(&world, &mut puppet, 1, "nobody-knows");
    let request = signed_request(&connection.session_id, &name, &key);
    puppet.say(1, &NetToMonitor::Auth { request });
    assert!(matches!(
        puppet.hear(1),
        Some((ToNet::Disconnect { .. }, _))
    ));
    // What comes behind its end is not heard.
    puppet.say(
        1,
        &NetToMonitor::Auth {
            request: none_request(&name),
        },
    );
    assert!(connection.is_cut_off());
}

fn no_session() {
    let (key, name, setting) = login_setting();
    let (world, mut puppet) = World::start(&setting);
    let mut connection = Connection::begin(&world, &mut puppet, 1);
    puppet.say(
        1,
        &NetToMonitor::Auth {
            request: signed_request(b"", &name, &key),
        },
    );
    assert!(connection.is_cut_off());
}

fn two_at_once() {
    let (_, name, setting) = login_setting();
    let (world, mut puppet) = World::start(&setting);
    let mut connection = Connection::exchanged(&world, &mut puppet, 1);
    let request = publickey_request(&name, new_key().public(), None);
    puppet.say(
        1,
        &NetToMonitor::Auth {
            request: request.clone(),
        },
    );
    puppet.say(1, &NetToMonitor::Auth { request });
    assert!(connection.is_cut_off());
}
