//! What a request is, as far as anybody behind the fence learns: read here, bounded, and written anew.
//!
//! Source: RFC 9112 sections 2 to 6. Stricter than it where a lenient reading could mean two things.

#![forbid(unsafe_code)]

use crate::limits::{
    DEBUG_BODY_MAX_BYTES, DEBUG_HEAD_MAX_BYTES, DEBUG_SYMBOLS_MAX_BYTES, DEBUG_TARGET_MAX_BYTES,
};

/// A request whose head is complete.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    pub method: Method,
    /// Path and query: printable ASCII without blanks.
    pub target: String,
    accept: Option<String>,
    /// Bytes of the head.
    pub len: usize,
    pub body_len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Put,
    Post,
}

/// Why a request goes no further: an HTTP status, and a sentence for whoever sent it.
pub type Refusal = (u16, &'static str);

const MALFORMED: Refusal = (400, "this is no HTTP/1.1 request");

/// Reads a head off the front of `bytes`; `None`: there is more to come.
///
/// # Errors
///
/// What to answer.
pub fn read(bytes: &[u8]) -> Result<Option<Head>, Refusal> {
    let within = bytes.get(..DEBUG_HEAD_MAX_BYTES).unwrap_or(bytes);
    let Some(end) = within.windows(4).position(|window| window == b"\r\n\r\n") else {
        if bytes.len() >= DEBUG_HEAD_MAX_BYTES {
            return Err((431, "the request's header is too large"));
        }
        return Ok(None);
    };
    let text = std::str::from_utf8(&within[..end]).map_err(|_| MALFORMED)?;
    let mut lines = text.split("\r\n");
    let (method, target) = request_line(lines.next().unwrap_or_default())?;
    let mut head = Head {
        method,
        target: target.to_owned(),
        accept: None,
        len: end + 4,
        body_len: 0,
    };
    let mut has_length = false;
    for line in lines {
        let (name, value) = field(line)?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" if has_length => return Err(MALFORMED),
            "content-length" => {
                has_length = true;
                head.body_len = body_len(value, body_max(head.method, target))?;
            }
            "transfer-encoding" => return Err((411, "send the body with a Content-Length")),
            "expect" => return Err((417, "send the body at once, without Expect")),
            "accept" => head.accept = Some(value.to_owned()),
            _ => {}
        }
    }
    Ok(Some(head))
}

fn request_line(line: &str) -> Result<(Method, &str), Refusal> {
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(MALFORMED);
    };
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return Err((505, "this service speaks HTTP/1.1"));
    }
    if target.len() > DEBUG_TARGET_MAX_BYTES {
        return Err((414, "the path is too long"));
    }
    if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(MALFORMED);
    }
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "PUT" => Method::Put,
        "POST" => Method::Post,
        _ => return Err((405, "GET, HEAD, PUT and POST are served")),
    };
    Ok((method, target))
}

/// A field line: no folding, no blank before the colon, nothing but printable ASCII.
fn field(line: &str) -> Result<(&str, &str), Refusal> {
    let (name, value) = line.split_once(':').ok_or(MALFORMED)?;
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    let printable = |byte: u8| byte == b'\t' || (b' '..=b'~').contains(&byte);
    if !is_name || !value.bytes().all(printable) {
        return Err(MALFORMED);
    }
    Ok((name, value.trim_matches([' ', '\t'])))
}

fn body_max(method: Method, target: &str) -> usize {
    match (method, target) {
        (Method::Post, SYMBOL) => DEBUG_SYMBOLS_MAX_BYTES,
        _ => DEBUG_BODY_MAX_BYTES,
    }
}

fn body_len(value: &str, most: usize) -> Result<usize, Refusal> {
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(MALFORMED);
    }
    match value.parse() {
        Ok(len) if len <= most => Ok(len),
        _ => Err((
            413,
            "the body is too large: 1024 bytes are enough for a word",
        )),
    }
}

impl Head {
    /// The request as tiny_http gets it, on behalf of the client `number`.
    pub fn rewritten(&self, number: u32, body: &[u8]) -> Vec<u8> {
        let method = match self.method {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Put => "PUT",
            Method::Post => "POST",
        };
        // Addresses are nobody's business behind the fence: there are no names for them.
        let body = if self.target == SYMBOL { &[] } else { body };
        let accept = match &self.accept {
            Some(accept) => format!("Accept: {accept}\r\n"),
            None => String::new(),
        };
        let mut request = format!(
            "{method} {} HTTP/1.1\r\n{CLIENT}: {number}\r\n{accept}Content-Length: {}\r\n\r\n",
            self.target,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        request
    }

    /// Whether it may take long: such requests must not keep quick ones waiting.
    pub fn is_slow(&self) -> bool {
        let is_profile = self.target.starts_with(PPROF)
            && !["symbol", "cmdline", "trace"]
                .iter()
                .any(|quick| self.target[PPROF.len()..].starts_with(quick));
        is_profile || self.target == "/upgrade"
    }
}

/// Where profiles are.
pub const PPROF: &str = "/debug/pprof/";
/// Where the names of addresses are asked for.
pub const SYMBOL: &str = "/debug/pprof/symbol";

/// The field that names the client to [`super::routes`]; a client's own never comes through.
pub const CLIENT: &str = "Agent-Client";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn status(bytes: &[u8]) -> u16 {
        read(bytes).unwrap_err().0
    }

    #[test]
    fn a_request_is_written_anew_without_what_is_not_known() {
        let bytes = b"PUT /log-level HTTP/1.1\r\nHost: x\r\nAgent-Client: 9\r\nAccept: */*\r\ncontent-length: 4\r\n\r\nWARN";
        let head = read(bytes).unwrap().unwrap();
        assert_eq!((head.method, head.body_len), (Method::Put, 4));
        let written = head.rewritten(7, &bytes[head.len..]);
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "PUT /log-level HTTP/1.1\r\nAgent-Client: 7\r\nAccept: */*\r\nContent-Length: 4\r\n\r\nWARN"
        );
    }

    #[test]
    fn half_a_head_is_waited_for_and_too_much_of_it_is_not() {
        assert_eq!(read(b"GET / HTTP/1.1\r\nHost: x\r\n").unwrap(), None);
        let long = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; 50_000]].concat();
        assert_eq!(status(&long), 431);
    }

    #[test]
    fn addresses_may_be_many_and_go_no_further() {
        let request = |target: &str| {
            format!("POST {target} HTTP/1.1\r\nContent-Length: 5000\r\n\r\n").into_bytes()
        };
        let head = read(&request(SYMBOL)).unwrap().unwrap();
        assert_eq!(head.body_len, 5000);
        let written = String::from_utf8(head.rewritten(1, &[b'x'; 5000])).unwrap();
        assert!(written.ends_with("Content-Length: 0\r\n\r\n"), "{written}");
        assert_eq!(status(&request("/drain")), 413);
    }

    #[test]
    fn what_could_mean_two_things_is_refused() {
        for (text, expected) in [
            (
                "PUT / HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n",
                413,
            ),
            (
                "PUT / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
                413,
            ),
            ("PUT / HTTP/1.1\r\nContent-Length: +4\r\n\r\n", 400),
            ("PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            (
                "PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
                400,
            ),
            ("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
            ("PUT / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", 417),
            ("GET / HTTP/1.1\r\nContent-Length : 1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\n\r\n", 505),
            ("GET  / HTTP/1.1\r\n\r\n", 400),
            ("GET http://x/ HTTP/1.1\r\n\r\n", 400),
            ("GET /\u{e9} HTTP/1.1\r\n\r\n", 400),
            ("DELETE / HTTP/1.1\r\n\r\n", 405),
            ("\r\n\r\n", 400),
        ] {
            assert_eq!(status(text.as_bytes()), expected, "{text:?}");
        }
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(2000));
        assert_eq!(status(long.as_bytes()), 414);
    }
}
