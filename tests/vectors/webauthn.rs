//! Signatures of a security key behind a web browser, in software; `ssh-keygen -Y` judges them too.

use std::process::{Command, Stdio};

use agent::ssh::crypto::base64;
use agent::ssh::crypto::private_key::PrivateKey;
use agent::ssh::crypto::public_key::{KeyType, Presence, PublicKey};
use agent::ssh::crypto::{CryptoError, Random};
use agent::ssh::wire::{Reader, Writer};
use ring::digest::{SHA256, SHA512, digest};

use crate::tools::Directory;

const KEY: &str = "sk-ecdsa-sha2-nistp256@openssh.com";
const ALGORITHM: &str = "webauthn-sk-ecdsa-sha2-nistp256@openssh.com";
const TOUCHED: u8 = 0x01;
const EXTENDED: u8 = 0x80;
const NAMESPACE: &[u8] = b"file";

/// Browser and key in one: what it signs, and what its signature says, may be changed piece by piece.
#[derive(Clone)]
struct Browser {
    application: &'static str,
    flags: u8,
    kind: &'static str,
    origin: &'static str,
    claimed_origin: &'static str,
    extensions: &'static [u8],
    claimed_extensions: &'static [u8],
}

impl Browser {
    fn good() -> Self {
        Self {
            application: "example.com",
            flags: TOUCHED,
            kind: "webauthn.get",
            origin: "https://www.example.com",
            claimed_origin: "https://www.example.com",
            extensions: b"",
            claimed_extensions: b"",
        }
    }

    fn words(&self, data: &[u8]) -> String {
        let challenge = base64::encode_unpadded(data)
            .replace('+', "-")
            .replace('/', "_");
        format!(
            r#"{{"type":"{}","challenge":"{challenge}","origin":"{}","crossOrigin":false}}"#,
            self.kind, self.origin
        )
    }

    fn sign(&self, key: &PrivateKey, data: &[u8]) -> Vec<u8> {
        let words = self.words(data);
        let mut signed = digest(&SHA256, self.application.as_bytes())
            .as_ref()
            .to_vec();
        signed.put_u8(self.flags);
        signed.put_u32(9);
        signed.put_bytes(self.extensions);
        signed.put_bytes(digest(&SHA256, words.as_bytes()).as_ref());
        let made = key
            .sign(b"ecdsa-sha2-nistp256", &signed, &Random::system())
            .unwrap();
        let mut reader = Reader::new(&made);
        reader.string("algorithm").unwrap();
        let mut blob = Vec::new();
        blob.put_string(ALGORITHM.as_bytes());
        blob.put_string(reader.string("signature").unwrap());
        blob.put_u8(self.flags);
        blob.put_u32(9);
        blob.put_string(self.claimed_origin.as_bytes());
        blob.put_string(words.as_bytes());
        blob.put_string(self.claimed_extensions);
        blob
    }
}

fn public_of(key: &PrivateKey) -> PublicKey {
    let mut blob = Vec::new();
    blob.put_string(KEY.as_bytes());
    blob.put_bytes(&key.public().blob[4 + "ecdsa-sha2-nistp256".len()..]);
    blob.put_string(b"example.com");
    PublicKey::from_blob(&blob).unwrap()
}

/// OpenSSH's verdict, by way of a signed file (PROTOCOL.sshsig): `sign` signs what such a file signs.
fn openssh_agrees(
    directory: &Directory,
    public: &PublicKey,
    sign: impl FnOnce(&[u8]) -> Vec<u8>,
) -> bool {
    const MESSAGE: &[u8] = b"a message\n";
    let fields = |blob: &mut Vec<u8>| {
        blob.put_string(NAMESPACE);
        blob.put_string(b"");
        blob.put_string(b"sha512");
    };
    let mut data = b"SSHSIG".to_vec();
    fields(&mut data);
    data.put_string(digest(&SHA512, MESSAGE).as_ref());
    let mut file = b"SSHSIG".to_vec();
    file.put_u32(1);
    file.put_string(&public.blob);
    fields(&mut file);
    file.put_string(&sign(&data));
    let text = format!(
        "-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n",
        base64::encode(&file)
    );
    let signature = directory.write("signature", text.as_bytes());
    let message = directory.write("message", MESSAGE);
    let verdict = Command::new("ssh-keygen")
        .args(["-Y", "check-novalidate", "-n", "file", "-s"])
        .arg(signature)
        .stdin(std::fs::File::open(message).unwrap())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    verdict.success()
}

#[test]
fn a_browsers_signature_counts_if_it_quotes_the_data_and_agrees_with_itself() {
    let directory = Directory::new("webauthn");
    let key = PrivateKey::generate(KeyType::EcdsaP256, &Random::system()).unwrap();
    let public = public_of(&key);
    let good = Browser::good();
    let changed = |change: fn(&mut Browser)| {
        let mut browser = good.clone();
        change(&mut browser);
        browser
    };
    for (what, browser, counts) in [
        ("good", good.clone(), true),
        (
            "extensions",
            changed(|it| {
                it.flags |= EXTENDED;
                (it.extensions, it.claimed_extensions) = (b"\xa0", b"\xa0");
            }),
            true,
        ),
        ("untouched", changed(|it| it.flags = 0), true),
        ("kind", changed(|it| it.kind = "webauthn.create"), false),
        ("origin", changed(|it| it.origin = "https://a.org"), false),
        ("application", changed(|it| it.application = "a.org"), false),
        (
            "a quote in the origin",
            changed(|it| {
                it.origin = "https://a\",\"b\":\"c";
                it.claimed_origin = it.origin;
            }),
            false,
        ),
        (
            "unsigned extensions",
            changed(|it| {
                it.flags |= EXTENDED;
                it.claimed_extensions = b"\xa0";
            }),
            false,
        ),
        (
            "unannounced extensions",
            changed(|it| (it.extensions, it.claimed_extensions) = (b"\xa0", b"\xa0")),
            false,
        ),
        ("attested", changed(|it| it.flags |= 0x40), false),
    ] {
        let verdict = public.verify(ALGORITHM.as_bytes(), b"data", &browser.sign(&key, b"data"));
        assert_eq!(verdict.is_ok(), counts, "{what}: {verdict:?}");
        let theirs = openssh_agrees(&directory, &public, |data| browser.sign(&key, data));
        assert_eq!(theirs, counts, "{what}, by ssh-keygen");
    }
}

#[test]
fn a_browsers_signature_is_one_of_its_own_kind() {
    let key = PrivateKey::generate(KeyType::EcdsaP256, &Random::system()).unwrap();
    let public = public_of(&key);
    let good = Browser::good().sign(&key, b"data");
    let presence = Presence {
        touched: true,
        verified: false,
    };
    let verify = |algorithm: &str, data: &[u8], signature: &[u8]| {
        public.verify(algorithm.as_bytes(), data, signature)
    };
    assert_eq!(verify(ALGORITHM, b"data", &good), Ok(Some(presence)));
    let other = verify(ALGORITHM, b"datb", &good);
    assert_eq!(other, Err(CryptoError::Mismatch));
    // Under the plain name it says something else, and the plain form nothing under this one.
    assert_eq!(verify(KEY, b"data", &good), Err(CryptoError::Mismatch));
    let mut renamed = Vec::new();
    renamed.put_string(KEY.as_bytes());
    renamed.put_bytes(&good[4 + ALGORITHM.len()..]);
    assert_eq!(verify(KEY, b"data", &renamed), Err(CryptoError::Malformed));
    for length in 0..good.len() {
        assert!(verify(ALGORITHM, b"data", &good[..length]).is_err());
    }
    let longer = [&good[..], &[0]].concat();
    assert!(verify(ALGORITHM, b"data", &longer).is_err());
    for index in 0..good.len() {
        let mut changed = good.clone();
        changed[index] ^= 1;
        assert!(verify(ALGORITHM, b"data", &changed).is_err(), "{index}");
    }
    // The key in the device is no other key.
    let plain = PrivateKey::generate(KeyType::EcdsaP256, &Random::system()).unwrap();
    assert!(
        plain
            .public()
            .verify(ALGORITHM.as_bytes(), b"data", &good)
            .is_err()
    );
}
