//! Connections and logins, made of frames: what a `net` and its client would have come to.

use std::io::Read;
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use agent::frames::{Exchange, NetToMonitor, ToNet};
use agent::ssh::crypto::Random;
use agent::ssh::crypto::kex::Kex;
use agent::ssh::crypto::private_key::PrivateKey;
use agent::ssh::crypto::public_key::{KeyType, PublicKey};
use agent::ssh::wire::Writer;
use agent_helper::wire::Bytes;

use super::world::{Puppet, World};

pub const CONNECTION_SERVICE: &[u8] = b"ssh-connection";
const USERAUTH_REQUEST: u8 = 50;

/// A connection that the monitor accepted.
pub struct Connection {
    pub number: u32,
    pub client: TcpStream,
    pub accepted: OwnedFd,
    pub cookie: [u8; 16],
    pub options: agent::frames::ConnectionOptions,
    pub session_id: Vec<u8>,
}

impl Connection {
    pub fn begin(world: &World, puppet: &mut Puppet, number: u32) -> Self {
        let (client, accepted) = world.connect(puppet);
        puppet.say_with(number, &NetToMonitor::Accept, &[&accepted]);
        match puppet.hear(number) {
            Some((ToNet::Accepted { cookie, options }, _)) => Self {
                number,
                client,
                accepted,
                cookie,
                options,
                session_id: Vec::new(),
            },
            other => panic!("not accepted: {other:?}"),
        }
    }

    /// As [`Connection::begin`], with its first exchange signed.
    pub fn exchanged(world: &World, puppet: &mut Puppet, number: u32) -> Self {
        let mut connection = Self::begin(world, puppet, number);
        let exchange = exchange(&connection.cookie);
        connection.session_id = connection.hash(world, &exchange);
        puppet.say(number, &NetToMonitor::Sign { exchange });
        match puppet.hear(number) {
            Some((ToNet::Signature { blob }, _)) => {
                let public = world.host_key.public();
                public
                    .verify(b"ssh-ed25519", &connection.session_id, &blob)
                    .unwrap();
            }
            other => panic!("not signed: {other:?}"),
        }
        connection
    }

    /// As [`Connection::exchanged`], with a first request that was refused.
    pub fn authenticating(world: &World, puppet: &mut Puppet, number: u32, user: &str) -> Self {
        let connection = Self::exchanged(world, puppet, number);
        puppet.say(
            number,
            &NetToMonitor::Auth {
                request: none_request(user),
            },
        );
        assert!(matches!(
            puppet.hear(number),
            Some((ToNet::AuthFailure { .. }, _))
        ));
        connection
    }

    /// As [`Connection::exchanged`], with a login that was accepted and is not frozen yet.
    pub fn handing_over(
        world: &World,
        puppet: &mut Puppet,
        number: u32,
        (user, key): (&str, &PrivateKey),
    ) -> Self {
        let connection = Self::exchanged(world, puppet, number);
        let request = signed_request(&connection.session_id, user, key);
        puppet.say(number, &NetToMonitor::Auth { request });
        match puppet.hear(number) {
            Some((ToNet::AuthSuccess, _)) => connection,
            other => panic!("no success: {other:?}"),
        }
    }

    /// H as the monitor computes it.
    pub fn hash(&self, world: &World, exchange: &Exchange) -> Vec<u8> {
        let kex = Kex::by_name(&exchange.kex).unwrap();
        let host_key = &world.host_key.public().blob;
        kex.hash()
            .exchange(exchange, host_key, &self.options.setup.server_version)
    }

    /// Whether the monitor cut the client off.
    pub fn is_cut_off(&mut self) -> bool {
        matches!(self.client.read(&mut [0; 16]), Ok(0))
    }
}

/// An exchange that holds `cookie`; the values are anybody's.
pub fn exchange(cookie: &[u8; 16]) -> Exchange {
    let mut server_kexinit = vec![20];
    server_kexinit.extend_from_slice(cookie);
    server_kexinit.extend_from_slice(&[0; 64]);
    Exchange {
        kex: "curve25519-sha256".into(),
        host_key_algorithm: "ssh-ed25519".into(),
        client_version: "SSH-2.0-hostile".into(),
        client_kexinit: vec![20; 80].into(),
        server_kexinit: server_kexinit.into(),
        client_public: vec![1; 32].into(),
        server_public: vec![2; 32].into(),
        shared_secret: vec![0, 0, 0, 1, 7].into(),
    }
}

pub fn new_key() -> PrivateKey {
    PrivateKey::generate(KeyType::Ed25519, &Random::system()).unwrap()
}

/// The line of authorized_keys for a key.
pub fn key_line(options: &str, key: &PrivateKey) -> String {
    public_line(options, key.public())
}

/// The same, of a key that nobody here has the private half of.
pub fn public_line(options: &str, public: &PublicKey) -> String {
    let (name, blob) = (public.key_type.name(), base64(&public.blob));
    format!("{options} {name} {blob} test\n")
        .trim_start()
        .to_owned()
}

pub fn none_request(user: &str) -> Bytes {
    let mut request = Vec::new();
    request.put_string(user.as_bytes());
    request.put_string(CONNECTION_SERVICE);
    request.put_string(b"none");
    request.into()
}

/// A query, or with a signature a login.
pub fn publickey_request(user: &str, public: &PublicKey, signature: Option<&[u8]>) -> Bytes {
    let mut request = Vec::new();
    request.put_string(user.as_bytes());
    request.put_string(CONNECTION_SERVICE);
    request.put_string(b"publickey");
    request.put_boolean(signature.is_some());
    request.put_string(algorithm(public));
    request.put_string(&public.blob);
    if let Some(signature) = signature {
        request.put_string(signature);
    }
    request.into()
}

/// A login, signed over `session_id` (RFC 4252 section 7).
pub fn signed_request(session_id: &[u8], user: &str, key: &PrivateKey) -> Bytes {
    let mut data = Vec::new();
    data.put_string(session_id);
    data.put_u8(USERAUTH_REQUEST);
    data.put_string(user.as_bytes());
    data.put_string(CONNECTION_SERVICE);
    data.put_string(b"publickey");
    data.put_boolean(true);
    let algorithm = algorithm(key.public());
    data.put_string(algorithm);
    data.put_string(&key.public().blob);
    let signature = key.sign(algorithm, &data, &Random::system()).unwrap();
    publickey_request(user, key.public(), Some(&signature))
}

/// How keys of the type sign.
fn algorithm(public: &PublicKey) -> &'static [u8] {
    public.key_type.algorithms().next().unwrap().as_bytes()
}

/// Users of this machine to log in as: as root two different ones, else oneself.
pub fn user() -> String {
    let uid = rustix::process::geteuid().as_raw();
    String::from_utf8(agent::account::by_uid(uid).unwrap().name).unwrap()
}

/// Another user who may log in; only as root there is one.
pub fn other_user() -> Option<String> {
    rustix::process::geteuid()
        .is_root()
        .then(|| "daemon".to_owned())
}

pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            if digit <= chunk.len() {
                let index = (word >> (18 - 6 * digit)) & 63;
                out.push(char::from(DIGITS[usize::try_from(index).unwrap()]));
            } else {
                out.push('=');
            }
        }
    }
    out
}
