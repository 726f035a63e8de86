//! Password hashes as crypt(5) writes them: `$6$` and `$5$` (sha-crypt), `$y$` (yescrypt), `$2b$`
//! with its elder spellings `$2a$` and `$2y$` (bcrypt).
//!
//! The hash functions are other crates'; here is how their results are written down: settings are
//! read, the bytes encoded in crypt's order, and the texts compared in constant time. Not here, on
//! purpose: `$1$` (MD5) and DES, which a stolen shadow file gives away in hours; `$2x$`, which is a
//! bug's spelling; gost-yescrypt and scrypt, which no distribution sets by default.
//!
//! Sources: crypt(5); Drepper, "Unix crypt using SHA-256 and SHA-512"; yescrypt's PARAMETERS.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{CryptoError, Random};

/// Why there is no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashError {
    /// No kind that is computed here.
    Unsupported,
    /// One of ours, with parameters or a salt that it cannot have.
    Malformed,
    /// It wants more memory than a login may take.
    TooExpensive,
}

/// A yescrypt hash may take this much memory: 16 times what distributions set.
const MEMORY_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Stands in for the hash of an account that has none: as expensive as the most common kind.
pub const DECOY: &[u8] = b"$6$e0jtoDrrhz5LTmOY$";

/// Whether `hash` is of a kind that is computed here.
pub fn is_supported(hash: &[u8]) -> bool {
    kind(hash).is_some()
}

/// Whether `password` has this hash.
pub fn matches(password: &[u8], hash: &[u8]) -> Result<bool, HashError> {
    let computed = Zeroizing::new(crypt(password, hash)?);
    Ok(computed.ct_eq(hash).into())
}

/// crypt(3): the hash of `password` with the kind, parameters and salt of `setting`, which may be a
/// whole hash.
pub fn crypt(password: &[u8], setting: &[u8]) -> Result<Vec<u8>, HashError> {
    let (kind, rest) = kind(setting).ok_or(HashError::Unsupported)?;
    match kind {
        Kind::Sha256 | Kind::Sha512 => sha_crypt(kind, password, rest),
        Kind::Yescrypt => yescrypt(password, rest),
        Kind::Bcrypt => bcrypt(password, setting),
    }
}

/// A setting of the kind and with the parameters of `hash`, with a salt of its own.
pub fn new_setting(hash: &[u8], random: &Random) -> Result<Vec<u8>, CryptoError> {
    let (kind, rest) = kind(hash).ok_or(CryptoError::Unsupported)?;
    let mut salt = [0; 16];
    random.fill(&mut salt)?;
    let mut setting = kind.prefix().to_vec();
    match kind {
        Kind::Sha256 | Kind::Sha512 => {
            if let Some((parameters, _)) = split_at_dollar(rest)
                && parameters.starts_with(ROUNDS)
            {
                setting.extend_from_slice(parameters);
                setting.push(b'$');
            }
            // 16 characters of 6 bits.
            setting.extend(salt.map(|byte| CRYPT_ALPHABET[usize::from(byte & 63)]));
        }
        Kind::Yescrypt => {
            let (parameters, _) = split_at_dollar(rest).ok_or(CryptoError::Malformed)?;
            setting.extend_from_slice(parameters);
            setting.push(b'$');
            encode_little(&mut setting, &salt);
        }
        Kind::Bcrypt => {
            setting = hash.get(..7).ok_or(CryptoError::Malformed)?.to_vec();
            encode_big(&mut setting, &salt);
            return Ok(setting);
        }
    }
    setting.push(b'$');
    Ok(setting)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sha256,
    Sha512,
    Yescrypt,
    Bcrypt,
}

impl Kind {
    fn prefix(self) -> &'static [u8] {
        match self {
            Self::Sha256 => b"$5$",
            Self::Sha512 => b"$6$",
            Self::Yescrypt => b"$y$",
            Self::Bcrypt => b"$2b$",
        }
    }
}

/// The kind of a hash, and what stands behind its prefix.
fn kind(hash: &[u8]) -> Option<(Kind, &[u8])> {
    for kind in [Kind::Sha256, Kind::Sha512, Kind::Yescrypt, Kind::Bcrypt] {
        if let Some(rest) = hash.strip_prefix(kind.prefix()) {
            return Some((kind, rest));
        }
    }
    let elder = hash
        .strip_prefix(b"$2a$")
        .or_else(|| hash.strip_prefix(b"$2y$"))?;
    Some((Kind::Bcrypt, elder))
}

/// What stands before and behind the next `$`.
fn split_at_dollar(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == b'$')?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

fn decimal(digits: &[u8]) -> Option<u32> {
    let canonical = digits.first().is_some_and(|digit| *digit != b'0');
    let digits_only = digits.iter().all(u8::is_ascii_digit);
    if !canonical || !digits_only {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

const ROUNDS: &[u8] = b"rounds=";

/// `[rounds=N$]SALT[$HASH]`.
fn sha_crypt(kind: Kind, password: &[u8], rest: &[u8]) -> Result<Vec<u8>, HashError> {
    const SALT_MAX_BYTES: usize = 16;
    let mut text = kind.prefix().to_vec();
    let mut salt = rest;
    let mut rounds = sha_crypt::Params::RECOMMENDED_ROUNDS;
    if rest.starts_with(ROUNDS) {
        let (parameter, behind) = split_at_dollar(rest).ok_or(HashError::Malformed)?;
        let number = parameter.strip_prefix(ROUNDS).unwrap_or(&[]);
        rounds = decimal(number).ok_or(HashError::Malformed)?;
        text.extend_from_slice(parameter);
        text.push(b'$');
        salt = behind;
    }
    let parameters = sha_crypt::Params::new(rounds).map_err(|_| HashError::Malformed)?;
    salt = split_at_dollar(salt).map_or(salt, |(salt, _)| salt);
    salt = salt.get(..SALT_MAX_BYTES).unwrap_or(salt);
    text.extend_from_slice(salt);
    text.push(b'$');
    match kind {
        Kind::Sha256 => {
            let hash = Zeroizing::new(sha_crypt::sha256_crypt(password, salt, parameters));
            sha_order(&mut text, &hash[..], 10, 2);
            encode_little(&mut text, &[hash[30], hash[31]]);
        }
        _ => {
            let hash = Zeroizing::new(sha_crypt::sha512_crypt(password, salt, parameters));
            sha_order(&mut text, &hash[..], 21, 1);
            encode_little(&mut text, &[hash[63]]);
        }
    }
    Ok(text)
}

/// sha-crypt writes three bytes at a time, one from each third of the hash, in turning order.
fn sha_order(text: &mut Vec<u8>, hash: &[u8], third: usize, turn: usize) {
    for index in 0..third {
        let mut group = [
            hash.get(index).copied().unwrap_or_default(),
            hash.get(index + third).copied().unwrap_or_default(),
            hash.get(index + 2 * third).copied().unwrap_or_default(),
        ];
        group.rotate_left(index * turn % 3);
        group.reverse();
        encode_little(text, &group);
    }
}

/// `PARAMETERS$SALT[$HASH]`.
fn yescrypt(password: &[u8], rest: &[u8]) -> Result<Vec<u8>, HashError> {
    let (written, behind) = split_at_dollar(rest).ok_or(HashError::Malformed)?;
    let salt_text = split_at_dollar(behind).map_or(behind, |(salt, _)| salt);
    let parameters: yescrypt::Params = std::str::from_utf8(written)
        .ok()
        .and_then(|written| written.parse().ok())
        .ok_or(HashError::Malformed)?;
    let memory = u64::from(parameters.r())
        .checked_mul(128)
        .and_then(|block| block.checked_mul(parameters.n().checked_add(u64::from(parameters.p()))?))
        .filter(|memory| *memory <= MEMORY_MAX_BYTES);
    if memory.is_none() {
        return Err(HashError::TooExpensive);
    }
    let salt = decode_little(salt_text).ok_or(HashError::Malformed)?;
    let mut hash = Zeroizing::new([0; 32]);
    yescrypt::yescrypt(password, &salt, &parameters, &mut hash[..])
        .map_err(|_| HashError::Malformed)?;
    let mut text = Kind::Yescrypt.prefix().to_vec();
    text.extend_from_slice(written);
    text.push(b'$');
    text.extend_from_slice(salt_text);
    text.push(b'$');
    encode_little(&mut text, &hash[..]);
    Ok(text)
}

/// `$2b$COST$` and then, without a separator, 22 characters of salt and 31 of hash.
fn bcrypt(password: &[u8], setting: &[u8]) -> Result<Vec<u8>, HashError> {
    const KEY_MAX_BYTES: usize = 72;
    const SETTING_BYTES: usize = 29;
    let setting = setting.get(..SETTING_BYTES).ok_or(HashError::Malformed)?;
    let (cost, salt_text) = split_at_dollar(setting.get(4..).unwrap_or(&[]))
        .filter(|(cost, _)| cost.len() == 2)
        .ok_or(HashError::Malformed)?;
    let cost = decimal(cost.strip_prefix(b"0").unwrap_or(cost))
        .filter(|cost| (4..=31).contains(cost))
        .ok_or(HashError::Malformed)?;
    let salt = decode_big(salt_text).ok_or(HashError::Malformed)?;
    // With its terminating NUL, as far as there is room.
    let mut key = Zeroizing::new(Vec::with_capacity(KEY_MAX_BYTES + 1));
    key.extend(password.iter().take(KEY_MAX_BYTES));
    key.push(0);
    key.truncate(KEY_MAX_BYTES);
    let hash = Zeroizing::new(bcrypt::bcrypt(cost, salt, &key));
    let mut text = setting.to_vec();
    encode_big(&mut text, hash.get(..23).unwrap_or(&[]));
    Ok(text)
}

const CRYPT_ALPHABET: &[u8; 64] =
    b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BCRYPT_ALPHABET: &[u8; 64] =
    b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Three bytes are four characters, the lowest bits first.
fn encode_little(text: &mut Vec<u8>, bytes: &[u8]) {
    for group in bytes.chunks(3) {
        let mut bits = group
            .iter()
            .rev()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        for _ in 0..=group.len() {
            text.push(CRYPT_ALPHABET[(bits & 63) as usize]);
            bits >>= 6;
        }
    }
}

/// The bytes of a salt; `None` where it is none.
fn decode_little(text: &[u8]) -> Option<Vec<u8>> {
    const SALT_MAX_BYTES: usize = 64;
    let mut bytes = Vec::new();
    for group in text.chunks(4) {
        let mut bits = 0_u32;
        for character in group.iter().rev() {
            let value = CRYPT_ALPHABET.iter().position(|known| known == character)?;
            bits = bits << 6 | u32::try_from(value).ok()?;
        }
        let whole = group.len() * 6 / 8;
        if whole == 0 || bits >> (whole * 8) != 0 {
            return None;
        }
        bytes.extend_from_slice(bits.to_le_bytes().get(..whole)?);
    }
    (bytes.len() <= SALT_MAX_BYTES).then_some(bytes)
}

/// Three bytes are four characters, the highest bits first.
fn encode_big(text: &mut Vec<u8>, bytes: &[u8]) {
    for group in bytes.chunks(3) {
        let mut bits = group
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        bits <<= 8 * (3 - group.len());
        for index in 0..=group.len() {
            text.push(BCRYPT_ALPHABET[(bits >> (18 - 6 * index) & 63) as usize]);
        }
    }
}

/// bcrypt's salt: 16 bytes in 22 characters.
fn decode_big(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != 22 {
        return None;
    }
    let mut bytes = Vec::with_capacity(18);
    for group in text.chunks(4) {
        let mut bits = 0_u32;
        for index in 0..4 {
            let value = match group.get(index) {
                Some(character) => BCRYPT_ALPHABET
                    .iter()
                    .position(|known| known == character)?,
                None => 0,
            };
            bits = bits << 6 | u32::try_from(value).ok()?;
        }
        bytes.extend_from_slice(bits.to_be_bytes().get(1..)?);
    }
    bytes.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Made by libxcrypt, except where a source is named.
    const KNOWN: &[(&str, &str)] = &[
        (
            "Corr3ct horse",
            "$6$ZhKLzXGaQuJ0n9Rc$yj9QebhhxCKYWfz0WWW8qVyQvIegnejTF.KXudVaIlvVSJGHRubLoDXDLl8i0lP3bQbPNk.WO9vaNeCkrWMWG1",
        ),
        (
            "Corr3ct horse",
            "$5$saltsalt$ksKlj6MIPRpJeXDmjPaDT475FqkxM9sJ21HebHbrtW0",
        ),
        (
            "",
            "$6$ZhKLzXGaQuJ0n9Rc$B4AyGi298zyMEImMvLiDq/6GokHy0SL3c8tRaEbd5u/Bpr2DUXFLtA0vGnbmwq8jaG7jq4bqFjqy0cIaYiKfg/",
        ),
        (
            "",
            "$5$saltsalt$09agN5RZ2meWdEdnEusqsq5G7RwwghB8jCKoWWADxW/",
        ),
        (
            "pässwörd",
            "$6$ZhKLzXGaQuJ0n9Rc$e5i45/nTcjfO1BJMIaKhdR0trMdn6wndhCrMRgsxLW0YIPTgHugcypH5sW6hEZriohlFRNf0qXq/oDYywy1yB1",
        ),
        (
            "pässwörd",
            "$5$saltsalt$JUyX9J5pA1EE4ZvGcIA.vpwPCUQ8GlJbo51r7M84au8",
        ),
        (
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "$6$ZhKLzXGaQuJ0n9Rc$m0sIADgmezvihVXo5yFmWSfB5p.cBRzt1u.JDtqyLHjnlRX/FQdDreTxgiIGZ2ljolwcZAaEMNS3ixSm1S9PA/",
        ),
        (
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "$5$saltsalt$JmcuUzdUBcoEPF4wmBD4vVohNkSRY8N3sSCvO9zlr.0",
        ),
        (
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "$6$ZhKLzXGaQuJ0n9Rc$zHFeiMFL.VJRzP3/c10rmBU1GoK5VstDG62Gxd3qlquDx0Lbeo3BOI0OrD4lOgiJjofoxRKAZ5UR2IK1ruG551",
        ),
        (
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "$5$saltsalt$ADUxhCHUjqXBBbQSsasxcAyDg6WMtvgdME373iF6.b/",
        ),
        (
            "rounds",
            "$6$rounds=1000$abc$qEeYIzJuleZheUh4k1IMXmUKRbWxFjPTALYQE.v1h10IuYmt8NLuFTuhiUr56s.hSnpiBwZlckv3GBlR9NHuu0",
        ),
        (
            "rounds",
            "$5$rounds=10000$ZhKLzXGaQuJ0n9Rc$X7yZgKhPbOyp5GUi1HCokJTXdjdUBzt6S4ELyXRHpO5",
        ),
        (
            "Corr3ct horse",
            "$y$j9T$8kXGzJ0uUQ3a5Fh1Fq9v./$XerAUANwyrCpPLxUBROTExA7TkYGlq9ln.fjRuVYGc.",
        ),
        (
            "",
            "$y$j75$abcdefgh$dnXG1KuMBmwYrnuKh9nriQRakI62k6mwFrGgxhxYD/2",
        ),
        (
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "$y$j75$abcdefgh$JGEqEiVnHbTvdr1bbBUB1QDBy3GSym.4hkAthnAJPxB",
        ),
        (
            "Corr3ct horse",
            "$2b$05$abcdefghijklmnopqrstuur1AWz/RKvcuQPOdthJVOKUnrPCuVCx.",
        ),
        (
            "",
            "$2b$05$abcdefghijklmnopqrstuu0oImNDIy4flhldV9YqunRgBAePKmw7m",
        ),
        (
            "pässwörd",
            "$2b$05$abcdefghijklmnopqrstuuZVEMa1pjhlynBQ1qXmSvGBJpN9h1w8G",
        ),
        (
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "$2b$05$abcdefghijklmnopqrstuujf8SX2ahXLwp9w/B.Y5XdysS6yR576q",
        ),
        (
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "$2b$05$abcdefghijklmnopqrstuuGUnCqbfgs3htOkLrFduUjAyLBw1Rq/u",
        ),
        (
            "Corr3ct horse",
            "$2a$04$ABCDEFGHIJKLMNOPQRSTUO780DLAirXsWIA3FMQJOv1kVHavIAdg.",
        ),
        (
            "Corr3ct horse",
            "$2y$04$ABCDEFGHIJKLMNOPQRSTUO780DLAirXsWIA3FMQJOv1kVHavIAdg.",
        ),
    ];

    #[test]
    fn hashes_of_libcrypt_are_found_right() {
        for (password, hash) in KNOWN {
            assert_eq!(
                matches(password.as_bytes(), hash.as_bytes()),
                Ok(true),
                "{hash}"
            );
            assert_eq!(
                crypt(password.as_bytes(), hash.as_bytes()).unwrap(),
                hash.as_bytes(),
                "{hash}"
            );
            let wrong = [password.as_bytes(), b"x"].concat();
            let cut = password.len() >= 72 && hash.starts_with("$2");
            assert_eq!(matches(&wrong, hash.as_bytes()), Ok(cut), "{hash}");
            let mut other = hash.as_bytes().to_vec();
            let last = other.last_mut().unwrap();
            *last = if *last == b'.' { b'/' } else { b'.' };
            assert_eq!(matches(password.as_bytes(), &other), Ok(false), "{hash}");
        }
    }

    #[test]
    fn a_new_setting_keeps_kind_and_cost() {
        let random = Random::system();
        for (_, hash) in KNOWN {
            let one = new_setting(hash.as_bytes(), &random).unwrap();
            let other = new_setting(hash.as_bytes(), &random).unwrap();
            assert_ne!(one, other);
            let made = crypt(b"new", &one).unwrap();
            assert_eq!(matches(b"new", &made), Ok(true));
            assert_eq!(matches(b"old", &made), Ok(false));
            let cost = |text: &[u8]| -> Vec<u8> {
                let fields = text.split(|byte| *byte == b'$');
                let is_cost = |field: &&[u8]| field.len() < 4 || field.starts_with(ROUNDS);
                fields.filter(is_cost).collect::<Vec<_>>().join(&b'$')
            };
            let old = [hash.as_bytes(), b"$"].concat();
            assert!(cost(&old).starts_with(cost(&one).as_slice()), "{hash}");
        }
    }

    #[test]
    fn settings_that_none_of_the_kinds_has_are_errors() {
        for (setting, error) in [
            ("", HashError::Unsupported),
            ("*", HashError::Unsupported),
            ("!$6$salt$x", HashError::Unsupported),
            ("$1$salt$hash", HashError::Unsupported),
            ("abJnggxhB/yWI", HashError::Unsupported),
            ("$2x$05$abcdefghijklmnopqrstuu", HashError::Unsupported),
            ("$6$rounds=$salt$", HashError::Malformed),
            ("$6$rounds=999$salt$", HashError::Malformed),
            ("$6$rounds=05000$salt$", HashError::Malformed),
            ("$6$rounds=5000", HashError::Malformed),
            ("$6$rounds=99999999999$salt$", HashError::Malformed),
            ("$2b$", HashError::Malformed),
            ("$2b$03$abcdefghijklmnopqrstuu", HashError::Malformed),
            ("$2b$32$abcdefghijklmnopqrstuu", HashError::Malformed),
            ("$2b$05$abcdefghijklmnopqrst", HashError::Malformed),
            ("$2b$05$abcdefghijk mnopqrstuu", HashError::Malformed),
            ("$y$", HashError::Malformed),
            ("$y$j9T", HashError::Malformed),
            ("$y$j9T$a$", HashError::Malformed),
            ("$y$j9T$ab!d$", HashError::Malformed),
            ("$y$jFT$abcd$", HashError::TooExpensive),
            ("$y$jzT$abcd$", HashError::Malformed),
        ] {
            assert_eq!(
                crypt(b"password", setting.as_bytes()),
                Err(error),
                "{setting}"
            );
        }
    }

    #[test]
    fn the_decoy_is_a_setting() {
        assert!(crypt(b"password", DECOY).unwrap().starts_with(DECOY));
        assert!(is_supported(DECOY));
    }
}
