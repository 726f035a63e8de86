//! Certificates and revocation lists: those of ssh-keygen, damaged ones, and the fuzz targets'
//! seeds.

use std::fs;
use std::path::Path;

use agent::ssh::crypto::CryptoError;
use agent::ssh::crypto::certificate::{Certificate, Kind};
use agent::ssh::crypto::public_key::PublicKey;
use agent::ssh::crypto::revocation_list::{ListError, Subject, revokes};

use crate::bodies;
use crate::tools::{Directory, blob_of_line};

/// Changes of each seed in one run.
const MUTATIONS: usize = 3000;

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut seeds: Vec<(String, Vec<u8>)> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty());
    seeds
}

fn seed(target: &str, name: &str) -> Vec<u8> {
    let found = seeds(target).into_iter().find(|(seed, _)| seed == name);
    found.unwrap().1
}

/// Runs `body` over the seeds, and over each with bytes changed, removed and doubled.
fn replay(target: &str, body: fn(&[u8])) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % limit.max(1) as u64).unwrap()
    };
    for (_, seed) in seeds(target) {
        body(&seed);
        for _ in 0..MUTATIONS {
            let mut input = seed.clone();
            for _ in 0..=below(3) {
                let at = below(input.len());
                match below(4) {
                    0 => input.truncate(at),
                    1 => drop(input.drain(at..(at + below(9)).min(input.len()))),
                    2 => {
                        let piece = input[at..(at + below(40)).min(input.len())].to_vec();
                        input.splice(at..at, piece);
                    }
                    _ => {
                        if let Some(byte) = input.get_mut(at) {
                            *byte = [0, 1, 0x7f, 0x80, 0xff][below(5)];
                        }
                    }
                }
            }
            body(&input);
        }
    }
}

#[test]
fn every_seed_of_the_certificates_holds() {
    replay("certificate", bodies::certificate);
}

#[test]
fn every_seed_of_the_revocation_lists_holds() {
    replay("revocation_list", bodies::revocation_list);
}

#[test]
fn certificates_of_openssh_are_read_field_by_field() {
    let blob = seed("certificate", "user_all_options");
    let certificate = Certificate::parse(&blob).unwrap();
    certificate.verify().unwrap();
    assert_eq!(certificate.kind, Kind::User);
    assert_eq!(certificate.key_id, b"id-user_all_options");
    assert_eq!(certificate.principals, [b"alice"]);
    assert!(certificate.valid_after_s < certificate.valid_before_s);
    let names = |options: &[(Vec<u8>, Vec<u8>)]| -> Vec<String> {
        let name = |option: &(Vec<u8>, Vec<u8>)| String::from_utf8(option.0.clone()).unwrap();
        options.iter().map(name).collect()
    };
    assert_eq!(
        names(&certificate.critical_options),
        [
            "force-command",
            "source-address",
            "verify-required",
            "y@example.org"
        ]
    );
    assert_eq!(
        names(&certificate.extensions),
        [
            "no-touch-required",
            "permit-X11-forwarding",
            "permit-agent-forwarding",
            "permit-port-forwarding",
            "permit-pty",
            "permit-user-rc",
            "x@example.org"
        ]
    );
    let host = Certificate::parse(&seed("certificate", "host_ecdsa")).unwrap();
    assert_eq!((host.kind, host.serial), (Kind::Host, u64::MAX));
    assert!(
        Certificate::parse(&seed("certificate", "nobody"))
            .unwrap()
            .principals
            .is_empty()
    );
}

#[test]
fn every_seed_certificate_is_signed_and_no_changed_byte_is() {
    for (name, blob) in seeds("certificate") {
        let good = Certificate::parse(&blob).unwrap();
        assert_eq!(good.verify(), Ok(()), "{name}");
        for index in (0..blob.len()).step_by(3) {
            let mut changed = blob.clone();
            changed[index] ^= 0x41;
            let verified = Certificate::parse(&changed).is_ok_and(|it| it.verify().is_ok());
            // The flags and the counter of a security key's signature are signed too.
            assert!(!verified, "{name} with another byte {index}");
        }
    }
}

#[test]
fn what_is_no_certificate_is_refused_as_what_it_is() {
    let blob = seed("certificate", "user_ed25519");
    let key = Certificate::parse(&blob).unwrap().key;
    assert_eq!(Certificate::parse(&key.blob), Err(CryptoError::Unsupported));
    assert_eq!(Certificate::parse(b""), Err(CryptoError::Malformed));
    assert!(!Certificate::is_one(b"") && !Certificate::is_one(&key.blob));
    for length in 0..blob.len() {
        assert!(
            Certificate::parse(&blob[..length]).is_err(),
            "{length} bytes"
        );
    }
}

fn read_key(directory: &Directory, name: &str, kind: &str) -> PublicKey {
    directory.run(&format!("ssh-keygen -q -t {kind} -N '' -C x -f {name}"));
    PublicKey::from_blob(&blob_of_line(&directory.read(&format!("{name}.pub")))).unwrap()
}

#[test]
fn lists_of_openssh_revoke_what_it_says_they_do() {
    let directory = Directory::new("revoked");
    let authority = read_key(&directory, "ca", "ed25519");
    let revoked = read_key(&directory, "revoked", "ecdsa");
    let good = read_key(&directory, "good", "ed25519");
    let certified = |serial: &str, id: &str| {
        directory.run(&format!(
            "ssh-keygen -q -s ca -I {id} -n a -z {serial} good.pub"
        ));
        Certificate::parse(&blob_of_line(&directory.read("good-cert.pub"))).unwrap()
    };
    directory.write("spec", b"serial: 5\nserial: 10-19\nid: lost\n");
    directory.run("ssh-keygen -q -k -f list -s ca.pub spec");
    directory.run("ssh-keygen -q -k -u -f list revoked.pub");
    let list = directory.read("list");
    assert_eq!(revokes(&list, &Subject::key(&revoked)), Ok(true));
    assert_eq!(revokes(&list, &Subject::key(&good)), Ok(false));
    assert_eq!(revokes(&list, &Subject::key(&authority)), Ok(false));
    for (serial, id, is_revoked) in [
        ("5", "x", true),
        ("6", "x", false),
        ("9", "x", false),
        ("10", "x", true),
        ("19", "x", true),
        ("20", "x", false),
        ("0", "x", false),
        ("0", "lost", true),
    ] {
        let certificate = certified(serial, id);
        let found = revokes(&list, &Subject::certificate(&certificate));
        assert_eq!(found, Ok(is_revoked), "{serial} {id}");
    }
    directory.run("ssh-keygen -q -k -f list ca.pub");
    let certificate = certified("6", "x");
    let list = directory.read("list");
    assert_eq!(
        revokes(&list, &Subject::certificate(&certificate)),
        Ok(true)
    );
}

#[test]
fn bits_stand_for_serial_numbers_from_their_offset_on() {
    let directory = Directory::new("bitmap");
    read_key(&directory, "ca", "ed25519");
    read_key(&directory, "key", "ed25519");
    let revoked = [1_u64, 2, 4, 8, 16, 31, 33, 64];
    let lines: Vec<String> = revoked.iter().map(|it| format!("serial: {it}\n")).collect();
    directory.write("spec", lines.concat().as_bytes());
    directory.run("ssh-keygen -q -k -f list -s ca.pub spec");
    let list = directory.read("list");
    assert!(
        list.windows(5).any(|window| window[0] == 0x22),
        "it holds a bitmap"
    );
    for serial in 0..70 {
        directory.run(&format!(
            "ssh-keygen -q -s ca -I x -n a -z {serial} key.pub"
        ));
        let blob = blob_of_line(&directory.read("key-cert.pub"));
        let certificate = Certificate::parse(&blob).unwrap();
        let found = revokes(&list, &Subject::certificate(&certificate));
        assert_eq!(found, Ok(revoked.contains(&serial)), "{serial}");
    }
}

#[test]
fn a_list_with_anything_unknown_is_of_no_use() {
    let list = seed("revocation_list", "every_section");
    let key = Certificate::parse(&seed("certificate", "security_key"))
        .unwrap()
        .key;
    let subject = Subject::key(&key);
    assert_eq!(revokes(&list, &subject), Ok(false));
    let with = |tail: &[u8]| revokes(&[&list[..], tail].concat(), &subject);
    // The empty section of each kind, and the bytes of an extension that matters or does not.
    assert_eq!(with(b"\x02\0\0\0\0"), Ok(false));
    assert!(matches!(with(b"\x04\0\0\0\0"), Err(ListError::Unknown(_))));
    assert!(matches!(with(b"\x06\0\0\0\0"), Err(ListError::Unknown(_))));
    assert_eq!(with(b"\xff\0\0\0\x09\0\0\0\0\0\0\0\0\0"), Ok(false));
    assert!(matches!(
        with(b"\xff\0\0\0\x09\0\0\0\0\x01\0\0\0\0"),
        Err(ListError::Unknown(_))
    ));
    for length in 1..list.len() {
        let cut = revokes(&list[..length], &subject);
        assert!(cut.is_err() || length >= 44, "{length} bytes");
    }
    let mut version = list.clone();
    version[11] = 2;
    assert!(revokes(&version, &subject).is_err());
}
