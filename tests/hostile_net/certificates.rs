//! Certificates and security keys in the hands of a bad `net`: it makes up, changes and replays
//! whatever it likes, and gets in with none of it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use agent::frames::{NetToMonitor, ToNet};
use agent::ssh::crypto::Random;
use agent::ssh::crypto::hash::Hash;
use agent::ssh::crypto::private_key::PrivateKey;
use agent::ssh::crypto::public_key::{KeyType, PublicKey};
use agent::ssh::wire::Writer;
use agent_helper::wire::Bytes;

use super::client::{CONNECTION_SERVICE, Connection, base64, new_key, user};
use super::runner::Test;
use super::world::{Puppet, Setting, World};

pub const TESTS: &[Test] = &[
    ("a_good_certificate_gets_in_and_others_do_not", certificates),
    ("no_byte_of_a_certificate_can_be_changed", changed),
    ("a_certificate_serves_its_own_key_and_session", signatures),
    ("algorithms_and_blobs_must_agree", algorithms),
    ("a_security_key_must_have_been_touched", touch),
    ("a_security_key_must_have_verified_its_user", verification),
    (
        "a_certified_security_key_needs_both_to_spare_the_touch",
        certified_touch,
    ),
];

const CERTIFICATE: &str = "ssh-ed25519-cert-v01@openssh.com";
const SECURITY_KEY: &str = "sk-ssh-ed25519@openssh.com";
const CERTIFIED_SECURITY_KEY: &str = "sk-ssh-ed25519-cert-v01@openssh.com";
const USER: u32 = 1;
const HOST: u32 = 2;
const FOR_EVER: (u64, u64) = (0, u64::MAX);

/// What a certificate says besides its key.
#[derive(Clone)]
struct Claims {
    kind: u32,
    principals: Vec<String>,
    valid: (u64, u64),
    critical: Vec<(&'static str, Vec<u8>)>,
    extensions: Vec<(&'static str, Vec<u8>)>,
}

impl Claims {
    fn good() -> Self {
        Self {
            kind: USER,
            principals: vec![user()],
            valid: FOR_EVER,
            critical: Vec::new(),
            extensions: vec![("permit-pty", Vec::new())],
        }
    }

    /// The certificate of a key, whose fields behind its type are `fields`.
    fn sign(&self, authority: &PrivateKey, name: &str, fields: &[u8]) -> Vec<u8> {
        let mut blob = Vec::new();
        blob.put_string(name.as_bytes());
        blob.put_string(b"nonce");
        blob.put_bytes(fields);
        blob.put_u64(7);
        blob.put_u32(self.kind);
        blob.put_string(b"an id");
        let mut principals = Vec::new();
        for name in &self.principals {
            principals.put_string(name.as_bytes());
        }
        blob.put_string(&principals);
        blob.put_u64(self.valid.0);
        blob.put_u64(self.valid.1);
        for options in [&self.critical, &self.extensions] {
            let mut packed = Vec::new();
            for (name, data) in options {
                packed.put_string(name.as_bytes());
                packed.put_string(data);
            }
            blob.put_string(&packed);
        }
        blob.put_string(b"");
        blob.put_string(&authority.public().blob);
        let signature = authority
            .sign(b"ssh-ed25519", &blob, &Random::system())
            .unwrap();
        blob.put_string(&signature);
        blob
    }
}

/// The fields of a blob behind its type.
fn fields(blob: &[u8]) -> &[u8] {
    let name = usize::try_from(u32::from_be_bytes(blob[..4].try_into().unwrap())).unwrap();
    &blob[4 + name..]
}

/// What is signed for a login with this algorithm and blob.
fn signed_data(session_id: &[u8], user: &str, algorithm: &str, blob: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    data.put_string(session_id);
    data.put_u8(50);
    data.put_string(user.as_bytes());
    data.put_string(CONNECTION_SERVICE);
    data.put_string(b"publickey");
    data.put_boolean(true);
    data.put_string(algorithm.as_bytes());
    data.put_string(blob);
    data
}

fn request(user: &str, algorithm: &str, blob: &[u8], signature: &[u8]) -> Bytes {
    let mut request = Vec::new();
    request.put_string(user.as_bytes());
    request.put_string(CONNECTION_SERVICE);
    request.put_string(b"publickey");
    request.put_boolean(true);
    request.put_string(algorithm.as_bytes());
    request.put_string(blob);
    request.put_string(signature);
    request.into()
}

/// What is wrong, and how it is made so.
type Spoil = (&'static str, fn(&mut Claims));

/// A server that trusts one authority, and connections to it one after the other.
struct Stage {
    world: World,
    puppet: Puppet,
    authority: PrivateKey,
    number: u32,
    trust: PathBuf,
}

impl Stage {
    fn new(lines: &str, config: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let trust =
            std::env::temp_dir().join(format!("agent-hostile-ca-{}-{number}", std::process::id()));
        let authority = new_key();
        let line = format!("ssh-ed25519 {}\n", base64(&authority.public().blob));
        std::fs::write(&trust, line).unwrap();
        let (world, puppet) = World::start(&Setting {
            config: format!("TrustedUserCAKeys {}\n{config}", trust.display()),
            keys: vec![(user(), lines.to_owned())],
            play_users: true,
            ..Setting::default()
        });
        Self {
            world,
            puppet,
            authority,
            number: 0,
            trust,
        }
    }

    fn connect(&mut self) -> Connection {
        self.number += 1;
        Connection::exchanged(&self.world, &mut self.puppet, self.number)
    }

    /// Whether the monitor accepts the request.
    fn try_request(&mut self, request: Bytes) -> bool {
        let number = self.number;
        self.puppet.say(number, &NetToMonitor::Auth { request });
        match self.puppet.hear(number) {
            Some((ToNet::AuthSuccess, _)) => true,
            Some((ToNet::AuthFailure { .. } | ToNet::Disconnect { .. }, _)) => false,
            other => panic!("{other:?}"),
        }
    }

    /// Tries a certificate with a signature of `key`.
    fn lets_in(&mut self, key: &PrivateKey, blob: &[u8]) -> bool {
        self.lets_in_with(CERTIFICATE, b"ssh-ed25519", key, blob)
    }

    fn lets_in_with(
        &mut self,
        algorithm: &str,
        signs: &[u8],
        key: &PrivateKey,
        blob: &[u8],
    ) -> bool {
        let connection = self.connect();
        let data = signed_data(&connection.session_id, &user(), algorithm, blob);
        let signature = key.sign(signs, &data, &Random::system()).unwrap();
        self.try_request(request(&user(), algorithm, blob, &signature))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.trust);
    }
}

fn certificates() {
    let mut stage = Stage::new("", "");
    let key = new_key();
    let public = fields(&key.public().blob).to_vec();
    let other = new_key();
    let sign =
        |claims: &Claims, authority: &PrivateKey| claims.sign(authority, CERTIFICATE, &public);
    let good = sign(&Claims::good(), &stage.authority);
    assert!(stage.lets_in(&key, &good));
    assert!(
        !stage.lets_in(&key, &sign(&Claims::good(), &other)),
        "another authority"
    );
    let spoils: [Spoil; 9] = [
        ("for hosts", |claims| claims.kind = HOST),
        ("of no kind", |claims| claims.kind = 3),
        ("for nobody", |claims| claims.principals.clear()),
        ("for others", |claims| {
            claims.principals = vec!["*".into(), "".into()]
        }),
        ("expired", |claims| claims.valid = (0, 1_000_000_000)),
        ("of the future", |claims| {
            claims.valid = (u64::MAX - 1, u64::MAX)
        }),
        ("with an unknown demand", |claims| {
            claims.critical = vec![("a-demand", Vec::new())];
        }),
        ("for elsewhere", |claims| {
            let mut list = Vec::new();
            list.put_string(b"192.0.2.0/24");
            claims.critical = vec![("source-address", list)];
        }),
        ("with options out of order", |claims| {
            claims.extensions = vec![("permit-user-rc", Vec::new()), ("permit-pty", Vec::new())];
        }),
    ];
    for (what, spoil) in spoils {
        let mut claims = Claims::good();
        spoil(&mut claims);
        let blob = sign(&claims, &stage.authority);
        assert!(!stage.lets_in(&key, &blob), "{what}");
    }
    let mut trailing = good.clone();
    trailing.push(0);
    assert!(!stage.lets_in(&key, &trailing), "with a byte behind it");
}

fn changed() {
    let mut stage = Stage::new("", "MaxAuthTries 100\n");
    let key = new_key();
    let good = Claims::good().sign(&stage.authority, CERTIFICATE, fields(&key.public().blob));
    let mut connection = stage.connect();
    for (tries, index) in (0..good.len()).step_by(5).enumerate() {
        if tries % 60 == 59 {
            connection = stage.connect();
        }
        let mut blob = good.clone();
        blob[index] ^= 1;
        let data = signed_data(&connection.session_id, &user(), CERTIFICATE, &blob);
        let signature = key.sign(b"ssh-ed25519", &data, &Random::system()).unwrap();
        let forged = request(&user(), CERTIFICATE, &blob, &signature);
        assert!(!stage.try_request(forged), "byte {index}");
    }
    assert!(stage.lets_in(&key, &good));
}

fn signatures() {
    let mut stage = Stage::new("", "");
    let (key, other) = (new_key(), new_key());
    let good = Claims::good().sign(&stage.authority, CERTIFICATE, fields(&key.public().blob));
    assert!(!stage.lets_in(&other, &good), "another key's signature");
    let authority = PrivateKey::generate(KeyType::Ed25519, &Random::system()).unwrap();
    assert!(
        !stage.lets_in(&authority, &good),
        "an authority's signature"
    );
    // A login that succeeded, said again in another session.
    let first = stage.connect();
    let data = signed_data(&first.session_id, &user(), CERTIFICATE, &good);
    let signature = key.sign(b"ssh-ed25519", &data, &Random::system()).unwrap();
    let recorded = request(&user(), CERTIFICATE, &good, &signature);
    assert!(stage.try_request(recorded.clone()));
    stage.connect();
    assert!(!stage.try_request(recorded), "a recorded login");
    // Signed for the key alone.
    let connection = stage.connect();
    let plain = &key.public().blob;
    let data = signed_data(&connection.session_id, &user(), "ssh-ed25519", plain);
    let signature = key.sign(b"ssh-ed25519", &data, &Random::system()).unwrap();
    assert!(!stage.try_request(request(&user(), CERTIFICATE, &good, &signature)));
}

fn algorithms() {
    let mut stage = Stage::new("", "");
    let key = new_key();
    let public = key.public().blob.clone();
    let good = Claims::good().sign(&stage.authority, CERTIFICATE, fields(&public));
    for (algorithm, blob) in [
        ("ssh-ed25519", &good),
        (CERTIFICATE, &public),
        (SECURITY_KEY, &good),
        (CERTIFIED_SECURITY_KEY, &good),
        ("rsa-sha2-512-cert-v01@openssh.com", &good),
        ("ssh-rsa-cert-v01@openssh.com", &good),
        ("", &good),
    ] {
        let let_in = stage.lets_in_with(algorithm, b"ssh-ed25519", &key, blob);
        assert!(!let_in, "{algorithm}");
    }
    // An authority that is a certificate itself.
    let mut nested = good.clone();
    let authority = stage.authority.public().blob.clone();
    let at = nested
        .windows(authority.len())
        .position(|window| window == authority)
        .unwrap();
    nested.splice(at..at + authority.len(), good.iter().copied());
    let length = u32::try_from(good.len()).unwrap().to_be_bytes();
    nested[at - 4..at].copy_from_slice(&length);
    assert!(!stage.lets_in(&key, &nested), "a chain");
}

/// A security key in software: an Ed25519 key, its application, and what it attests.
struct Device {
    key: PrivateKey,
}

impl Device {
    const APPLICATION: &'static [u8] = b"ssh:";

    fn new() -> Self {
        Self { key: new_key() }
    }

    fn fields(&self) -> Vec<u8> {
        let mut fields = fields(&self.key.public().blob).to_vec();
        fields.put_string(Self::APPLICATION);
        fields
    }

    fn blob(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        blob.put_string(SECURITY_KEY.as_bytes());
        blob.put_bytes(&self.fields());
        assert!(PublicKey::from_blob(&blob).is_ok());
        blob
    }

    fn line(&self, options: &str) -> String {
        format!("{options} {SECURITY_KEY} {}\n", base64(&self.blob()))
            .trim_start()
            .to_owned()
    }

    /// Signs with `flags`; `claimed` is what the blob says of them.
    fn sign(&self, data: &[u8], flags: u8, claimed: u8) -> Vec<u8> {
        let mut signed = Hash::Sha256.digest(Self::APPLICATION);
        signed.put_u8(flags);
        signed.put_u32(42);
        signed.put_bytes(&Hash::Sha256.digest(data));
        let made = self
            .key
            .sign(b"ssh-ed25519", &signed, &Random::system())
            .unwrap();
        let mut blob = Vec::new();
        blob.put_string(SECURITY_KEY.as_bytes());
        blob.put_string(&made[4 + 11 + 4..]);
        blob.put_u8(claimed);
        blob.put_u32(42);
        blob
    }

    fn lets_in(&self, stage: &mut Stage, flags: u8, claimed: u8) -> bool {
        self.lets_in_as(stage, SECURITY_KEY, &self.blob(), (flags, claimed))
    }

    fn lets_in_as(
        &self,
        stage: &mut Stage,
        algorithm: &str,
        blob: &[u8],
        (flags, claimed): (u8, u8),
    ) -> bool {
        let connection = stage.connect();
        let data = signed_data(&connection.session_id, &user(), algorithm, blob);
        let signature = self.sign(&data, flags, claimed);
        stage.try_request(request(&user(), algorithm, blob, &signature))
    }
}

const NOTHING: u8 = 0;
const TOUCHED: u8 = 1;
const VERIFIED: u8 = 4;

fn touch() {
    let (strict, lax) = (Device::new(), Device::new());
    let lines = strict.line("") + &lax.line("no-touch-required");
    let mut stage = Stage::new(&lines, "");
    assert!(strict.lets_in(&mut stage, TOUCHED, TOUCHED));
    assert!(!strict.lets_in(&mut stage, NOTHING, NOTHING));
    assert!(!strict.lets_in(&mut stage, VERIFIED, VERIFIED));
    assert!(
        !strict.lets_in(&mut stage, NOTHING, TOUCHED),
        "the flags are signed"
    );
    assert!(lax.lets_in(&mut stage, NOTHING, NOTHING));
    let mut stage = Stage::new(&lines, "PubkeyAuthOptions touch-required\n");
    assert!(!lax.lets_in(&mut stage, NOTHING, NOTHING));
    assert!(lax.lets_in(&mut stage, TOUCHED, TOUCHED));
}

fn verification() {
    let (strict, plain) = (Device::new(), Device::new());
    let lines = strict.line("verify-required") + &plain.line("");
    let mut stage = Stage::new(&lines, "");
    assert!(!strict.lets_in(&mut stage, TOUCHED, TOUCHED));
    assert!(
        !strict.lets_in(&mut stage, VERIFIED, VERIFIED),
        "not touched"
    );
    assert!(
        !strict.lets_in(&mut stage, TOUCHED, TOUCHED | VERIFIED),
        "not what was signed"
    );
    assert!(strict.lets_in(&mut stage, TOUCHED | VERIFIED, TOUCHED | VERIFIED));
    assert!(plain.lets_in(&mut stage, TOUCHED, TOUCHED));
    let mut stage = Stage::new(&lines, "PubkeyAuthOptions verify-required\n");
    assert!(!plain.lets_in(&mut stage, TOUCHED, TOUCHED));
    assert!(plain.lets_in(&mut stage, TOUCHED | VERIFIED, TOUCHED | VERIFIED));
}

fn certified_touch() {
    let device = Device::new();
    let spared = Claims {
        extensions: vec![("no-touch-required", Vec::new())],
        ..Claims::good()
    };
    let mut stage = Stage::new("", "");
    let try_with = |stage: &mut Stage, claims: &Claims, flags| {
        let blob = claims.sign(&stage.authority, CERTIFIED_SECURITY_KEY, &device.fields());
        device.lets_in_as(stage, CERTIFIED_SECURITY_KEY, &blob, (flags, flags))
    };
    assert!(try_with(&mut stage, &Claims::good(), TOUCHED));
    assert!(!try_with(&mut stage, &Claims::good(), NOTHING));
    assert!(try_with(&mut stage, &spared, NOTHING));
    let asked = Claims {
        critical: vec![("verify-required", Vec::new())],
        ..Claims::good()
    };
    assert!(!try_with(&mut stage, &asked, TOUCHED));
    assert!(try_with(&mut stage, &asked, TOUCHED | VERIFIED));
    // Trusted by the user's own line, the line must spare it too.
    let line = |options: &str, authority: &PrivateKey| {
        format!(
            "cert-authority{options} ssh-ed25519 {}\n",
            base64(&authority.public().blob)
        )
    };
    let keys = stage.world.directory.join("keys").join(user());
    std::fs::write(&stage.trust, "").unwrap();
    std::fs::write(&keys, line("", &stage.authority)).unwrap();
    assert!(!try_with(&mut stage, &spared, NOTHING));
    std::fs::write(&keys, line(",no-touch-required", &stage.authority)).unwrap();
    assert!(try_with(&mut stage, &spared, NOTHING));
    assert!(!try_with(&mut stage, &Claims::good(), NOTHING));
}
