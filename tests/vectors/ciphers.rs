//! Packets and their tags, byte for byte.

use agent::ssh::crypto::cipher::{Cipher, DirectionKeys, Mac, Opener, Sealer};

use crate::hex;

struct Case<'a> {
    cipher: Cipher,
    mac: Option<Mac>,
    keys: DirectionKeys<'a>,
    sequence: u32,
    clear: &'a [u8],
    sealed: &'a [u8],
    tag: &'a [u8],
}

impl Case<'_> {
    fn holds(&self) {
        let what = format!("{:?} {:?}", self.cipher, self.mac);
        let mut sealer = Sealer::new(self.cipher, self.mac, &self.keys).unwrap();
        let mut opener = Opener::new(self.cipher, self.mac, &self.keys).unwrap();
        let (mut bytes, mut tag) = (self.clear.to_vec(), vec![0; sealer.tag_bytes()]);
        sealer.seal(self.sequence, &mut bytes, &mut tag);
        assert_eq!(bytes, self.sealed, "{what}: packet");
        assert_eq!(tag, self.tag, "{what}: tag");
        let head_bytes = opener.head_bytes();
        let length = opener.packet_length(self.sequence, &mut bytes[..head_bytes]);
        assert_eq!(length.to_be_bytes(), self.clear[..4], "{what}: length");
        opener.open(self.sequence, &mut bytes, &tag).unwrap();
        assert_eq!(bytes, self.clear, "{what}: opened");
    }
}

/// Computed with OpenSSL 3.0's ChaCha20 and Poly1305 by the draft's construction.
#[test]
fn chacha20_poly1305_gives_the_known_packet() {
    let key: Vec<u8> = (0..64).collect();
    let mut clear = hex("00000028 0a");
    clear.extend(b"known answer: a packet body");
    clear.extend([0; 12]);
    Case {
        cipher: Cipher::ChaCha20Poly1305,
        mac: None,
        keys: DirectionKeys {
            key: &key,
            iv: &[],
            mac_key: &[],
        },
        sequence: 0x0102_0304,
        clear: &clear,
        sealed: &hex(
            "bc798053 9ca972ddac7f06c8ba1e5399da7a7a15215d75b458dc19feef1d28d3
                      215a2fd860dd20412570f941",
        ),
        tag: &hex("342d985982c1ab9572d12ffe97657cf6"),
    }
    .holds();
}

/// RFC 8439 appendix A.1, test vectors 1 and 2: with a zero key and sequence number, the length
/// is encrypted with block 0 and zero payload becomes block 1.
#[test]
fn chacha20_streams_are_those_of_rfc_8439() {
    let keys = DirectionKeys {
        key: &[0; 64],
        iv: &[],
        mac_key: &[],
    };
    let mut sealer = Sealer::new(Cipher::ChaCha20Poly1305, None, &keys).unwrap();
    let mut packet = [0; 4 + 64];
    sealer.seal(0, &mut packet, &mut [0; 16]);
    assert_eq!(packet[..4], hex("76b8e0ad"));
    assert_eq!(
        packet[4..],
        hex(
            "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed
             29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
        )
    );
}

/// Computed with OpenSSL 4.0. The invocation counter carries between the second packet and the
/// third.
#[test]
fn gcm_gives_the_known_packets() {
    let key: Vec<u8> = (0..32).collect();
    let iv = hex("01020304 fffffffffffffffe");
    let mut clear = hex("00000020 0a");
    clear.extend(b"counter carries over");
    clear.extend([0; 11]);
    let known = [
        (
            Cipher::Aes128Gcm,
            [
                "0d4924e84c95a2dc40d15b28288f2822231c1ecedd47ff5460400dea8708f85f
                 bc1637a29468e70b0ddf9b1a324d68ff",
                "61dbc58d665f43a9d59796517d8312d782eb5cd510e9899446a248ba0a23a84c
                 6bca59a63ff51c87ee5a3f8525bedbfc",
                "378b98692050dfd2897aeb89bb0e6645c265a352bb68544393de2f8ac7074d14
                 6cbdf7e5a3edff4935c0e70a9f7d6812",
            ],
        ),
        (
            Cipher::Aes256Gcm,
            [
                "4779c86df2c4c0957093e1c48e2cfa5e0c87d5db78503a9211ad2e9eed02de03
                 3f54eecc4ef077b9f149b840d112ccef",
                "7b5fd65131b5076941d1b04c52a4fc156d899c432693c26efb94b893a3423559
                 9b4cc826c5f36919f18dd072b06cd1a9",
                "2b36b22879e51d03db84f6c9c2a9d21dd0702c94a2a1095348f1395f6292c419
                 cc32339263621f513280b59805e7eed8",
            ],
        ),
    ];
    for (cipher, packets) in known {
        let keys = DirectionKeys {
            key: &key[..cipher.key_bytes()],
            iv: &iv,
            mac_key: &[],
        };
        let mut sealer = Sealer::new(cipher, None, &keys).unwrap();
        let mut opener = Opener::new(cipher, None, &keys).unwrap();
        for packet in packets {
            let (body, tag) = (&hex(packet)[..32], &hex(packet)[32..]);
            let (mut bytes, mut made) = (clear.clone(), [0; 16]);
            // The sequence number has no part in GCM.
            sealer.seal(77, &mut bytes, &mut made);
            assert_eq!(
                (&bytes[..4], &bytes[4..], &made[..]),
                (&clear[..4], body, tag)
            );
            assert_eq!(opener.packet_length(0, &mut bytes[..4]), 32);
            opener.open(0, &mut bytes, tag).unwrap();
            assert_eq!(bytes, clear);
        }
    }
}

/// Computed with OpenSSL 3.0; the counter wraps in the first packet.
#[test]
fn counter_mode_gives_the_known_packets_in_both_forms() {
    let key: Vec<u8> = (0..32).collect();
    let iv = hex("fffffffffffffffffffffffffffffffe");
    let mac_key: Vec<u8> = (100..164).collect();
    let mut plain_form = hex("0000001c 0a");
    plain_form.extend(b"plain MAC covers");
    plain_form.extend([0; 11]);
    let mut etm_form = hex("00000020 0a");
    etm_form.extend(b"MAC covers ciphertxt");
    etm_form.extend([0; 11]);
    let plain_tags = (
        "024b45560c5b537729f42aa7464266b4c1f3ef5b230d8b3117ccd1fea01b5f27",
        "4eb96de59fa7587abdc53f9863a3473f021d528033b9516aecc26e5d08fedf2f
         daa80133f4dd47ced1655ba3c48a59b266dd07a510f29a82f82d322bc5738c49",
    );
    let known = [
        (
            Cipher::Aes128Ctr,
            "b6b5c2c427fbb86ea620f8b9ef2db78d53327a40bd07822364d7a2990e50bb13",
            "00000020bcf8839b0de8bb79aa3cabd4cd07e78659366b4aba07822364d7a2990e50bb13",
            (
                "5fa364ebdf4529630e359ff4a8d9be05937c3c94a54eb699c460a7d0faad68bb",
                "db1f910b30a4f5bfa8c78f6eec4ec4a78eaf7ae21f1471705a94fbab5df07105
                 b04176c37c90b0459044aaf1889b49e88c7e0fa0604c34711e729227eb475774",
            ),
        ),
        (
            Cipher::Aes192Ctr,
            "235b1722972bd66a9696123b09ec9c7c6eae9ce86aab91f02c06d73bf2248888",
            "000000202916567dbd38d57d9a8a41562bc6cc7764aa8de26dab91f02c06d73bf2248888",
            (
                "045295f92d0e7318ba38d72489502681ba063ef401e1917a03404a47fca390e7",
                "89b70e3f82f46805825e1fc403931ead364d341e9c918790f6392de0fdcc1d43
                 f764c03f906a1fac5a67c7ad61e696c86ef37d56cda28b4e90f5b39c807ee985",
            ),
        ),
        (
            Cipher::Aes256Ctr,
            "63e5b41ebf6e24bc9383d993d88f072786ef816f3fa770da5387117b5d8f57ee",
            "0000002069a8f541957d27ab9f9f8afefaa5572c8ceb906538a770da5387117b5d8f57ee",
            (
                "639288b3d259e99ca2787d7e64713b68cb40ee4e485007446c78718f4e931533",
                "98381e0cbdb5c5d72f7db5d9ea451dddc86404beeb0fa72c03c8e11db96b1495
                 1053aaeee788f91fc91966153619affff85edbec22d9c31d8abaaed30f4b20fe",
            ),
        ),
    ];
    for (cipher, plain_sealed, etm_sealed, etm_tags) in known {
        for (etm, clear, sealed, tags) in [
            (false, &plain_form, plain_sealed, plain_tags),
            (true, &etm_form, etm_sealed, etm_tags),
        ] {
            for (mac, tag) in [
                (Mac::HmacSha256 { etm }, tags.0),
                (Mac::HmacSha512 { etm }, tags.1),
            ] {
                Case {
                    cipher,
                    mac: Some(mac),
                    keys: DirectionKeys {
                        key: &key[..cipher.key_bytes()],
                        iv: &iv,
                        mac_key: &mac_key[..mac.key_bytes()],
                    },
                    sequence: 0x0102_0304,
                    clear,
                    sealed: &hex(sealed),
                    tag: &hex(tag),
                }
                .holds();
            }
        }
    }
}

/// NIST SP 800-38A sections F.5.1, F.5.3 and F.5.5.
#[test]
fn counter_mode_is_that_of_nist() {
    let clear = hex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51
         30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710",
    );
    let known = [
        (
            Cipher::Aes128Ctr,
            "2b7e151628aed2a6abf7158809cf4f3c",
            "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff
             5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee",
        ),
        (
            Cipher::Aes192Ctr,
            "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
            "1abc932417521ca24f2b0459fe7e6e0b090339ec0aa6faefd5ccc2c6f4ce8e94
             1e36b26bd1ebc670d1bd1d665620abf74f78a7f6d29809585a97daec58c6b050",
        ),
        (
            Cipher::Aes256Ctr,
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5
             2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6",
        ),
    ];
    for (cipher, key, sealed) in known {
        let iv = hex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
        let keys = DirectionKeys {
            key: &hex(key),
            iv: &iv,
            mac_key: &[0; 32],
        };
        let mac = Some(Mac::HmacSha256 { etm: false });
        let mut sealer = Sealer::new(cipher, mac, &keys).unwrap();
        let mut bytes = clear.clone();
        // In pieces: the stream goes on from packet to packet.
        let (first, rest) = bytes.split_at_mut(16);
        sealer.seal(0, first, &mut [0; 32]);
        sealer.seal(1, rest, &mut [0; 32]);
        assert_eq!(bytes, hex(sealed), "{cipher:?}");
    }
}

/// RFC 4231 test case 1: its data, "Hi There", is sequence number and length of a packet without
/// a body, and its key of 20 bytes is the same as ours with zeroes behind.
#[test]
fn macs_are_those_of_rfc_4231() {
    let mut key = [0; 64];
    key[..20].fill(0x0b);
    for (mac, tag) in [
        (
            Mac::HmacSha256 { etm: true },
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            Mac::HmacSha512 { etm: true },
            "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde
             daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
        ),
    ] {
        let keys = DirectionKeys {
            key: &[1; 16],
            iv: &[1; 16],
            mac_key: &key[..mac.key_bytes()],
        };
        let mut sealer = Sealer::new(Cipher::Aes128Ctr, Some(mac), &keys).unwrap();
        let mut made = vec![0; mac.tag_bytes()];
        sealer.seal(
            u32::from_be_bytes(*b"Hi T"),
            &mut b"here".to_vec(),
            &mut made,
        );
        assert_eq!(made, hex(tag));
    }
}
