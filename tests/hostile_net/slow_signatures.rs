//! Signatures that take the monitor long to verify: by keys that anybody may know the public half of,
//! made up, many at once. Others log in meanwhile.

use agent::frames::{NetToMonitor, ToNet};
use agent::ssh::crypto::Random;
use agent::ssh::crypto::private_key::PrivateKey;
use agent::ssh::crypto::public_key::{KeyType, PublicKey};
use agent::ssh::wire::Writer;

use super::client::{
    Connection, key_line, new_key, public_line, publickey_request, signed_request, user,
};
use super::runner::Test;
use super::world::{Puppet, Setting, World};

pub const TESTS: &[Test] = &[
    ("a_login_passes_a_flood_of_slow_signatures", flood),
    ("who_leaves_meanwhile_is_forgotten", left),
    ("a_slow_signature_is_one_request", one_at_a_time),
    ("a_slow_key_lets_its_owner_in", owner),
];

/// P-521's base point: a key whose owner is not known.
const POINT: &str = "04\
    00c6858e06b70404e9cd9e3ecb662395b4429c648139053fb521f828af606b4d3d\
    baa14b5e77efe75928fe1dc127a2ffa8de3348b3c1856a429bf97e7e31c2e5bd66\
    011839296a789a3bc0045c8a5fb42c7d1bd998f54449579b446817afbd17273e66\
    2c97ee72995ef42640c550b9013fad0761353c7086a272c24088be94769fd16650";

fn slow_key() -> PublicKey {
    let digits = POINT.as_bytes().chunks(2);
    let point: Vec<u8> = digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let mut blob = Vec::new();
    blob.put_string(b"ecdsa-sha2-nistp521");
    blob.put_string(b"nistp521");
    blob.put_string(&point);
    PublicKey::from_blob(&blob).unwrap()
}

/// In form a signature, and as much work as a good one.
fn made_up() -> Vec<u8> {
    let mut halves = Vec::new();
    halves.put_mpint(&[7; 65]);
    halves.put_mpint(&[9; 65]);
    let mut signature = Vec::new();
    signature.put_string(b"ecdsa-sha2-nistp521");
    signature.put_string(&halves);
    signature
}

/// A server where the slow key and a quick one are the user's.
fn start() -> (World, Puppet, PrivateKey) {
    let quick = new_key();
    let (world, puppet) = World::start(&Setting {
        keys: vec![(user(), public_line("", &slow_key()) + &key_line("", &quick))],
        play_users: true,
        ..Setting::default()
    });
    (world, puppet, quick)
}

/// A connection that was told that the key would do, so that its signature is all that is missing.
fn asked(world: &World, puppet: &mut Puppet, number: u32, key: &PublicKey) -> Connection {
    let connection = Connection::exchanged(world, puppet, number);
    let request = publickey_request(&user(), key, None);
    puppet.say(number, &NetToMonitor::Auth { request });
    match puppet.hear(number) {
        Some((ToNet::AuthPublicKeyOk { .. }, _)) => connection,
        other => panic!("{other:?}"),
    }
}

fn claim(puppet: &Puppet, number: u32) {
    let request = publickey_request(&user(), &slow_key(), Some(&made_up()));
    puppet.say(number, &NetToMonitor::Auth { request });
}

fn log_in(puppet: &mut Puppet, connection: &Connection, key: &PrivateKey) {
    let request = signed_request(&connection.session_id, &user(), key);
    puppet.say(connection.number, &NetToMonitor::Auth { request });
    match puppet.hear(connection.number) {
        Some((ToNet::AuthSuccess, _)) => {}
        other => panic!("{other:?}"),
    }
}

const CROWD: u32 = 150;

fn flood() {
    let (world, mut puppet, quick) = start();
    let crowd: Vec<_> = (1..=CROWD)
        .map(|number| asked(&world, &mut puppet, number, &slow_key()))
        .collect();
    let other = asked(&world, &mut puppet, CROWD + 1, quick.public());
    for connection in &crowd {
        claim(&puppet, connection.number);
    }
    log_in(&mut puppet, &other, &quick);
    // Requests are taken in their order: looked at on the way, all would be refused by now.
    let refused = |world: &World| world.log().matches("reason=signature").count();
    let before = refused(&world);
    assert!(before < crowd.len(), "{before} were looked at before");
    let end = std::time::Instant::now() + super::world::PATIENCE;
    while refused(&world) < crowd.len() {
        assert!(std::time::Instant::now() < end, "{}", refused(&world));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn left() {
    let (mut world, mut puppet, quick) = start();
    let crowd: Vec<_> = (1..=20)
        .map(|number| asked(&world, &mut puppet, number, &slow_key()))
        .collect();
    for connection in &crowd {
        claim(&puppet, connection.number);
    }
    for connection in crowd {
        let closed = NetToMonitor::Closed {
            reason: agent::frames::CloseReason::Eof,
            detail: "".into(),
            bytes: (0, 0),
        };
        puppet.say(connection.number, &closed);
    }
    let other = asked(&world, &mut puppet, 100, quick.public());
    log_in(&mut puppet, &other, &quick);
    assert!(world.is_running());
}

fn one_at_a_time() {
    let (world, mut puppet, _) = start();
    let mut crowd: Vec<_> = (1..=20)
        .map(|number| asked(&world, &mut puppet, number, &slow_key()))
        .collect();
    for connection in &crowd {
        claim(&puppet, connection.number);
    }
    // The last of them waits for the others.
    claim(&puppet, 20);
    let mut last = crowd.pop().unwrap();
    assert!(last.is_cut_off());
    world.wait_log("a request while another was unanswered");
}

fn owner() {
    let slow = PrivateKey::generate(KeyType::EcdsaP384, &Random::system()).unwrap();
    assert!(slow.public().is_slow());
    let (world, mut puppet) = World::start(&Setting {
        keys: vec![(user(), key_line("", &slow))],
        play_users: true,
        ..Setting::default()
    });
    let connection = Connection::exchanged(&world, &mut puppet, 1);
    log_in(&mut puppet, &connection, &slow);
    // Another's signature over another session is as slow, and refused.
    let other = Connection::exchanged(&world, &mut puppet, 2);
    let request = signed_request(&connection.session_id, &user(), &slow);
    puppet.say(other.number, &NetToMonitor::Auth { request });
    match puppet.hear(other.number) {
        Some((ToNet::AuthFailure { .. }, _)) => {}
        answer => panic!("{answer:?}"),
    }
    world.wait_log("reason=signature");
}
