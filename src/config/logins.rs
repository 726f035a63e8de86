//! The forms of values about who may log in: commands and files that name keys and principals,
//! security keys, the certificates' clock.

use super::lex::Line;
use super::options::PubkeyAuthOptions;
use super::settings::{own_home, several, tokens};
use super::value::{self, Parsed};
use crate::authorized_keys::parse_time;

/// Tokens of AuthorizedKeysCommand (sshd_config(5), TOKENS).
pub const KEYS_TOKENS: &str = "%CDUfhktu";
/// Tokens of AuthorizedPrincipalsCommand.
pub const PRINCIPALS_TOKENS: &str = "%CDFKTUfhikstu";

/// A command with its arguments; `None` for `none`.
pub fn command(line: &Line<'_>, known_tokens: &str) -> Parsed<Option<Vec<String>>> {
    let words = several(line)?;
    if let [word] = words
        && value::none_or(word).is_none()
    {
        return Ok(None);
    }
    if !words.first().is_some_and(|path| path.starts_with('/')) {
        return Err(format!("\"{}\" is not an absolute path", words.join(" ")));
    }
    for word in words {
        tokens(word, known_tokens)?;
    }
    Ok(Some(words.to_vec()))
}

/// Whom a command runs as.
pub fn command_user(text: &str) -> Parsed<Option<String>> {
    tokens(text, "%u")?;
    Ok(value::none_or(text).map(str::to_owned))
}

/// AuthorizedPrincipalsFile, below the home directory where relative.
pub fn principals_file(text: &str) -> Parsed<Option<String>> {
    let Some(path) = value::none_or(text) else {
        return Ok(None);
    };
    tokens(path, "%huU")?;
    Ok(Some(own_home(path)))
}

/// What every security key's signature must say.
pub fn pubkey_auth_options(words: &[String]) -> Parsed<PubkeyAuthOptions> {
    let mut options = PubkeyAuthOptions::default();
    for word in words.iter().flat_map(|word| word.split(',')) {
        match word {
            "none" if words.len() == 1 => {}
            "touch-required" => options.touch_required = true,
            "verify-required" => options.verify_required = true,
            _ => {
                return Err(format!(
                    "\"{word}\" is not one of: none, touch-required, verify-required"
                ));
            }
        }
    }
    Ok(options)
}

/// A second in Unix time; 0 for `none`. `build` is when this program was built.
pub fn clock_floor(text: &str) -> Parsed<u64> {
    match value::one_of(text, &[("build", crate::BUILT_S), ("none", 0)]) {
        Ok(floor_s) => Ok(floor_s),
        Err(_) => parse_time(text.as_bytes())
            .and_then(|floor_s| u64::try_from(floor_s).ok())
            .ok_or_else(|| {
                format!("\"{text}\" is not build, none, or a time: YYYYMMDD or YYYYMMDDHHMM[SS], with Z for UTC")
            }),
    }
}
