//! Key lines as OpenSSH reads them, and lines that must give no key.

#![allow(clippy::unwrap_used)]

use super::*;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJqvg7yqKq1cL0bCw5T7yJ5zXyH0GZQyYw0n1xkYb0sM a comment";

fn key(options: &str) -> Result<Option<KeyLine>, LineError> {
    parse_line(format!("{options} {KEY}").as_bytes())
}

fn options(text: &str) -> KeyOptions {
    match key(text) {
        Ok(Some(line)) => line.options,
        other => panic!("{text}: {other:?}"),
    }
}

fn numbered(chunks: &[&[u8]]) -> Vec<(u32, Result<Vec<u8>, LineError>)> {
    let mut found = Vec::new();
    let mut lines = Lines::new();
    let mut each = |number: u32, line: Result<&[u8], LineError>| {
        found.push((number, line.map(<[u8]>::to_vec)))
    };
    for chunk in chunks {
        lines.push(chunk, &mut each);
    }
    lines.finish(&mut each);
    found
}

#[test]
fn a_plain_key_permits_everything() {
    let line = parse_line(KEY.as_bytes()).unwrap().unwrap();
    assert_eq!(line.options, KeyOptions::default());
    assert_eq!(line.key_type, KeyType::Ed25519);
    assert_eq!(line.blob.len(), 51);
    assert_eq!(line.comment, b"a comment");
    let indented = parse_line(format!(" \t{KEY}\r").as_bytes())
        .unwrap()
        .unwrap();
    assert_eq!(indented.blob, line.blob);
}

#[test]
fn empty_lines_and_comments_are_no_keys() {
    for line in ["", "  ", "\t", "\r", "# ssh-ed25519 AAAA", "  #"] {
        assert_eq!(parse_line(line.as_bytes()), Ok(None), "{line:?}");
    }
}

#[test]
fn restrict_turns_everything_off_and_later_names_turn_it_on_again() {
    let all_off = options("restrict");
    assert!(!all_off.permits.pty && !all_off.permits.user_rc && !all_off.permits.port_forwarding);
    assert!(!all_off.permits.agent_forwarding && !all_off.permits.x11_forwarding);
    let some_on = options("restrict,pty,Port-Forwarding");
    assert!(some_on.permits.pty && some_on.permits.port_forwarding && !some_on.permits.user_rc);
    assert!(!options("pty,restrict").permits.pty);
    assert!(!options("NO-PTY,no-X11-forwarding").permits.pty);
}

#[test]
fn quotes_hold_blanks_commas_and_escaped_quotes() {
    let line = key(r#"command="echo \"a, b\" \n",no-pty"#)
        .unwrap()
        .unwrap();
    assert_eq!(
        line.options.command.as_deref(),
        Some(&br#"echo "a, b" \n"#[..])
    );
    assert!(!line.options.permits.pty);
    for bad in [
        r#"command="unclosed"#,
        r"command=unquoted",
        r#"command="a"b"#,
        "command",
        r#"command="a",command="b""#,
        r#"command ="a""#,
    ] {
        assert!(key(bad).is_err(), "{bad}");
    }
}

#[test]
fn environment_takes_good_names_and_keeps_the_first() {
    let found = options(r#"environment="A=1",environment="B=x=y",environment="A=2""#).environment;
    assert_eq!(
        found,
        [
            (b"A".to_vec(), b"1".to_vec()),
            (b"B".to_vec(), b"x=y".to_vec())
        ]
    );
    for bad in ["A", "=1", "A B=1", "A-B=1", "LD\u{e9}=1"] {
        assert_eq!(
            key(&format!(r#"environment="{bad}""#)),
            Err(LineError::BadOption("environment")),
            "{bad}"
        );
    }
}

#[test]
fn from_admits_by_address_and_a_negated_match_denies() {
    let client = "192.0.2.7".parse().unwrap();
    let admit =
        |list: &str| options(&format!(r#"from="{list}""#)).admit(Some("box.example"), client, 0);
    assert_eq!(admit("192.0.2.0/24"), Ok(()));
    assert_eq!(admit("*.example"), Ok(()));
    assert_eq!(admit("10.0.0.0/8,192.0.2.?"), Ok(()));
    assert_eq!(admit("10.0.0.0/8"), Err(Refusal::From));
    assert_eq!(admit("*,!192.0.2.7"), Err(Refusal::From));
    assert_eq!(admit("192.0.2.0/24,!box.example"), Err(Refusal::From));
    assert_eq!(admit("!10.0.0.0/8"), Err(Refusal::From));
    assert_eq!(admit("192.0.2.7/24"), Err(Refusal::FromMalformed));
    assert_eq!(admit("192.0.2.0/24,"), Err(Refusal::FromMalformed));
    assert_eq!(admit(""), Err(Refusal::FromMalformed));
    assert!(key(r#"from="a",from="b""#).is_err());
}

#[test]
fn expiry_counts_from_its_second_on_and_the_earliest_wins() {
    let expires_s = |text: &str| {
        options(&format!(r#"expiry-time="{text}""#))
            .expires_s
            .unwrap()
    };
    assert_eq!(expires_s("20261122Z"), 1_795_305_600);
    assert_eq!(expires_s("202611220249z"), 1_795_315_740);
    assert_eq!(expires_s("20261122024905UTC"), 1_795_315_745);
    assert!(
        expires_s("20261122").abs_diff(1_795_305_600) <= 14 * 3600,
        "local time"
    );
    let both = options(r#"expiry-time="20270101Z",expiry-time="20261122Z""#);
    let client = "192.0.2.7".parse().unwrap();
    assert_eq!(both.admit(None, client, 1_795_305_599), Ok(()));
    assert_eq!(
        both.admit(None, client, 1_795_305_600),
        Err(Refusal::Expired)
    );
    for bad in [
        "",
        "2026",
        "20261322Z",
        "20260100",
        "2026112224",
        "20261122X",
        "19700101Z",
        "+0261122",
        "never",
    ] {
        assert_eq!(
            key(&format!(r#"expiry-time="{bad}""#)),
            Err(LineError::BadOption("expiry-time")),
            "{bad}"
        );
    }
}

#[test]
fn unknown_options_give_no_key() {
    assert_eq!(key("no-such-option"), Err(LineError::UnknownOption));
    assert_eq!(key(r#"no-such-option="x""#), Err(LineError::UnknownOption));
    assert_eq!(key("no-restrict"), Err(LineError::UnknownOption));
    assert_eq!(key("no-cert-authority"), Err(LineError::UnknownOption));
}

#[test]
fn nothing_between_commas_is_no_option() {
    for odd in [
        "restrict,,pty",
        ",restrict,pty",
        "restrict,pty,",
        ",,restrict,,pty,,",
    ] {
        let found = options(odd);
        assert!(found.permits.pty && !found.permits.user_rc, "{odd}");
    }
    assert_eq!(key("restrict,,nothing"), Err(LineError::UnknownOption));
}

#[test]
fn principals_need_an_authority_to_be_about() {
    assert_eq!(key(r#"principals="alice""#), Err(LineError::NoAuthority));
    for bad in [&b"principals=\"a\" ops"[..], b"cert-authority ops"] {
        assert_eq!(parse_principal(bad), Err(LineError::NoAuthority));
    }
}

#[test]
fn forward_targets_are_kept_with_their_hosts() {
    let found = options(r#"permitopen="a:1",permitopen="[::1]:*",permitlisten="8080""#);
    assert_eq!(found.permit_open, [&b"a:1"[..], b"[::1]:*"]);
    assert_eq!(found.permit_listen, [&b"*:8080"[..]]);
}

#[test]
fn authorities_name_their_principals_once() {
    let found = options(r#"cert-authority,principals="alice,ops""#);
    assert!(found.cert_authority);
    assert_eq!(found.principals.as_deref(), Some(&b"alice,ops"[..]));
    for bad in [
        r#"principals="""#,
        r#"principals="a",principals="b""#,
        "principals",
    ] {
        assert!(key(bad).is_err(), "{bad}");
    }
}

#[test]
fn touching_is_required_unless_the_line_says_otherwise_and_verifying_if_it_does() {
    let plain = options("pty");
    assert!(plain.require_touch && !plain.require_verify);
    assert!(!options("no-touch-required").require_touch);
    assert!(options("no-touch-required,touch-required").require_touch);
    assert!(options("verify-required").require_verify);
    assert!(!options("verify-required,no-verify-required").require_verify);
}

#[test]
fn tunnels_have_a_number_or_are_any() {
    for (good, unit) in [("0", 0), ("17", 17), ("any", 0x7fff_ffff)] {
        let options = options(&format!(r#"tunnel="{good}""#));
        assert!(
            options.permits.tunnel && options.tunnel == Some(unit),
            "{good}"
        );
    }
    assert!(key(r#"tunnel="1",tunnel="2""#).is_err());
    // Nothing gives back what restrict takes.
    assert!(!options(r#"restrict,tunnel="1""#).permits.tunnel);
    assert!(!options(r#"tunnel="1",restrict"#).permits.tunnel);
    for bad in ["", "-1", "some", "2147483647"] {
        assert!(key(&format!(r#"tunnel="{bad}""#)).is_err(), "{bad}");
    }
}

#[test]
fn principals_stand_alone_or_behind_options() {
    let parse = |line: &'static str| parse_principal(line.as_bytes());
    assert_eq!(parse("  # nobody"), Ok(None));
    assert_eq!(parse(" \t\r"), Ok(None));
    let plain = parse(" alice # the admin").unwrap().unwrap();
    assert_eq!(plain, (KeyOptions::default(), &b"alice"[..]));
    let (options, name) = parse("command=\"a b\",no-pty \t ops\r").unwrap().unwrap();
    assert_eq!(
        (options.command.as_deref(), name),
        (Some(&b"a b"[..]), &b"ops"[..])
    );
    assert!(!options.permits.pty);
    assert_eq!(parse("two words"), Err(LineError::UnknownOption));
    assert_eq!(parse("no-pty a b"), Err(LineError::NoPrincipal));
    assert_eq!(parse("a\0"), Err(LineError::Nul));
}

#[test]
fn ports_out_of_range_never_mean_any() {
    for bad in [
        "host:0",
        "host:65536",
        "host:4294967295",
        "host:-1",
        "host:+22",
        "host:0xffffffff",
        "host:",
        "host",
        ":22",
        "",
    ] {
        assert_eq!(
            key(&format!(r#"permitopen="{bad}""#)),
            Err(LineError::BadOption("permitopen")),
            "{bad}"
        );
    }
    assert!(key(r#"permitopen="[::1]:*""#).is_ok());
}

#[test]
fn damaged_and_foreign_keys_are_told_apart() {
    let blob = "AAAAC3NzaC1lZDI1NTE5AAAAIJqvg7yqKq1cL0bCw5T7yJ5zXyH0GZQyYw0n1xkYb0sM";
    for (line, error) in [
        (format!("ssh-rsa {blob}"), LineError::BadKey),
        (format!("ssh-ed25519 {}", &blob[..40]), LineError::BadKey),
        ("ssh-ed25519".to_owned(), LineError::BadKey),
        ("ssh-ed25519 AAAA".to_owned(), LineError::BadKey),
        ("ssh-ed25519 !!!!".to_owned(), LineError::BadKey),
        (
            format!("webauthn-sk-ecdsa-sha2-nistp256@openssh.com {blob}"),
            LineError::UnsupportedType,
        ),
        (
            format!("restrict ssh-dss {blob}"),
            LineError::UnsupportedType,
        ),
        ("restrict".to_owned(), LineError::NoKey),
        ("restrict ".to_owned(), LineError::NoKey),
        (format!("restrict nonsense {blob}"), LineError::NoKey),
        (format!("ssh-ed25519 {blob}\0"), LineError::Nul),
    ] {
        // A cut-off blob of a length that is no multiple of 4 or with its type only is told later.
        if line.len() == "ssh-ed25519 ".len() + 40 {
            assert!(parse_line(line.as_bytes()).is_ok());
            continue;
        }
        assert_eq!(parse_line(line.as_bytes()), Err(error), "{line}");
    }
}

#[test]
fn lines_are_cut_wherever_chunks_end() {
    let expected: Vec<(u32, Result<Vec<u8>, LineError>)> = vec![
        (1, Ok(b"one".to_vec())),
        (2, Ok(Vec::new())),
        (3, Ok(b"three".to_vec())),
    ];
    assert_eq!(numbered(&[b"one\n\nthree"]), expected);
    assert_eq!(
        numbered(&[b"on", b"e", b"\n", b"\nth", b"", b"ree\n"]),
        expected
    );
    assert_eq!(numbered(&[]), []);
}

#[test]
fn an_overlong_line_is_reported_once_and_its_rest_never_becomes_a_line() {
    let filler = vec![b'#'; limits::KEY_LINE_MAX_BYTES];
    let secret = format!(" {KEY}");
    let found = numbered(&[&filler, secret.as_bytes(), secret.as_bytes(), b"\nlast\n"]);
    assert_eq!(
        found,
        [(1, Err(LineError::TooLong)), (2, Ok(b"last".to_vec()))]
    );
    let mut one_chunk = filler.clone();
    one_chunk.extend_from_slice(secret.as_bytes());
    one_chunk.extend_from_slice(b"\nlast");
    assert_eq!(
        numbered(&[&one_chunk]),
        [(1, Err(LineError::TooLong)), (2, Ok(b"last".to_vec()))]
    );
    assert_eq!(numbered(&[&filler, b"\n"]).len(), 1);
    assert!(
        numbered(&[&filler, b"\n"])[0].1.is_ok(),
        "exactly the limit is a line"
    );
}

#[test]
fn the_end_of_a_line_is_found_wherever_it_is() {
    for length in 0..40 {
        for end in 0..length {
            let mut bytes = vec![0x8a; length];
            assert_eq!(line_end(&bytes), None);
            bytes[end] = b'\n';
            bytes[length - 1] = b'\n';
            assert_eq!(line_end(&bytes), Some(end), "{length} {end}");
        }
    }
    for byte in (0..=u8::MAX).filter(|&byte| byte != b'\n') {
        assert_eq!(line_end(&[byte; 17]), None, "{byte}");
    }
}

#[test]
fn a_quick_look_sees_every_line_that_may_be_about_the_key() {
    let text = KEY.split(' ').nth(1).unwrap().as_bytes();
    let sees = |line: &str| names_key(line.as_bytes(), KeyType::Ed25519, text);
    for line in [
        KEY.to_owned(),
        format!("  \t{KEY}\r"),
        KEY.replace(' ', "\t"),
        format!("restrict {KEY}"),
        format!("command=\"a b\",pty  {KEY}"),
        KEY.split(' ').take(2).collect::<Vec<_>>().join(" "),
    ] {
        assert!(sees(&line), "{line}");
        assert!(matches!(parse_line(line.as_bytes()), Ok(Some(_))), "{line}");
    }
    for line in [
        "",
        "# nothing",
        &KEY.replace("AAAAC3", "AAAAC4"),
        &KEY.replace("0sM ", "0sMx "),
        &format!("ssh-rsa {}", KEY.split(' ').nth(1).unwrap()),
    ] {
        assert!(!sees(line), "{line}");
    }
}
