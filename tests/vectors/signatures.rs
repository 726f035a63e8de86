//! Signatures: known answers, and ssh-keygen's and openssl's against ours both ways.

use agent::ssh::crypto::private_key::PrivateKey;
use agent::ssh::crypto::public_key::{KeyType, PublicKey};
use agent::ssh::crypto::{CryptoError, Random, base64};
use agent::ssh::wire::{Reader, Writer};
use ring::digest::{SHA256, SHA512, digest};

use crate::hex;
use crate::tools::{Directory, blob_of_line};

/// RFC 6979 appendix A.2.5: the public point.
pub const P256_POINT: &str = "04
    60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6
    7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
/// RFC 6979 appendix A.2.6.
pub const P384_POINT: &str = "04
    ec3a4e415b4e19a4568618029f427fa5da9a8bc4ae92e02e06aae5286b300c64def8f0ea9055866064a254515480bc13
    8015d9b72d7d57244ea8ef9ac0c621896708a59367f9dfb9f54ca84b3f1c9db1288b231c3ae0d4fe7344fd2533264720";

pub fn ed25519_blob(key: &[u8]) -> Vec<u8> {
    let mut blob = Vec::new();
    blob.put_string(b"ssh-ed25519");
    blob.put_string(key);
    blob
}

pub fn ecdsa_blob(curve: &str, point: &[u8]) -> Vec<u8> {
    let mut blob = Vec::new();
    blob.put_string(format!("ecdsa-sha2-{curve}").as_bytes());
    blob.put_string(curve.as_bytes());
    blob.put_string(point);
    blob
}

pub fn signature_blob(algorithm: &str, signature: &[u8]) -> Vec<u8> {
    let mut blob = Vec::new();
    blob.put_string(algorithm.as_bytes());
    blob.put_string(signature);
    blob
}

/// r and s as they are given, each behind its length.
fn ecdsa_signature(r: &[u8], s: &[u8]) -> Vec<u8> {
    let mut signature = Vec::new();
    signature.put_string(r);
    signature.put_string(s);
    signature
}

fn number(digits: &str) -> Vec<u8> {
    let mut number = Vec::new();
    number.put_mpint(&hex(digits));
    number[4..].to_vec()
}

/// RFC 8032 section 7.1, tests 1 to 3.
#[test]
fn ed25519_gives_and_takes_the_known_signatures() {
    let random = Random::system();
    for (seed, public, data, signature) in [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155
             5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac
             18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ] {
        let der = hex(&["302e020100300506032b657004220420", seed].concat());
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            base64::encode(&der)
        );
        let key = PrivateKey::from_file(pem.as_bytes(), &random).unwrap();
        assert_eq!(key.public().blob, ed25519_blob(&hex(public)));
        let made = key.sign(b"ssh-ed25519", &hex(data), &random).unwrap();
        assert_eq!(made, signature_blob("ssh-ed25519", &hex(signature)));
        key.public()
            .verify(b"ssh-ed25519", &hex(data), &made)
            .unwrap();
    }
}

/// RFC 6979 appendices A.2.5 and A.2.6, message "sample".
#[test]
fn ecdsa_takes_the_known_signatures_and_their_tolerated_forms_only() {
    for (curve, point, r, s, order) in [
        (
            "nistp256",
            P256_POINT,
            "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716",
            "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
            "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
        ),
        (
            "nistp384",
            P384_POINT,
            "94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c
             81a648152e44acf96e36dd1e80fabe46",
            "99ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94f
             a329c145786e679e7b82c71a38628ac8",
            "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf
             581a0db248b0a77aecec196accc52973",
        ),
    ] {
        let key = PublicKey::from_blob(&ecdsa_blob(curve, &hex(point))).unwrap();
        let algorithm = format!("ecdsa-sha2-{curve}");
        let verify = |data: &[u8], signature: &[u8]| {
            key.verify(
                algorithm.as_bytes(),
                data,
                &signature_blob(&algorithm, signature),
            )
        };
        let (r, s, order) = (number(r), number(s), number(order));
        verify(b"sample", &ecdsa_signature(&r, &s)).unwrap();
        let wrong = verify(b"Sample", &ecdsa_signature(&r, &s));
        assert_eq!(wrong, Err(CryptoError::Mismatch));
        // Leading zeroes, as some tokens write them and OpenSSH takes them.
        let padded = [&[0, 0, 0][..], &r].concat();
        verify(b"sample", &ecdsa_signature(&padded, &s)).unwrap();
        for (r, s) in [
            (&s, &r),
            (&vec![], &s),
            (&r, &vec![]),
            (&vec![0], &vec![0]),
            (&vec![1], &vec![1]),
            (&order, &s),
            (&r, &order),
            (&order, &order),
        ] {
            let refused = verify(b"sample", &ecdsa_signature(r, s));
            assert_eq!(refused, Err(CryptoError::Mismatch), "{r:02x?} {s:02x?}");
        }
        let long = [&[1][..], &r].concat();
        let longer = [&[1; 200][..], &r].concat();
        let trailing = [&ecdsa_signature(&r, &s)[..], &[0]].concat();
        for malformed in [
            // Without the zero in front the numbers are negative.
            ecdsa_signature(&r[1..], &s),
            ecdsa_signature(&r, &s[1..]),
            ecdsa_signature(&long, &s),
            ecdsa_signature(&r, &longer),
            trailing,
            ecdsa_signature(&r, &s)[4..].to_vec(),
            vec![],
            // ASN.1 as TLS has it, and r and s without lengths.
            [&[0x30, 0x46, 2, 33][..], &r, &[2, 33], &s].concat(),
            [&r[1..], &s[1..]].concat(),
        ] {
            assert_eq!(verify(b"sample", &malformed), Err(CryptoError::Malformed));
        }
    }
}

#[test]
fn rsa_signatures_are_openssls_and_may_lack_leading_zeroes() {
    let directory = Directory::new("rsa");
    let random = Random::system();
    directory.run("openssl genrsa -traditional -out key 2048");
    let key = PrivateKey::from_file(&directory.read("key"), &random).unwrap();
    directory.write("data", b"some data");
    for (algorithm, hash) in [("rsa-sha2-256", "sha256"), ("rsa-sha2-512", "sha512")] {
        let theirs = directory.run(&format!("openssl dgst -{hash} -sign key data"));
        let ours = key
            .sign(algorithm.as_bytes(), b"some data", &random)
            .unwrap();
        assert_eq!(ours, signature_blob(algorithm, &theirs));
        key.public()
            .verify(algorithm.as_bytes(), b"some data", &ours)
            .unwrap();
        let long = signature_blob(algorithm, &[&[0][..], &theirs].concat());
        let refused = key
            .public()
            .verify(algorithm.as_bytes(), b"some data", &long);
        assert_eq!(refused, Err(CryptoError::Malformed));
        for short in [&theirs[1..], &theirs[..255], &[]] {
            let blob = signature_blob(algorithm, short);
            let refused = key
                .public()
                .verify(algorithm.as_bytes(), b"some data", &blob);
            assert_eq!(refused, Err(CryptoError::Mismatch));
        }
        // The hash in the signature is the one in the name.
        let other = if hash == "sha256" {
            "rsa-sha2-512"
        } else {
            "rsa-sha2-256"
        };
        let renamed = signature_blob(other, &theirs);
        let refused = key
            .public()
            .verify(other.as_bytes(), b"some data", &renamed);
        assert_eq!(refused, Err(CryptoError::Mismatch));
    }
    // One in 256 signatures begins with a zero byte.
    let (data, signature) = (0_u32..20_000)
        .map(|count| count.to_be_bytes())
        .map(|data| (data, key.sign(b"rsa-sha2-256", &data, &random).unwrap()))
        .find(|(_, blob)| blob[blob.len() - 256] == 0)
        .unwrap();
    let digits = signature[signature.len() - 256..]
        .iter()
        .skip_while(|byte| **byte == 0);
    let short = signature_blob("rsa-sha2-256", &digits.copied().collect::<Vec<u8>>());
    assert!(short.len() < signature.len());
    key.public().verify(b"rsa-sha2-256", &data, &short).unwrap();
}

#[test]
fn names_in_request_signature_and_key_must_agree() {
    let random = Random::system();
    let key = PrivateKey::generate(KeyType::Ed25519, &random).unwrap();
    let signature = key.sign(b"ssh-ed25519", b"data", &random).unwrap();
    let public = key.public();
    for algorithm in [
        "ssh-rsa",
        "rsa-sha2-256",
        "ecdsa-sha2-nistp256",
        "",
        "ssh-ed25519\0",
    ] {
        let refused = public.verify(algorithm.as_bytes(), b"data", &signature);
        assert_eq!(refused, Err(CryptoError::Unsupported), "{algorithm}");
        let renamed = signature_blob(algorithm, &signature[19..]);
        let refused = public.verify(b"ssh-ed25519", b"data", &renamed);
        assert_eq!(refused, Err(CryptoError::Mismatch), "{algorithm}");
    }
}

/// SHA-1 is refused even where the signature is right.
#[test]
fn sha1_signatures_are_unsupported() {
    let directory = Directory::new("sha1");
    directory.run("openssl genrsa -traditional -out key 2048");
    let key = PrivateKey::from_file(&directory.read("key"), &Random::system()).unwrap();
    directory.write("data", b"data");
    let made = directory.run("openssl dgst -sha1 -sign key data");
    let refused = key
        .public()
        .verify(b"ssh-rsa", b"data", &signature_blob("ssh-rsa", &made));
    assert_eq!(refused, Err(CryptoError::Unsupported));
}

/// `ssh-keygen -Y`: what is signed, and the file around it (OpenSSH's PROTOCOL.sshsig).
fn signed_data(data: &[u8]) -> Vec<u8> {
    let mut signed = b"SSHSIG".to_vec();
    signed.put_string(b"file");
    signed.put_string(b"");
    signed.put_string(b"sha512");
    signed.put_string(digest(&SHA512, data).as_ref());
    signed
}

#[test]
fn ssh_keygen_and_we_verify_each_others_signatures() {
    let random = Random::system();
    for (options, algorithm) in [
        ("-t ed25519", "ssh-ed25519"),
        ("-t ecdsa -b 256", "ecdsa-sha2-nistp256"),
        ("-t ecdsa -b 384", "ecdsa-sha2-nistp384"),
        ("-t rsa -b 2048", "rsa-sha2-512"),
        ("-t rsa -b 3072", "rsa-sha2-512"),
    ] {
        let directory = Directory::new(&options.replace(' ', ""));
        directory.run(&format!("ssh-keygen -q {options} -N '' -C comment -f key"));
        let key = PrivateKey::from_file(&directory.read("key"), &random).unwrap();
        let blob = blob_of_line(&directory.read("key.pub"));
        let public = PublicKey::from_blob(&blob).unwrap();
        assert_eq!(*key.public(), public);

        // Some rounds, so that ECDSA's numbers have and lack leading zeroes.
        for round in 0..3 {
            let data = format!("data {round}");
            directory.write("data", data.as_bytes());
            let _ = std::fs::remove_file(directory.path("data.sig"));
            directory.run("ssh-keygen -q -Y sign -f key -n file data");
            let armour = directory.read("data.sig");
            let lines = armour
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.starts_with(b"-"));
            let file = base64::decode(&lines.collect::<Vec<_>>().concat()).unwrap();
            let mut reader = Reader::new(file.strip_prefix(b"SSHSIG").unwrap());
            assert_eq!(reader.u32("version").unwrap(), 1);
            assert_eq!(reader.string("key").unwrap(), blob);
            for _ in 0..3 {
                reader.string("namespace, reserved, hash").unwrap();
            }
            let signature = reader.string("signature").unwrap();
            public
                .verify(
                    algorithm.as_bytes(),
                    &signed_data(data.as_bytes()),
                    signature,
                )
                .unwrap();
            let refused = public.verify(algorithm.as_bytes(), &signed_data(b"other"), signature);
            assert_eq!(refused, Err(CryptoError::Mismatch));
        }

        directory.write(
            "allowed",
            &[b"me ", &directory.read("key.pub")[..]].concat(),
        );
        for algorithm in key.public().key_type.algorithms() {
            let made = key
                .sign(algorithm.as_bytes(), &signed_data(b"ours"), &random)
                .unwrap();
            let mut file = b"SSHSIG".to_vec();
            file.put_u32(1);
            file.put_string(&blob);
            file.put_string(b"file");
            file.put_string(b"");
            file.put_string(b"sha512");
            file.put_string(&made);
            let armour = format!(
                "-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n",
                base64::encode(&file)
            );
            directory.write("ours.sig", armour.as_bytes());
            // ssh-keygen reads the data from standard input; here that is empty, so sign nothing.
            let empty = key
                .sign(algorithm.as_bytes(), &signed_data(b""), &random)
                .unwrap();
            let armour = armour.replace(
                &base64::encode(&file),
                &base64::encode(
                    &[&file[..file.len() - made.len() - 4], &{
                        let mut tail = Vec::new();
                        tail.put_string(&empty);
                        tail
                    }]
                    .concat(),
                ),
            );
            directory.write("ours.sig", armour.as_bytes());
            directory.run("ssh-keygen -Y verify -f allowed -I me -n file -s ours.sig");
        }
    }
}

/// P-521 is verified and never signed with: ssh-keygen makes the signatures.
#[test]
fn p521_signatures_of_ssh_keygen_are_verified() {
    const ALGORITHM: &[u8] = b"ecdsa-sha2-nistp521";
    let directory = Directory::new("p521");
    directory.run("ssh-keygen -q -t ecdsa -b 521 -N '' -C comment -f key");
    let private = PrivateKey::from_file(&directory.read("key"), &Random::system());
    assert!(private.is_err(), "no key of ours");
    let public = PublicKey::from_blob(&blob_of_line(&directory.read("key.pub"))).unwrap();
    assert_eq!((public.key_type, public.bits()), (KeyType::EcdsaP521, 521));
    for round in 0..6 {
        let data = format!("data {round}");
        directory.write("data", data.as_bytes());
        let _ = std::fs::remove_file(directory.path("data.sig"));
        directory.run("ssh-keygen -q -Y sign -f key -n file data");
        let armour = directory.read("data.sig");
        let lines = armour
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.starts_with(b"-"));
        let file = base64::decode(&lines.collect::<Vec<_>>().concat()).unwrap();
        let mut reader = Reader::new(file.strip_prefix(b"SSHSIG").unwrap());
        reader.u32("version").unwrap();
        for _ in 0..4 {
            reader.string("key, namespace, reserved, hash").unwrap();
        }
        let signature = reader.string("signature").unwrap();
        let signed = signed_data(data.as_bytes());
        assert_eq!(public.verify(ALGORITHM, &signed, signature), Ok(None));
        let other = public.verify(ALGORITHM, &signed_data(b"other"), signature);
        assert_eq!(other, Err(CryptoError::Mismatch));
        for index in (0..signature.len()).step_by(7) {
            let mut changed = signature.to_vec();
            changed[index] ^= 0x10;
            assert!(
                public.verify(ALGORITHM, &signed, &changed).is_err(),
                "{index}"
            );
        }
    }
    let zeroes = ecdsa_signature(&[], &[]);
    let refused = public.verify(
        ALGORITHM,
        b"",
        &signature_blob("ecdsa-sha2-nistp521", &zeroes),
    );
    assert!(refused.is_err());
    let mut off_curve = public.blob.clone();
    *off_curve.last_mut().unwrap() ^= 1;
    let off_curve = PublicKey::from_blob(&off_curve).unwrap();
    let one = signature_blob("ecdsa-sha2-nistp521", &ecdsa_signature(&[1], &[1]));
    assert!(off_curve.verify(ALGORITHM, b"", &one).is_err());
}

/// RFC 6979 appendix A.2.7, SHA-512.
#[test]
fn p521_takes_the_known_signature() {
    const POINT: &str = "04
        01894550d0785932e00eaa23b694f213f8c3121f86dc97a04e5a7167db4e5bcd371123d46e45db6b5d5370a7f20fb633155d38ffa16d2bd761dcac474b9a2f5023a4
        00493101c962cd4d2fddf782285e64584139c2f91b47f87ff82354d6630f746a28a0db25741b5b34a828008b22acc23f924faafbd4d33f81ea66956dfeaa2bfdfcf5";
    const R: &str = "00c328fafcbd79dd77850370c46325d987cb525569fb63c5d3bc53950e6d4c5f174e25a1ee9017b5d450606add152b534931d7d4e8455cc91f9b15bf05ec36e377fa";
    const S: &str = "00617cce7cf5064806c467f678d3b4080d6f1cc50af26ca209417308281b68af282623eaa63e5b5c0723d8b8c37ff0777b1a20f8ccb1dccc43997f1ee0e44da4a67a";
    let key = PublicKey::from_blob(&ecdsa_blob("nistp521", &hex(POINT))).unwrap();
    let signature = ecdsa_signature(&number(R), &number(S));
    let signature = signature_blob("ecdsa-sha2-nistp521", &signature);
    assert_eq!(
        key.verify(b"ecdsa-sha2-nistp521", b"sample", &signature),
        Ok(None)
    );
    let refused = key.verify(b"ecdsa-sha2-nistp521", b"test", &signature);
    assert_eq!(refused, Err(CryptoError::Mismatch));
}

/// What a device with a P-256 key signs (OpenSSH PROTOCOL.u2f), made with a key of ours.
#[test]
fn security_keys_with_p256_sign_for_their_application() {
    const NAME: &str = "sk-ecdsa-sha2-nistp256@openssh.com";
    let random = Random::system();
    let key = PrivateKey::generate(KeyType::EcdsaP256, &random).unwrap();
    let mut blob = Vec::new();
    blob.put_string(NAME.as_bytes());
    // Curve and point are those of the plain key.
    blob.put_bytes(&key.public().blob[4 + "ecdsa-sha2-nistp256".len()..]);
    blob.put_string(b"ssh:");
    let public = PublicKey::from_blob(&blob).unwrap();
    assert_eq!(public.key_type, KeyType::SkEcdsaP256);
    let sign = |application: &[u8], flags: u8, counter: u32| {
        let mut signed = digest(&SHA256, application).as_ref().to_vec();
        signed.put_u8(flags);
        signed.put_u32(counter);
        signed.put_bytes(digest(&SHA256, b"data").as_ref());
        let made = key.sign(b"ecdsa-sha2-nistp256", &signed, &random).unwrap();
        let mut reader = Reader::new(&made);
        reader.string("algorithm").unwrap();
        let mut signature = signature_blob(NAME, reader.string("signature").unwrap());
        signature.put_u8(flags);
        signature.put_u32(counter);
        signature
    };
    let verify = |signature: &[u8]| public.verify(NAME.as_bytes(), b"data", signature);
    for (flags, touched, verified) in [(0, false, false), (1, true, false), (5, true, true)] {
        let presence = verify(&sign(b"ssh:", flags, 7)).unwrap().unwrap();
        assert_eq!((presence.touched, presence.verified), (touched, verified));
    }
    assert!(verify(&sign(b"https://example.org", 1, 7)).is_err());
    let good = sign(b"ssh:", 1, 7);
    for index in good.len() - 5..good.len() {
        let mut changed = good.clone();
        changed[index] ^= 1;
        assert_eq!(
            verify(&changed),
            Err(CryptoError::Mismatch),
            "flags and counter"
        );
    }
    for wrong in [&good[..good.len() - 1], &[&good[..], &[0]].concat()] {
        assert!(verify(wrong).is_err());
    }
    // Neither serves as the other.
    let plain = key.sign(b"ecdsa-sha2-nistp256", b"data", &random).unwrap();
    assert!(verify(&plain).is_err());
    assert!(
        key.public()
            .verify(b"ecdsa-sha2-nistp256", b"data", &good)
            .is_err()
    );
}
