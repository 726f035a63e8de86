//! One HTTP request over the debug service's socket, and in plain words what went wrong with it.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::geteuid;

use crate::config::Options;
use crate::limits::{CLIENT_RESPONSE_MAX_BYTES, CLIENT_TIME_MS, DEBUG_HEAD_MAX_BYTES};

/// Why a request got no answer that could be used.
#[derive(Debug)]
pub(super) struct Failure {
    pub status: u8,
    pub what: String,
}

/// Exit codes, as docs/debug.md has them.
pub(super) const REFUSED: u8 = 1;
pub(super) const USAGE: u8 = 2;
pub(super) const NO_SERVER: u8 = 3;
pub(super) const NO_PERMISSION: u8 = 4;
pub(super) const UNKNOWN: u8 = 5;

impl Failure {
    pub(super) fn new(status: u8, what: impl Into<String>) -> Self {
        Self {
            status,
            what: what.into(),
        }
    }

    /// Says it and gives the exit code.
    pub(super) fn report(&self) -> ExitCode {
        super::fail(&self.what);
        ExitCode::from(self.status)
    }
}

/// The service of one configuration.
#[derive(Debug)]
pub(super) struct Service {
    path: PathBuf,
    enabled: bool,
}

/// A response that is under way.
#[derive(Debug)]
pub(super) struct Response {
    stream: UnixStream,
    /// What came of the body along with the head.
    begun: Vec<u8>,
    /// Bytes of the body; `None`: until the end.
    len: Option<usize>,
}

impl Service {
    pub(super) fn of(options: &Options) -> Self {
        Self {
            path: options.data_dir.join("debug.sock"),
            enabled: options.debug.service,
        }
    }

    /// The configuration wants a service.
    pub(super) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Asks, and gives the whole answer.
    pub(super) fn ask(
        &self,
        method: &str,
        target: &str,
        body: &str,
        accept: &str,
    ) -> Result<Vec<u8>, Failure> {
        self.begin(method, target, body, accept, 0)?.whole()
    }

    /// Asks, and gives what comes as a stream. `extra_s`: how long the server may need on top.
    pub(super) fn begin(
        &self,
        method: &str,
        target: &str,
        body: &str,
        accept: &str,
        extra_s: u32,
    ) -> Result<Response, Failure> {
        let mut stream =
            UnixStream::connect(&self.path).map_err(|error| self.unreachable(&error))?;
        let time = Duration::from_millis(CLIENT_TIME_MS) + Duration::from_secs(extra_s.into());
        let timed = stream
            .set_read_timeout(Some(time))
            .and_then(|()| stream.set_write_timeout(Some(time)));
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: agent\r\nAccept: {accept}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        timed
            .and_then(|()| stream.write_all(request.as_bytes()))
            .map_err(|error| self.silent(&error))?;
        let (status, response) = self.head(stream)?;
        if (200..300).contains(&status) {
            return Ok(response);
        }
        let text = response.whole()?;
        Err(self.refused(status, String::from_utf8_lossy(&text).trim_end()))
    }

    fn head(&self, mut stream: UnixStream) -> Result<(u16, Response), Failure> {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
                let begun = bytes.split_off(end + 4);
                let status = head
                    .split(' ')
                    .nth(1)
                    .and_then(|status| status.parse().ok());
                let status = status.ok_or_else(|| self.nonsense())?;
                let len = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    let is_it = name.eq_ignore_ascii_case("content-length");
                    is_it.then(|| value.trim().parse().ok()).flatten()
                });
                return Ok((status, Response { stream, begun, len }));
            }
            if bytes.len() > DEBUG_HEAD_MAX_BYTES {
                return Err(self.nonsense());
            }
            match stream.read(&mut piece) {
                Ok(0) => return Err(self.silent(&ErrorKind::UnexpectedEof.into())),
                Ok(len) => bytes.extend_from_slice(piece.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.silent(&error)),
            }
        }
    }

    fn unreachable(&self, error: &std::io::Error) -> Failure {
        let path = self.path.display();
        match error.kind() {
            ErrorKind::PermissionDenied => Failure::new(
                NO_PERMISSION,
                format!(
                    "{path}: no permission; try it as root, or have DebugAllowUsers name you in the \
                     server's configuration"
                ),
            ),
            ErrorKind::NotFound | ErrorKind::ConnectionRefused if !self.enabled => Failure::new(
                NO_SERVER,
                "the configuration says \"DebugService no\"; remove that line and send the server \
                 SIGHUP",
            ),
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Failure::new(
                NO_SERVER,
                format!(
                    "{path}: no server answers there. Is it running, as {} and with this \
                     configuration? Its DataDir says where the socket is: name its file with -c",
                    if geteuid().is_root() { "root" } else { "you" }
                ),
            ),
            _ => Failure::new(NO_SERVER, format!("{path}: {error}")),
        }
    }

    fn silent(&self, error: &std::io::Error) -> Failure {
        let path = self.path.display();
        let what = match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                "the server does not answer; its log may say why".to_owned()
            }
            ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                "the server closed the connection without an answer; its log says why".to_owned()
            }
            _ => error.to_string(),
        };
        Failure::new(NO_SERVER, format!("{path}: {what}"))
    }

    fn nonsense(&self) -> Failure {
        Failure::new(
            NO_SERVER,
            format!("{}: what answers there is no agent", self.path.display()),
        )
    }

    fn refused(&self, status: u16, text: &str) -> Failure {
        match status {
            403 => Failure::new(NO_PERMISSION, format!("refused: {text}")),
            404 if !text.starts_with("nothing is here") => Failure::new(REFUSED, text),
            404 | 405 => Failure::new(
                UNKNOWN,
                format!(
                    "the running server does not know this command: it is an older version than \
                     this file ({}). Restart it to have both alike",
                    env!("CARGO_PKG_VERSION")
                ),
            ),
            _ => Failure::new(REFUSED, text),
        }
    }
}

impl Response {
    /// What comes next may be long in coming.
    pub(super) fn wait_for_ever(&self) {
        // It was possible before.
        let _ = self.stream.set_read_timeout(None);
    }

    /// What comes next; `None`: it was all.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        if self.len == Some(0) {
            return Ok(None);
        }
        let mut piece = std::mem::take(&mut self.begun);
        while piece.is_empty() {
            let mut buffer = vec![0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) if self.len.is_none() => return Ok(None),
                Ok(0) => {
                    return Err(Failure::new(
                        NO_SERVER,
                        "the server's answer is cut short; its log says why",
                    ));
                }
                Ok(len) => {
                    buffer.truncate(len);
                    piece = buffer;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::new(NO_SERVER, error.to_string())),
            }
        }
        if let Some(left) = &mut self.len {
            piece.truncate(*left);
            *left -= piece.len();
        }
        Ok(Some(piece))
    }

    /// All of it.
    pub(super) fn whole(mut self) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(piece) = self.next()? {
            body.extend_from_slice(&piece);
            if body.len() > CLIENT_RESPONSE_MAX_BYTES {
                return Err(Failure::new(REFUSED, "the server's answer has no end"));
            }
        }
        Ok(body)
    }
}
