//! AuthenticationMethods: chains of methods, and which of them can be gone through here.

use super::lex::Line;
use super::settings::several;
use super::value::Parsed;

/// Chains of methods, of which one must be gone through.
pub(super) fn parse(line: &Line<'_>, warn: &mut dyn FnMut(String)) -> Parsed<Vec<Vec<String>>> {
    let chains = several(line)?;
    if chains.iter().any(|chain| chain.eq_ignore_ascii_case("any")) {
        return match chains {
            [_] => Ok(Vec::new()),
            _ => Err("\"any\" stands alone".to_owned()),
        };
    }
    let mut served = Vec::new();
    for chain in chains {
        let methods: Vec<String> = chain.split(',').map(str::to_owned).collect();
        if let Some(unknown) = methods.iter().find(|method| !is_method(method)) {
            return Err(format!("\"{unknown}\" is not an authentication method"));
        }
        if methods.iter().all(|method| is_served(method)) {
            served.push(methods);
        } else {
            warn(format!(
                "\"{chain}\" cannot be gone through: {SERVED_METHODS} are offered"
            ));
        }
    }
    if served.is_empty() {
        return Err(format!(
            "has no chain that can be gone through, so nobody could log in: {SERVED_METHODS} are offered"
        ));
    }
    Ok(served)
}

const SERVED_METHODS: &str = "publickey, password and keyboard-interactive";

/// `pam` is what stock files call the device behind keyboard-interactive.
fn is_served(method: &str) -> bool {
    [
        "publickey",
        "password",
        "keyboard-interactive",
        "keyboard-interactive:pam",
        "none",
    ]
    .contains(&method)
}

fn is_method(method: &str) -> bool {
    let (name, submethod) = method
        .split_once(':')
        .map_or((method, None), |(n, s)| (n, Some(s)));
    match submethod {
        None => [
            "publickey",
            "password",
            "keyboard-interactive",
            "hostbased",
            "gssapi-with-mic",
            "none",
        ]
        .contains(&name),
        Some(device) => name == "keyboard-interactive" && !device.is_empty(),
    }
}
