//! Bodies of the fuzz targets `config`, `authorized_keys`, `shadow`, `auth_request`, `debug_head` and
//! `debug_frame`: what must hold for every input.

use std::net::{IpAddr, Ipv4Addr};

use agent::authorized_keys::{KeyLine, LineError, Lines, parse_line};
use agent::config::{Config, Subject};
use agent::debug_frames::{DebugToMonitor, LogLine, MonitorToDebug, TraceEvent};
use agent::debug_http::head;
use agent::limits;
use agent::password::shadow;
use agent::ssh::auth::{AuthRequest, Method, decode_info_response};
use agent::ssh::crypto::Random;
use agent::ssh::crypto::password;
use agent_helper::wire::Wire;

/// A configuration: loading ends, every error has a place and a sentence, and what loads can be
/// asked and dumped.
pub fn config(text: &[u8]) {
    // Included files and names of hosts are beyond the text.
    let lower = text.to_ascii_lowercase();
    let names = |word: &[u8]| lower.windows(word.len()).any(|part| part == word);
    if names(b"include") || names(b"listenaddress") {
        return;
    }
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let subject = Subject {
        user: Some("user"),
        groups: &["group".to_owned()],
        invalid_user: false,
        address,
        host: None,
        local_address: address,
        local_port: 22,
    };
    match Config::from_text(text, true) {
        Ok(loaded) => {
            let lines = text.split(|&byte| byte == b'\n').count();
            assert!(
                loaded.warnings.len() <= lines * 8,
                "warnings are bounded by lines"
            );
            let _ = loaded.config.effective(&subject);
            let _ = loaded.config.dump(Some(&subject));
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            assert!(
                errors
                    .iter()
                    .all(|error| !error.place.is_empty() && !error.message.is_empty())
            );
        }
    }
}

/// A key file in two chunks: where they end makes no difference, no line is over the limit, and
/// what a line says can be asked.
pub fn authorized_keys(file: &[u8]) {
    let whole = lines(file, 0);
    let cut = file
        .first()
        .map_or(0, |&byte| usize::from(byte) % file.len());
    assert_eq!(
        whole,
        lines(file, cut),
        "where chunks end makes no difference"
    );
    let ends = file.iter().filter(|&&byte| byte == b'\n').count();
    assert!(whole.len() <= ends + 1, "no line is made up");
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for (_, line) in whole {
        if let Ok(Some(key)) = line {
            assert!(key.blob.len() <= limits::KEY_LINE_MAX_BYTES);
            let _ = key.options.admit(Some("host.example"), address, 0);
        }
    }
}

fn lines(file: &[u8], cut: usize) -> Vec<(u32, Result<Option<KeyLine>, LineError>)> {
    let mut found = Vec::new();
    let mut lines = Lines::new();
    let (head, tail) = file.split_at(cut);
    let mut each = |number: u32, line: Result<&[u8], LineError>| {
        found.push((number, line.and_then(parse_line)));
    };
    lines.push(head, &mut each);
    lines.push(tail, &mut each);
    lines.finish(&mut each);
    found
}

/// A shadow file: each account found has a line, its dates can be asked on any day, and writing a
/// hash changes that line alone.
pub fn shadow(file: &[u8]) {
    const HASH: &[u8] = b"$6$salt$hash";
    for line in shadow::lines(file) {
        let name = line.split(|&byte| byte == b':').next().unwrap();
        let found = shadow::find(file, name).expect("a name that stands there is found");
        if let Ok(entry) = found {
            assert_eq!(entry.name, name);
            for today in [i64::MIN, 0, 20_000, i64::MAX] {
                let _ = entry.age(today);
            }
            let _ = password::new_setting(entry.hash, &Random::system());
        }
        let Some(changed) = shadow::with_hash(file, name, HASH, 20_000) else {
            continue;
        };
        let before: Vec<_> = shadow::lines(file).collect();
        let after: Vec<_> = shadow::lines(&changed).collect();
        assert_eq!(before.len(), after.len(), "lines come and go");
        let differing = before
            .iter()
            .zip(&after)
            .filter(|(one, other)| one != other);
        assert!(differing.count() <= 1, "another account's line changed");
        if let Some(Ok(entry)) = shadow::find(&changed, name) {
            assert_eq!(entry.hash, HASH);
        }
    }
}

/// An authentication request, and an answer to a question: what decodes is kept without its
/// passwords, and is the same request then.
pub fn auth_request(payload: &[u8]) {
    if let Ok(responses) = decode_info_response(payload) {
        assert!(responses.len() <= limits::INFO_RESPONSES_MAX as usize);
    }
    let Ok(request) = AuthRequest::decode(payload) else {
        return;
    };
    let kept = request.without_secrets();
    let again = AuthRequest::decode(&kept).expect("what was decoded can be decoded");
    assert_eq!((again.user, again.service), (request.user, request.service));
    match (&request.method, &again.method) {
        (Method::Password(_), Method::Password(kept)) => {
            assert!(kept.password.is_empty() && kept.new.is_none());
        }
        (method, kept) => assert_eq!(method, kept),
    }
    assert_eq!(request.signed_data(b"id"), again.signed_data(b"id"));
}

/// A request of the debug service: what comes through the fence is bounded, and reads the same on both
/// of its sides, with the client's number in it once and in our own words.
pub fn debug_head(bytes: &[u8]) {
    let Ok(Some(request)) = head::read(bytes) else {
        return;
    };
    assert!(request.len <= limits::DEBUG_HEAD_MAX_BYTES);
    assert!(request.body_len <= limits::DEBUG_SYMBOLS_MAX_BYTES);
    assert!(request.target.len() <= limits::DEBUG_TARGET_MAX_BYTES);
    let body = vec![b'x'; request.body_len];
    let written = request.rewritten(7, &body);
    let end = written
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("an end");
    let text = std::str::from_utf8(&written[..end]).expect("text");
    let names: Vec<&str> = text
        .lines()
        .skip(1)
        .map(|line| line.split(':').next().unwrap_or_default())
        .collect();
    match names.as_slice() {
        [number, "Content-Length"] | [number, "Accept", "Content-Length"] => {
            assert_eq!(*number, head::CLIENT);
        }
        other => panic!("fields {other:?}"),
    }
    let again = head::read(&written).expect("a request").expect("all of it");
    assert_eq!(
        (again.method, &again.target),
        (request.method, &request.target)
    );
    assert_eq!(again.len + again.body_len, written.len());
    assert_eq!(again.is_slow(), request.is_slow());
    // Nothing depends on what has not come yet, or comes later.
    let all = head::read(&bytes[..request.len]).expect("a request");
    assert_eq!(all.as_ref(), Some(&request));
    assert_eq!(head::read(&bytes[..request.len - 1]), Ok(None));
}

/// Frames of the debug service, in both directions, and records of its streams.
pub fn debug_frame(bytes: &[u8]) {
    fn decode<T: Wire + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        if let Ok(frame) = T::from_wire(bytes) {
            assert_eq!(T::from_wire(&frame.to_wire()).as_ref(), Ok(&frame));
        }
    }
    decode::<DebugToMonitor>(bytes);
    decode::<MonitorToDebug>(bytes);
    decode::<LogLine>(bytes);
    decode::<TraceEvent>(bytes);
}
