//! Key files of ssh-keygen and openssl, read; ours, read by ssh-keygen.

use agent::ssh::crypto::Random;
use agent::ssh::crypto::private_key::{KeyFileError, PrivateKey};
use agent::ssh::crypto::public_key::{KeyType, PublicKey};

use crate::tools::{Directory, blob_of_line};

const KINDS: [(&str, KeyType, u32); 6] = [
    ("-t ed25519", KeyType::Ed25519, 256),
    ("-t ecdsa -b 256", KeyType::EcdsaP256, 256),
    ("-t ecdsa -b 384", KeyType::EcdsaP384, 384),
    ("-t rsa -b 2048", KeyType::Rsa, 2048),
    ("-t rsa -b 3072", KeyType::Rsa, 3072),
    ("-t rsa -b 4096", KeyType::Rsa, 4096),
];

/// Reads the key file `name`, checks it against `key.pub`, signs with it, and has ssh-keygen read
/// what we write.
fn reads_and_writes(directory: &Directory, name: &str, key_type: KeyType, bits: u32) {
    let random = Random::system();
    let key = PrivateKey::from_file(&directory.read(name), &random)
        .unwrap_or_else(|error| panic!("{name} {key_type:?}: {error:?}"));
    let line = directory.read("key.pub");
    let public = PublicKey::from_blob(&blob_of_line(&line)).unwrap();
    assert_eq!(*key.public(), public, "{name}");
    assert_eq!((public.key_type, public.bits()), (key_type, bits));
    let listed = String::from_utf8(directory.run("ssh-keygen -lf key.pub")).unwrap();
    assert_eq!(listed.split(' ').nth(1).unwrap(), public.fingerprint());
    assert!(
        listed
            .trim_end()
            .ends_with(&format!("({})", key_type.short_name())),
        "{listed}"
    );

    for algorithm in key_type.algorithms() {
        let signature = key.sign(algorithm.as_bytes(), b"data", &random).unwrap();
        public
            .verify(algorithm.as_bytes(), b"data", &signature)
            .unwrap();
    }

    let file = key.to_file("of the test", &random);
    directory.write("written", &file);
    let shown = directory.run("ssh-keygen -y -f written");
    assert_eq!(blob_of_line(&shown), public.blob, "{name}");
    assert!(
        shown.trim_ascii().ends_with(b" of the test"),
        "{}",
        String::from_utf8_lossy(&shown)
    );
    // ssh-keygen rewrites the whole private part: it has read every value of it.
    directory.run("ssh-keygen -q -p -P '' -N '' -m PEM -f written");
    let again = PrivateKey::from_file(&directory.read("written"), &random).unwrap();
    assert_eq!(again.public(), key.public());
}

#[test]
fn keys_of_ssh_keygen_are_read_in_all_forms_and_ours_by_it() {
    for (options, key_type, bits) in KINDS {
        let directory = Directory::new(&format!("forms{}", options.replace(' ', "")));
        directory.run(&format!("ssh-keygen -q {options} -N '' -C comment -f key"));
        reads_and_writes(&directory, "key", key_type, bits);
        for form in ["PEM", "PKCS8"] {
            directory.write("other", &directory.read("key"));
            directory.run(&format!("ssh-keygen -q -p -P '' -N '' -m {form} -f other"));
            let begins = if key_type == KeyType::Ed25519 {
                "OPENSSH"
            } else {
                ""
            };
            let text = String::from_utf8(directory.read("other")).unwrap();
            assert!(
                text.starts_with(&format!("-----BEGIN {begins}")),
                "{text:.40}"
            );
            reads_and_writes(&directory, "other", key_type, bits);
            // Windows line ends, and something in front.
            let text = format!("a note\r\n{}", text.replace('\n', "\r\n"));
            directory.write("other", text.as_bytes());
            reads_and_writes(&directory, "other", key_type, bits);
        }
    }
}

#[test]
fn keys_of_openssl_are_read() {
    for (command, key_type, bits) in [
        ("genpkey -algorithm ED25519", KeyType::Ed25519, 256),
        (
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
            KeyType::EcdsaP256,
            256,
        ),
        (
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384",
            KeyType::EcdsaP384,
            384,
        ),
        // With a block of EC PARAMETERS in front.
        ("ecparam -name prime256v1 -genkey", KeyType::EcdsaP256, 256),
        (
            "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048",
            KeyType::Rsa,
            2048,
        ),
        ("genrsa -traditional 3072", KeyType::Rsa, 3072),
    ] {
        let directory = Directory::new(&command.replace([' ', ':', '-'], ""));
        directory.write("made", &directory.run(&format!("openssl {command}")));
        // ssh-keygen reads OpenSSL's Ed25519 keys from 9.6 on only, so take ours for the line.
        let key = PrivateKey::from_file(&directory.read("made"), &Random::system()).unwrap();
        let file = key.to_file("", &Random::system());
        directory.write("key", &file);
        directory.write("key.pub", &directory.run("ssh-keygen -y -f key"));
        let of_openssl = directory.run("openssl pkey -in made -pubout -outform DER");
        let tail = &key.public().blob[key.public().blob.len() - 32..];
        let known = of_openssl.windows(32).any(|window| window == tail);
        assert_eq!(known, key_type != KeyType::Rsa || known, "{command}");
        reads_and_writes(&directory, "made", key_type, bits);
    }
}

#[test]
fn what_cannot_serve_says_why() {
    let directory = Directory::new("refused");
    let random = Random::system();
    let refused = |name: &str| PrivateKey::from_file(&directory.read(name), &random).err();
    for (file, command, why) in [
        (
            "sealed",
            "ssh-keygen -q -t ed25519 -N secret -f sealed",
            KeyFileError::Encrypted,
        ),
        (
            "pem",
            "ssh-keygen -q -t rsa -b 2048 -m PEM -N secret -f pem",
            KeyFileError::Encrypted,
        ),
        (
            "pk8",
            "ssh-keygen -q -t ecdsa -m PKCS8 -N secret -f pk8",
            KeyFileError::Encrypted,
        ),
        (
            "p521",
            "ssh-keygen -q -t ecdsa -b 521 -N '' -f p521",
            KeyFileError::Unsupported,
        ),
        (
            "p521pem",
            "ssh-keygen -q -t ecdsa -b 521 -m PEM -N '' -f p521pem",
            KeyFileError::Unsupported,
        ),
        (
            "small",
            "ssh-keygen -q -t rsa -b 1024 -N '' -f small",
            KeyFileError::Unsupported,
        ),
        (
            "odd",
            "ssh-keygen -q -t rsa -b 2050 -N '' -f odd",
            KeyFileError::Unsupported,
        ),
        (
            "ed448",
            "openssl genpkey -algorithm ED448 -out ed448",
            KeyFileError::Unsupported,
        ),
        (
            "explicit",
            "openssl ecparam -name prime256v1 -param_enc explicit -genkey -out explicit",
            KeyFileError::Unsupported,
        ),
    ] {
        directory.run(command);
        assert_eq!(refused(file), Some(why), "{command}");
    }
    for (content, why) in [
        (&b""[..], KeyFileError::Empty),
        (b"\n \n", KeyFileError::Empty),
        (b"\0\0\0\0", KeyFileError::NotAKey),
        (b"ssh-ed25519 AAAA comment\n", KeyFileError::NotAKey),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            KeyFileError::NotAKey,
        ),
        (
            b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
            KeyFileError::Malformed,
        ),
        (
            b"-----BEGIN DSA PRIVATE KEY-----\nAAAA\n-----END DSA PRIVATE KEY-----\n",
            KeyFileError::Unsupported,
        ),
        (
            b"-----BEGIN RSA PRIVATE KEY-----\n-----END RSA PRIVATE KEY-----\n",
            KeyFileError::Malformed,
        ),
        (
            b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
            KeyFileError::Malformed,
        ),
    ] {
        directory.write("content", content);
        assert_eq!(
            refused("content"),
            Some(why),
            "{:?}",
            String::from_utf8_lossy(content)
        );
    }
}
