//! Key exchanges against OpenSSL as the client, exchange hashes and derived keys.

use agent::frames::Exchange;
use agent::ssh::crypto::hash::Hash;
use agent::ssh::crypto::kex::Kex;
use agent::ssh::crypto::{CryptoError, Random};
use agent::ssh::wire::{Reader, Writer};
use ring::digest::{SHA256, SHA512, digest};

use crate::hex;
use crate::tools::Directory;

/// RFC 7748 section 6.1: Alice's private and public value.
const ALICE: (&str, &str) = (
    "77076d0a7318a57d3c16c17251b26645c6db8e6f1ab3d4f5d4a9f9c5e2a5a0c8",
    "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
);

/// SubjectPublicKeyInfo up to the value, and PrivateKeyInfo up to it.
const X25519_PUBLIC: &str = "302a300506032b656e032100";
const X25519_PRIVATE: &str = "302e020100300506032b656e04220420";
const P256_PUBLIC: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
const P384_PUBLIC: &str = "3076301006072a8648ce3d020106052b81040022036200";

/// What OpenSSL agrees on, with the private key file `private.der` and the server's value.
fn derive(directory: &Directory, public_prefix: &str, server_public: &[u8]) -> Vec<u8> {
    directory.write(
        "server.der",
        &[&hex(public_prefix)[..], server_public].concat(),
    );
    directory.run(
        "openssl pkeyutl -derive -keyform DER -inkey private.der -peerform DER -peerkey server.der",
    )
}

fn alice(directory: &Directory) -> Vec<u8> {
    directory.write("private.der", &hex(&[X25519_PRIVATE, ALICE.0].concat()));
    let public = directory.run("openssl pkey -inform DER -in private.der -pubout -outform DER");
    public[12..].to_vec()
}

#[test]
fn curve25519_agrees_with_openssl() {
    let directory = Directory::new("curve25519");
    assert_eq!(ALICE.0.len(), 64);
    let public = alice(&directory);
    for _ in 0..20 {
        let answer = Kex::Curve25519.respond(&public, &Random::system()).unwrap();
        let secret = derive(&directory, X25519_PUBLIC, &answer.server_public);
        let mut expected = Vec::new();
        expected.put_mpint(&secret);
        assert_eq!(*answer.shared_secret, expected);
    }
}

#[test]
fn nist_curves_agree_with_openssl() {
    let directory = Directory::new("nist");
    for (kex, curve, prefix, point_bytes) in [
        (Kex::EcdhNistp256, "P-256", P256_PUBLIC, 65),
        (Kex::EcdhNistp384, "P-384", P384_PUBLIC, 97),
    ] {
        directory.run(&format!(
            "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{curve} -outform DER \
             -out private.der"
        ));
        let public = directory.run("openssl pkey -inform DER -in private.der -pubout -outform DER");
        let public = &public[public.len() - point_bytes..];
        for _ in 0..5 {
            let answer = kex.respond(public, &Random::system()).unwrap();
            let secret = derive(&directory, prefix, &answer.server_public);
            let mut expected = Vec::new();
            expected.put_mpint(&secret);
            assert_eq!(*answer.shared_secret, expected, "{kex:?}");
        }
    }
}

/// The secrets are those of ML-KEM and of X25519, in this order, hashed, as a string.
#[test]
fn the_ml_kem_hybrid_combines_both_secrets() {
    use ml_kem::{Decapsulate, KeyExport, ml_kem_768::DecapsulationKey};
    let directory = Directory::new("mlkem");
    let private = DecapsulationKey::from_seed([5; 64].into());
    let public: [u8; 1184] = private.encapsulation_key().to_bytes().into();
    let client_public = [&public[..], &alice(&directory)].concat();
    let answer = Kex::MlKem768X25519
        .respond(&client_public, &Random::system())
        .unwrap();
    assert_eq!(answer.server_public.len(), 1088 + 32);
    let (ciphertext, curve) = answer.server_public.split_at(1088);
    let inner: [u8; 32] = private.decapsulate_slice(ciphertext).unwrap().into();
    let outer = derive(&directory, X25519_PUBLIC, curve);
    let mut expected = Vec::new();
    expected.put_string(digest(&SHA256, &[&inner[..], &outer].concat()).as_ref());
    assert_eq!(*answer.shared_secret, expected);
    let again = Kex::MlKem768X25519
        .respond(&client_public, &Random::system())
        .unwrap();
    assert_ne!(again.server_public[..1088], answer.server_public[..1088]);
}

#[cfg(feature = "sntrup761")]
#[test]
fn the_sntrup_hybrid_combines_both_secrets() {
    let directory = Directory::new("sntrup");
    let (public, private) = sntrup761::generate_key_from_seed([5; 32]);
    let client_public = [public.as_ref(), &alice(&directory)].concat();
    let answer = Kex::Sntrup761X25519
        .respond(&client_public, &Random::system())
        .unwrap();
    assert_eq!(answer.server_public.len(), 1039 + 32);
    let (ciphertext, curve) = answer.server_public.split_at(1039);
    let inner = private.decapsulate(&ciphertext.try_into().unwrap());
    let outer = derive(&directory, X25519_PUBLIC, curve);
    let mut expected = Vec::new();
    expected.put_string(digest(&SHA512, &[inner.as_ref(), &outer].concat()).as_ref());
    assert_eq!(*answer.shared_secret, expected);
}

/// Every method by its client value, made by `openssl` or the crates' other half.
fn client_values() -> Vec<(Kex, Vec<u8>)> {
    use ml_kem::{KeyExport, ml_kem_768::DecapsulationKey};
    let curve = hex(ALICE.1);
    let private = DecapsulationKey::from_seed([5; 64].into());
    let public: [u8; 1184] = private.encapsulation_key().to_bytes().into();
    // RFC 6979 appendix A.2.5 and A.2.6: a point on each curve.
    let p256 = crate::signatures::P256_POINT;
    let p384 = crate::signatures::P384_POINT;
    let mut values = vec![
        (Kex::MlKem768X25519, [&public[..], &curve].concat()),
        (Kex::Curve25519, curve.clone()),
        (Kex::EcdhNistp256, hex(p256)),
        (Kex::EcdhNistp384, hex(p384)),
    ];
    if cfg!(feature = "sntrup761") {
        #[cfg(feature = "sntrup761")]
        values.push((
            Kex::Sntrup761X25519,
            [
                sntrup761::generate_key_from_seed([5; 32]).0.as_ref(),
                &curve,
            ]
            .concat(),
        ));
    }
    values
}

#[test]
fn values_of_any_other_length_are_refused() {
    let random = Random::system();
    for (kex, value) in client_values() {
        assert!(kex.respond(&value, &random).is_ok(), "{kex:?}");
        for len in 0..value.len() {
            let refused = kex.respond(&value[..len], &random).err();
            assert_eq!(refused, Some(CryptoError::Malformed), "{kex:?} {len}");
        }
        for more in [1, 32, 33, 2000] {
            let longer = [&value[..], &vec![1; more]].concat();
            assert_eq!(
                kex.respond(&longer, &random).err(),
                Some(CryptoError::Malformed)
            );
        }
    }
}

/// RFC 7748 section 7 and RFC 8731 section 3: points of small order make an all-zero secret.
#[test]
fn curve25519_refuses_points_of_small_order() {
    let points = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    let random = Random::system();
    for (kex, value) in client_values() {
        if matches!(kex, Kex::EcdhNistp256 | Kex::EcdhNistp384) {
            continue;
        }
        for point in points {
            for top_bit in [0, 0x80] {
                let mut value = value.clone();
                let start = value.len() - 32;
                value[start..].copy_from_slice(&hex(point));
                *value.last_mut().unwrap() |= top_bit;
                let refused = kex.respond(&value, &random).err();
                assert_eq!(refused, Some(CryptoError::Malformed), "{kex:?} {point}");
            }
        }
    }
}

#[test]
fn nist_curves_refuse_what_is_no_uncompressed_point_on_them() {
    let random = Random::system();
    for (kex, value) in client_values() {
        if !matches!(kex, Kex::EcdhNistp256 | Kex::EcdhNistp384) {
            continue;
        }
        let half = value.len() / 2;
        let mut off_curve = value.clone();
        *off_curve.last_mut().unwrap() ^= 1;
        let mut hybrid = value.clone();
        hybrid[0] = 6;
        let compressed = [&[2 + (value[value.len() - 1] & 1)][..], &value[1..=half]].concat();
        let mut padded = compressed.clone();
        padded.resize(value.len(), 0);
        let mut beyond_the_prime = vec![0xff; value.len()];
        beyond_the_prime[0] = 4;
        let mut origin = vec![0; value.len()];
        origin[0] = 4;
        let infinity = vec![0];
        let zeroes = vec![0; value.len()];
        for wrong in [
            off_curve,
            hybrid,
            compressed,
            padded,
            beyond_the_prime,
            origin,
            infinity,
            zeroes,
        ] {
            let refused = kex.respond(&wrong, &random).err();
            assert_eq!(
                refused,
                Some(CryptoError::Malformed),
                "{kex:?} {wrong:02x?}"
            );
        }
    }
}

/// FIPS 203 section 7.2.
#[test]
fn an_unreduced_ml_kem_key_is_refused() {
    let random = Random::system();
    let (kex, value) = client_values().swap_remove(0);
    for group in [0, 1, 200, 383] {
        let mut wrong = value.clone();
        wrong[3 * group] = 0x01;
        wrong[3 * group + 1] = wrong[3 * group + 1] & 0xf0 | 0x0d;
        assert_eq!(
            kex.respond(&wrong, &random).err(),
            Some(CryptoError::Malformed)
        );
    }
}

#[test]
fn secrets_are_well_formed_numbers_or_strings() {
    let random = Random::system();
    for (kex, value) in client_values() {
        for _ in 0..20 {
            let answer = kex.respond(&value, &random).unwrap();
            let mut reader = Reader::new(&answer.shared_secret);
            let bytes = match kex {
                Kex::MlKem768X25519 => reader.string("K").unwrap(),
                #[cfg(feature = "sntrup761")]
                Kex::Sntrup761X25519 => reader.string("K").unwrap(),
                _ => reader.mpint("K").unwrap(),
            };
            assert!(!bytes.is_empty() && reader.is_empty());
        }
    }
}

#[test]
fn names_lead_to_methods_and_hashes() {
    let names = Kex::names();
    assert_eq!(names[0], "mlkem768x25519-sha256");
    for name in names {
        assert!(Kex::by_name(name.as_bytes()).is_some(), "{name}");
    }
    for (name, hash) in [
        ("curve25519-sha256", Hash::Sha256),
        ("curve25519-sha256@libssh.org", Hash::Sha256),
        ("ecdh-sha2-nistp256", Hash::Sha256),
        ("ecdh-sha2-nistp384", Hash::Sha384),
        ("mlkem768x25519-sha256", Hash::Sha256),
    ] {
        assert_eq!(Kex::by_name(name.as_bytes()).unwrap().hash(), hash);
    }
    if cfg!(feature = "sntrup761") {
        assert_eq!(names.len(), 7);
        for name in [
            "sntrup761x25519-sha512",
            "sntrup761x25519-sha512@openssh.com",
        ] {
            assert_eq!(Kex::by_name(name.as_bytes()).unwrap().hash(), Hash::Sha512);
        }
    }
    for unknown in [
        "",
        "ext-info-c",
        "kex-strict-s-v00@openssh.com",
        "ecdh-sha2-nistp521",
    ] {
        assert_eq!(Kex::by_name(unknown.as_bytes()), None);
    }
}

/// Computed with Python's hashlib by RFC 4253 sections 7.2 and 8.
#[test]
fn exchange_hashes_and_derived_keys_are_the_known_ones() {
    let mut shared_secret = Vec::new();
    shared_secret.put_mpint(&(0x80..0xa0).collect::<Vec<u8>>());
    let mut host_key = Vec::new();
    host_key.put_string(b"ssh-ed25519");
    host_key.put_string(&[0; 32]);
    let exchange = Exchange {
        client_version: b"SSH-2.0-OpenSSH_9.2p1"[..].into(),
        client_kexinit: [&[0x14][..], &[b'c'; 40]].concat()[..].into(),
        server_kexinit: [&[0x14][..], &[b's'; 50]].concat()[..].into(),
        client_public: [0x11; 32][..].into(),
        server_public: [0x22; 32][..].into(),
        shared_secret: shared_secret[..].into(),
        ..Exchange::default()
    };
    let session_id = &b"session identifier of another exchange"[..32];
    for (hash, h, a, c, f) in [
        (
            Hash::Sha256,
            "0fcceccfa6642a1982c452bc627cbea6b21783ab7e6f21b39732ee2f58f669b1",
            "926cc361168e025e8a0e8f1c1dfaed2c",
            "fbcf00c6c6f0ef7546165126d6ad8d77d1500a36593f368a330209fd013529c5
             94c5922ccf57a2c4e5223acb95c743f0608860550a41c3ae4c96c77b31cbff0d",
            "e175ef9bff971abb",
        ),
        (
            Hash::Sha384,
            "bc5eb5251ca94ace7ee4de334689e821aed89d56909e9a6282d84f30f480a6d3
             33ba7d92e32159e4d7cae51fcdcd5704",
            "b44a256121ef92ed54b9ca3606e41b63",
            "d106030cfb4d3374cbdc6e4fb051c2765d065c33f164c857e73ca72c68375a19
             a3adfda814ae313788e142e356e8ccfa91bef50d0d84a6c3b8b1c7a77c7270bb",
            "2541a0817469b5fd",
        ),
        (
            Hash::Sha512,
            "eb0fcd1b4b0f09163d0768b5acc6653a26cd9d03369ec0612e755a35e038de67
             95951f7b4633bd70560b380604f68cacbcfb61b0de5b5ee4e3d35f60d2eeace1",
            "48f082801eb28e12c6ba9f8a7e5e9197",
            "8d6b12fc79523827d87ba42a26c41e4729bbc14d3ea6b0043a1f5f5b3760ba94
             340b9e51c5c7cde98f23549ff7c4c7e7fb7c07de1e2c842fdc6da1af88c6c491",
            "e26b49268b587e92",
        ),
    ] {
        let made = hash.exchange(&exchange, &host_key, b"SSH-2.0-agent_0.1");
        assert_eq!(made, hex(h), "{hash:?}");
        let derive = |letter, len| hash.derive(&shared_secret, &made, letter, session_id, len);
        assert_eq!(*derive(b'A', 16), hex(a), "{hash:?}");
        assert_eq!(*derive(b'C', 64), hex(c), "{hash:?}");
        assert_eq!(derive(b'F', 200)[192..], hex(f), "{hash:?}");
        assert!(derive(b'B', 0).is_empty());
    }
}
