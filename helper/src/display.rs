//! X11: a display of this machine that stands for the client's, and the cookie that opens it.
//!
//! Sources: RFC 4254 section 6.3, sshd_config(5) X11DisplayOffset and X11UseLocalhost, xauth(1).
#![forbid(unsafe_code)]

use alloc::vec::Vec;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::system::uname;

use crate::forward_frame::{Family, X11Request, X11Rules};
use crate::forward_policy::Bind;
use crate::limits::{DISPLAYS_MAX, X11_FIELD_MAX_BYTES};
use crate::listen;
use crate::path::stat;
use crate::text::decimal;

/// Port of display 0.
const FIRST_PORT: u32 = 6000;

/// What a session gets to know of its display.
#[derive(Debug)]
pub struct Display {
    /// For DISPLAY.
    pub name: Vec<u8>,
    /// What `xauth -q -` reads.
    pub commands: Vec<u8>,
    /// What `~/.ssh/rc` reads instead: protocol and cookie.
    pub secrets: Vec<u8>,
    /// The program.
    pub xauth: Vec<u8>,
}

impl Display {
    /// Takes the first free display; gives the listeners and its port.
    pub fn open(
        rules: &X11Rules,
        families: Family,
        request: &X11Request,
    ) -> Result<(Vec<OwnedFd>, u16, Self), Errno> {
        if !is_plain(&request.protocol) || !is_plain(&request.cookie) {
            return Err(Errno::INVAL);
        }
        stat(&rules.xauth)?;
        let bind = if rules.localhost {
            Bind::Loopback
        } else {
            Bind::Wildcard
        };
        let addresses = listen::addresses(bind, families).unwrap_or_default();
        for number in rules.offset..rules.offset.saturating_add(DISPLAYS_MAX) {
            let port =
                u16::try_from(FIRST_PORT.saturating_add(number)).map_err(|_| Errno::RANGE)?;
            match listen::exclusive_tcp(addresses, port) {
                Ok(sockets) => return Ok((sockets, port, Self::new(rules, request, number))),
                Err(Errno::ADDRINUSE) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::ADDRINUSE)
    }

    fn new(rules: &X11Rules, request: &X11Request, number: u32) -> Self {
        let system = uname();
        let (host, known_as) = if rules.localhost {
            (b"localhost".as_slice(), b"unix".as_slice())
        } else {
            let host = system.nodename().to_bytes();
            (host, host)
        };
        let (number, screen) = (decimal(number), decimal(request.screen));
        let place = [b":".as_slice(), &number, b".", &screen].concat();
        let name = [host, &place].concat();
        let known_as = [known_as, &place].concat();
        let secrets = [&*request.protocol, b" ", &*request.cookie, b"\n"].concat();
        let commands = [
            b"remove ".as_slice(),
            &known_as,
            b"\nadd ",
            &known_as,
            b" ",
            &secrets,
        ];
        Self {
            name,
            commands: commands.concat(),
            secrets,
            xauth: rules.xauth.to_vec(),
        }
    }
}

/// These words reach xauth and the user's rc file: nothing that either could take for more.
fn is_plain(word: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".:/-_".contains(byte);
    !word.is_empty() && word.len() <= X11_FIELD_MAX_BYTES && word.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(localhost: bool) -> X11Rules {
        X11Rules {
            offset: 40,
            localhost,
            xauth: "/bin/sh".into(),
        }
    }

    fn request(cookie: &str) -> X11Request {
        X11Request {
            session: 1,
            protocol: "MIT-MAGIC-COOKIE-1".into(),
            cookie: cookie.into(),
            screen: 2,
        }
    }

    #[test]
    fn the_first_free_display_is_taken() {
        let open =
            || Display::open(&rules(true), Family::Any, &request("00ff")).expect("a display");
        let (_first, port, display) = open();
        let (_second, next, other) = open();
        assert!(next > port && port >= 6040);
        let number = u32::from(port) - FIRST_PORT;
        let name = std::format!("localhost:{number}.2");
        assert_eq!(display.name, name.as_bytes());
        let entry = std::format!("unix:{number}.2");
        let commands = std::format!("remove {entry}\nadd {entry} MIT-MAGIC-COOKIE-1 00ff\n");
        assert_eq!(display.commands, commands.as_bytes());
        assert_eq!(display.secrets, b"MIT-MAGIC-COOKIE-1 00ff\n");
        assert_ne!(display.name, other.name);
    }

    #[test]
    fn words_that_would_be_more_than_words_are_refused() {
        for cookie in [
            "",
            "a b",
            "a\nadd",
            "a;b",
            "`x`",
            "$x",
            "a'",
            &"f".repeat(300),
        ] {
            let refused = Display::open(&rules(true), Family::Any, &request(cookie));
            assert_eq!(refused.map(drop), Err(Errno::INVAL), "{cookie:?}");
        }
        let missing = X11Rules {
            xauth: "/nonexistent/xauth".into(),
            ..rules(true)
        };
        let refused = Display::open(&missing, Family::Any, &request("00"));
        assert_eq!(refused.map(drop), Err(Errno::NOENT));
    }
}
