//! Key exchange methods, server side: one answer to one public value.
//!
//! Sources: RFC 8731 (curve25519), RFC 5656 (ecdh), draft-ietf-sshm-mlkem-hybrid-kex and OpenSSH's
//! PROTOCOL section 1.11 (the two post-quantum hybrids).

use ring::agreement::{self, ECDH_P256, ECDH_P384, EphemeralPrivateKey, UnparsedPublicKey, X25519};
use zeroize::Zeroizing;

use super::hash::Hash;
use super::{CryptoError, Random};
use crate::ssh::wire::Writer;

/// A method by its SSH name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kex {
    MlKem768X25519,
    #[cfg(feature = "sntrup761")]
    Sntrup761X25519,
    Curve25519,
    EcdhNistp256,
    EcdhNistp384,
}

/// What the server's side of an exchange yields.
#[derive(Debug)]
pub struct Answer {
    /// Q_S, sent to the client.
    pub server_public: Vec<u8>,
    /// K as it enters hash and key derivation: an mpint or a string, its length included.
    pub shared_secret: Zeroizing<Vec<u8>>,
}

impl Kex {
    /// Both spellings of the methods that have two.
    pub fn by_name(name: &[u8]) -> Option<Self> {
        METHODS
            .iter()
            .find(|(known, _)| known.as_bytes() == name)
            .map(|(_, kex)| *kex)
    }

    /// All names served by this build, in OpenSSH's order.
    pub fn names() -> &'static [&'static str] {
        &NAMES
    }

    pub fn hash(self) -> Hash {
        match self {
            Self::MlKem768X25519 | Self::Curve25519 | Self::EcdhNistp256 => Hash::Sha256,
            #[cfg(feature = "sntrup761")]
            Self::Sntrup761X25519 => Hash::Sha512,
            Self::EcdhNistp384 => Hash::Sha384,
        }
    }

    /// Answers Q_C. Every malformed, low-order or off-curve value is an error.
    pub fn respond(self, client_public: &[u8], random: &Random) -> Result<Answer, CryptoError> {
        match self {
            Self::MlKem768X25519 => ml_kem_hybrid(client_public, random),
            #[cfg(feature = "sntrup761")]
            Self::Sntrup761X25519 => sntrup_hybrid(client_public, random),
            Self::Curve25519 => elliptic(&X25519, client_public, random),
            Self::EcdhNistp256 => elliptic(&ECDH_P256, client_public, random),
            Self::EcdhNistp384 => elliptic(&ECDH_P384, client_public, random),
        }
    }
}

/// A plain exchange: K is an mpint.
fn elliptic(
    curve: &'static agreement::Algorithm,
    client_public: &[u8],
    random: &Random,
) -> Result<Answer, CryptoError> {
    let mut answer = Answer {
        server_public: Vec::new(),
        shared_secret: Zeroizing::default(),
    };
    agree(
        curve,
        client_public,
        random,
        &mut answer.server_public,
        |secret| {
            answer.shared_secret.reserve_exact(secret.len() + 5);
            answer.shared_secret.put_mpint(secret);
        },
    )?;
    Ok(answer)
}

/// mlkem768x25519-sha256: K is the string SHA-256(ML-KEM secret || X25519 secret).
///
/// Not inlined, as its like: whoever agrees on a curve alone does not touch the stack that this takes.
#[inline(never)]
fn ml_kem_hybrid(client_public: &[u8], random: &Random) -> Result<Answer, CryptoError> {
    let (key, curve_public) = client_public
        .split_first_chunk()
        .ok_or(CryptoError::Malformed)?;
    let randomness = fresh_seed(random)?;
    let encapsulated = agent_primitives::ml_kem_768(key, &randomness)
        .map_err(|agent_primitives::Refused| CryptoError::Malformed)?;
    combine(
        &encapsulated.ciphertext,
        &*encapsulated.secret,
        curve_public,
        Hash::Sha256,
        random,
    )
}

/// sntrup761x25519-sha512: K is the string SHA-512(sntrup secret || X25519 secret).
#[cfg(feature = "sntrup761")]
#[inline(never)]
fn sntrup_hybrid(client_public: &[u8], random: &Random) -> Result<Answer, CryptoError> {
    let (key, curve_public) = client_public
        .split_first_chunk()
        .ok_or(CryptoError::Malformed)?;
    let seed = fresh_seed(random)?;
    let encapsulated = agent_primitives::sntrup761(key, &seed);
    combine(
        &encapsulated.ciphertext,
        &*encapsulated.secret,
        curve_public,
        Hash::Sha512,
        random,
    )
}

/// Q_S is the ciphertext and the server's X25519 value; K the string hash(secret || X25519 secret).
fn combine(
    ciphertext: &[u8],
    secret: &[u8],
    curve_public: &[u8],
    hash: Hash,
    random: &Random,
) -> Result<Answer, CryptoError> {
    let mut server_public = ciphertext.to_vec();
    let mut both = Zeroizing::new(Vec::with_capacity(2 * SECRET_BYTES));
    both.put_bytes(secret);
    agree(
        &X25519,
        curve_public,
        random,
        &mut server_public,
        |curve_secret| {
            both.put_bytes(curve_secret);
        },
    )?;
    let digest = Zeroizing::new(hash.digest(&both));
    let mut shared_secret = Zeroizing::new(Vec::with_capacity(4 + digest.len()));
    shared_secret.put_string(&digest);
    Ok(Answer {
        server_public,
        shared_secret,
    })
}

/// Makes an ephemeral key, appends its public value to `server_public` and hands over the secret.
/// ring refuses values of a wrong length, points off the curve and X25519's all-zero result.
fn agree(
    curve: &'static agreement::Algorithm,
    client_public: &[u8],
    random: &Random,
    server_public: &mut Vec<u8>,
    take: impl FnOnce(&[u8]),
) -> Result<(), CryptoError> {
    let private =
        EphemeralPrivateKey::generate(curve, &random.source).map_err(|_| CryptoError::Random)?;
    let public = private
        .compute_public_key()
        .map_err(|_| CryptoError::Random)?;
    server_public.put_bytes(public.as_ref());
    let client_public = UnparsedPublicKey::new(curve, client_public);
    agreement::agree_ephemeral(private, &client_public, take).map_err(|_| CryptoError::Malformed)
}

fn fresh_seed(random: &Random) -> Result<Zeroizing<[u8; SECRET_BYTES]>, CryptoError> {
    let mut seed = Zeroizing::new([0; SECRET_BYTES]);
    random.fill(&mut *seed)?;
    Ok(seed)
}

/// Of either half of a hybrid, and of the randomness that makes one.
const SECRET_BYTES: usize = 32;

const METHODS: &[(&str, Kex)] = &[
    ("mlkem768x25519-sha256", Kex::MlKem768X25519),
    #[cfg(feature = "sntrup761")]
    ("sntrup761x25519-sha512", Kex::Sntrup761X25519),
    #[cfg(feature = "sntrup761")]
    ("sntrup761x25519-sha512@openssh.com", Kex::Sntrup761X25519),
    ("curve25519-sha256", Kex::Curve25519),
    ("curve25519-sha256@libssh.org", Kex::Curve25519),
    ("ecdh-sha2-nistp256", Kex::EcdhNistp256),
    ("ecdh-sha2-nistp384", Kex::EcdhNistp384),
];

const NAMES: [&str; METHODS.len()] = {
    let mut names = [""; METHODS.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = METHODS[index].0;
        index += 1;
    }
    names
};
