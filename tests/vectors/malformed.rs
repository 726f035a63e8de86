//! Damaged and hostile blobs, files and signatures: errors, never a panic.

use agent::ssh::crypto::private_key::{KeyFileError, PrivateKey};
use agent::ssh::crypto::public_key::{KeyType, PublicKey};
use agent::ssh::crypto::{CryptoError, Random, base64};
use agent::ssh::wire::Writer;

use crate::hex;
use crate::signatures::{P256_POINT, P384_POINT, ecdsa_blob, ed25519_blob, signature_blob};
use crate::tools::Directory;

fn rsa_blob(exponent: &[u8], modulus: &[u8]) -> Vec<u8> {
    let mut blob = Vec::new();
    blob.put_string(b"ssh-rsa");
    blob.put_mpint(exponent);
    blob.put_mpint(modulus);
    blob
}

/// An odd number of exactly `bits` bits.
fn modulus(bits: usize) -> Vec<u8> {
    let mut modulus = vec![0x55; bits.div_ceil(8)];
    modulus[0] = u8::try_from(1_u16 << ((bits - 1) % 8)).unwrap();
    modulus
}

fn blobs() -> Vec<Vec<u8>> {
    vec![
        ed25519_blob(&[7; 32]),
        ecdsa_blob("nistp256", &hex(P256_POINT)),
        ecdsa_blob("nistp384", &hex(P384_POINT)),
        rsa_blob(&[1, 0, 1], &modulus(2048)),
    ]
}

#[test]
fn every_truncated_or_longer_blob_is_refused() {
    for blob in blobs() {
        PublicKey::from_blob(&blob).unwrap();
        for len in 0..blob.len() {
            assert!(PublicKey::from_blob(&blob[..len]).is_err(), "{len}");
        }
        assert!(PublicKey::from_blob(&[&blob[..], &[0]].concat()).is_err());
    }
}

#[test]
fn changed_blobs_never_panic_in_any_use() {
    for blob in blobs() {
        for index in 0..blob.len() {
            for value in [0, 1, 4, 0x7f, 0x80, 0xff, blob[index] ^ 1] {
                let mut changed = blob.clone();
                changed[index] = value;
                let Ok(key) = PublicKey::from_blob(&changed) else {
                    continue;
                };
                assert!(key.bits() >= 256 && key.fingerprint().len() == 50);
                // Public exponents are cheap to change, and expensive to use.
                if index % 16 == 0 || index < 32 {
                    for algorithm in key.key_type.algorithms() {
                        let signature = signature_blob(algorithm, &[1; 64]);
                        assert!(key.verify(algorithm.as_bytes(), b"", &signature).is_err());
                    }
                }
            }
        }
    }
}

#[test]
fn rsa_keys_outside_the_bounds_are_refused() {
    let e = &[1, 0, 1][..];
    let mut even = modulus(2048);
    *even.last_mut().unwrap() = 0x54;
    for (what, exponent, modulus, why) in [
        ("1023 bits", e, modulus(1023), CryptoError::Unsupported),
        ("8193 bits", e, modulus(8193), CryptoError::Unsupported),
        ("16384 bits", e, modulus(16384), CryptoError::Unsupported),
        ("1 bit", e, vec![1], CryptoError::Unsupported),
        ("zero modulus", e, vec![], CryptoError::Malformed),
        ("even modulus", e, even, CryptoError::Malformed),
        ("e = 0", &[], modulus(2048), CryptoError::Malformed),
        ("e = 1", &[1], modulus(2048), CryptoError::Malformed),
        ("e even", &[1, 0, 0], modulus(2048), CryptoError::Malformed),
        (
            "e of 34 bits",
            &[2, 0, 0, 0, 1],
            modulus(2048),
            CryptoError::Unsupported,
        ),
        (
            "e as large as n",
            &modulus(2048),
            modulus(2048),
            CryptoError::Unsupported,
        ),
    ] {
        assert_eq!(
            PublicKey::from_blob(&rsa_blob(exponent, &modulus)),
            Err(why),
            "{what}"
        );
    }
    for bits in [1024, 1025, 1031, 2047, 2048, 3072, 4096, 8191, 8192] {
        for exponent in [&[3][..], e, &[1, 0xff, 0xff, 0xff, 0xff]] {
            let key = PublicKey::from_blob(&rsa_blob(exponent, &modulus(bits))).unwrap();
            assert_eq!(usize::try_from(key.bits()).unwrap(), bits);
            let signature = signature_blob("rsa-sha2-512", &vec![1; bits / 8]);
            let refused = key.verify(b"rsa-sha2-512", b"", &signature);
            assert_eq!(refused, Err(CryptoError::Mismatch), "{bits}");
        }
    }
}

#[test]
fn numbers_have_one_form() {
    let n = modulus(2048);
    for (exponent, modulus) in [
        // A negative modulus: its zero in front is missing.
        (vec![1, 0, 1], [&[0x80][..], &n[1..]].concat()),
        (vec![1, 0, 1], [&[0][..], &n[1..]].concat()),
        (vec![1, 0, 1], [&[0, 0, 0x80][..], &n[1..]].concat()),
        (vec![0, 1, 0, 1], n.clone()),
        (vec![0x81, 0, 1], n.clone()),
        (vec![0], n.clone()),
    ] {
        let mut blob = Vec::new();
        blob.put_string(b"ssh-rsa");
        blob.put_string(&exponent);
        blob.put_string(&modulus);
        assert_eq!(PublicKey::from_blob(&blob), Err(CryptoError::Malformed));
    }
}

#[test]
fn points_and_curves_have_one_form() {
    let point = hex(P256_POINT);
    let with_tag = |tag: u8| [&[tag][..], &point[1..]].concat();
    for wrong in [
        vec![],
        vec![0],
        vec![4],
        point[..33].to_vec(),
        with_tag(2)[..33].to_vec(),
        with_tag(3)[..33].to_vec(),
        with_tag(2),
        with_tag(6),
        with_tag(0),
        [&point[..], &[0]].concat(),
        hex(P384_POINT),
    ] {
        let refused = PublicKey::from_blob(&ecdsa_blob("nistp256", &wrong));
        assert_eq!(refused, Err(CryptoError::Malformed), "{wrong:02x?}");
    }
    // The curve named inside must be the type's.
    let mut blob = Vec::new();
    blob.put_string(b"ecdsa-sha2-nistp256");
    blob.put_string(b"nistp384");
    blob.put_string(&hex(P384_POINT));
    assert_eq!(PublicKey::from_blob(&blob), Err(CryptoError::Malformed));
    // A point off the curve, or at (0, 0), verifies nothing.
    let mut off_curve = point.clone();
    off_curve[64] ^= 1;
    let mut zero = vec![0; 65];
    zero[0] = 4;
    for point in [off_curve, zero] {
        let key = PublicKey::from_blob(&ecdsa_blob("nistp256", &point)).unwrap();
        let mut signature = Vec::new();
        signature.put_mpint(&[1]);
        signature.put_mpint(&[1]);
        let signature = signature_blob("ecdsa-sha2-nistp256", &signature);
        let refused = key.verify(b"ecdsa-sha2-nistp256", b"", &signature);
        assert_eq!(refused, Err(CryptoError::Mismatch));
    }
}

#[test]
fn other_types_are_unsupported() {
    for name in [
        "",
        "ssh-dss",
        "ecdsa-sha2-nistp512",
        "webauthn-sk-ecdsa-sha2-nistp256@openssh.com",
        "ssh-ed25519-cert-v01@openssh.com",
        "rsa-sha2-512",
        "ssh-ed25519\0",
        "SSH-ED25519",
    ] {
        let mut blob = Vec::new();
        blob.put_string(name.as_bytes());
        blob.put_string(&[7; 32]);
        assert_eq!(
            PublicKey::from_blob(&blob),
            Err(CryptoError::Unsupported),
            "{name}"
        );
    }
    for len in [0, 31, 33, 64] {
        assert!(PublicKey::from_blob(&ed25519_blob(&vec![7; len])).is_err());
    }
}

#[test]
fn damaged_signatures_are_refused() {
    let random = Random::system();
    for key_type in [KeyType::Ed25519, KeyType::EcdsaP256, KeyType::EcdsaP384] {
        let key = PrivateKey::generate(key_type, &random).unwrap();
        let algorithm = key_type.name().as_bytes();
        let signature = key.sign(algorithm, b"data", &random).unwrap();
        for len in 0..signature.len() {
            assert!(
                key.public()
                    .verify(algorithm, b"data", &signature[..len])
                    .is_err()
            );
        }
        let longer = [&signature[..], &[0]].concat();
        assert!(key.public().verify(algorithm, b"data", &longer).is_err());
        for bit in 0..signature.len() * 8 {
            let mut changed = signature.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(
                key.public().verify(algorithm, b"data", &changed).is_err(),
                "{bit}"
            );
        }
        // Ed25519 with s = s + L would be a second signature of the same data.
        assert!(key.public().verify(algorithm, b"", &signature).is_err());
    }
}

/// Key files by ssh-keygen and openssl: label and bytes behind the armour.
fn key_files() -> Vec<(String, Vec<u8>)> {
    let directory = Directory::new("damaged");
    let commands = [
        "ssh-keygen -q -t ed25519 -N '' -f a",
        "ssh-keygen -q -t ecdsa -b 384 -N '' -f b",
        "ssh-keygen -q -t rsa -b 2048 -N '' -f c",
        "ssh-keygen -q -t rsa -b 2048 -m PEM -N '' -f d",
        "ssh-keygen -q -t ecdsa -b 256 -m PEM -N '' -f e",
        "ssh-keygen -q -t ecdsa -b 256 -m PKCS8 -N '' -f f",
        "openssl genpkey -algorithm ED25519 -out g",
    ];
    let read = |command: &&str| {
        directory.run(command);
        let text = String::from_utf8(directory.read(&command[command.len() - 1..])).unwrap();
        let label = text
            .lines()
            .next()
            .unwrap()
            .trim_matches('-')
            .replacen("BEGIN ", "", 1);
        let body = text
            .lines()
            .filter(|line| !line.starts_with('-'))
            .collect::<String>();
        (label, base64::decode(body.as_bytes()).unwrap().to_vec())
    };
    commands.iter().map(read).collect()
}

fn from_bytes(label: &str, bytes: &[u8]) -> Result<PrivateKey, KeyFileError> {
    let body = base64::encode(bytes);
    let text = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
    PrivateKey::from_file(text.as_bytes(), &Random::system())
}

#[test]
fn every_truncated_key_file_is_refused() {
    for (label, bytes) in key_files() {
        from_bytes(&label, &bytes).unwrap();
        for len in 0..bytes.len() {
            let refused = from_bytes(&label, &bytes[..len]).err();
            assert_eq!(refused, Some(KeyFileError::Malformed), "{label} {len}");
        }
        assert!(from_bytes(&label, &[&bytes[..], &[0]].concat()).is_err());
        let body = base64::encode(&bytes);
        let text = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        for len in 0..text.trim_end().len() {
            assert!(PrivateKey::from_file(&text.as_bytes()[..len], &Random::system()).is_err());
        }
    }
}

#[test]
fn changed_key_files_are_refused_or_still_the_same_key() {
    for (label, bytes) in key_files() {
        let key = from_bytes(&label, &bytes).unwrap();
        // RSA is slow to check, and its values are longer than interesting.
        let step = if key.public().key_type == KeyType::Rsa {
            7
        } else {
            1
        };
        for index in (0..bytes.len()).step_by(step) {
            for value in [0, 0xff, bytes[index] ^ 1] {
                let mut changed = bytes.clone();
                changed[index] = value;
                // The comment, for one, may change.
                if let Ok(read) = from_bytes(&label, &changed) {
                    let same = *read.public() == *key.public();
                    assert!(same || label == "PRIVATE KEY", "{label} {index}");
                    for algorithm in read.public().key_type.algorithms() {
                        let random = Random::system();
                        let made = read.sign(algorithm.as_bytes(), b"data", &random).unwrap();
                        read.public()
                            .verify(algorithm.as_bytes(), b"data", &made)
                            .unwrap();
                    }
                }
            }
        }
    }
}

/// OpenSSH's format around a public blob and the fields of a private part.
fn openssh_file(public: &[u8], fields: &[u8]) -> Vec<u8> {
    let mut private = vec![7; 8];
    private.put_bytes(fields);
    private.put_string(b"");
    private.extend((1..8).take(private.len().next_multiple_of(8) - private.len()));
    let mut file = b"openssh-key-v1\0".to_vec();
    for string in [&b"none"[..], b"none", b""] {
        file.put_string(string);
    }
    file.put_u32(1);
    file.put_string(public);
    file.put_string(&private);
    file
}

fn from_openssh(public: &[u8], fields: &[u8]) -> Option<KeyFileError> {
    from_bytes("OPENSSH PRIVATE KEY", &openssh_file(public, fields)).err()
}

#[test]
fn elliptic_private_values_that_make_no_key_are_refused() {
    // RFC 6979 appendix A.2.5 and RFC 8032 section 7.1, test 1.
    let scalar = hex("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721");
    let order = hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
    let public = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");

    let ecdsa = |point: &[u8], scalar: &[u8]| {
        let blob = ecdsa_blob("nistp256", point);
        let mut fields = blob.clone();
        fields.put_mpint(scalar);
        from_openssh(&blob, &fields)
    };
    let point = hex(P256_POINT);
    let mut off_curve = point.clone();
    off_curve[64] ^= 1;
    assert_eq!(ecdsa(&point, &scalar), None);
    for (point, scalar) in [
        (&point, &vec![]),
        (&point, &vec![1]),
        (&point, &order),
        (&point, &[&[1][..], &scalar].concat()),
        (&off_curve, &scalar),
        (&point[..33].to_vec(), &scalar),
        (&vec![0], &scalar),
        (&vec![], &vec![]),
    ] {
        assert_eq!(
            ecdsa(point, scalar),
            Some(KeyFileError::Malformed),
            "{scalar:02x?}"
        );
    }

    let ed25519 = |outer: &[u8], inner: &[u8], secret: &[u8]| {
        let mut fields = ed25519_blob(inner);
        fields.put_string(secret);
        from_openssh(&ed25519_blob(outer), &fields)
    };
    let secret = [&seed[..], &public].concat();
    let other = [&public[..], &public].concat();
    assert_eq!(ed25519(&public, &public, &secret), None);
    for (outer, inner, secret) in [
        (&seed, &public, &secret),
        (&seed, &seed, &[&seed[..], &seed].concat()),
        (&public, &public, &other),
        (&public, &public, &seed),
        (&public, &public, &secret[..63].to_vec()),
        (&public, &public, &[&secret[..], &[0]].concat()),
        (&public, &public, &vec![]),
        (&vec![], &vec![], &seed),
    ] {
        assert_eq!(ed25519(outer, inner, secret), Some(KeyFileError::Malformed));
    }
}

#[test]
fn rsa_private_values_that_make_no_key_are_refused() {
    let directory = Directory::new("rsavalues");
    directory.run("ssh-keygen -q -t rsa -b 2048 -N '' -f key");
    directory.run("openssl genrsa -3 -traditional -out three 2048");
    let three = PrivateKey::from_file(&directory.read("three"), &Random::system());
    assert_eq!(
        three.err(),
        Some(KeyFileError::Unsupported),
        "an exponent of 3 is not signed with"
    );

    let text = String::from_utf8(directory.read("key")).unwrap();
    let body = text
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect::<String>();
    let file = base64::decode(body.as_bytes()).unwrap();
    let mut reader = agent::ssh::wire::Reader::new(&file[15..]);
    for _ in 0..3 {
        reader.string("none").unwrap();
    }
    reader.u32("keys").unwrap();
    let _public = reader.string("public").unwrap();
    let mut reader = agent::ssh::wire::Reader::new(reader.string("private").unwrap());
    reader.u64("check").unwrap();
    assert_eq!(reader.string("type").unwrap(), b"ssh-rsa");
    // n, e, d, q to the power of -1, p, q.
    let values: [&[u8]; 6] = std::array::from_fn(|_| reader.mpint("value").unwrap());

    let read = |values: &[&[u8]; 6]| {
        let mut fields = Vec::new();
        fields.put_string(b"ssh-rsa");
        for value in values {
            fields.put_mpint(value);
        }
        from_openssh(&rsa_blob(values[1], values[0]), &fields)
    };
    assert_eq!(read(&values), None);
    let even = |value: &[u8]| [&value[..value.len() - 1], &[value[value.len() - 1] ^ 1]].concat();
    for index in 0..values.len() {
        for wrong in [
            vec![],
            vec![1],
            vec![0xff; 600],
            even(values[index]),
            values[index][1..].to_vec(),
            [&[1][..], values[index]].concat(),
            values[(index + 1) % 6].to_vec(),
        ] {
            let mut changed = values;
            changed[index] = &wrong;
            let refused = read(&changed);
            let known = [
                Some(KeyFileError::Malformed),
                Some(KeyFileError::Unsupported),
            ];
            assert!(
                known.contains(&refused),
                "{index} {wrong:02x?}: {refused:?}"
            );
        }
    }
    let mut swapped = values;
    swapped.swap(4, 5);
    assert_eq!(
        read(&swapped),
        Some(KeyFileError::Malformed),
        "the inverse is of the other prime"
    );
}
