//! Ciphers and MACs by name: what key derivation, padding and negotiation must know of them.

use ring::hmac;

/// A cipher by its SSH name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    ChaCha20Poly1305,
    Aes128Gcm,
    Aes256Gcm,
    Aes128Ctr,
    Aes192Ctr,
    Aes256Ctr,
}

/// A MAC by its SSH name; `etm`: encrypt-then-MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mac {
    HmacSha256 { etm: bool },
    HmacSha512 { etm: bool },
}

impl Cipher {
    /// All, in OpenSSH's order of preference.
    pub const ALL: [Self; 6] = [
        Self::ChaCha20Poly1305,
        Self::Aes128Gcm,
        Self::Aes256Gcm,
        Self::Aes128Ctr,
        Self::Aes192Ctr,
        Self::Aes256Ctr,
    ];

    pub fn by_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|cipher| cipher.name().as_bytes() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::ChaCha20Poly1305 => "chacha20-poly1305@openssh.com",
            Self::Aes128Gcm => "aes128-gcm@openssh.com",
            Self::Aes256Gcm => "aes256-gcm@openssh.com",
            Self::Aes128Ctr => "aes128-ctr",
            Self::Aes192Ctr => "aes192-ctr",
            Self::Aes256Ctr => "aes256-ctr",
        }
    }

    pub fn key_bytes(self) -> usize {
        match self {
            Self::ChaCha20Poly1305 => 64,
            Self::Aes128Gcm | Self::Aes128Ctr => 16,
            Self::Aes192Ctr => 24,
            Self::Aes256Gcm | Self::Aes256Ctr => 32,
        }
    }

    pub fn iv_bytes(self) -> usize {
        match self {
            Self::ChaCha20Poly1305 => 0,
            Self::Aes128Gcm | Self::Aes256Gcm => 12,
            Self::Aes128Ctr | Self::Aes192Ctr | Self::Aes256Ctr => 16,
        }
    }

    /// 8 for chacha20-poly1305, 16 for AES.
    pub fn block_bytes(self) -> usize {
        if self == Self::ChaCha20Poly1305 {
            8
        } else {
            16
        }
    }

    /// AEAD ciphers ignore the negotiated MAC.
    pub fn is_aead(self) -> bool {
        matches!(
            self,
            Self::ChaCha20Poly1305 | Self::Aes128Gcm | Self::Aes256Gcm
        )
    }
}

impl Mac {
    /// All, in OpenSSH's order of preference.
    pub const ALL: [Self; 4] = [
        Self::HmacSha256 { etm: true },
        Self::HmacSha512 { etm: true },
        Self::HmacSha256 { etm: false },
        Self::HmacSha512 { etm: false },
    ];

    pub fn by_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|mac| mac.name().as_bytes() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::HmacSha256 { etm: true } => "hmac-sha2-256-etm@openssh.com",
            Self::HmacSha512 { etm: true } => "hmac-sha2-512-etm@openssh.com",
            Self::HmacSha256 { etm: false } => "hmac-sha2-256",
            Self::HmacSha512 { etm: false } => "hmac-sha2-512",
        }
    }

    pub fn key_bytes(self) -> usize {
        self.tag_bytes()
    }

    pub fn tag_bytes(self) -> usize {
        match self {
            Self::HmacSha256 { .. } => 32,
            Self::HmacSha512 { .. } => 64,
        }
    }

    pub(super) fn is_etm(self) -> bool {
        match self {
            Self::HmacSha256 { etm } | Self::HmacSha512 { etm } => etm,
        }
    }

    pub(super) fn algorithm(self) -> hmac::Algorithm {
        match self {
            Self::HmacSha256 { .. } => hmac::HMAC_SHA256,
            Self::HmacSha512 { .. } => hmac::HMAC_SHA512,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_themselves() {
        for cipher in Cipher::ALL {
            assert_eq!(Cipher::by_name(cipher.name().as_bytes()), Some(cipher));
        }
        for mac in Mac::ALL {
            assert_eq!(Mac::by_name(mac.name().as_bytes()), Some(mac));
        }
        assert_eq!(Cipher::by_name(b"none"), None);
        assert_eq!(Cipher::by_name(b""), None);
        assert_eq!(Mac::by_name(b"hmac-sha1"), None);
    }
}
